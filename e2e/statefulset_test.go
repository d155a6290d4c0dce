package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// TestStatefulSets is about sets of pods with identities, on real containers.
func TestStatefulSets(t *testing.T) {
	t.Parallel()
	for _, r := range []row{
		{"pods come and go in order, and wait for one that is not ready", statefulOrder},
		{"in parallel, also beside one that is not ready", statefulBurst},
		{"in parallel, updated within maxUnavailable", statefulBurstUpdate},
		{"a pod that its node refuses is made again", statefulEvicted},
		{"names of pods, by DNS", statefulNames},
		{"start ordinal", statefulStart},
		{"a canary, phases, and what is deleted meanwhile", statefulPartition},
		{"maxUnavailable and minReadySeconds", statefulUnavailable},
		{"on deletion only", statefulOnDelete},
		{"kubectl rollout status, history, undo, restart; scale", statefulRollout},
		{"a revision that never becomes ready makes way", statefulHeals},
		{"orphans are adopted", statefulAdopts},
		{"claims are made of templates", statefulClaims},
	} {
		t.Run(r.noun, func(t *testing.T) {
			t.Parallel()
			r.check(newSpace(t, shared))
		})
	}
}

// statefulSet is one of the test image; more are further fields of its spec.
func statefulSet(word string, replicas int, more string) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web}
spec:
  replicas: %d
  serviceName: web
  selector: {matchLabels: {app: web}}
%s
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 30
      containers:
      - name: main
        image: hansa.local/testimage:1
        env: [{name: WORD, value: %s}]
        ports: [{name: web, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /healthz, port: web}, periodSeconds: 1, failureThreshold: 1}
