package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestKubectl has a row for every verb of kubectl that needs containers, or loops,
// to be what users know. Those that change nodes are in TestDrain.
func TestKubectl(t *testing.T) {
	t.Parallel()
	for _, r := range []row{
		{"run, attached and removed", runAttached},
		{"run and expose", runExposed},
		{"expose a Deployment", exposed},
		{"cp of folders", copiedFolders},
		{"debug, attached", debugAttached},
		{"debug a copy of a pod", debugCopy},
		{"debug a node", debugNode},
		{"autoscale", autoscaled},
		{"scale", scaled},
		{"rollout history, undo to a revision", rolloutHistory},
		{"rollout pause and resume", rolloutPaused},
		{"rollout restart", rolloutRestarted},
		{"rollout status tells of a deadline", rolloutTooSlow},
	} {
		t.Run(r.noun, func(t *testing.T) {
			t.Parallel()
			r.check(newSpace(t, shared))
		})
	}
}

// typed runs kubectl with something on its standard input, and answers with what
// it printed, both streams.
func (s *space) typed(input string, args ...string) (string, error) {
	var out bytes.Buffer
	err := s.pipe(s.t.Context(), strings.NewReader(input), &out, &out, append([]string{"kubectl", "--data-dir", s.dir, "-n", s.name}, args...)...)
	return out.String(), err
}

// fails runs kubectl, which has to fail with all of the words.
func (s *space) fails(words []string, args ...string) {
	s.t.Helper()
	out, err := s.cluster.kubectl(append([]string{"-n", s.name}, args...)...)
	got := fmt.Sprint(out, err)
	if err == nil {
		s.t.Errorf("kubectl %s went well: %s", strings.Join(args, " "), out)
	}
	for _, word := range words {
		if !strings.Contains(got, word) {
			s.t.Errorf("kubectl %s does not say %q but:\n%s", strings.Join(args, " "), word, got)
		}
	}
}

func (s *space) rolledOut(name string) string {
	s.t.Helper()
	return s.kubectl("rollout", "status", "deployment/"+name, "--timeout=120s")
}

// field is a value of an object, by its JSON path.
func (s *space) field(object, path string) string {
	s.t.Helper()
	return s.kubectl("get", object, "-o", "jsonpath={"+path+"}")
}

func runAttached(s *space) {
	got, err := s.typed("one\ntwo\n", "run", "p", "-i", "--rm", "--restart=Never", "--image="+shell, "--", "sh", "-c", "while read w; do echo got $w; done; echo ended")
	if err != nil || !strings.Contains(got, "got one\ngot two\nended\n") || !strings.Contains(got, `pod "p" deleted`) {
		s.t.Errorf("run said %q, %v", got, err)
	}
	s.gone("p")
	got, err = s.typed("", "run", "q", "-i", "--rm", "--restart=Never", "--image="+shell, "--", "sh", "-c", "echo no; exit 5")
	if err == nil || !strings.Contains(got, "no\n") || !strings.Contains(got, "terminated (Error)") {
		s.t.Errorf("run of what fails said %q, %v", got, err)
	}
	s.gone("q")
	s.kubectl("run", "r", "--image="+shell, "--labels=a=b", "--env=WORD=seven", "--command", "--", "sleep", "1000")
	if p := s.ready("r"); p.Labels["a"] != "b" || s.exec2("r", "sh", "-c", "echo $WORD") != "seven\n" {
		s.t.Errorf("labels %v", p.Labels)
	}
}

// exec2 is exec in the only container, whatever its name.
func (s *space) exec2(pod string, words ...string) string {
	s.t.Helper()
	return s.kubectl(append([]string{"exec", pod, "--"}, words...)...)
}

func runExposed(s *space) {
	s.kubectl("run", "web", "--image=hansa.local/testimage:1", "--port=8080", "--expose")
	s.ready("web")
	s.answersAt("web", 8080)
}

