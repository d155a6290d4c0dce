package scheduler

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/scheduler/core"
)

// line is a queue and the time in it.
type line struct {
	*queue
	now time.Time
}

func newLine() *line { return &line{newQueue(), time.Unix(0, 0)} }

func (l *line) add(name string, priority int32, labels ...string) *item {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name)}}
	p.Spec.Priority = &priority
	if len(labels) > 0 {
		p.Labels = map[string]string{"app": labels[0]}
	}
	return l.queue.add(api.Key{Namespace: "default", Name: name}, p, l.now)
}

func (l *line) pass(d time.Duration) { l.now = l.now.Add(d) }

// try pops a pod as if it were tried.
func (l *line) try() *item {
	it := l.pop(l.now)
	if it != nil {
		it.pending = core.NewPending(it.pod, nil)
	}
	return it
}

// all pops and refuses everything that may be tried now.
func (l *line) all() string {
	var names []string
	var tried []*item
	for it := l.try(); it != nil; it = l.try() {
		names = append(names, it.key.Name)
		tried = append(tried, it)
	}
	for _, it := range tried {
		l.refuse(it, core.NodeResourcesFit, l.now)
	}
	return strings.Join(names, " ")
}

func always(*core.Pending, core.Filter) bool { return true }

func TestQueueOrder(t *testing.T) {
	l := newLine()
	l.add("old", 0)
	l.pass(time.Second)
	l.add("new", 0)
	l.add("newer", 0)
	l.add("high", 7)
	l.add("low", -7)
	if got := l.all(); got != "high old new newer low" {
		t.Errorf("order is %s", got)
	}
}

// A class is woken one by one: each that finds a node wakes the next.
func TestQueueWakesOneOfAClass(t *testing.T) {
	l := newLine()
	for i := range 3 {
		l.add(fmt.Sprintf("a%d", i), 0, "a")
		l.add(fmt.Sprintf("b%d", i), 0, "b")
	}
	l.all()
	l.pass(time.Minute)
	l.wakeIf(always, l.now)
	var first []string
	it := l.try()
	first = append(first, it.key.Name, l.try().key.Name)
	slices.Sort(first)
	if fmt.Sprint(first) != "[a0 b0]" || l.try() != nil {
		t.Errorf("first came %v", first)
	}
	l.placed(it, l.now)
	next := l.try()
	if next == nil || next.key.Name[0] != it.key.Name[0] || l.try() != nil {
		t.Errorf("after %s came %v", it.key.Name, next)
	}
}

// Backoff yields to pods that are active, and to nobody else.
func TestQueueBackoff(t *testing.T) {
	l := newLine()
	it := l.add("refused", 9)
	l.all()
	l.add("fresh", 0)
	l.wake(it, l.now)
	if got := l.all(); got != "fresh refused" {
		t.Errorf("order is %s, want the refused one last", got)
	}
	// Its second backoff is two seconds; then it is back in line.
	l.wake(it, l.now)
	l.pass(2 * time.Second)
	l.add("fresher", 0)
	if got := l.all(); got != "refused fresher" {
		t.Errorf("order is %s, want priority to count again", got)
	}
	for n, want := range []time.Duration{1: time.Second, 2: 2 * time.Second, 4: 8 * time.Second, 5: 10 * time.Second, 99: 10 * time.Second} {
		if n > 0 && want > 0 && backoff(n) != want {
			t.Errorf("backoff(%d) = %v, want %v", n, backoff(n), want)
		}
	}
}

// Errors are backed off from even if nobody else waits.
func TestQueueFailure(t *testing.T) {
	l := newLine()
	l.add("a", 0)
	it := l.try()
	l.fail(it, l.now)
	if l.try() != nil || !l.next().Equal(l.now.Add(time.Second)) {
		t.Errorf("the next time is %v", l.next())
	}
	l.wakeIf(always, l.now)
	if l.try() != nil {
		t.Error("an event woke it")
	}
	l.pass(time.Second)
	if l.try() != it {
		t.Error("it does not come back")
	}
}

// While evictions are written nothing wakes the pod, not even patience; what
// happened meanwhile is not lost.
func TestQueuePreempting(t *testing.T) {
	l := newLine()
	it := l.add("a", 0)
	it = l.try()
	it.preempting = true
	l.refuse(it, core.NodeResourcesFit, l.now)
	l.wake(it, l.now)
	l.pass(2 * patience)
	if l.try() != nil || !it.helped {
		t.Error("it was tried while it preempts")
	}
	it.preempting = false
	l.wake(it, l.now)
	if l.try() != it {
		t.Error("it was not tried afterwards")
	}
}

func TestQueueGates(t *testing.T) {
	l := newLine()
	it := l.add("a", 0)
	closed := it.pod.DeepCopy()
	closed.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "g"}}
	l.remove(it)
	it = l.queue.add(it.key, closed, l.now)
	if l.try() != nil {
		t.Error("a gated pod was tried")
	}
	open := closed.DeepCopy()
	open.Spec.SchedulingGates = nil
	l.change(it, open, l.now)
	if l.try() != it {
		t.Error("an open gate did not let it through")
	}
}

// However an item is moved about, it is in one place, and goes without a trace.
func TestQueueRemove(t *testing.T) {
	l := newLine()
	for name, prepare := range map[string]func() *item{
		"active":  func() *item { return l.add("a", 0) },
		"decided": func() *item { l.add("b", 0); return l.try() },
		"waiting": func() *item { it := l.add("c", 0); l.all(); return it },
		"woken":   func() *item { it := l.add("d", 0); l.all(); l.wake(it, l.now); return it },
		"failed":  func() *item { l.add("e", 0); it := l.try(); l.fail(it, l.now); return it },
	} {
		l.remove(prepare())
		left := len(l.items) + len(l.classes)
		for i := range l.heaps {
			left += l.heaps[i].Len()
		}
		if left != 0 || !l.next().IsZero() || l.try() != nil {
			t.Errorf("%s: %d are left", name, left)
		}
	}
}
