package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestDependencies is about what real containers tell of hansa.dev/depends-on and its
// like: when processes begin and end.
func TestDependencies(t *testing.T) {
	t.Parallel()
	for _, r := range []row{
		{"a database, its migration and an app start in order", dependenciesStart},
		{"a circle is refused and spelled out", dependencyCircle},
		{"a malformed reference is refused", dependencyMalformed},
		{"a service, a configuration and a custom resource are waited for", dependencyKinds},
		{"a StatefulSet, a DaemonSet, a CronJob, a ReplicaSet and a ReplicationController wait", dependentKinds},
		{"on-dependency-failure: wait", dependencyWait},
		{"on-dependency-failure: stop", dependencyStop},
		{"on-dependency-failure: stop of a pod without a controller", dependencyStopsPod},
		{"on-dependency-failure: restart", dependencyRestart},
		{"stop-order: reverse by namespace", stopsByNamespace},
		{"stop-order: reverse by label selector", stopsBySelector},
		{"stop-order: reverse of pods without controllers", stopsPods},
	} {
		t.Run(r.noun, func(t *testing.T) {
			t.Parallel()
			r.check(newSpace(t, shared))
		})
	}
}

// simple is a deployment of one shell that is ready a moment after its start, and
// takes one to end.
func simple(name string, annotations ...string) string {
	return fmt.Sprintf(`
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: %[1]s
  labels: {part-of: shop}
  annotations: {%[2]s}
spec:
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      terminationGracePeriodSeconds: 20
      containers:
      - name: main
        image: hansa.local/busybox:1
        command: [sh, -c, 'trap "sleep 1; exit" TERM; echo begins; sleep 1; echo ready; touch /tmp/ready; while :; do sleep 0.2; done']
        readinessProbe: {exec: {command: [test, -e, /tmp/ready]}, periodSeconds: 1}
`, name, strings.Join(annotations, ", "))
}

// example is a manifest of examples/dependencies, with the image that there is here.
// Its parts are in the order of the file.
func example(t testing.TB) []string {
	t.Helper()
	b, err := os.ReadFile("../examples/dependencies/shop.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.ReplaceAll(string(b), "busybox:1", "hansa.local/busybox:1"), "\n---\n")
}

// appPod waits for the one pod with a label that is not on its way out.
func (s *space) appPod(selector string) *corev1.Pod {
	s.t.Helper()
	var found *corev1.Pod
	await(s.t, "a pod with "+selector, func() error {
		list, err := s.client.CoreV1().Pods(s.name).List(s.t.Context(), metav1.ListOptions{LabelSelector: selector})
		if err != nil {
			return err
		}
		live := slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })
		if len(live) != 1 {
			return fmt.Errorf("there are %d", len(live))
		}
		found = &live[0]
		return nil
	})
	return found
}

// logged is when a pod logged a line.
func (s *space) logged(pod, line string) time.Time {
	s.t.Helper()
	var at time.Time
	await(s.t, fmt.Sprintf("%s logs %q", pod, line), func() error {
		for _, l := range strings.Split(s.logsOf(pod, &corev1.PodLogOptions{Timestamps: true}), "\n") {
			if stamp, text, _ := strings.Cut(l, " "); text == line {
				var err error
				at, err = time.Parse(time.RFC3339Nano, stamp)
				return err
			}
		}
		return errors.New("not yet")
	})
	return at
}

func dependenciesStart(s *space) {
	shop := example(s.t)
	s.apply(shop[0])
	s.apply(shop[1])
	app := s.appPod("app=app")
	s.until(app.Name, "it says what it waits for", func(p *corev1.Pod) bool {
		return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodScheduled && c.Reason == corev1.PodReasonSchedulingGated && strings.HasSuffix(c.Message, ": waits for deployment/db:Ready (does not exist), job/migrate:Complete (has not ended)")
		})
	})
	await(s.t, "kubectl describe tells what is waited for", func() error {
		if got := s.kubectl("describe", "pod", app.Name); !strings.Contains(got, "WaitingForDependencies") || !strings.Contains(got, "waits for deployment/db:Ready (does not exist), job/migrate:Complete (has not ended)") {
			return errors.New(got)
		}
		return nil
	})
	if got := s.kubectl("get", "pod", app.Name); !strings.Contains(got, "SchedulingGated") {
		s.t.Errorf("kubectl get pods:\n%s", got)
	}
	if got := s.kubectl("get", "pod", app.Name, "-o", "jsonpath={.spec.schedulingGates[*].name}"); got != "depends-on.hansa.dev/deployment.db depends-on.hansa.dev/job.migrate" {
		s.t.Errorf("gates: %s", got)
	}
	s.apply(shop[2])
	s.kubectl("rollout", "status", "deployment/app", "--timeout=120s")
	db, migrate := s.appPod("app=db").Name, s.appPod("batch.kubernetes.io/job-name=migrate").Name
	order := []time.Time{s.logged(db, "begins"), s.logged(db, "ready"), s.logged(migrate, "begins"), s.logged(migrate, "done"), s.logged(app.Name, "begins")}
	if !slices.IsSortedFunc(order, time.Time.Compare) {
		s.t.Errorf("they did not start one after the other: %v", order)
	}
	s.event(app.Name, "DependenciesMet")
}

