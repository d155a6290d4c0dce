package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestRollback is about revisions that fail where annotations say what to do then
// (design/rollback.md).
func TestRollback(t *testing.T) {
	t.Parallel()
	for _, r := range []row{
		{"a missing image is rolled back", rollbackOfImage},
		{"a crash after ready is rolled back", rollbackOfCrash},
		{"a readiness that is lost without a crash is rolled back", rollbackOfLostReadiness},
		{"a crash after ready of a StatefulSet is rolled back", func(s *space) { crashOfRevision(s, "statefulset", "StatefulSet", "replicas: 2, serviceName: web, ") }},
		{"a crash after ready of a DaemonSet is rolled back", func(s *space) { crashOfRevision(s, "daemonset", "DaemonSet", "") }},
		{"a readiness that never comes is rolled back", rollbackOfReadiness},
		{"a rollback never rolls back", rollbackStays},
		{"monitor: what fails after that time is left alone", monitorEnds},
		{"a failed revision is paused", pauseOfFailure},
		{"a failed revision of a StatefulSet is paused", func(s *space) { pauseOfRevision(s, "statefulset", "StatefulSet", "replicas: 2, serviceName: web, ") }},
		{"a failed revision of a DaemonSet is paused", func(s *space) { pauseOfRevision(s, "daemonset", "DaemonSet", "") }},
		{"max-failure-ratio: half may fail, all may not", rollbackOfRatio},
		{"max-failure-ratio of a Deployment: half may fail, all may not", rollbackOfDeploymentRatio},
		{"max-failure-ratio of a DaemonSet: all may fail, or not quite", rollbackOfDaemonRatio},
		{"a revision that waits for dependencies has not failed", rollbackWaits},
		{"a StatefulSet is rolled back", func(s *space) { rollbackOfRevision(s, "statefulset", "StatefulSet", "replicas: 2, serviceName: web, ") }},
		{"a DaemonSet is rolled back", func(s *space) { rollbackOfRevision(s, "daemonset", "DaemonSet", "") }},
	} {
		t.Run(r.noun, func(t *testing.T) {
			t.Parallel()
			r.check(newSpace(t, shared))
		})
	}
}

// guarded rolls out a Deployment whose revisions are monitored for a few seconds,
// and waits until the first is found good.
func (s *space) guarded(action string) {
	s.t.Helper()
	s.apply(deployment("web", "one", 2))
	s.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
	s.kubectl("annotate", "deployment", "web", "hansa.dev/on-failure="+action, "hansa.dev/monitor=4s")
	s.rolledBack("False Good")
}

