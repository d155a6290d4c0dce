package controller

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// Documentation: "Owners and Dependents"; the rules of Kubernetes' controllers.
func TestClaim(t *testing.T) {
	at := metav1.Now()
	object := func(name, app string, owner types.UID, deleting bool) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": app}}}
		if owner != "" {
			yes := true
			p.OwnerReferences = []metav1.OwnerReference{{UID: owner, Controller: &yes}}
		}
		if deleting {
			p.DeletionTimestamp = &at
		}
		return p
	}
	all := []*corev1.Pod{
		object("ours", "a", "me", false),
		object("ours, no match", "b", "me", false),
		object("ours, going", "a", "me", true),
		object("free", "a", "", false),
		object("free, going", "a", "", true),
		object("free, no match", "b", "", false),
		object("theirs", "a", "them", false),
	}
	selector := labels.Set{"app": "a"}.AsSelector()
	check := func(owner metav1.Object, owned, adopt, release int) {
		t.Helper()
		c := Claim(owner, selector, all)
		if len(c.Owned) != owned || len(c.Adopt) != adopt || len(c.Release) != release {
			t.Errorf("owned %d, adopt %d, release %d; want %d, %d, %d", len(c.Owned), len(c.Adopt), len(c.Release), owned, adopt, release)
		}
	}
	check(&metav1.ObjectMeta{UID: "me"}, 2, 1, 1)
	check(&metav1.ObjectMeta{UID: "me", DeletionTimestamp: &at}, 2, 0, 0)
}

// When all calls fail for one reason, few are made.
func TestSlowStart(t *testing.T) {
	for _, c := range []struct{ n, failFrom, calls, done int }{
		{0, 0, 0, 0}, {10, 100, 10, 10}, {100, 0, 1, 0}, {100, 3, 7, 3}, {100, 5, 7, 5},
	} {
		var calls atomic.Int32
		done, err := SlowStart(t.Context(), c.n, func(_ context.Context, i int) error {
			calls.Add(1)
			if i >= c.failFrom {
				return errors.New("full")
			}
			return nil
		})
		if int(calls.Load()) != c.calls || done != c.done || (err != nil) != (c.done < c.n) {
			t.Errorf("%d, failing from %d: %d calls, %d done, %v", c.n, c.failFrom, calls.Load(), done, err)
		}
	}
}

func TestAtOnce(t *testing.T) {
	var mu sync.Mutex
	seen := map[int]bool{}
	err := AtOnce(t.Context(), 100, func(_ context.Context, i int) error {
		mu.Lock()
		defer mu.Unlock()
		seen[i] = true
		if i >= 40 {
			return errors.New(string(rune('0' + i%10)))
		}
		return nil
	})
	if len(seen) != 100 || err == nil || err.Error() != "0" {
		t.Errorf("%d calls, %v", len(seen), err)
	}
	if err := AtOnce(t.Context(), 0, nil); err != nil {
		t.Error(err)
	}
}
