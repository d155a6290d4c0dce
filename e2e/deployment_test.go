package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// TestReplicas has a row for what Deployments, ReplicaSets and
// ReplicationControllers do beside what TestKubectl and TestWorkloads ask of them.
func TestReplicas(t *testing.T) {
	t.Parallel()
	for _, r := range []row{
		{"Deployment: recreate", recreated},
		{"Deployment: rollover", rolledOver},
		{"Deployment: proportional scaling", scaledInProportion},
		{"Deployment: revision history limit", historyLimited},
		{"Deployment: minReadySeconds", availableLate},
		{"Deployment: terminating replicas", replicasEnd},
		{"ReplicaSet: adopts and releases", setAdopts},
		{"ReplicaSet: scale, replace and patch", setScales},
		{"ReplicaSet: the order of scaling down", setShrinks},
		{"ReplicationController: lifecycle", controllerLives},
	} {
		t.Run(r.noun, func(t *testing.T) {
			t.Parallel()
			r.check(newSpace(t, shared))
		})
	}
}

// sleepers is something with replicas that sleep; more is added to its spec.
func sleepers(kind, name, word string, replicas int, more string) string {
	version, selector := "apps/v1", fmt.Sprintf("{matchLabels: {app: %s}}", name)
	if kind == "ReplicationController" {
		version, selector = "v1", fmt.Sprintf("{app: %s}", name)
	}
	return fmt.Sprintf(`
apiVersion: %s
kind: %s
metadata: {name: %[3]s}
spec:
  replicas: %d
  selector: %s
  template:
    metadata: {labels: {app: %[3]s}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: main, image: hansa.local/busybox:1, command: [sleep, "1000"], env: [{name: WORD, value: %[6]s}]}
%[7]s`, version, kind, name, replicas, selector, word, more)
}

