package status_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/agent/status"
	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/apiserver/request/requesttest"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/direct"
)

// counting is a client that counts writes, and can be held back or made to fail.
type counting struct {
	client.Interface
	mu      sync.Mutex
	batches [][]string
	gate    chan struct{}
	err     error
	before  func() // once, before the next batch
}

func (c *counting) Batch(ctx context.Context, writes []client.Write) []client.Result {
	c.mu.Lock()
	var names []string
	for _, w := range writes {
		names = append(names, w.Update.GetName())
	}
	slices.Sort(names)
	c.batches = append(c.batches, names)
	gate, err, before := c.gate, c.err, c.before
	c.err, c.before = nil, nil
	c.mu.Unlock()
	if before != nil {
		before()
	}
	if gate != nil {
		<-gate
	}
	if err != nil {
		out := make([]client.Result, len(writes))
		for i := range out {
			out[i].Err = err
		}
		return out
	}
	return c.Interface.Batch(ctx, writes)
}

type rig struct {
	t      *testing.T
	client *counting
	pusher *status.Pusher
	row    *api.Resource
}

func newRig(t *testing.T) *rig {
	c := &counting{Interface: direct.New(requesttest.Handler(t, nil), requesttest.Admin, "test")}
	r := &rig{t: t, client: c, pusher: status.New(c, clock.RealClock{}, slog.Default()), row: kinds.Registry().Must("", "pods")}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.pusher.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	return r
}

func (r *rig) pod(name string) *v1.Pod {
	r.t.Helper()
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: v1.PodSpec{NodeName: "n1", Containers: []v1.Container{{Name: "a", Image: "i"}}}}
	out, err := r.client.Create(r.t.Context(), r.row, p, metav1.CreateOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	return out.(*v1.Pod)
}

func (r *rig) flush(p *v1.Pod) *v1.Pod {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	if err := r.pusher.Flush(ctx, p.UID); err != nil {
		r.t.Fatal(err)
	}
	now, _ := r.client.View().Get(r.row, api.Key{Namespace: p.Namespace, Name: p.Name}).(*v1.Pod)
	return now
}

func saying(message string) *v1.PodStatus {
	return &v1.PodStatus{Phase: v1.PodPending, QOSClass: v1.PodQOSBestEffort, Message: message}
}

// What is set while a batch is on its way gathers in the next one, the newest
// of each pod.
func TestCoalesce(t *testing.T) {
	r := newRig(t)
	a, b, c := r.pod("a"), r.pod("b"), r.pod("c")
	gate := make(chan struct{})
	r.client.gate = gate
	r.pusher.Set(a, saying("first"))
	for {
		r.client.mu.Lock()
		n := len(r.client.batches)
		r.client.mu.Unlock()
		if n == 1 {
			break
		}
	}
	for i := range 10 {
		r.pusher.Set(b, saying(fmt.Sprint(i)))
		r.pusher.Set(c, saying(fmt.Sprint(i)))
	}
	close(gate)
	if got := r.flush(b).Status.Message; got != "9" {
		t.Errorf("b says %q", got)
	}
	if got := r.flush(a).Status.Message; got != "first" {
		t.Errorf("a says %q", got)
	}
	r.flush(c)
	if want := [][]string{{"a"}, {"b", "c"}}; !slices.EqualFunc(r.client.batches, want, slices.Equal) {
		t.Errorf("batches %v, want %v", r.client.batches, want)
	}
	// What is there already is not written.
	r.pusher.Set(c, saying("9"))
	r.flush(c)
	if len(r.client.batches) != 2 {
		t.Errorf("batches %v", r.client.batches)
	}
}

// A conflict and a failing server are tried again; a pod that is gone is not.
func TestAgain(t *testing.T) {
	r := newRig(t)
	a := r.pod("a")
	r.client.err = apierrors.NewConflict(v1.Resource("pods"), "a", errors.New("changed"))
	r.pusher.Set(a, saying("x"))
	if got := r.flush(a).Status.Message; got != "x" {
		t.Errorf("after a conflict: %q", got)
	}
	r.client.err = errors.New("no server")
	r.pusher.Set(a, saying("y"))
	if got := r.flush(a).Status.Message; got != "y" {
		t.Errorf("after a failure: %q", got)
	}
	// A write that was refused since it came from an older pod than there is.
	r.client.before = func() {
		if _, err := r.client.Patch(t.Context(), api.RefTo(r.row, a), types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{}, ""); err != nil {
			t.Error(err)
		}
	}
	r.client.err = apierrors.NewForbidden(v1.Resource("pods"), "a", errors.New("cannot update labels"))
	r.pusher.Set(a, saying("z"))
	if got := r.flush(a).Status.Message; got != "z" {
		t.Errorf("after a label has changed: %q", got)
	}
	// One that is refused for what it says.
	r.client.err = apierrors.NewForbidden(v1.Resource("pods"), "a", errors.New("not yours"))
	r.pusher.Set(a, saying("refused"))
	if got := r.flush(a).Status.Message; got != "z" {
		t.Errorf("after a refusal: %q", got)
	}
	gone := a.DeepCopy()
	gone.UID = "another"
	r.pusher.Set(gone, saying("another's"))
	if got := r.flush(gone).Status.Message; got != "z" {
		t.Errorf("a pod of another UID was written: %q", got)
	}
	r.pusher.Set(a, saying("dropped"))
	r.pusher.Forget(a.UID)
	r.flush(a)
}

// The agent's conditions are the agent's, all others are kept as they are now.
func TestMerge(t *testing.T) {
	now := &v1.PodStatus{NominatedNodeName: "n2", Conditions: []v1.PodCondition{
		{Type: v1.PodReady, Status: v1.ConditionFalse}, {Type: "gate", Status: v1.ConditionTrue}, {Type: v1.DisruptionTarget, Status: v1.ConditionTrue, Reason: "PreemptionByScheduler"},
	}}
	want := &v1.PodStatus{Phase: v1.PodRunning, Conditions: []v1.PodCondition{
		{Type: v1.PodReady, Status: v1.ConditionTrue}, {Type: "gate", Status: v1.ConditionFalse}, {Type: "stale", Status: v1.ConditionTrue},
	}}
	got := status.Merge(now, want)
	var text []string
	for _, c := range got.Conditions {
		text = append(text, fmt.Sprintf("%s=%s", c.Type, c.Status))
	}
	if !slices.Equal(text, []string{"Ready=True", "gate=True", "DisruptionTarget=True"}) || got.NominatedNodeName != "n2" || got.Phase != v1.PodRunning {
		t.Errorf("%v %+v", text, got)
	}
}