`, replicas, more, word)
}

func (s *space) rolled() {
	s.t.Helper()
	s.kubectl("rollout", "status", "statefulset/web", "--timeout=120s")
}

func (s *space) scaled(to int) {
	s.t.Helper()
	s.kubectl("scale", "statefulset/web", fmt.Sprint("--replicas=", to))
}

// setWord changes the template without waiting for anything.
func (s *space) setWord(word string) {
	s.t.Helper()
	s.kubectl("set", "env", "statefulset/web", "WORD="+word)
}

// theSet awaits that the loop has seen the last change of the set, and more.
func (s *space) theSet(what string, holds func(set *appsv1.StatefulSet) bool) *appsv1.StatefulSet {
	s.t.Helper()
	var set *appsv1.StatefulSet
	await(s.t, what, func() (err error) {
		set, err = s.client.AppsV1().StatefulSets(s.name).Get(s.t.Context(), "web", metav1.GetOptions{})
		if err == nil && (set.Status.ObservedGeneration != set.Generation || !holds(set)) {
			err = fmt.Errorf("generation %d, status %+v", set.Generation, set.Status)
		}
		return err
	})
	return set
}

func (s *space) observed() *appsv1.StatefulSet {
	s.t.Helper()
	return s.theSet("the change was seen", func(*appsv1.StatefulSet) bool { return true })
}

// words are those of the pods that there are, by ordinal: "0:one 1:two".
func (s *space) words() string {
	s.t.Helper()
	list, err := s.client.CoreV1().Pods(s.name).List(s.t.Context(), metav1.ListOptions{LabelSelector: "app=web"})
	if err != nil {
		s.t.Fatal(err)
	}
	var out []string
	for _, p := range list.Items {
		out = append(out, p.Labels[appsv1.PodIndexLabel]+":"+p.Spec.Containers[0].Env[0].Value)
	}
	return strings.Join(out, " ")
}

// run awaits that these are the pods' words.
func (s *space) run(want string) {
	s.t.Helper()
	await(s.t, "the pods are "+want, func() error {
		if got := s.words(); got != want {
			return errors.New(got)
		}
		return nil
	})
}

// member awaits that a pod of the set is there and ready, made anew perhaps.
func (s *space) member(name string) *corev1.Pod {
	s.t.Helper()
	var p *corev1.Pod
	await(s.t, "pod "+name+" is ready", func() (err error) {
		p, err = s.client.CoreV1().Pods(s.name).Get(s.t.Context(), name, metav1.GetOptions{})
		if err == nil && (p.DeletionTimestamp != nil || condition(p, corev1.PodReady) != corev1.ConditionTrue) {
			err = fmt.Errorf("deleted %v, conditions %+v", p.DeletionTimestamp, p.Status.Conditions)
		}
		return err
	})
	return p
}

// comings notes from now on how pods come (+web-0) and go (-web-0), until the
// function is called that answers with that.
func (s *space) comings() func() []string {
	s.t.Helper()
	w, err := s.client.CoreV1().Pods(s.name).Watch(s.t.Context(), metav1.ListOptions{LabelSelector: "app=web"})
	if err != nil {
		s.t.Fatal(err)
	}
	var seen []string
	ended, marker := make(chan struct{}), "the-end"
	go func() {
		defer close(ended)
		for e := range w.ResultChan() {
			p, ok := e.Object.(*corev1.Pod)
			switch {
			case !ok || p.Name == marker:
				return
			case e.Type == watch.Added:
				seen = append(seen, "+"+p.Name)
			case e.Type == watch.Deleted:
				seen = append(seen, "-"+p.Name)
			}
		}
	}()
	return func() []string {
		s.t.Helper()
		// The watch has seen everything once it sees this one.
		s.createPod(podOf(s.t, marker, `{metadata: {labels: {app: web}}, spec: {schedulingGates: [{name: test.dev/never}], containers: [{name: main, image: "a:1", env: [{name: WORD, value: none}]}]}}`))
		<-ended
		w.Stop()
		s.kubectl("delete", "pod", marker)
		return seen
	}
}

func (s *space) came(seen func() []string, want ...string) {
	s.t.Helper()
	if got := seen(); !slices.Equal(got, want) {
		s.t.Errorf("the pods came and went so: %v, want %v", got, want)
	}
}

func (s *space) unready(name string) *corev1.Pod {
	s.t.Helper()
	return s.until(name, "it is not ready", func(p *corev1.Pod) bool { return condition(p, corev1.PodReady) == corev1.ConditionFalse })
}

// Documentation: "StatefulSets", "Deployment and Scaling Guarantees".
func statefulOrder(s *space) {
	seen := s.comings()
	s.apply(statefulSet("one", 1, ""))
	s.rolled()
	first := s.member("web-0")
	s.turn(first, "sick")
	s.unready("web-0")
	s.scaled(3)
	s.theSet("none is ready", func(set *appsv1.StatefulSet) bool { return set.Status.ReadyReplicas == 0 })
	s.run("0:one")
	s.turn(first, "healthy")
	s.rolled()
	s.run("0:one 1:one 2:one")
	s.event("web", "Normal SuccessfulCreate: Create Pod web-2 in StatefulSet web successful")

	s.turn(first, "sick")
	s.unready("web-0")
	s.theSet("one is not ready", func(set *appsv1.StatefulSet) bool { return set.Status.ReadyReplicas == 2 })
	s.scaled(0)
	s.observed()
	s.run("0:one 1:one 2:one")
	s.turn(first, "healthy")
	s.theSet("all are gone", func(set *appsv1.StatefulSet) bool { return set.Status.Replicas == 0 })
	s.event("web", "Normal SuccessfulDelete: Delete Pod web-0 in StatefulSet web successful")
	s.came(seen, "+web-0", "+web-1", "+web-2", "-web-2", "-web-1", "-web-0")
}

// Documentation: "StatefulSets", "Parallel Pod Management".
func statefulBurst(s *space) {
	s.apply(statefulSet("one", 1, "  podManagementPolicy: Parallel"))
	s.turn(s.member("web-0"), "sick")
	s.unready("web-0")
	s.scaled(3)
	s.theSet("all others are ready", func(set *appsv1.StatefulSet) bool { return set.Status.ReadyReplicas == 2 })
	s.run("0:one 1:one 2:one")
	s.scaled(1)
	s.theSet("the others are gone", func(set *appsv1.StatefulSet) bool { return set.Status.Replicas == 1 })
	s.run("0:one")
	s.scaled(0)
	s.gone("web-0")
}

// Two of three are made anew at once, and none while another one would be missed.
func statefulBurstUpdate(s *space) {
	s.apply(statefulSet("one", 3, "  podManagementPolicy: Parallel\n  updateStrategy: {rollingUpdate: {maxUnavailable: 2}}"))
	s.rolled()
	seen := s.comings()
	s.setWord("two")
	s.theSet("all are updated", func(set *appsv1.StatefulSet) bool {
		return set.Status.UpdatedReplicas == 3 && set.Status.AvailableReplicas == 3
	})
	s.run("0:two 1:two 2:two")
	there := 0
	for _, what := range seen() {
		if there++; strings.HasPrefix(what, "-") {
			there -= 2
		}
		if there == 0 {
			s.t.Errorf("no pod was there after %q", what)
		}
	}
}

// A port of the node is taken: the kubelet refuses the pod, which the set makes
// again and again, until the port is free (conformance: "Should recreate evicted
// statefulset").
func statefulEvicted(s *space) {
	const port = "ports: [{name: web, containerPort: 8080, hostPort: 31987}]"
	node := s.kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
	s.createPod(podOf(s.t, "holder", fmt.Sprintf("{spec: {nodeName: %s, containers: [{name: main, image: 'hansa.local/testimage:1', %s}]}}", node, port)))
	s.ready("holder")
	set := strings.Replace(statefulSet("one", 1, ""), "ports: [{name: web, containerPort: 8080}]", port, 1)
	set = strings.Replace(set, "      containers:", "      nodeName: "+node+"\n      containers:", 1)
	s.apply(set)
	failed := func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed }
	var first *corev1.Pod
	await(s.t, "the pod was refused", func() error {
		p, err := s.client.CoreV1().Pods(s.name).Get(s.t.Context(), "web-0", metav1.GetOptions{})
		if err == nil && !failed(p) {
			err = errors.New(string(p.Status.Phase))
		}
		first = p
		return err
	})
	await(s.t, "it is made again", func() error {
		p, err := s.client.CoreV1().Pods(s.name).Get(s.t.Context(), "web-0", metav1.GetOptions{})
		if err == nil && p.UID == first.UID {
			err = errors.New("it is the same")
		}
		return err
	})
	s.kubectl("delete", "pod", "holder")
	s.rolled()
	s.member("web-0")
}

// Documentation: "StatefulSets", "Stable Network ID".
func statefulNames(s *space) {
	s.service("web", "clusterIP: None, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]")
	s.apply(statefulSet("one", 2, ""))
	s.rolled()
	domain := "web." + s.name + ".svc.cluster.local."
	zero, one := s.member("web-0"), s.member("web-1")
	s.resolves("web-0."+domain, zero.Status.PodIP)
	s.resolves("web-1."+domain, one.Status.PodIP)
	s.says("_http._tcp."+domain, dns.TypeSRV, "SRV 0 100 8080 web-0."+domain+", SRV 0 100 8080 web-1."+domain)
	s.says(s.reversed(one.Status.PodIP), dns.TypePTR, "PTR web-1."+domain)
	s.answers(fetchWord(s.from(zero)), "http://web-1.web:8080/", "web-1")
	for label, want := range map[string]string{"statefulset.kubernetes.io/pod-name": "web-1", "apps.kubernetes.io/pod-index": "1"} {
		if got := one.Labels[label]; got != want {
			s.t.Errorf("label %s = %q", label, got)
		}
	}
	// The name goes to the pod that is made in its place.
	s.kubectl("delete", "pod", "web-1")
	s.rolled()
	s.resolves("web-1."+domain, s.member("web-1").Status.PodIP)
}

// Documentation: "StatefulSets", "Start ordinal".
func statefulStart(s *space) {
	s.apply(statefulSet("one", 2, "  ordinals: {start: 3}"))
	s.rolled()
	s.run("3:one 4:one")
}

// Documentation: "StatefulSets", "Partitioned rolling updates".
func statefulPartition(s *space) {
	s.apply(statefulSet("one", 3, ""))
	s.rolled()
	partition := func(n int) {
		s.kubectl("patch", "statefulset", "web", "-p", fmt.Sprintf(`{"spec":{"updateStrategy":{"rollingUpdate":{"partition":%d}}}}`, n))
	}
	seen := s.comings()
	partition(2)
	s.setWord("two")
	s.rolled()
	s.run("0:one 1:one 2:two")
	set := s.observed()
	if set.Status.CurrentRevision == set.Status.UpdateRevision || set.Status.UpdatedReplicas != 1 || set.Status.CurrentReplicas != 2 {
		s.t.Errorf("status: %+v", set.Status)
	}
	s.kubectl("delete", "pod", "web-0", "web-2")
	s.rolled()
	s.theSet("all are there", func(set *appsv1.StatefulSet) bool {
		return set.Status.ReadyReplicas == 3 && set.Status.UpdatedReplicas == 1
	})
	s.run("0:one 1:one 2:two")
	for name, want := range map[string]string{"web-0": set.Status.CurrentRevision, "web-2": set.Status.UpdateRevision} {
		if got := s.member(name).Labels["controller-revision-hash"]; got != want {
			s.t.Errorf("%s is of revision %s, want %s", name, got, want)
		}
	}
	seen()
	seen = s.comings() // tells of those that are there, first
	partition(0)
	s.theSet("all are updated", func(set *appsv1.StatefulSet) bool {
		return set.Status.CurrentRevision == set.Status.UpdateRevision && set.Status.ReadyReplicas == 3
	})
	s.run("0:two 1:two 2:two")
	s.came(seen, "+web-0", "+web-1", "+web-2", "-web-1", "+web-1", "-web-0", "+web-0")
}

// Documentation: "StatefulSets", "Maximum unavailable Pods", "Minimum ready
// seconds".
func statefulUnavailable(s *space) {
	s.apply(statefulSet("one", 3, "  minReadySeconds: 2\n  updateStrategy: {type: RollingUpdate, rollingUpdate: {maxUnavailable: 2}}"))
	s.theSet("one is ready and not available yet", func(set *appsv1.StatefulSet) bool {
		return set.Status.ReadyReplicas > set.Status.AvailableReplicas
	})
	s.theSet("all are available", func(set *appsv1.StatefulSet) bool { return set.Status.AvailableReplicas == 3 })
	seen := s.comings()
	s.setWord("two")
	s.theSet("all are updated", func(set *appsv1.StatefulSet) bool {
		return set.Status.UpdatedReplicas == 3 && set.Status.AvailableReplicas == 3
	})
	got := seen()[3:] // without those that were there
	at := func(what string) int { return slices.Index(got, what) }
	if len(got) != 6 || at("-web-1") > at("+web-2") || at("-web-0") != 4 {
		s.t.Errorf("the pods came and went so: %v", got)
	}
}

// Documentation: "StatefulSets", "Update strategies".
func statefulOnDelete(s *space) {
	s.apply(statefulSet("one", 2, "  updateStrategy: {type: OnDelete}"))
	s.theSet("both are ready", func(set *appsv1.StatefulSet) bool { return set.Status.ReadyReplicas == 2 })
	s.setWord("two")
	s.theSet("there is a new revision", func(set *appsv1.StatefulSet) bool { return set.Status.UpdateRevision != set.Status.CurrentRevision })
	s.run("0:one 1:one")
	s.kubectl("delete", "pod", "web-0")
	s.theSet("it is made again", func(set *appsv1.StatefulSet) bool {
		return set.Status.ReadyReplicas == 2 && set.Status.UpdatedReplicas == 1
	})
	s.run("0:two 1:one")
}

func statefulRollout(s *space) {
	s.apply(statefulSet("one", 2, ""))
	s.rolled()
	s.kubectl("annotate", "statefulset", "web", "kubernetes.io/change-cause=the second")
	s.setWord("two")
	if got := s.kubectl("rollout", "status", "statefulset/web", "--timeout=120s"); !strings.Contains(got, "partitioned roll out complete: 2 new pods have been updated") {
		s.t.Errorf("rollout status: %s", got)
	}
	s.run("0:two 1:two")
	if got := s.kubectl("rollout", "history", "statefulset/web"); !strings.Contains(got, "1         <none>") || !strings.Contains(got, "2         the second") {
		s.t.Errorf("history:\n%s", got)
	}
	if got := s.kubectl("rollout", "history", "statefulset/web", "--revision=1"); !strings.Contains(got, "WORD:\tone") {
		s.t.Errorf("revision 1:\n%s", got)
	}
	if got := s.kubectl("rollout", "undo", "statefulset/web", "--to-revision=2"); !strings.Contains(got, "skipped rollback (current template already matches revision 2)") {
		s.t.Errorf("undo to the present one: %s", got)
	}
	s.kubectl("rollout", "undo", "statefulset/web")
	s.rolled()
	s.run("0:one 1:one")
	if got := s.kubectl("rollout", "history", "statefulset/web"); strings.Contains(got, "\n1 ") || !strings.Contains(got, "\n3 ") {
		s.t.Errorf("history after undoing:\n%s", got)
	}
	was := s.member("web-0").UID
	s.kubectl("rollout", "restart", "statefulset/web")
	s.rolled()
	s.theSet("the update is complete", func(set *appsv1.StatefulSet) bool { return set.Status.CurrentRevision == set.Status.UpdateRevision })
	if s.member("web-0").UID == was {
		s.t.Error("the pod was not restarted")
	}
	s.scaled(3)
	s.rolled()
	s.run("0:one 1:one 2:one")
	if got := s.kubectl("get", "statefulset", "web", "--no-headers"); !strings.Contains(got, "3/3") {
		s.t.Errorf("get: %s", got)
	}
}

// In Kubernetes the pod has to be deleted by hand (documentation:
// "StatefulSets", "Forced rollback").
func statefulHeals(s *space) {
	s.apply(statefulSet("one", 2, ""))
	s.rolled()
	s.kubectl("set", "image", "statefulset/web", "main=hansa.local/none:1")
	s.until("web-0", "it goes on", func(p *corev1.Pod) bool { return p.DeletionTimestamp == nil })
	await(s.t, "the new pod cannot start", func() error {
		got := s.kubectl("get", "pods", "-l", "app=web")
		if !strings.Contains(got, "ErrImagePull") && !strings.Contains(got, "ImagePullBackOff") {
			return errors.New(got)
		}
		return nil
	})
	s.theSet("one is not ready", func(set *appsv1.StatefulSet) bool { return set.Status.ReadyReplicas == 1 })
	s.kubectl("rollout", "undo", "statefulset/web")
	s.rolled()
	s.run("0:one 1:one")
	s.event("web", "Normal ReplacingPod: Pod web-1 of revision web-")
}

func statefulAdopts(s *space) {
	s.apply(statefulSet("one", 2, ""))
	s.rolled()
	was := s.member("web-1")
	s.kubectl("delete", "statefulset", "web", "--cascade=orphan")
	s.until("web-1", "it has no owner", func(p *corev1.Pod) bool { return len(p.OwnerReferences) == 0 })
	s.apply(statefulSet("one", 2, ""))
	s.rolled()
	now := s.until("web-1", "it has an owner", func(p *corev1.Pod) bool { return len(p.OwnerReferences) == 1 })
	if now.UID != was.UID {
		s.t.Error("the pod is another one")
	}
	s.kubectl("label", "pod", "web-1", "app=debug", "--overwrite")
	s.until("web-1", "it is let go", func(p *corev1.Pod) bool { return len(p.OwnerReferences) == 0 })
	s.kubectl("delete", "pod", "web-1")
	s.rolled()
	s.kubectl("delete", "statefulset", "web")
	s.gone("web-0")
}

// Nothing makes volumes yet: the pods wait, and say why.
func statefulClaims(s *space) {
	s.apply(statefulSet("one", 2, `  podManagementPolicy: Parallel
  volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}}]
  persistentVolumeClaimRetentionPolicy: {whenDeleted: Delete, whenScaled: Delete}`))
	claims := func(want string) {
		s.t.Helper()
		await(s.t, "claims "+want, func() error {
			if got := s.kubectl("get", "pvc", "-o", "jsonpath={.items[*].metadata.name}"); got != want {
				return errors.New(got)
			}
			return nil
		})
	}
	claims("data-web-0 data-web-1")
	s.event("web", "Normal SuccessfulCreate: Create Claim data-web-1 Pod web-1 in StatefulSet web success")
	s.event("web", "Normal SuccessfulCreate: Create Pod web-1 in StatefulSet web successful")
	s.until("web-1", "it waits", func(p *corev1.Pod) bool { return condition(p, corev1.PodScheduled) == corev1.ConditionFalse })
	s.scaled(1)
	claims("data-web-0")
	s.kubectl("delete", "statefulset", "web")
	claims("")
}