// answersAt checks that a service answers pods.
func (s *space) answersAt(service string, port int) {
	s.t.Helper()
	v, err := s.client.CoreV1().Services(s.name).Get(s.t.Context(), service, metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	url := fmt.Sprintf("http://%s:%d/healthz", v.Spec.ClusterIP, port)
	await(s.t, url+" answers", func() error {
		_, err := fetch(url)
		return err
	})
}

func exposed(s *space) {
	s.apply(deployment("web", "one", 1))
	s.rolledOut("web")
	s.kubectl("expose", "deployment", "web", "--port=80", "--target-port=web", "--name=door")
	s.answersAt("door", 80)
	if got := s.field("service/door", ".spec.selector.app"); got != "web" {
		s.t.Errorf("it selects %q", got)
	}
	s.kubectl("expose", "service", "door", "--port=81", "--target-port=8080", "--name=other")
	s.answersAt("other", 81)
}

func copiedFolders(s *space) {
	s.create("p", sleeper)
	s.ready("p")
	dir := s.t.TempDir()
	for name, text := range map[string]string{"in/a": "one", "in/deep/er/b": "two"} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o640)); err != nil {
			s.t.Fatal(err)
		}
	}
	s.kubectl("cp", dir+"/in", "p:/tmp/there", "-c", "main")
	if got := s.exec("p", "sh", "-c", "cat /tmp/there/a /tmp/there/deep/er/b"); got != "onetwo" {
		s.t.Errorf("there is %q", got)
	}
	s.kubectl("cp", s.name+"/p:/tmp/there", dir+"/out")
	for name, want := range map[string]string{"out/a": "one", "out/deep/er/b": "two"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); string(got) != want {
			s.t.Errorf("%s came back as %q, %v", name, got, err)
		}
	}
}

// A debugger in a pod is at the terminal, sees the processes of its target and
// the network of the pod.
func debugAttached(s *space) {
	s.create("p", sleeper)
	p := s.ready("p")
	x := newTerminal(s.t, s.cluster, 24, 80, "kubectl", "--data-dir", s.dir, "-n", s.name, "debug", "p", "-it", "--image="+shell, "--target=main", "--container=look", "--", "sh")
	await(s.t, "the debugger answers", func() error {
		x.write("echo $((6*7)) $(ip addr | grep -c " + p.Status.PodIP + ") $(ps | grep -v grep | grep -c 'sleep')\n")
		if got := x.shown(); !strings.Contains(got, "42 1 1") {
			return fmt.Errorf("shown: %q", got)
		}
		return nil
	})
	x.write("exit 3\n")
	select {
	case <-x.done:
	case <-time.After(patience):
		s.t.Errorf("kubectl does not end:\n%s", x.shown())
	}
	s.until("p", "the debugger has ended", func(p *corev1.Pod) bool {
		c := p.Status.EphemeralContainerStatuses
		return len(c) == 1 && c[0].State.Terminated != nil && c[0].State.Terminated.ExitCode == 3
	})
	s.ready("p")
}

func debugCopy(s *space) {
	s.create("p", `
containers:
- {name: main, image: hansa.local/busybox:1, command: ["false"]}
`)
	// A copy that runs something else instead of what crashes.
	s.kubectl("debug", "p", "--copy-to=copy", "--container=main", "--", "sh", "-c", "echo instead; exec sleep 1000")
	s.ready("copy")
	await(s.t, "the copy says its word", func() error { // its shell may not have come to it yet
		if got := s.logs("copy", "main"); got != "instead\n" {
			return fmt.Errorf("it said %q", got)
		}
		return nil
	})
	// A copy with another image, and a container beside it that sees its processes.
	s.kubectl("debug", "p", "--copy-to=seen", "--set-image=*=hansa.local/testimage:1", "--image="+shell, "--container=look", "--share-processes", "--profile=general", "--", "sleep", "1000")
	s.until("seen", "the added container runs", func(p *corev1.Pod) bool {
		for _, c := range p.Status.ContainerStatuses {
			if c.Name == "look" && c.State.Running != nil {
				return true
			}
		}
		return false
	})
	p, err := s.client.CoreV1().Pods(s.name).Get(s.t.Context(), "seen", metav1.GetOptions{})
	if err != nil || len(p.Spec.Containers) != 2 || p.Spec.Containers[0].Image != "hansa.local/testimage:1" || len(p.Labels) != 0 {
		s.t.Errorf("the copy is %+v, %v", p, err)
	}
	if out, code, err := s.execIn("seen", "look", "ps"); err != nil || code != 0 || !strings.Contains(out, "pause") && !strings.Contains(out, "sleep 1000") {
		s.t.Errorf("it sees %s, %d, %v", out, code, err)
	}
}

