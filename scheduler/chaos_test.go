package scheduler

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
)

// TestBoundIsAssumed: writes fail before and after they are done, pods come and
// go meanwhile; no node is ever given more than it has, everything that fits
// ends up on a node, and the books are what the API shows.
func TestBoundIsAssumed(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			run(t, func(b *bench) { chaos(b, rand.New(rand.NewPCG(seed, 0))) })
		})
	}
}

func chaos(b *bench, random *rand.Rand) {
	var mu sync.Mutex // guards random
	coin := func(n int) bool {
		mu.Lock()
		defer mu.Unlock()
		return random.IntN(n) == 0
	}
	failing := func(n int, err error) func([]client.Write) error {
		return func([]client.Write) error {
			if coin(n) {
				return err
			}
			return nil
		}
	}
	stop := b.client.View().Subscribe(b.row("pods"), func(_, now api.Object) {
		used := map[string]int64{}
		for obj := range b.client.View().List(b.row("pods"), "") {
			p := obj.(*corev1.Pod)
			used[p.Spec.NodeName] += p.Spec.Containers[0].Resources.Requests.Cpu().Value()
		}
		for node, n := range used {
			if node != "" && n > 4 {
				b.t.Errorf("node %s has %d CPUs of 4 taken", node, n)
			}
		}
	})
	defer stop()
	b.start()
	b.client.fail(failing(4, apierrors.NewForbidden(corev1.Resource("pods"), "x", errors.New("chaos"))),
		failing(4, apierrors.NewTimeoutError("chaos", 0)))
	for i := range 3 {
		b.node(fmt.Sprintf("n%d", i), 4)
	}
	// Five pods of at most two CPUs always fit on three nodes of four.
	live := map[string]bool{}
	for i := range 60 {
		for len(live) == 5 {
			for _, name := range slices.Sorted(maps.Keys(live)) {
				if coin(5) {
					b.delete("pods", "default", name)
					delete(live, name)
				}
			}
		}
		name := fmt.Sprintf("p%d", i)
		if _, err := b.client.Create(b.t.Context(), b.row("pods"), podOf(name, fmt.Sprint(1+i%2)), metav1.CreateOptions{}); err != nil {
			b.t.Fatal(err)
		}
		live[name] = true
		if coin(3) {
			synctest.Wait()
		}
		if coin(5) {
			b.pass(time.Second)
		}
	}
	b.client.fail(nil, nil)
	b.pass(time.Minute)
	for name := range live {
		if b.get(name).Spec.NodeName == "" {
			b.t.Errorf("pod %s has no node in the end", name)
		}
	}
	b.checkBooks()
}

// checkBooks compares what the scheduler counts with what the API shows.
func (b *bench) checkBooks() {
	b.t.Helper()
	want := map[types.UID]string{}
	for obj := range b.client.View().List(b.row("pods"), "") {
		want[obj.GetUID()] = obj.(*corev1.Pod).Spec.NodeName
	}
	done := make(chan struct{})
	b.s.inbox.ask(func() {
		defer close(done)
		for uid, node := range want {
			if _, at := b.s.cluster.Find(uid); at != node {
				b.t.Errorf("pod %s is on %q in the books, and on %q", uid, at, node)
			}
		}
		if got := b.s.cluster.Pods(); got != len(want) {
			b.t.Errorf("%d pods are in the books, want %d", got, len(want))
		}
		if len(b.s.queue.items) != 0 || len(b.s.assigned) != len(want) {
			b.t.Errorf("%d pods wait, %d are known to be assigned", len(b.s.queue.items), len(b.s.assigned))
		}
	})
	<-done
}
