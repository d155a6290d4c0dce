package store_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"hansa.dev/hansa/store"
	"hansa.dev/hansa/store/memory"
)

// limits is an engine that notes how many keys are asked for.
type limits struct {
	store.Engine
	asked []int64
}

func (l *limits) Range(ctx context.Context, r store.RangeRequest) (store.RangeResponse, error) {
	l.asked = append(l.asked, r.Limit)
	return l.Engine.Range(ctx, r)
}

// Pages have about the size that was asked for, whatever the values have: all keys
// come once, as of one revision.
func TestPagesBySize(t *testing.T) {
	e := &limits{Engine: memory.New(memory.Options{})}
	defer e.Close()
	var want []string
	put := func(n, size int) {
		for range n {
			key := fmt.Sprintf("/registry/k%05d", len(want))
			want = append(want, key)
			if _, err := e.Txn(t.Context(), []store.Step{{Then: []store.Put{{Key: key, Value: make([]byte, size)}}}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(50, 99)
	put(40, 999)
	put(12, 50_000)
	var got []string
	var revision int64
	for page, err := range store.PagesBySize(t.Context(), e, store.RangeRequest{Start: "/registry/", End: "/registry0", Limit: 10}, 10_000) {
		if err != nil {
			t.Fatal(err)
		}
		if revision == 0 {
			revision = page.Revision
			put(1, 1) // is later
			want = want[:len(want)-1]
		}
		for _, kv := range page.KVs {
			got = append(got, kv.Key)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the pages have %q", got)
	}
	// It doubles while values are small, is what fits of those of a thousand bytes,
	// and one of those that are larger than a page.
	if limits := []int64{10, 20, 40, 18, 10, 1, 1, 1, 1}; !slices.Equal(e.asked, limits) {
		t.Errorf("%d keys were asked for, want %d", e.asked, limits)
	}
}