var debugger = regexp.MustCompile(`node-debugger-\S+`)

// A debugger of a node is in its namespaces and has its files.
func debugNode(s *space) {
	out := s.kubectl("debug", "node/"+nodeName, "--image="+shell, "--", "sh", "-c", "ps; ip addr show eth0; hostname; chroot /host cat /proc/1/comm && ls -d /host/etc && echo end")
	name := debugger.FindString(out)
	if name == "" {
		s.t.Fatalf("debug said %q", out)
	}
	p := s.finished(name)
	if p.Status.Phase != corev1.PodSucceeded || !p.Spec.HostPID || !p.Spec.HostNetwork || !p.Spec.HostIPC || p.Spec.NodeName != nodeName {
		s.t.Errorf("phase %s, spec %+v", p.Status.Phase, p.Spec)
	}
	got := s.logs(name, "debugger")
	for _, want := range []string{"containerd", nodeIP, nodeName + "\n", "/host/etc\n", "end\n"} {
		if !strings.Contains(got, want) {
			s.t.Errorf("it does not see %q:\n%s", want, got)
		}
	}
	// As root of the node, it may do what root may.
	x := newTerminal(s.t, s.cluster, 24, 80, "kubectl", "--data-dir", s.dir, "-n", s.name, "debug", "node/"+nodeName, "-it", "--image="+shell, "--profile=sysadmin", "--", "chroot", "/host", "sh")
	await(s.t, "the administrator's shell answers", func() error {
		x.write("mount -t tmpfs debug /mnt && umount /mnt && echo $((6*7)) $(id -u)\n")
		if got := x.shown(); !strings.Contains(got, "42 0") {
			return fmt.Errorf("shown: %q", got)
		}
		return nil
	})
	x.write("exit\n")
	select {
	case <-x.done:
	case <-time.After(patience):
		s.t.Errorf("kubectl does not end:\n%s", x.shown())
	}
}

func autoscaled(s *space) {
	s.apply(deployment("web", "one", 1))
	s.kubectl("autoscale", "deployment", "web", "--min=2", "--max=4", "--cpu=70%", "--name=auto")
	if got := s.field("hpa/auto", ".spec.scaleTargetRef.kind}/{.spec.scaleTargetRef.name} {.spec.minReplicas}-{.spec.maxReplicas} {.spec.metrics[0].resource.name}={.spec.metrics[0].resource.target.averageUtilization"); got != "Deployment/web 2-4 cpu=70" {
		s.t.Errorf("autoscaler: %s", got)
	}
}

func scaled(s *space) {
	s.apply(deployment("web", "one", 1))
	s.rolledOut("web")
	s.fails([]string{"Expected replicas to be 7, was 1"}, "scale", "deployment/web", "--replicas=2", "--current-replicas=7")
	s.kubectl("scale", "deployment/web", "--replicas=3", "--current-replicas=1")
	s.rolledOut("web")
	if n := len(s.podsOf("web")); n != 3 {
		s.t.Errorf("%d pods are ready", n)
	}
}