// rolledBack waits for the condition, which is answered with.
func (s *space) rolledBack(want string) appsv1.DeploymentCondition {
	s.t.Helper()
	var found appsv1.DeploymentCondition
	await(s.t, "condition RolledBack is "+want, func() error {
		d, err := s.client.AppsV1().Deployments(s.name).Get(s.t.Context(), "web", metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range d.Status.Conditions {
			if c.Type != "RolledBack" {
				continue
			}
			text := fmt.Sprintf("%s %s %s", c.Status, c.Reason, c.Message)
			if found = c; strings.HasPrefix(text, want) {
				return nil
			}
			return errors.New(text)
		}
		return errors.New("there is none")
	})
	return found
}

// statusFails breaks a Deployment while its rollout is looked at.
func (s *space) statusFails(breakIt func()) {
	s.t.Helper()
	breakIt()
	s.statusEnds("deployment/web", `error: deployment "web" exceeded its progress deadline`)
}

// soon is how long after the failure was told kubectl may go on.
const soon = 10 * time.Second

// statusEnds runs `kubectl rollout status`, ours and a stock one side by side: both
// have to end with an error once the failure is told, long before their own time is
// over. Ours also says why.
func (s *space) statusEnds(name, says string) {
	s.t.Helper()
	began := time.Now()
	args := []string{"rollout", "status", name, "--timeout=300s"}
	var stock string
	var stockErr error
	var stockEnded time.Time
	stockDone := make(chan struct{})
	go func() {
		defer close(stockDone)
		stock, stockErr = s.stockKubectl("1.36", "", args...)
		stockEnded = time.Now()
	}()
	out, err := s.cluster.kubectl(append([]string{"-n", s.name}, args...)...)
	ended := time.Now()
	<-stockDone
	told := s.failureTold(name)
	if told.Before(began) {
		told = began
	}
	for _, k := range []struct {
		which, got string
		says       string
		err        error
		after      time.Duration
	}{
		{"ours", fmt.Sprint(out, err), regexp.QuoteMeta(says) + `: \S`, err, ended.Sub(told)},
		{"stock", stock, regexp.QuoteMeta(says) + `\n`, stockErr, stockEnded.Sub(told)},
	} {
		var exit *exec.ExitError
		if !errors.As(k.err, &exit) || exit.ExitCode() != 1 || !regexp.MustCompile(k.says).MatchString(k.got) {
			s.t.Errorf("kubectl rollout status, %s: %v: %s", k.which, k.err, k.got)
		}
		if k.after > soon {
			s.t.Errorf("kubectl rollout status, %s, ended %s after the failure was told", k.which, k.after)
		}
	}
}

// failureTold waits until the condition tells of a failure, and answers with when it
// began to.
func (s *space) failureTold(name string) time.Time {
	s.t.Helper()
	var at time.Time
	await(s.t, "the failure of "+name+" is told", func() (err error) {
		got := strings.Fields(s.field(name, `range .status.conditions[?(@.type=="RolledBack")]}{.lastTransitionTime} {.status} {.reason}{end`))
		if len(got) != 3 || got[1] != "True" && got[2] != "Paused" {
			return fmt.Errorf("condition %v", got)
		}
		at, err = time.Parse(time.RFC3339, got[0])
		return err
	})
	return at
}

// isBack checks that the first template is in place, and works.
func (s *space) isBack(reason, why string) {
	s.t.Helper()
	c := s.rolledBack("True " + reason)
	if !strings.Contains(c.Message, why) || !strings.Contains(c.Message, "was rolled back to web-") {
		s.t.Errorf("message %q", c.Message)
	}
	await(s.t, "all pods are those of before", func() error {
		d, err := s.client.AppsV1().Deployments(s.name).Get(s.t.Context(), "web", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if c := d.Spec.Template.Spec.Containers[0]; c.Image != "hansa.local/testimage:1" || c.Env[0].Value != "one" {
			return fmt.Errorf("image %s, %s", c.Image, c.Env[0].Value)
		}
		if st := d.Status; st.AvailableReplicas != 2 || st.UpdatedReplicas != 2 || st.Replicas != 2 {
			return fmt.Errorf("status %+v", st)
		}
		return nil
	})
	if got := s.kubectl("get", "events", "--field-selector", "reason=RolledBack", "-o", "jsonpath={.items[*].message}"); !strings.Contains(got, why) {
		s.t.Errorf("event %q", got)
	}
	// A client that only asks now is told as well.
	s.statusFails(func() {})
}

func rollbackOfImage(s *space) {
	s.guarded("rollback")
	s.statusFails(func() { s.kubectl("set", "image", "deployment/web", "main=hansa.local/none:1") })
	s.isBack("PodsFailed", "container main: ImagePullBackOff")
	// The same template again is not rolled out.
	s.kubectl("set", "image", "deployment/web", "main=hansa.local/none:1")
	s.statusFails(func() {})
	if n := len(s.podsOf("web")); n != 2 {
		s.t.Errorf("%d pods are ready", n)
	}
	// kubectl rollout undo, and another template, are as ever.
	s.kubectl("set", "image", "deployment/web", "main=hansa.local/testimage:1")
	s.kubectl("set", "env", "deployment/web", "WORD=three")
	s.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
	s.rolledBack("False Good")
	s.kubectl("rollout", "undo", "deployment/web")
	s.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
	if got := s.kubectl("get", "deployment", "web", "-o", "jsonpath={.spec.template.spec.containers[0].env[0].value}"); got != "one" {
		s.t.Errorf("undone: %q", got)
	}
}

func rollbackOfCrash(s *space) {
	s.guarded("rollback")
	p := s.steady("deployment/web")
	if err := killHard(s.processOf(&p, "main")); err != nil {
		s.t.Fatal(err)
	}
	s.isBack("PodsFailed", "container main")
}

func rollbackOfLostReadiness(s *space) {
	s.guarded("rollback")
	p := s.steady("deployment/web")
	s.turn(&p, "sick")
	s.isBack("PodsFailed", "container main did not stay ready")
}

// steady rolls out another revision, which is to be monitored for long, and answers
// with one of its pods once that has been ready for some seconds.
func (s *space) steady(name string) corev1.Pod {
	s.t.Helper()
	s.kubectl("annotate", "--overwrite", name, "hansa.dev/monitor=60s")
	s.kubectl("set", "env", name, "WORD=two")
	s.kubectl("rollout", "status", name, "--timeout=120s")
	s.revisionSays(name, "False Monitoring")
	var one corev1.Pod
	for _, one = range s.podsOf("web") {
		break
	}
	await(s.t, "it has been ready for some seconds", func() error {
		if d := time.Since(conditionOf(&one, corev1.PodReady).LastTransitionTime.Time); d < 3*time.Second {
			return fmt.Errorf("for %s", d)
		}
		return nil
	})
	return one
}

func rollbackOfReadiness(s *space) {
	s.guarded("rollback")
	s.statusFails(func() {
		s.kubectl("patch", "deployment", "web", "--type=json", "-p", `[{"op": "replace", "path": "/spec/progressDeadlineSeconds", "value": 15}, {"op": "replace", "path": "/spec/template/spec/containers/0/args", "value": [serve, -sick]}]`)
	})
	s.isBack("ProgressDeadlineExceeded", "became ready in time")
}

// What is there by a rollback may fail as it likes.
func rollbackStays(s *space) {
	s.guarded("rollback")
	s.statusFails(func() { s.kubectl("set", "image", "deployment/web", "main=hansa.local/none:1") })
	s.isBack("PodsFailed", "container main: ImagePullBackOff")
	s.crash()
	s.isBack("PodsFailed", "container main: ImagePullBackOff")
	if n := s.rollbacks(); n != 1 {
		s.t.Errorf("%d events tell of rollbacks", n)
	}
}

// crash kills what runs in the pods, and waits until it was started again.
func (s *space) crash() {
	s.t.Helper()
	for name, p := range s.podsOf("web") {
		if err := killHard(s.processOf(&p, "main")); err != nil {
			s.t.Fatal(err)
		}
		s.until(name, "it was started again", func(p *corev1.Pod) bool {
			return p.Status.ContainerStatuses[0].RestartCount == 1 && condition(p, corev1.PodReady) == corev1.ConditionTrue
		})
	}
}

// rollbacks are how many events tell of one.
func (s *space) rollbacks() int {
	s.t.Helper()
	return strings.Count(s.kubectl("get", "events", "--field-selector", "reason=RolledBack", "-o", "name"), "event")
}

func monitorEnds(s *space) {
	s.guarded("rollback")
	s.kubectl("set", "env", "deployment/web", "WORD=two")
	s.rolledBack("False Good Revision 2")
	s.crash()
	s.rolledBack("False Good Revision 2")
	if got := s.field("deployment/web", ".spec.template.spec.containers[0].env[0].value"); got != "two" || s.rollbacks() > 0 {
		s.t.Errorf("the word is %q, %d events tell of rollbacks", got, s.rollbacks())
	}
}

// The second member crashes, then both do.
func rollbackOfRatio(s *space) {
	s.apply(`
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web, annotations: {hansa.dev/on-failure: rollback, hansa.dev/monitor: 5s, hansa.dev/max-failure-ratio: "0.5"}}
spec:
  replicas: 2
  serviceName: web
  podManagementPolicy: Parallel
  updateStrategy: {rollingUpdate: {maxUnavailable: 2}}
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: main, image: hansa.local/busybox:1, command: [sh, -c, 'case $(hostname) in $CRASHES) exit 1;; esac; exec sleep 1000'], env: [{name: CRASHES, value: none}]}
`)
	s.revisionSays("statefulset/web", "False Good Revision 1")
	s.kubectl("set", "env", "statefulset/web", "CRASHES=*-1")
	s.revisionSays("statefulset/web", "False Good Revision 2")
	s.until("web-1", "it crashes", func(p *corev1.Pod) bool { return p.Status.ContainerStatuses[0].RestartCount > 0 })
	s.kubectl("set", "env", "statefulset/web", "CRASHES=web-*")
	if got := s.revisionSays("statefulset/web", "True PodsFailed Revision 3"); !strings.Contains(got, "2 of 2 pods failed: pod web-") {
		s.t.Errorf("condition %q", got)
	}
	s.member("web-0")
	if got := s.field("statefulset/web", ".spec.template.spec.containers[0].env[0].value"); got != "*-1" {
		s.t.Errorf("it was rolled back to what crashes at %q", got)
	}
}

// One of two pods gets what only one can have, then none does.
func rollbackOfDeploymentRatio(s *space) {
	dir := filepath.Join("/tmp", s.name)
	s.t.Cleanup(func() { os.RemoveAll(dir) })
	s.apply(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, annotations: {hansa.dev/on-failure: rollback, hansa.dev/monitor: 5s, hansa.dev/max-failure-ratio: "0.5"}}
spec:
  replicas: 2
  strategy: {rollingUpdate: {maxUnavailable: 2}}
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 30
      volumes: [{name: there, hostPath: {path: ` + dir + `, type: DirectoryOrCreate}}]
      containers:
      - name: main
        image: hansa.local/busybox:1
        command: [sh, -c, 'trap exit TERM; case $CRASHES in half) mkdir /there/one || exit 1; trap "rmdir /there/one; exit" TERM;; all) exit 1;; esac; while :; do sleep 0.1; done']
        env: [{name: CRASHES, value: none}]
        volumeMounts: [{name: there, mountPath: /there}]
`)
	s.rolledBack("False Good Revision 1")
	s.kubectl("set", "env", "deployment/web", "CRASHES=half")
	s.rolledBack("False Good Revision 2")
	if n := len(s.podsOf("web")); n != 1 {
		s.t.Errorf("%d pods of two are ready", n)
	}
	s.kubectl("set", "env", "deployment/web", "CRASHES=all")
	if c := s.rolledBack("True PodsFailed Revision 3"); !strings.Contains(c.Message, "2 of 2 pods failed: pod web-") {
		s.t.Errorf("message %q", c.Message)
	}
	await(s.t, "half of it works as before", func() error {
		pods := s.podsOf("web")
		for _, p := range pods {
			if word := p.Spec.Containers[0].Env[0].Value; word == "half" {
				return nil
			}
		}
		return fmt.Errorf("%d are ready", len(pods))
	})
}

// There is one node, so all pods are one.
func rollbackOfDaemonRatio(s *space) {
	s.apply(`
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web, annotations: {hansa.dev/on-failure: rollback, hansa.dev/monitor: 5s, hansa.dev/max-failure-ratio: "1"}}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: main, image: hansa.local/busybox:1, command: [sh, -c, 'test $CRASHES = no && exec sleep 1000; exit 1'], env: [{name: CRASHES, value: "no"}]}
`)
	s.revisionSays("daemonset/web", "False Good Revision 1")
	s.kubectl("set", "env", "daemonset/web", "CRASHES=yes")
	s.revisionSays("daemonset/web", "False Good Revision 2")
	s.kubectl("annotate", "--overwrite", "daemonset", "web", "hansa.dev/max-failure-ratio=0.9")
	s.kubectl("set", "env", "daemonset/web", "CRASHES=again")
	if got := s.revisionSays("daemonset/web", "True PodsFailed Revision 3"); !strings.Contains(got, "1 of 1 pods failed: pod web-") {
		s.t.Errorf("condition %q", got)
	}
	await(s.t, "it is as before", func() error {
		if got := s.field("daemonset/web", ".spec.template.spec.containers[0].env[0].value"); got != "yes" {
			return errors.New(got)
		}
		return nil
	})
}

// A deadline that passes while pods wait is not one of the revision.
func rollbackWaits(s *space) {
	s.guarded("rollback")
	s.kubectl("patch", "deployment", "web", "-p", `{"spec":{"progressDeadlineSeconds":1,"template":{"metadata":{"annotations":{"hansa.dev/depends-on":"configmap/settings"}}}}}`)
	await(s.t, "its deadline has passed", func() error {
		if got := s.field("deployment/web", ".status.conditions[?(@.type=='Progressing')].reason"); got != "ProgressDeadlineExceeded" {
			return errors.New(got)
		}
		return nil
	})
	if c := s.rolledBack("False WaitingForDependencies Revision 2"); !strings.Contains(c.Message, "has pods that wait for what they depend on") {
		s.t.Errorf("message %q", c.Message)
	}
	s.kubectl("patch", "deployment", "web", "-p", `{"spec":{"progressDeadlineSeconds":600}}`)
	s.kubectl("create", "configmap", "settings")
	s.rolledBack("False Good Revision 2")
	for name, p := range s.readyPods("web", 2) {
		if p.Annotations["hansa.dev/depends-on"] == "" {
			s.t.Errorf("pod %s is of before", name)
		}
	}
}

func pauseOfFailure(s *space) {
	s.guarded("pause")
	s.statusFails(func() { s.kubectl("set", "image", "deployment/web", "main=hansa.local/none:1") })
	s.rolledBack("False Paused")
	await(s.t, "it is paused", func() error {
		if got := s.kubectl("get", "deployment", "web", "-o", "jsonpath={.spec.paused} {.spec.template.spec.containers[0].image}"); got != "true hansa.local/none:1" {
			return errors.New(got)
		}
		return nil
	})
	ready := 0
	for _, p := range s.podsOf("web") {
		if condition(&p, corev1.PodReady) == corev1.ConditionTrue {
			ready++
		}
	}
	if ready != 2 {
		s.t.Errorf("%d pods are ready", ready)
	}
	s.kubectl("rollout", "resume", "deployment/web")
	s.rolledBack("False Resumed")
	s.kubectl("set", "image", "deployment/web", "main=hansa.local/testimage:1")
	s.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
}

// revised rolls out a workload of a kind that keeps its revisions as
// ControllerRevisions, and waits until it is found good.
func (s *space) revised(name, kind, more, action string) {
	s.t.Helper()
	s.apply(fmt.Sprintf(`
apiVersion: apps/v1
kind: %s
metadata: {name: web, annotations: {hansa.dev/on-failure: %s, hansa.dev/monitor: 4s}}
spec:
  %sselector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: "hansa.local/testimage:1", args: [serve], readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}}]
