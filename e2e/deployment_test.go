package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// TestReplicas has a row for what Deployments, ReplicaSets and
// ReplicationControllers do beside what TestKubectl and TestWorkloads ask of them, and
// for budgets and templates of pods.
func TestReplicas(t *testing.T) {
	t.Parallel()
	for _, r := range []row{
		{"Deployment: recreate", recreated},
		{"Deployment: rollover", rolledOver},
		{"Deployment: proportional scaling", scaledInProportion},
		{"Deployment: revision history limit", historyLimited},
		{"Deployment: minReadySeconds", availableLate},
		{"Deployment: terminating replicas", replicasEnd},
		{"ReplicaSet and ReplicationController: each replica serves", replicasServe},
		{"ReplicaSet: adopts and releases", setAdopts},
		{"ReplicaSet: scale, replace and patch", setScales},
		{"ReplicaSet: the order of scaling down", setShrinks},
		{"ReplicationController: lifecycle", controllerLives},
		{"ReplicationController: rolled by hand", controllerRolled},
		{"PodTemplate: kept, and a pod made of it", templateKept},
		{"PodDisruptionBudget: percents, evictions, unhealthy pods", budgetKept},
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

// Every pod of a basic image answers its own name, through the API's proxy.
func replicasServe(s *space) {
	s.apply(strings.Replace(deployment("set", "one", 2), "kind: Deployment", "kind: ReplicaSet", 1) + "---" +
		strings.NewReplacer("apps/v1", "v1", "kind: Deployment", "kind: ReplicationController", "{matchLabels: {app: rc}}", "{app: rc}").Replace(deployment("rc", "one", 2)))
	for app, kind := range map[string]string{"set": "ReplicaSet", "rc": "ReplicationController"} {
		for name, p := range s.readyPods(app, 2) {
			if by := metav1.GetControllerOf(&p); by == nil || by.Kind != kind || by.Name != app {
				s.t.Errorf("%s belongs to %+v", name, by)
			}
			if got := s.kubectl("get", "--raw", fmt.Sprintf("/api/v1/namespaces/%s/pods/%s:8080/proxy/", s.name, name)); got != name+"\n" {
				s.t.Errorf("%s answers %q", name, got)
			}
		}
	}
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

// There is no kubectl rollout for these: one grows while another shrinks, behind one
// service, and never are there fewer pods than before.
func controllerRolled(s *space) {
	for app, n := range map[string]int{"one": 2, "two": 0} {
		s.apply(strings.Replace(sleepers("ReplicationController", app, app, n, ""), "labels: {app: "+app+"}", "labels: {app: "+app+", part: web}", 1))
	}
	s.service("web", "selector: {part: web}, ports: [{port: 80}]")
	s.readyPods("one", 2)
	for n := range 2 {
		s.kubectl("scale", "rc/two", fmt.Sprint("--replicas=", n+1))
		s.readyPods("two", n+1)
		s.kubectl("scale", "rc/one", fmt.Sprint("--replicas=", 1-n), fmt.Sprint("--current-replicas=", 2-n))
		if ready := len(s.podsOf("one")) + len(s.podsOf("two")); ready < 2 {
			s.t.Errorf("%d pods are ready", ready)
		}
	}
	s.readyPods("one", 0)
	s.kubectl("delete", "rc", "one")
	pods := s.readyPods("two", 2)
	await(s.t, "the service leads to the new ones", func() error {
		got := s.kubectl("get", "endpointslices", "-l", "kubernetes.io/service-name=web", "-o", "jsonpath={.items[*].endpoints[?(@.conditions.ready==true)].targetRef.name}")
		for _, name := range strings.Fields(got) {
			if _, there := pods[name]; !there || len(strings.Fields(got)) != 2 {
				return errors.New(got)
			}
		}
		return nil
	})
}

// Documentation: "Pods", "Pod templates". Nothing acts on a PodTemplate: what makes
// pods reads it.
func templateKept(s *space) {
	s.apply(`
apiVersion: v1
kind: PodTemplate
metadata: {name: work, labels: {of: tools}}
template:
  metadata: {labels: {app: work}}
  spec: {containers: [{name: main, image: hansa.local/busybox:1, command: [sleep, "1000"]}]}
`)
	if got := s.kubectl("get", "podtemplates", "-l", "of=tools", "--no-headers"); !strings.Contains(got, "work") || !strings.Contains(got, "hansa.local/busybox:1") || !strings.Contains(got, "app=work") {
		s.t.Errorf("kubectl get: %s", got)
	}
	s.kubectl("patch", "podtemplate", "work", "-p", `{"template":{"spec":{"terminationGracePeriodSeconds":1,"containers":[{"name":"main","env":[{"name":"WORD","value":"two"}]}]}}}`)
	kept, err := s.client.CoreV1().PodTemplates(s.name).Get(s.t.Context(), "work", metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	p := &corev1.Pod{ObjectMeta: kept.Template.ObjectMeta, Spec: kept.Template.Spec}
	p.Name = "made"
	s.createPod(p)
	s.ready("made")
	if got := s.exec("made", "sh", "-c", "echo $WORD"); got != "two\n" {
		s.t.Errorf("the pod says %q", got)
	}
	s.kubectl("delete", "podtemplates", "-l", "of=tools")
	s.ready("made")
}

// Documentation: "Specifying a Disruption Budget for your Application", "Unhealthy
// Pod Eviction Policy". Of three pods two are half, rounded up.
func budgetKept(s *space) {
	s.apply(deployment("web", "one", 3) + `
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec: {minAvailable: 50%, selector: {matchLabels: {app: web}}}
`)
	s.rolledOut("web")
	counted := func(want string) {
		s.t.Helper()
		await(s.t, "the budget counts "+want, func() error {
			b, err := s.client.PolicyV1().PodDisruptionBudgets(s.name).Get(s.t.Context(), "web", metav1.GetOptions{})
			if err != nil {
				return err
			}
			st := b.Status
			got := fmt.Sprintf("%d/%d of %d, %d may go: %s", st.CurrentHealthy, st.DesiredHealthy, st.ExpectedPods, st.DisruptionsAllowed, st.Conditions[0].Reason)
			if got != want || st.ObservedGeneration != b.Generation {
				return fmt.Errorf("generation %d of %d: %s", st.ObservedGeneration, b.Generation, got)
			}
			return nil
		})
	}
	evict := func(p corev1.Pod) error {
		return s.client.CoreV1().Pods(s.name).EvictV1(s.t.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: p.Name}})
	}
	refused := func(p corev1.Pod, why string) {
		s.t.Helper()
		err := evict(p)
		var status *apierrors.StatusError
		if !errors.As(err, &status) || status.ErrStatus.Code != 429 || status.ErrStatus.Reason != metav1.StatusReasonTooManyRequests ||
			len(status.ErrStatus.Details.Causes) != 1 || status.ErrStatus.Details.Causes[0].Type != policyv1.DisruptionBudgetCause || status.ErrStatus.Details.Causes[0].Message != why {
			s.t.Errorf("eviction of %s: %#v", p.Name, err)
		}
	}
	counted("3/2 of 3, 1 may go: SufficientPods")
	pods := slices.Collect(maps.Values(s.readyPods("web", 3)))
	s.turn(&pods[0], "sick")
	counted("2/2 of 3, 0 may go: InsufficientPods")
	refused(pods[1], "The disruption budget web needs 2 healthy pods and has 2 currently")
	s.turn(&pods[1], "sick")
	counted("1/2 of 3, 0 may go: InsufficientPods")
	refused(pods[0], "The disruption budget web needs 2 healthy pods and has 1 currently")
	s.kubectl("patch", "pdb", "web", "--type=merge", "-p", `{"spec":{"unhealthyPodEvictionPolicy":"AlwaysAllow"}}`)
	counted("1/2 of 3, 0 may go: InsufficientPods")
	refused(pods[2], "The disruption budget web needs 2 healthy pods and has 1 currently")
	if err := evict(pods[0]); err != nil {
		s.t.Errorf("a sick pod is always let go, but: %v", err)
	}
	s.gone(pods[0].Name)
	s.turn(&pods[1], "healthy")
	counted("3/2 of 3, 1 may go: SufficientPods")
	s.kubectl("patch", "pdb", "web", "--type=merge", "-p", `{"spec":{"minAvailable":null,"maxUnavailable":"50%","unhealthyPodEvictionPolicy":"IfHealthyBudget"}}`)
	counted("3/1 of 3, 2 may go: SufficientPods")
	// A sick pod goes while there are enough healthy ones without it.
	s.turn(&pods[1], "sick")
	counted("2/1 of 3, 1 may go: SufficientPods")
	if err := evict(pods[1]); err != nil {
		s.t.Errorf("a sick pod beside enough others: %v", err)
	}
	s.gone(pods[1].Name)
}