// refused is what kubectl apply says of manifests that it is not to take.
func (s *space) refused(manifests string) string {
	s.t.Helper()
	var out, errOut bytes.Buffer
	if err := s.pipe(s.t.Context(), strings.NewReader(manifests), &out, &errOut, "kubectl", "--data-dir", s.dir, "-n", s.name, "apply", "-f", "-"); err == nil {
		s.t.Errorf("it was taken: %s", out.String())
	}
	return errOut.String()
}

func dependencyCircle(s *space) {
	s.apply(simple("a", "hansa.dev/depends-on: deployment/b") + simple("b", "hansa.dev/depends-on: deployment/c"))
	got := s.refused(simple("c", "hansa.dev/depends-on: deployment/a"))
	if !strings.Contains(got, "waits in a circle, so that nothing of it would ever start: deployment/c → deployment/a → deployment/b → deployment/c; take one of these dependencies away") {
		s.t.Errorf("kubectl apply: %s", got)
	}
}

func dependencyMalformed(s *space) {
	if got := s.refused(simple("a", "hansa.dev/depends-on: deploymnt/b")); !strings.Contains(got, `metadata.annotations[hansa.dev/depends-on]: Invalid value: "deploymnt/b": "deploymnt/b": no kind "deploymnt" is served; write KIND/NAME:CONDITION, as in "deployment/db:Ready"`) {
		s.t.Errorf("kubectl apply: %s", got)
	}
}

func dependencyKinds(s *space) {
	group := s.name + ".example.com"
	s.apply(fmt.Sprintf(`
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: databases.%[1]s}
spec:
  group: %[1]s
  scope: Namespaced
  names: {kind: Database, plural: databases, singular: database}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`, group))
	s.t.Cleanup(func() {
		_, err := s.cluster.kubectl("delete", "crd", "databases."+group, "--wait=false")
		if err != nil {
			s.t.Error(err)
		}
	})
	s.kubectl("wait", "--for=condition=established", "crd/databases."+group)
	s.apply(simple("app", `hansa.dev/depends-on: "service/db, configmap/settings, database.`+group+`/main"`) + simple("db") + fmt.Sprintf(`
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {selector: {app: db}, ports: [{port: 80}]}
---
apiVersion: %s/v1
kind: Database
metadata: {name: main}
`, group))
	app := s.appPod("app=app")
	says := func(text string) {
		s.t.Helper()
		s.until(app.Name, "it says "+text, func(p *corev1.Pod) bool {
			return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
				return c.Type == corev1.PodScheduled && strings.HasSuffix(c.Message, ": waits for "+text)
			})
		})
	}
	says("configmap/settings:Exists (does not exist), database." + group + "/main:Ready (is not Ready)")
	s.kubectl("create", "configmap", "settings")
	says("database." + group + "/main:Ready (is not Ready)")
	s.kubectl("patch", "databases."+group, "main", "--subresource=status", "--type=merge", "-p", `{"status":{"conditions":[{"type":"Ready","status":"True"}]}}`)
	s.ready(app.Name)
}