func (s *space) deployment(name string) *appsv1.Deployment {
	s.t.Helper()
	d, err := s.client.AppsV1().Deployments(s.name).Get(s.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

// sizes are those of an app's sets, by the word in their template.
func (s *space) sizes(app string) map[string]int32 {
	s.t.Helper()
	list, err := s.client.AppsV1().ReplicaSets(s.name).List(s.t.Context(), metav1.ListOptions{LabelSelector: "app=" + app})
	if err != nil {
		s.t.Fatal(err)
	}
	out := map[string]int32{}
	for _, rs := range list.Items {
		out[rs.Spec.Template.Spec.Containers[0].Env[0].Value] = *rs.Spec.Replicas
	}
	return out
}

// sized waits until an app's sets have sizes.
func (s *space) sized(app string, want map[string]int32) {
	s.t.Helper()
	await(s.t, fmt.Sprintf("sets of %s are %v", app, want), func() error {
		if got := s.sizes(app); fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Errorf("they are %v", got)
		}
		return nil
	})
}

// ready waits until an app has so many ready pods.
func (s *space) readyPods(app string, n int) map[string]corev1.Pod {
	s.t.Helper()
	var pods map[string]corev1.Pod
	await(s.t, fmt.Sprintf("%d pods of %s are ready", n, app), func() error {
		if pods = s.podsOf(app); len(pods) != n {
			return fmt.Errorf("there are %d", len(pods))
		}
		return nil
	})
	return pods
}

// No pod of a revision is made before the last one of the former has ended.
func recreated(s *space) {
	s.apply(sleepers("Deployment", "web", "one", 2, "  strategy: {type: Recreate}"))
	s.rolledOut("web")
	ctx, cancel := context.WithCancel(s.t.Context())
	pods, err := s.client.CoreV1().Pods(s.name).List(ctx, metav1.ListOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	there := map[types.UID]string{}
	for _, p := range pods.Items {
		there[p.UID] = p.Spec.Containers[0].Env[0].Value
	}
	w, err := s.client.CoreV1().Pods(s.name).Watch(ctx, metav1.ListOptions{ResourceVersion: pods.ResourceVersion})
	if err != nil {
		s.t.Fatal(err)
	}
	var watching sync.WaitGroup
	watching.Go(func() {
		for e := range w.ResultChan() {
			p, ok := e.Object.(*corev1.Pod)
			if !ok {
				continue
			}
			ended := p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
			if delete(there, p.UID); e.Type != "DELETED" && !ended {
				there[p.UID] = p.Spec.Containers[0].Env[0].Value
			}
			words := map[string]bool{}
			for _, word := range there {
				words[word] = true
			}
			if len(words) > 1 {
				s.t.Errorf("pods of two revisions at once: %v", there)
			}
		}
	})
	s.apply(sleepers("Deployment", "web", "two", 2, "  strategy: {type: Recreate}"))
	s.rolledOut("web")
	cancel()
	watching.Wait()
	s.sized("web", map[string]int32{"one": 0, "two": 2})
}

// A rollout that another one overtakes is not finished first.
func rolledOver(s *space) {
	s.apply(sleepers("Deployment", "web", "one", 2, ""))
	s.rolledOut("web")
	s.apply(strings.Replace(sleepers("Deployment", "web", "two", 2, ""), "hansa.local/busybox:1", "hansa.local/none:1", 1))
	s.sized("web", map[string]int32{"one": 2, "two": 1})
	s.apply(sleepers("Deployment", "web", "three", 2, ""))
	s.rolledOut("web")
	s.sized("web", map[string]int32{"one": 0, "two": 0, "three": 2})
}

// Of a change of size during a rollout each set gets its share.
func scaledInProportion(s *space) {
	const fence = "  strategy: {rollingUpdate: {maxSurge: 2, maxUnavailable: 1}}"
	s.apply(sleepers("Deployment", "web", "one", 4, fence))
	s.rolledOut("web")
	s.apply(strings.Replace(sleepers("Deployment", "web", "two", 4, fence), "hansa.local/busybox:1", "hansa.local/none:1", 1))
	s.sized("web", map[string]int32{"one": 3, "two": 3})
	s.kubectl("scale", "deployment/web", "--replicas=8")
	s.sized("web", map[string]int32{"one": 5, "two": 5})
	s.kubectl("scale", "deployment/web", "--replicas=4")
	s.sized("web", map[string]int32{"one": 3, "two": 3})
}

func historyLimited(s *space) {
	for _, word := range []string{"one", "two", "three"} {
		s.apply(sleepers("Deployment", "web", word, 1, "  revisionHistoryLimit: 1"))
		s.rolledOut("web")
	}
	s.sized("web", map[string]int32{"two": 0, "three": 1})
	s.kubectl("patch", "deployment", "web", "-p", `{"spec":{"revisionHistoryLimit":0}}`)
	s.sized("web", map[string]int32{"three": 1})
}

func availableLate(s *space) {
	s.apply(sleepers("Deployment", "web", "one", 1, "  minReadySeconds: 4"))
	s.readyPods("web", 1)
	await(s.t, "the pod is counted as ready", func() error {
		if d := s.deployment("web"); d.Status.ReadyReplicas != 1 {
			return fmt.Errorf("status %+v", d.Status)
		}
		return nil
	})
	s.rolledOut("web")
	var since metav1.Time
	for _, p := range s.podsOf("web") {
		since = conditionOf(&p, corev1.PodReady).LastTransitionTime
	}
	for _, c := range s.deployment("web").Status.Conditions {
		if late := c.LastTransitionTime.Sub(since.Time); c.Type == appsv1.DeploymentAvailable && (c.Status != "True" || late.Seconds() < 3) {
			s.t.Errorf("available %s after %s", c.Status, late)
		}
	}
}

// Pods on their way out are told of, and are no replicas any more.
func replicasEnd(s *space) {
	slow := strings.NewReplacer("[sleep, \"1000\"]", `[sh, -c, "trap 'sleep 3; exit 0' TERM; while :; do sleep 0.1; done"]`, "PeriodSeconds: 1", "PeriodSeconds: 20").
		Replace(sleepers("Deployment", "web", "one", 2, ""))
	s.apply(slow)
	s.rolledOut("web")
	s.kubectl("scale", "deployment/web", "--replicas=1")
	await(s.t, "one is ending", func() error {
		if st := s.deployment("web").Status; ptr.Deref(st.TerminatingReplicas, 0) != 1 || st.Replicas != 1 {
			return fmt.Errorf("status %+v", st)
		}
		return nil
	})
	await(s.t, "none is ending", func() error {
		if st := s.deployment("web").Status; st.TerminatingReplicas == nil || *st.TerminatingReplicas != 0 {
			return fmt.Errorf("status %+v", st)
		}
		return nil
	})
}

func setAdopts(s *space) {
	s.createPod(podOf(s.t, "orphan", `
metadata: {labels: {app: set}}
spec: {containers: [{name: main, image: hansa.local/busybox:1, command: [sleep, "1000"]}]}
`))
	s.ready("orphan")
	s.apply(sleepers("ReplicaSet", "set", "one", 1, ""))
	s.until("orphan", "it is adopted", func(p *corev1.Pod) bool {
		ref := metav1.GetControllerOf(p)
		return ref != nil && ref.Kind == "ReplicaSet" && ref.Name == "set"
	})
	if pods := s.readyPods("set", 1); pods["orphan"].UID == "" {
		s.t.Errorf("there is another pod: %v", pods)
	}
	s.kubectl("label", "pod", "orphan", "app=other", "--overwrite")
	s.until("orphan", "it is released", func(p *corev1.Pod) bool { return metav1.GetControllerOf(p) == nil })
	s.readyPods("set", 1)
}

func setScales(s *space) {
	s.apply(sleepers("ReplicaSet", "set", "one", 1, ""))
	s.readyPods("set", 1)
	s.kubectl("scale", "rs/set", "--replicas=3")
	s.readyPods("set", 3)
	s.kubectl("patch", "rs", "set", "-p", `{"spec":{"replicas":2,"template":{"metadata":{"labels":{"more":"b"}}}}}`)
	pods := s.readyPods("set", 2)
	await(s.t, "the status says so", func() error {
		if got := s.field("rs/set", ".status.replicas}-{.status.readyReplicas}-{.status.availableReplicas}-{.status.fullyLabeledReplicas"); got != "2-2-2-" {
			return errors.New(got)
		}
		return nil
	})
	for name := range pods {
		s.kubectl("delete", "pod", name, "--wait=false")
	}
	for name, p := range s.readyPods("set", 2) {
		if _, old := pods[name]; old {
			s.t.Fatalf("pod %s is still there", name)
		}
		if p.Labels["more"] != "b" {
			s.t.Errorf("pod %s has labels %v", name, p.Labels)
		}
	}
}

// "Pod deletion cost": what is dearest stays; pods that are not ready go first.
func setShrinks(s *space) {
	s.apply(sleepers("ReplicaSet", "set", "one", 3, ""))
	dear := ""
	for name := range s.readyPods("set", 3) {
		if dear == "" {
			dear = name
			s.kubectl("annotate", "pod", name, "controller.kubernetes.io/pod-deletion-cost=10")
		} else {
			s.kubectl("annotate", "pod", name, "controller.kubernetes.io/pod-deletion-cost=-10")
		}
	}
	s.kubectl("scale", "rs/set", "--replicas=1")
	if pods := s.readyPods("set", 1); pods[dear].UID == "" {
		s.t.Errorf("the dear pod %s is gone, there are %v", dear, pods)
	}
}

func controllerLives(s *space) {
	s.createPod(podOf(s.t, "orphan", `
metadata: {labels: {app: rc}}
spec: {containers: [{name: main, image: hansa.local/busybox:1, command: [sleep, "1000"]}]}
`))
	s.apply(sleepers("ReplicationController", "rc", "one", 2, ""))
	s.until("orphan", "it is adopted", func(p *corev1.Pod) bool { return metav1.GetControllerOf(p) != nil })
	s.readyPods("rc", 2)
	s.kubectl("scale", "rc/rc", "--replicas=1")
	s.readyPods("rc", 1)
	for name := range s.readyPods("rc", 1) {
		s.kubectl("label", "pod", name, "app=none", "--overwrite")
		s.until(name, "it is released", func(p *corev1.Pod) bool { return metav1.GetControllerOf(p) == nil })
	}
	s.readyPods("rc", 1)
	s.kubectl("delete", "rc", "rc")
	s.readyPods("rc", 0)
}
