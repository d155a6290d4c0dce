package kinds_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
)

func newPod(t *testing.T, text string) *corev1.Pod {
	t.Helper()
	p := &corev1.Pod{}
	if err := yaml.UnmarshalStrict([]byte(text), p); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestBind(t *testing.T) {
	bind := kinds.Registry().Must("", "pods").Subresources["binding"].Put
	p := newPod(t, `
metadata: {name: p, uid: u, resourceVersion: "7", annotations: {a: old, b: kept}}
status: {nominatedNodeName: n0, conditions: [{type: PodScheduled, status: "False", reason: Unschedulable, message: m}]}`)
	body := &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: "p", UID: "u", ResourceVersion: "6", Annotations: map[string]string{"a": "new"}, Labels: map[string]string{"zone": "z"}},
		Target:     corev1.ObjectReference{Kind: "Node", Name: "n1"},
	}
	if err := bind(p, body, now); err != nil {
		t.Fatal(err)
	}
	want := newPod(t, `
metadata: {name: p, uid: u, resourceVersion: "6", annotations: {a: new, b: kept}, labels: {zone: z}}
spec: {nodeName: n1}
status: {conditions: [{type: PodScheduled, status: "True"}]}`)
	want.Status.Conditions[0].LastTransitionTime = metav1.NewTime(now)
	if diff := cmp.Diff(want, p); diff != "" {
		t.Errorf("bound pod (-want +got):\n%s", diff)
	}
}

func TestBindRefused(t *testing.T) {
	bind := kinds.Registry().Must("", "pods").Subresources["binding"].Put
	node := corev1.ObjectReference{Name: "n1"}
	for name, c := range map[string]struct {
		pod  string
		body corev1.Binding
		is   func(error) bool
	}{
		"bound":       {"spec: {nodeName: n0}", corev1.Binding{Target: node}, apierrors.IsConflict},
		"gated":       {"spec: {schedulingGates: [{name: g}]}", corev1.Binding{Target: node}, apierrors.IsConflict},
		"deleted":     {`metadata: {deletionTimestamp: "2026-01-01T00:00:00Z"}`, corev1.Binding{Target: node}, apierrors.IsConflict},
		"another pod": {"metadata: {uid: u}", corev1.Binding{ObjectMeta: metav1.ObjectMeta{UID: "v"}, Target: node}, apierrors.IsConflict},
		"other name":  {"metadata: {name: a}", corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "b"}, Target: node}, apierrors.IsBadRequest},
		"no node": {"metadata: {name: a}", corev1.Binding{}, func(err error) bool {
			return apierrors.ReasonForError(err) == "" && err.Error() == "target.name: Required value"
		}},
	} {
		p := newPod(t, c.pod)
		before := p.DeepCopy()
		if err := bind(p, &c.body, now); !c.is(err) {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(before, p); diff != "" {
			t.Errorf("%s: the pod was changed:\n%s", name, diff)
		}
	}
}

// TestGracePeriod follows the row, as deletion in the server does.
func TestGracePeriod(t *testing.T) {
	row := kinds.Registry().Must("", "pods")
	for name, c := range map[string]struct {
		pod  string
		opts metav1.DeleteOptions
		want int64
	}{
		"the pod's own":       {"spec: {nodeName: n1, terminationGracePeriodSeconds: 30}", metav1.DeleteOptions{}, 30},
		"the client's":        {"spec: {nodeName: n1, terminationGracePeriodSeconds: 30}", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](5)}, 5},
		"at once":             {"spec: {nodeName: n1, terminationGracePeriodSeconds: 30}", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}, 0},
		"negative":            {"spec: {nodeName: n1, terminationGracePeriodSeconds: -5}", metav1.DeleteOptions{}, 1},
		"on no node":          {"spec: {terminationGracePeriodSeconds: 30}", metav1.DeleteOptions{}, 0},
		"ended":               {"{spec: {nodeName: n1, terminationGracePeriodSeconds: 30}, status: {phase: Failed}}", metav1.DeleteOptions{}, 0},
		"on no node, for 5 s": {"spec: {terminationGracePeriodSeconds: 30}", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](5)}, 0},
	} {
		if got := row.GracePeriod(newPod(t, c.pod), &c.opts); got != c.want {
			t.Errorf("%s: %d s, want %d", name, got, c.want)
		}
	}
}

func TestPodFields(t *testing.T) {
	row := kinds.Registry().Must("", "pods")
	p := newPod(t, `
spec: {nodeName: n1, hostNetwork: true, restartPolicy: Never, schedulerName: s, serviceAccountName: a}
status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]}`)
	set := row.Fields(p)
	for label, want := range map[string]string{
		"spec.nodeName": "n1", "spec.host": "n1", "spec.hostNetwork": "true", "spec.restartPolicy": "Never", "spec.schedulerName": "s",
		"spec.serviceAccountName": "a", "status.phase": "Running", "status.podIP": "10.0.0.1", "status.podIPs": "",
		"status.nominatedNodeName": "",
	} {
		if set[label] != want {
			t.Errorf("%s is %q, want %q", label, set[label], want)
		}
	}
	if got := row.Indexes[0]; got.Name != api.IndexNode || !cmp.Equal(got.Values(p), []string{"n1"}) {
		t.Errorf("index %s: %v", got.Name, got.Values(p))
	}
}