// What waits is told by the workload, whatever makes its pods.
func dependentKinds(s *space) {
	const waits = ", annotations: {hansa.dev/depends-on: configmap/settings}}"
	for _, manifest := range []string{
		sleepers("StatefulSet", "set", "one", 1, "  serviceName: set"),
		daemonSet("own", "one", "", ""),
		cron("cron", "Forbid", "exec sleep 1000"),
		sleepers("ReplicaSet", "alone", "one", 1, ""),
		sleepers("ReplicationController", "old", "one", 1, ""),
	} {
		s.apply(strings.Replace(manifest, "}", waits, 1))
	}
	pods := map[string]*corev1.Pod{
		"StatefulSet": s.appPod("app=set"), "DaemonSet": s.appPod("app=own"), "Job": s.appPod("batch.kubernetes.io/job-name"),
		"ReplicaSet": s.appPod("app=alone"), "ReplicationController": s.appPod("app=old"),
	}
	for kind, p := range pods {
		s.until(p.Name, "it says what it waits for", func(p *corev1.Pod) bool {
			c := conditionOf(p, corev1.PodScheduled)
			return c.Reason == corev1.PodReasonSchedulingGated && strings.HasSuffix(c.Message, ": waits for configmap/settings:Exists (does not exist)")
		})
		if by := metav1.GetControllerOf(p); by.Kind != kind || len(p.Spec.SchedulingGates) != 1 || p.Spec.SchedulingGates[0].Name != "depends-on.hansa.dev/configmap.settings" {
			s.t.Errorf("%s of %s %s has gates %v", p.Name, by.Kind, by.Name, p.Spec.SchedulingGates)
		}
	}
	s.kubectl("create", "configmap", "settings")
	for kind, p := range pods {
		if now := s.ready(p.Name); now.UID != p.UID || len(now.Spec.SchedulingGates) > 0 {
			s.t.Errorf("the pod of the %s is %s, %+v", kind, now.Name, now.Spec)
		}
	}
	s.kubectl("delete", "cronjob", "cron")
}

// failing starts an app with its database and then takes the database away.
func (s *space) failing(mode string) *corev1.Pod {
	s.t.Helper()
	s.apply(simple("db") + simple("app", "hansa.dev/depends-on: deployment/db", "hansa.dev/on-dependency-failure: "+mode, `hansa.dev/dependency-grace: "1s"`))
	s.kubectl("rollout", "status", "deployment/app", "--timeout=120s")
	app := s.appPod("app=app")
	s.kubectl("scale", "deployment/db", "--replicas=0")
	return app
}

func dependencyWait(s *space) {
	app := s.failing("wait")
	s.kubectl("wait", "--for=delete", "pod", "-l", "app=db", "--timeout=120s")
	s.kubectl("scale", "deployment/app", "--replicas=2")
	await(s.t, "the new pod waits, and the old one runs", func() error {
		got := s.kubectl("get", "pods", "-l", "app=app", "--no-headers")
		if strings.Count(got, "SchedulingGated") != 1 || !slices.ContainsFunc(strings.Split(got, "\n"), func(line string) bool {
			f := strings.Fields(line)
			return len(f) > 3 && f[0] == app.Name && f[2] == "Running" && f[3] == "0"
		}) {
			return errors.New(got)
		}
		return nil
	})
	s.kubectl("scale", "deployment/db", "--replicas=1")
	s.kubectl("rollout", "status", "deployment/app", "--timeout=120s")
}

func dependencyStop(s *space) {
	app := s.failing("stop")
	s.event(app.Name, "Warning DependencyFailed: Stopping: deployment/db:Ready no replica is ready")
	s.gone(app.Name)
	next := s.appPod("app=app")
	if next.Status.Phase != corev1.PodPending || len(next.Spec.SchedulingGates) != 1 {
		s.t.Errorf("the next pod does not wait: %+v", next.Spec.SchedulingGates)
	}
	s.kubectl("scale", "deployment/db", "--replicas=1")
	s.ready(next.Name)
}

// What nothing makes again is gone for good.
func dependencyStopsPod(s *space) {
	p := podOf(s.t, "app", `
metadata: {labels: {app: app}, annotations: {hansa.dev/depends-on: deployment/db, hansa.dev/on-dependency-failure: stop, hansa.dev/dependency-grace: 1s}}
spec: {containers: [{name: main, image: hansa.local/busybox:1, command: [sleep, "1000"]}]}
`)
	s.apply(simple("db"))
	s.createPod(p)
	s.ready("app")
	s.kubectl("scale", "deployment/db", "--replicas=0")
	marked := s.until("app", "it has to go", func(p *corev1.Pod) bool { return p.DeletionTimestamp != nil })
	if c := conditionOf(marked, corev1.DisruptionTarget); c.Status != corev1.ConditionTrue || c.Reason != "DependencyFailed" {
		s.t.Errorf("it was marked so: %+v", c)
	}
	s.event("app", "Warning DependencyFailed: Stopping: deployment/db:Ready no replica is ready")
	s.gone("app")
	s.kubectl("scale", "deployment/db", "--replicas=1")
	s.rolledOut("db")
	if got := s.kubectl("get", "pods", "-l", "app=app", "-o", "name"); got != "" {
		s.t.Errorf("there is %s", got)
	}
}