func rolloutHistory(s *space) {
	for _, word := range []string{"one", "two", "three"} {
		s.apply(deployment("web", word, 1))
		s.kubectl("annotate", "deployment/web", "--overwrite", "kubernetes.io/change-cause=to "+word)
		s.rolledOut("web")
	}
	got := s.kubectl("rollout", "history", "deployment/web")
	for _, want := range []string{"1         to one", "2         to two", "3         to three"} {
		if !strings.Contains(got, want) {
			s.t.Errorf("history does not say %q:\n%s", want, got)
		}
	}
	if got := s.kubectl("rollout", "history", "deployment/web", "--revision=1"); !strings.Contains(got, "WORD:") || !strings.Contains(got, "one") {
		s.t.Errorf("revision 1:\n%s", got)
	}
	s.kubectl("rollout", "undo", "deployment/web", "--to-revision=1")
	s.rolledOut("web")
	if got := s.field("deployment/web", ".spec.template.spec.containers[0].env[0].value"); got != "one" {
		s.t.Errorf("undone to %q", got)
	}
	got = s.kubectl("rollout", "history", "deployment/web")
	if strings.Contains(got, "\n1  ") || !strings.Contains(got, "4         to one") {
		s.t.Errorf("history after that:\n%s", got)
	}
	s.kubectl("rollout", "pause", "deployment/web")
	s.fails([]string{"paused"}, "rollout", "undo", "deployment/web")
	s.kubectl("rollout", "resume", "deployment/web")
	s.fails([]string{"unable to find specified revision 9 in history"}, "rollout", "undo", "deployment/web", "--to-revision=9")
}

func rolloutPaused(s *space) {
	s.apply(deployment("web", "one", 2))
	s.rolledOut("web")
	s.kubectl("rollout", "pause", "deployment/web")
	s.fails([]string{"is already paused"}, "rollout", "pause", "deployment/web")
	s.kubectl("set", "env", "deployment/web", "WORD=two")
	s.kubectl("scale", "deployment/web", "--replicas=3")
	await(s.t, "it scales while it is paused", func() error {
		if n := len(s.podsOf("web")); n != 3 {
			return fmt.Errorf("%d are ready", n)
		}
		return nil
	})
	for name, p := range s.podsOf("web") {
		if p.Spec.Containers[0].Env[0].Value != "one" {
			s.t.Errorf("pod %s was rolled although the deployment is paused", name)
		}
	}
	s.kubectl("rollout", "resume", "deployment/web")
	s.rolledOut("web")
	for name, p := range s.podsOf("web") {
		if p.Spec.Containers[0].Env[0].Value != "two" {
			s.t.Errorf("pod %s is of before", name)
		}
	}
	s.fails([]string{"is not paused"}, "rollout", "resume", "deployment/web")
}

func rolloutRestarted(s *space) {
	s.apply(deployment("web", "one", 1))
	s.rolledOut("web")
	before := s.podsOf("web")
	s.kubectl("rollout", "restart", "deployment/web")
	s.rolledOut("web")
	for name := range s.podsOf("web") {
		if _, there := before[name]; there {
			s.t.Errorf("pod %s is still there", name)
		}
	}
	if got := s.field("deployment/web", `.spec.template.metadata.annotations.kubectl\.kubernetes\.io/restartedAt`); got == "" {
		s.t.Error("the template does not say when")
	}
}

func rolloutTooSlow(s *space) {
	s.apply(deployment("web", "one", 1))
	s.rolledOut("web")
	s.kubectl("patch", "deployment", "web", "-p", `{"spec":{"progressDeadlineSeconds":2,"template":{"spec":{"containers":[{"name":"main","args":["none"]}]}}}}`)
	s.fails([]string{`deployment "web" exceeded its progress deadline`}, "rollout", "status", "deployment/web", "--timeout=120s")
	if got := s.field("deployment/web", ".status.conditions[?(@.type=='Progressing')].reason"); got != "ProgressDeadlineExceeded" {
		s.t.Errorf("reason %q", got)
	}
	if n := len(s.podsOf("web")); n != 1 {
		s.t.Errorf("%d pods still serve", n)
	}
}

