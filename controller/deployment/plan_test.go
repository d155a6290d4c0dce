package deployment

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/controller"
)

var now = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func deploymentOf(n, surge, unavailable int32) *appsv1.Deployment {
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "d", UID: "d", Generation: 1},
		Spec: appsv1.DeploymentSpec{
			Replicas: &n, RevisionHistoryLimit: ptr.To[int32](10), ProgressDeadlineSeconds: ptr.To[int32](600),
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "d"}},
			Template: templateOf("v1"),
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{
				MaxSurge: ptr.To(intstr.FromInt32(surge)), MaxUnavailable: ptr.To(intstr.FromInt32(unavailable)),
			}},
		},
	}
}

func templateOf(image string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "d"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: image}}},
	}
}

// setOf is a set of the deployment, made in the order of revisions, that has as
// many pods as it wants.
func setOf(d *appsv1.Deployment, revision int, size, available int32) *appsv1.ReplicaSet {
	rs, err := newSet(d, int64(revision))
	if err != nil {
		panic(err)
	}
	rs.Name, rs.UID = fmt.Sprintf("r%d", revision), types.UID(fmt.Sprintf("r%d", revision))
	rs.CreationTimestamp = metav1.NewTime(now.Add(time.Duration(revision) * time.Minute))
	rs.Spec.Replicas = &size
	rs.Status = appsv1.ReplicaSetStatus{Replicas: size, ReadyReplicas: available, AvailableReplicas: available}
	sized(rs, d)
	return rs
}

func (d decision) text() string {
	var words []string
	if d.create {
		words = append(words, fmt.Sprintf("create=%d", d.size))
	}
	for _, s := range d.scale {
		words = append(words, fmt.Sprintf("%s:%d→%d", s.set.Name, size(s.set), s.to))
	}
	for _, rs := range d.remove {
		words = append(words, "remove:"+rs.Name)
	}
	return strings.Join(words, " ")
}