func dependencyRestart(s *space) {
	app := s.failing("restart")
	s.until(app.Name, "it is to be restarted, and runs", func(p *corev1.Pod) bool {
		return condition(p, "hansa.dev/DependencyFailed") == corev1.ConditionTrue && condition(p, corev1.PodReady) == corev1.ConditionTrue
	})
	s.kubectl("scale", "deployment/db", "--replicas=1")
	s.gone(app.Name)
	s.ready(s.appPod("app=app").Name)
	s.event(app.Name, "DependencyRestored")
}

// stopsInOrder makes a chain of deployments, of which each depends on the one before,
// removes them and follows their pods.
func (s *space) stopsInOrder(remove func()) {
	s.t.Helper()
	const reverse = "hansa.dev/stop-order: reverse"
	s.apply(simple("db") + simple("api", "hansa.dev/depends-on: deployment/db", reverse) + simple("web", "hansa.dev/depends-on: deployment/api", reverse))
	s.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
	s.stop(remove, "web", "api", "db")
}

// stop removes apps and follows their pods: none may begin to stop before the
// processes of the one before it have ended.
func (s *space) stop(remove func(), apps ...string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	list, err := s.client.CoreV1().Pods(s.name).List(ctx, metav1.ListOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	w, err := s.client.CoreV1().Pods(s.name).Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		s.t.Fatal(err)
	}
	defer w.Stop()
	remove()
	var order, want []string
	for _, app := range apps {
		want = append(want, app+" stops", app+" gone")
	}
	for len(order) < len(want) {
		select {
		case <-ctx.Done():
			s.t.Fatalf("not all have stopped: %v", order)
		case e, ok := <-w.ResultChan():
			p, isPod := e.Object.(*corev1.Pod)
			if !ok || !isPod {
				s.t.Fatalf("the watch ended: %v after %v", e, order)
			}
			step := ""
			switch {
			case e.Type == "DELETED" || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed:
				step = p.Labels["app"] + " gone"
			case p.DeletionTimestamp != nil && !slices.Contains(p.Finalizers, "hansa.dev/stop-order"):
				step = p.Labels["app"] + " stops"
			}
			if step != "" && !slices.Contains(order, step) {
				order = append(order, step)
			}
		}
	}
	if !slices.Equal(order, want) {
		s.t.Errorf("order: %v\nwant %v", order, want)
	}
}

func stopsByNamespace(s *space) {
	s.kubectl("create", "namespace", s.name+"-inner")
	in := &space{cluster: s.cluster, t: s.t, name: s.name + "-inner"}
	in.stopsInOrder(func() { s.kubectl("delete", "namespace", in.name, "--wait=false") })
	await(s.t, "the namespace is gone", func() error {
		if out, err := s.cluster.kubectl("get", "namespace", in.name, "--ignore-not-found"); err != nil || out != "" {
			return fmt.Errorf("%s, %w", out, err)
		}
		return nil
	})
}

func stopsBySelector(s *space) {
	s.stopsInOrder(func() { s.kubectl("delete", "deployments", "-l", "part-of=shop", "--wait=false") })
}

func stopsPods(s *space) {
	for _, name := range []string{"db", "web"} {
		p := podOf(s.t, name, `
metadata: {labels: {app: `+name+`, part-of: shop}}
spec:
  terminationGracePeriodSeconds: 20
  containers:
  - {name: main, image: hansa.local/busybox:1, command: [sh, -c, 'trap "sleep 1; exit" TERM; while :; do sleep 0.2; done']}
`)
		if name == "web" {
			p.Annotations = map[string]string{"hansa.dev/depends-on": "pod/db", "hansa.dev/stop-order": "reverse"}
		}
		s.createPod(p)
	}
	s.ready("web")
	s.stop(func() { s.kubectl("delete", "pods", "-l", "part-of=shop", "--wait=false") }, "web", "db")
}
