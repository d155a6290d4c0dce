package replicaset

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

var now = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func setOf(n int32) *appsv1.ReplicaSet {
	return &appsv1.ReplicaSet{Spec: appsv1.ReplicaSetSpec{
		Replicas: &n, Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "a"}}},
	}}
}

// pod is running and ready on node n1 for an hour, but for what words say.
func pod(name string, words ...string) *corev1.Pod {
	ready := corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now.Add(-time.Hour))}
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Labels: map[string]string{"app": "a"}, Annotations: map[string]string{}, CreationTimestamp: metav1.NewTime(now.Add(-time.Hour))},
		Spec:       corev1.PodSpec{NodeName: "n1"},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning},
	}
	for _, w := range words {
		key, value, _ := strings.Cut(w, "=")
		ago := func() metav1.Time {
			d, err := time.ParseDuration(value)
			if err != nil {
				panic(err)
			}
			return metav1.NewTime(now.Add(-d))
		}
		switch key {
		case "node":
			p.Spec.NodeName = value
		case "phase":
			p.Status.Phase = corev1.PodPhase(value)
		case "unready":
			ready.Status = corev1.ConditionFalse
		case "ready":
			ready.LastTransitionTime = ago()
		case "created":
			p.CreationTimestamp = ago()
		case "cost":
			p.Annotations[corev1.PodDeletionCost] = value
		case "restarts":
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{RestartCount: int32(len(value))}}
		case "sidecar":
			always := corev1.ContainerRestartPolicyAlways
			p.Spec.InitContainers = []corev1.Container{{Name: "init"}, {Name: "side", RestartPolicy: &always}}
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "init", RestartCount: 9}, {Name: "side", RestartCount: int32(len(value))}}
		case "going":
			at := metav1.NewTime(now)
			p.DeletionTimestamp = &at
		case "label":
			p.Labels = map[string]string{"app": value}
		default:
			panic(w)
		}
	}
	p.Status.Conditions = []corev1.PodCondition{ready}
	return p
}

func names(pods []*corev1.Pod) (out []string) {
	for _, p := range pods {
		out = append(out, p.Name)
	}
	return out
}

// Documentation: "ReplicaSet", "Scaling a ReplicaSet". Of each pair the first
// goes before the second.
func TestRank(t *testing.T) {
	for _, c := range []struct {
		why         string
		first, then *corev1.Pod
	}{
		{"unplaced", pod("z", "node="), pod("a", "phase=Pending", "unready")},
		{"pending", pod("z", "phase=Pending"), pod("a", "unready")},
		{"unknown", pod("z", "phase=Unknown"), pod("a")},
		{"unready", pod("z", "unready"), pod("a", "cost=-5")},
		{"cheap", pod("z", "cost=-5"), pod("a", "node=n2")},
		{"dear", pod("z", "node=n2"), pod("a", "cost=5")},
		{"on a full node", pod("z"), pod("a", "node=n2", "ready=1s")},
		{"ready for a short time", pod("z", "ready=10s"), pod("a")},
		{"ready for about as long: chance", pod("a", "ready=60m"), pod("z", "ready=59m")},
		{"restarted often", pod("z", "restarts=xxx"), pod("a", "restarts=x")},
		{"a sidecar restarted often", pod("z", "restarts=x", "sidecar=xx"), pod("a", "restarts=x", "sidecar=x")},
		{"chance before restarts", pod("a", "ready=60m"), pod("z", "ready=59m", "restarts=xxx")},
		{"young", pod("z", "created=10s"), pod("a")},
		{"of about the same age: chance", pod("a", "created=60m"), pod("z", "created=59m")},
		{"a cost that is no number is none", pod("a", "cost=x"), pod("z")},
	} {
		t.Run(c.why, func(t *testing.T) {
			for _, pods := range [][]*corev1.Pod{{c.first, c.then}, {c.then, c.first}} {
				rank(pods, map[string]int{"n1": 2, "n2": 1}, now)
				if pods[0] != c.first {
					t.Errorf("%s goes first", pods[0].Name)
				}
			}
		})
	}
}

func TestPlan(t *testing.T) {
	crowd := func() map[string]int { return map[string]int{"n1": 3} }
	gone := setOf(3)
	gone.DeletionTimestamp = &metav1.Time{Time: now}
	many := make([]*corev1.Pod, 700)
	for i := range many {
		many[i] = pod(fmt.Sprint("p", i))
	}
	for _, c := range []struct {
		name   string
		rs     *appsv1.ReplicaSet
		pods   []*corev1.Pod
		create int
		delete []string
	}{
		{"new", setOf(3), nil, 3, nil},
		{"at most a burst", setOf(3000), nil, burst, nil},
		{"enough", setOf(1), []*corev1.Pod{pod("a")}, 0, nil},
		{"ended and going pods do not count", setOf(2), []*corev1.Pod{pod("a"), pod("b", "phase=Failed"), pod("c", "phase=Succeeded"), pod("d", "going")}, 1, nil},
		{"too many", setOf(1), []*corev1.Pod{pod("a"), pod("b", "unready"), pod("c", "node=")}, 0, []string{"c", "b"}},
		{"being deleted", gone, nil, 0, nil},
		{"at most a burst go", setOf(0), many, 0, names(many[:burst])},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := plan(c.rs, c.pods, crowd, now)
			if a.create != c.create || !slices.Equal(names(a.delete), c.delete) {
				t.Errorf("create %d, delete %v", a.create, names(a.delete))
			}
		})
	}
}

func TestStatus(t *testing.T) {
	rs := setOf(5)
	rs.Generation, rs.Spec.MinReadySeconds = 7, 60
	pods := []*corev1.Pod{
		pod("a"), pod("b", "ready=20s"), pod("c", "ready=50s"), pod("d", "unready"), pod("e", "label=b"),
		pod("f", "going"), pod("g", "phase=Failed"), pod("h", "going", "phase=Succeeded"),
	}
	two := int32(2)
	rs.Status.TerminatingReplicas = &two
	one := int32(1)
	s, after := status(rs, pods, "", nil, now)
	want := appsv1.ReplicaSetStatus{ObservedGeneration: 7, Replicas: 5, FullyLabeledReplicas: 4, ReadyReplicas: 4, AvailableReplicas: 2, TerminatingReplicas: &one}
	if diff := cmp.Diff(want, s); diff != "" || after != 10*time.Second {
		t.Errorf("after %v: %s", after, diff)
	}

	other := appsv1.ReplicaSetCondition{Type: "Other"}
	rs.Status.Conditions = []appsv1.ReplicaSetCondition{other}
	s, _ = status(rs, nil, failedCreate, errors.New("quota"), now)
	if len(s.Conditions) != 2 || s.Conditions[1].Reason != failedCreate || s.Conditions[1].Message != "quota" || s.Conditions[1].Status != corev1.ConditionTrue {
		t.Errorf("conditions = %+v", s.Conditions)
	}
	rs.Status = s
	again, _ := status(rs, nil, failedCreate, errors.New("quota, later"), now.Add(time.Hour))
	if diff := cmp.Diff(s.Conditions, again.Conditions); diff != "" {
		t.Errorf("the same failure is written again: %s", diff)
	}
	if s, _ = status(rs, nil, "", nil, now); len(s.Conditions) != 1 {
		t.Errorf("conditions after the failure = %+v", s.Conditions)
	}
}