`, kind, action, strings.ReplaceAll(more, ", ", "\n  ")))
	s.kubectl("rollout", "status", name, "--timeout=120s")
	s.revisionSays(name, "False Good Revision 1")
}

// broken is such a workload with a revision that fails.
func (s *space) broken(name, kind, more, action string) {
	s.t.Helper()
	s.revised(name, kind, more, action)
	s.kubectl("set", "image", name, "main=hansa.local/none:1")
	// Of these kinds kubectl knows one error only (design/rollback.md).
	s.statusEnds(name, "error: rollout status is only available for RollingUpdate strategy type")
}

// revisionSays waits for the condition of a workload.
func (s *space) revisionSays(name, want string) string {
	s.t.Helper()
	var got string
	await(s.t, "condition RolledBack is "+want, func() error {
		got = s.field(name, `range .status.conditions[?(@.type=="RolledBack")]}{.status} {.reason} {.message}{end`)
		if !strings.HasPrefix(got, want) {
			return errors.New(got)
		}
		return nil
	})
	return got
}

// pauseOfRevision pauses such a kind; another template lets it go on.
func pauseOfRevision(s *space, plural, kind, more string) {
	name := plural + "/web"
	s.broken(name, kind, more, "pause")
	if got := s.revisionSays(name, "False Paused Revision 2 failed, and the rollout is paused: "); !strings.Contains(got, "container main: ") {
		s.t.Errorf("condition %q", got)
	}
	if got := s.field(name, ".spec.updateStrategy.type} {.spec.template.spec.containers[0].image"); got != "OnDelete hansa.local/none:1" {
		s.t.Errorf("paused: %s", got)
	}
	s.kubectl("set", "image", name, "main=hansa.local/testimage:1")
	s.kubectl("set", "env", name, "WORD=three")
	s.revisionSays(name, "False Good Revision ")
	s.kubectl("rollout", "status", name, "--timeout=120s")
	for _, p := range s.podsOf("web") {
		if env := p.Spec.Containers[0].Env; len(env) != 1 || env[0].Value != "three" {
			s.t.Errorf("pod %s has %+v", p.Name, env)
		}
	}
}

// rollbackOfRevision rolls such a kind back.
func rollbackOfRevision(s *space, plural, kind, more string) {
	name := plural + "/web"
	s.broken(name, kind, more, "rollback")
	s.revisionIsBack(name, kind, "container main: ")
	s.kubectl("rollout", "status", name, "--timeout=120s")
}

// crashOfRevision crashes such a kind when it was ready.
func crashOfRevision(s *space, plural, kind, more string) {
	name := plural + "/web"
	s.revised(name, kind, more, "rollback")
	p := s.steady(name)
	if err := killHard(s.processOf(&p, "main")); err != nil {
		s.t.Fatal(err)
	}
	s.revisionIsBack(name, kind, "container main ended after the pod was ready (exit code 137, ")
}

// revisionIsBack checks that the second revision failed, and the first is in place.
func (s *space) revisionIsBack(name, kind, why string) {
	s.t.Helper()
	if got := s.revisionSays(name, "True PodsFailed Revision 2"); !strings.Contains(got, why) {
		s.t.Errorf("condition %q", got)
	}
	if got := s.kubectl("get", "events", "--field-selector", "reason=RolledBack,involvedObject.kind="+kind, "-o", "jsonpath={.items[*].type} {.items[*].message}"); !strings.HasPrefix(got, "Warning Revision 2") || !strings.Contains(got, why) {
		s.t.Errorf("event %q", got)
	}
	await(s.t, "it is as before", func() error {
		got := s.kubectl("get", name, "-o", "jsonpath={.spec.template.spec.containers[0].image} {.spec.updateStrategy.type}")
		if got != "hansa.local/testimage:1 RollingUpdate" {
			return errors.New(got)
		}
		for _, p := range s.podsOf("web") {
			if c := p.Spec.Containers[0]; c.Image != "hansa.local/testimage:1" || len(c.Env) > 0 {
				return fmt.Errorf("pod %s has image %s, %+v", p.Name, c.Image, c.Env)
			}
		}
		if strings.Contains(s.kubectl("get", "pods"), "0/1") {
			return errors.New("a pod is not ready")
		}
		return nil
	})
}