// TestDrain empties the only node there is, as before an upgrade, and marks it.
func TestDrain(t *testing.T) {
	if !alone(t) {
		return
	}
	c := started(t, newCluster("drain"))
	s := newSpace(t, c)
	s.apply(deployment("web", "one", 2) + `
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec: {maxUnavailable: 1, selector: {matchLabels: {app: web}}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: own}
spec:
  selector: {matchLabels: {app: own}}
  template:
    metadata: {labels: {app: own}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: hansa.local/busybox:1, command: [sleep, "1000"]}]
`)
	s.create("lone", sleeper)
	s.create("local", "volumes: [{name: v, emptyDir: {}}]\n"+strings.TrimPrefix(sleeper, "\n"))
	s.rolledOut("web")
	s.ready("lone")
	s.ready("local")
	s.readyPods("own", 1)
	await(t, "the budget allows one", func() error {
		if got := s.field("pdb/web", ".status.disruptionsAllowed"); got != "1" {
			return errors.New(got)
		}
		return nil
	})
	drainRefused(s)
	drainHeldUp(s)
	drained(s)
	cordoned(s)
	tainted(s)
	toleratedForAWhile(s)
}

// drainRefused is what drain does not do unless it is told to.
func drainRefused(s *space) {
	s.fails([]string{"cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore)", "/own-"},
		"drain", nodeName, "--force", "--delete-emptydir-data")
	s.fails([]string{
		"cannot delete Pods that declare no controller (use --force to override)", "/lone",
		"cannot delete Pods with local storage (use --delete-emptydir-data to override)", "/local",
	}, "drain", nodeName, "--ignore-daemonsets")
	if got := s.kubectl("get", "node", nodeName); !strings.Contains(got, "Ready,SchedulingDisabled") {
		s.t.Errorf("the node is not cordoned:\n%s", got)
	}
	if n := len(s.podsOf("web")); n != 2 {
		s.t.Errorf("%d pods are left", n)
	}
}

// drainHeldUp: a second pod cannot go while the first one's successor finds no
// node.
func drainHeldUp(s *space) {
	s.fails([]string{
		"evicting pod " + s.name + "/web-", "(will retry after 5s): Cannot evict pod as it would violate the pod's disruption budget.", "global timeout reached",
	}, "drain", nodeName, "--ignore-daemonsets", "--force", "--delete-emptydir-data", "--timeout=15s")
	s.gone("lone")
	s.gone("local")
	if n := len(s.podsOf("web")); n != 1 {
		s.t.Errorf("%d pods of web are ready, the budget asks for one", n)
	}
	await(s.t, "the successor waits", func() error {
		if got := s.kubectl("get", "pods"); !strings.Contains(got, "Pending") {
			return errors.New(got)
		}
		return nil
	})
	s.kubectl("uncordon", nodeName)
	s.rolledOut("web")
	if n := len(s.podsOf("web")); n != 2 {
		s.t.Errorf("%d pods of web are ready on a node that takes pods again", n)
	}
}

// drained: once the budget allows it, all but the node's own pods go.
func drained(s *space) {
	s.kubectl("patch", "pdb", "web", "--type=merge", "-p", `{"spec":{"maxUnavailable":2}}`)
	out := s.kubectl("drain", nodeName, "--ignore-daemonsets", "--timeout=120s")
	if !strings.Contains(out, "node/"+nodeName+" drained") {
		s.t.Errorf("drain said %s", out)
	}
	if n := len(s.podsOf("own")); n != 1 {
		s.t.Errorf("%d pods of the DaemonSet are left", n)
	}
	if n := len(s.podsOf("web")); n != 0 {
		s.t.Errorf("%d pods of web are left", n)
	}
	s.kubectl("cordon", nodeName)
	s.kubectl("uncordon", nodeName)
	s.rolledOut("web")
}