// The cases are those of the documentation, "Deployments": "Updating", "Rolling
// Update Deployment", "Proportional scaling", "Clean up Policy", "Recreate
// Deployment".
func TestPlan(t *testing.T) {
	type sets []*appsv1.ReplicaSet
	done := func(d *appsv1.Deployment) *appsv1.Deployment {
		n := replicas(d)
		d.Status = appsv1.DeploymentStatus{Replicas: n, UpdatedReplicas: n, AvailableReplicas: n, ObservedGeneration: 1}
		return d
	}
	before := func(d *appsv1.Deployment, n int32) *appsv1.Deployment { // as it was before it was scaled
		d = d.DeepCopy()
		d.Spec.Replicas = &n
		return d
	}
	d := deploymentOf(10, 3, 2)
	recreating := deploymentOf(4, 0, 0)
	recreating.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
	few := done(deploymentOf(2, 1, 0))
	few.Spec.RevisionHistoryLimit = ptr.To[int32](1)
	paused := deploymentOf(10, 3, 2)
	paused.Spec.Paused = true
	gone := deploymentOf(10, 3, 2)
	gone.DeletionTimestamp = &metav1.Time{Time: now}
	fifteen := deploymentOf(15, 3, 2)
	five := deploymentOf(5, 3, 2)
	zero := deploymentOf(0, 3, 2)
	shrinking := func(d *appsv1.Deployment, revision int, size int32) *appsv1.ReplicaSet { // and its status does not tell yet
		rs := setOf(d, revision, size, size+1)
		rs.Status.Replicas++
		return rs
	}
	for _, c := range []struct {
		name    string
		d       *appsv1.Deployment
		current *appsv1.ReplicaSet
		old     sets
		oldPods bool
		want    string
	}{
		{name: "first", d: d, want: "create=10"},
		{name: "a rollout begins with the surge", d: d, old: sets{setOf(d, 1, 10, 10)}, want: "create=3"},
		{name: "then old pods go as far as enough are available", d: d, current: setOf(d, 2, 3, 0), old: sets{setOf(d, 1, 10, 10)}, want: "r1:10→8"},
		{name: "new ones take their places", d: d, current: setOf(d, 2, 3, 0), old: sets{setOf(d, 1, 8, 8)}, want: "r2:3→5"},
		{name: "nothing to do until a pod is available", d: d, current: setOf(d, 2, 5, 0), old: sets{setOf(d, 1, 8, 8)}},
		{name: "old pods that are not available go first", d: d, current: setOf(d, 3, 3, 3), old: sets{setOf(d, 1, 2, 0), setOf(d, 2, 8, 8)}, want: "r1:2→0 r2:8→5"},
		{name: "complete", d: d, current: setOf(d, 2, 10, 10), old: sets{setOf(d, 1, 0, 0)}},
		{name: "a set larger than it may be", d: d, current: setOf(d, 1, 12, 12), want: "r1:12→10"},
		{name: "sets of a saturated rollout", d: d, current: setOf(d, 2, 10, 10), old: sets{setOf(d, 1, 2, 0)}, want: "r1:2→0"},
		{name: "a set that comes back first tells what it has left", d: d, current: shrinking(d, 3, 4), old: sets{setOf(d, 2, 6, 6)}},
		{name: "a set that comes back, and has told", d: d, current: setOf(d, 3, 4, 4), old: sets{setOf(d, 2, 6, 6)}, want: "r3:4→7"},
		{name: "a set that is to shrink may shrink more", d: d, current: setOf(d, 3, 10, 10), old: sets{shrinking(d, 2, 3)}, want: "r2:3→0"},
		{name: "being deleted", d: gone, current: setOf(d, 1, 3, 3)},

		{name: "scaled up", d: fifteen, current: setOf(before(fifteen, 10), 1, 10, 10), want: "r1:10→15"},
		{name: "scaled up before it has shrunk", d: fifteen, current: shrinking(before(fifteen, 10), 1, 10)},
		{name: "scaled down", d: five, current: setOf(before(five, 10), 1, 10, 10), want: "r1:10→5"},
		{name: "scaled to nothing", d: zero, current: setOf(before(zero, 10), 2, 5, 0), old: sets{setOf(before(zero, 10), 1, 8, 8)}, want: "r1:8→0 r2:5→0"},
		// The documentation's own example.
		{name: "scaled in proportion", d: fifteen, current: setOf(before(fifteen, 10), 2, 5, 0), old: sets{setOf(before(fifteen, 10), 1, 8, 8)}, want: "r1:8→11 r2:5→7"},
		{name: "scaled down in proportion", d: five, current: setOf(before(five, 10), 2, 5, 0), old: sets{setOf(before(five, 10), 1, 8, 8)}, want: "r1:8→5 r2:5→3"},
		{name: "a set that has the size already notes it", d: d, current: setOf(before(d, 7), 1, 10, 10), want: "r1:10→10"},

		{name: "paused: no rollout", d: paused, old: sets{setOf(paused, 1, 10, 10)}},
		{name: "paused: still scaled", d: paused, old: sets{setOf(before(paused, 4), 1, 4, 4)}, want: "r1:4→10"},

		{name: "recreate: old pods first", d: recreating, old: sets{setOf(recreating, 1, 4, 4)}, want: "r1:4→0"},
		{name: "recreate: until all are gone", d: recreating, old: sets{setOf(recreating, 1, 0, 0)}, oldPods: true},
		{name: "recreate: then all new ones", d: recreating, old: sets{setOf(recreating, 1, 0, 0)}, want: "create=4"},

		{name: "history", d: few, current: setOf(few, 5, 2, 2), old: sets{setOf(few, 2, 0, 0), setOf(few, 1, 0, 0), setOf(few, 3, 0, 0)}, want: "remove:r1 remove:r2"},
		{name: "history is kept while a rollout is under way", d: deploymentOf(2, 1, 0), current: setOf(few, 5, 2, 2), old: sets{setOf(few, 2, 0, 0), setOf(few, 1, 0, 0)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := plan(snapshot{d: c.d, current: c.current, old: c.old, oldPods: c.oldPods}).text()
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Documentation: maxSurge is rounded up, maxUnavailable down, and the latter is
// 1 when both come to nothing.
func TestFence(t *testing.T) {
	percent := intstr.FromString("25%")
	for _, c := range []struct {
		replicas           int32
		surge, unavailable intstr.IntOrString
		wantS, wantU       int32
	}{
		{10, percent, percent, 3, 2},
		{1, percent, percent, 1, 0},
		{0, percent, percent, 0, 0},
		{3, intstr.FromInt32(0), percent, 0, 1},
		{3, intstr.FromInt32(0), intstr.FromInt32(0), 0, 1},
		{3, intstr.FromInt32(9), intstr.FromInt32(9), 9, 3},
	} {
		d := deploymentOf(c.replicas, 0, 0)
		d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxSurge: &c.surge, MaxUnavailable: &c.unavailable}
		if s, u := fence(d); s != c.wantS || u != c.wantU {
			t.Errorf("%d with %s and %s: surge %d, unavailable %d", c.replicas, c.surge.String(), c.unavailable.String(), s, u)
		}
	}
}

func TestAnnotate(t *testing.T) {
	d := deploymentOf(1, 1, 0)
	d.Annotations = map[string]string{"a": "1", corev1.LastAppliedConfigAnnotation: "x", revisionAnnotation: "9"}
	rs := &appsv1.ReplicaSet{}
	for i, c := range []struct {
		revision int64
		changed  bool
		history  string
	}{{1, true, ""}, {1, false, ""}, {3, true, "1"}, {2, false, "1"}, {7, true, "1,3"}} {
		if changed := annotate(rs, d, c.revision); changed != c.changed || rs.Annotations[revisionHistoryAnnotation] != c.history {
			t.Errorf("step %d: changed %v, annotations %v", i, changed, rs.Annotations)
		}
	}
	if rs.Annotations["a"] != "1" || rs.Annotations[corev1.LastAppliedConfigAnnotation] != "" || rs.Annotations[revisionAnnotation] != "7" {
		t.Errorf("annotations = %v", rs.Annotations)
	}
	history := ""
	for i := range 2000 {
		history = remember(history, fmt.Sprint(i))
	}
	if len(history) > longestHistory || !strings.HasSuffix(history, ",1999") || strings.HasPrefix(history, "0,") {
		t.Errorf("history of %d characters: %s", len(history), history)
	}
}

func TestNames(t *testing.T) {
	d := deploymentOf(1, 1, 0)
	d.Name = strings.Repeat("d", 253)
	a, err := newSet(d, 1)
	if err != nil {
		t.Fatal(err)
	}
	d.Status.CollisionCount = ptr.To[int32](1)
	b, err := newSet(d, 1)
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Name) > 253 || a.Name == b.Name {
		t.Errorf("names %s and %s", a.Name, b.Name)
	}
	if !controller.SameTemplate(&a.Spec.Template, &d.Spec.Template) || !controller.SameTemplate(&a.Spec.Template, &b.Spec.Template) {
		t.Error("the label with the hash counts as a difference")
	}
	changed := d.Spec.Template.DeepCopy()
	changed.Annotations = map[string]string{"kubectl.kubernetes.io/restartedAt": "now"}
	if controller.SameTemplate(changed, &d.Spec.Template) {
		t.Error("a restart is no difference")
	}
}

// Documentation: "Deployment status". The reasons are what kubectl reads.
func TestProgress(t *testing.T) {
	d := deploymentOf(3, 1, 0)
	d.Generation = 2
	s := snapshot{d: d, current: setOf(d, 1, 3, 0), created: true}
	at := now
	var seen []string
	step := func(want string) {
		t.Helper()
		st, _ := status(s, at)
		d.Status, s.created = st, false
		c := conditions(st.Conditions)
		var words []string
		for _, kind := range []appsv1.DeploymentConditionType{appsv1.DeploymentProgressing, appsv1.DeploymentAvailable, appsv1.DeploymentReplicaFailure} {
			if c := c.get(kind); c != nil {
				words = append(words, fmt.Sprintf("%s=%s", c.Reason, c.Status))
			}
		}
		got := strings.Join(words, " ")
		seen = append(seen, got)
		if got != want {
			t.Errorf("step %d: %s, want %s", len(seen), got, want)
		}
	}
	s.current.Status = appsv1.ReplicaSetStatus{}
	step("NewReplicaSetCreated=True MinimumReplicasUnavailable=False")
	s.current.Status.Replicas = 3
	at = at.Add(time.Minute)
	step("ReplicaSetUpdated=True MinimumReplicasUnavailable=False")
	if _, after := status(s, at); after != 10*time.Minute {
		t.Errorf("the deadline is in %v", after)
	}
	at = at.Add(10 * time.Minute)
	step("ProgressDeadlineExceeded=False MinimumReplicasUnavailable=False")
	s.current.Status.AvailableReplicas = 1
	step("ReplicaSetUpdated=True MinimumReplicasUnavailable=False")
	s.current.Status.AvailableReplicas = 3
	step("NewReplicaSetAvailable=True MinimumReplicasAvailable=True")
	at = at.Add(time.Hour)
	s.current.Status.AvailableReplicas = 2
	step("NewReplicaSetAvailable=True MinimumReplicasUnavailable=False")
	d.Spec.Paused = true
	step("DeploymentPaused=Unknown MinimumReplicasUnavailable=False")
	d.Spec.Paused = false
	step("DeploymentResumed=Unknown MinimumReplicasUnavailable=False")
	s.old, s.current, s.refused = []*appsv1.ReplicaSet{s.current}, nil, "no"
	step("ReplicaSetCreateError=False MinimumReplicasUnavailable=False")
	s.current, s.refused = setOf(d, 2, 3, 0), ""
	s.current.Status.Conditions = []appsv1.ReplicaSetCondition{{Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue, Reason: "FailedCreate"}}
	step("ReplicaSetUpdated=True MinimumReplicasUnavailable=False FailedCreate=True")
	d.Spec.ProgressDeadlineSeconds = nil
	step("MinimumReplicasUnavailable=False FailedCreate=True")
}