// cordoned: a node that takes no more pods takes those of DaemonSets, and so does
// one with a taint those that tolerate it; what runs is left alone.
func cordoned(s *space) {
	runs := s.oneOf("own")
	s.kubectl("cordon", nodeName)
	s.create("patient", sleeper)
	s.unschedulable("patient", "0/1 nodes are available: 1 node(s) were unschedulable.")
	s.apply(daemonSet("more", "one", "", ""))
	s.oneOf("more")
	s.kubectl("uncordon", nodeName)
	s.ready("patient")
	s.kubectl("delete", "daemonset", "more")

	s.kubectl("taint", "node", nodeName, "only=us:NoSchedule")
	s.create("stranger", sleeper)
	s.unschedulable("stranger", "0/1 nodes are available: 1 node(s) had untolerated taint(s).")
	s.create("friend", sleeper+"tolerations: [{key: only, value: us, effect: NoSchedule}]\n")
	s.ready("friend")
	if now := s.oneOf("own"); now.UID != runs.UID {
		s.t.Errorf("%s is now %s", runs.Name, now.Name)
	}
	s.kubectl("taint", "node", nodeName, "only-")
	s.ready("stranger")
	s.kubectl("delete", "pod", "patient", "stranger", "friend")
}

func tainted(s *space) {
	tolerant := sleeper + "tolerations: [{key: work, operator: Exists, effect: NoExecute}]\n"
	s.create("tolerant", tolerant)
	s.create("other", sleeper)
	s.ready("tolerant")
	s.ready("other")
	s.apply(daemonSet("bold", "one", "tolerations: [{key: work, operator: Equal, value: \"on\", effect: NoExecute}]", ""))
	bold := s.oneOf("bold")
	s.kubectl("taint", "node", nodeName, "work=on:NoExecute")
	s.gone("other")
	// Of DaemonSets only those that tolerate the taint are for the node.
	await(s.t, "the DaemonSet that does not has no pod", func() error {
		if got := s.field("daemonset/own", ".status.desiredNumberScheduled}/{.status.currentNumberScheduled"); got != "0/0" || len(s.podsOf("own")) > 0 {
			return fmt.Errorf("%s, %d", got, len(s.podsOf("own")))
		}
		return nil
	})
	if now := s.oneOf("bold"); now.UID != bold.UID {
		s.t.Errorf("%s is now %s", bold.Name, now.Name)
	}
	s.create("late", sleeper)
	s.event("late", "node(s) had untolerated taint")
	s.ready("tolerant")
	s.fails([]string{"already has work taint(s) with same effect(s) and --overwrite is false"}, "taint", "node", nodeName, "work=off:NoExecute")
	s.kubectl("taint", "node", nodeName, "work-")
	s.ready("late")
	s.rolledOut("web")
	s.readyPods("own", 1)
}

// "Taints and Tolerations", tolerationSeconds: a pod goes so long after the taint came;
// one stays whose time was not over when the taint went.
func toleratedForAWhile(s *space) {
	for name, seconds := range map[string]int{"brief": 3, "patient": 60} {
		s.create(name, fmt.Sprintf("%stolerations: [{key: work, operator: Exists, effect: NoExecute, tolerationSeconds: %d}]\n", sleeper, seconds))
	}
	s.ready("brief")
	patient := s.ready("patient")
	began := time.Now()
	s.kubectl("taint", "node", nodeName, "work=on:NoExecute")
	p := s.until("brief", "it has to go", func(p *corev1.Pod) bool { return p.DeletionTimestamp != nil })
	// When it was marked is told in whole seconds.
	if marked := conditionOf(p, corev1.DisruptionTarget); marked.Reason != "DeletionByTaintManager" || marked.LastTransitionTime.Sub(began) <= 2*time.Second {
		s.t.Errorf("brief was marked %s after the taint: %+v", marked.LastTransitionTime.Sub(began), marked)
	}
	s.gone("brief")
	s.kubectl("taint", "node", nodeName, "work-")
	s.event("patient", "Cancelling deletion of Pod "+s.name+"/patient")
	if p := s.ready("patient"); p.UID != patient.UID || p.DeletionTimestamp != nil || p.Status.ContainerStatuses[0].RestartCount > 0 {
		s.t.Errorf("patient: %+v", p.Status)
	}
}
