package storetest

import (
	"errors"
	"fmt"
	"strings"

	"hansa.dev/hansa/store"
)

// testEngine is about the engine alone.
func testEngine(s *suite) {
	e, ctx := s.engine, s.ctx
	start, err := e.CurrentRevision(ctx)
	if err != nil {
		s.Fatal(err)
	}
	put := func(key, value string) store.Put { return store.Put{Key: key, Value: []byte(value)} }
	txn := func(steps ...store.Step) store.TxnResponse {
		s.Helper()
		resp, err := e.Txn(ctx, steps)
		if err != nil {
			s.Fatal(err)
		}
		return resp
	}
	first := txn(store.Step{Then: []store.Put{put("/t/a", "1"), put("/t/b", "1")}})
	if first.Revision != start+1 || !first.Steps[0].OK {
		s.Fatalf("first transaction: %+v, want revision %d", first, start+1)
	}
	// Each step conflicts alone, and says what it met.
	second := txn(
		store.Step{If: []store.Condition{{Key: "/t/a", Revision: first.Revision}}, Then: []store.Put{put("/t/a", "2")}},
		store.Step{
			If:   []store.Condition{{Key: "/t/b", Revision: first.Revision - 1}, {Key: "/t/none"}},
			Then: []store.Put{put("/t/b", "2")},
		},
		store.Step{If: []store.Condition{{Key: "/t/c"}}, Then: []store.Put{put("/t/c", "1")}},
	)
	if !second.Steps[0].OK || second.Steps[1].OK || !second.Steps[2].OK || second.Revision != start+2 {
		s.Errorf("second transaction: %+v", second)
	}
	if found := second.Steps[1].Found; len(found) != 2 || found[0].ModRevision != first.Revision || found[1].ModRevision != 0 {
		s.Errorf("the step that conflicted found %+v", found)
	}
	// A transaction of nothing but conflicts has no revision of its own.
	third := txn(store.Step{If: []store.Condition{{Key: "/t/a", Revision: 1, Create: true}}, Then: []store.Put{put("/t/a", "3")}})
	if third.Steps[0].OK || third.Revision != start+2 {
		s.Errorf("third transaction: %+v", third)
	}
	fourth := txn(store.Step{
		If:   []store.Condition{{Key: "/t/a", Revision: first.Revision, Create: true}},
		Then: []store.Put{{Key: "/t/a", Delete: true}, {Key: "/t/none", Delete: true}},
	})
	if !fourth.Steps[0].OK || fourth.Revision != start+3 {
		s.Errorf("fourth transaction: %+v", fourth)
	}
	show := func(kvs []store.KV) string {
		var b strings.Builder
		for _, kv := range kvs {
			fmt.Fprintf(&b, "%s=%s@%d,%d ", kv.Key, kv.Value, kv.CreateRevision-start, kv.ModRevision-start)
		}
		return strings.TrimSpace(b.String())
	}
	for _, r := range []struct {
		req  store.RangeRequest
		want string
		more bool
	}{
		{store.RangeRequest{Start: "/t/", End: "/t0"}, "/t/b=1@1,1 /t/c=1@2,2", false},
		{store.RangeRequest{Start: "/t/", End: "/t0", Limit: 1}, "/t/b=1@1,1", true},
		{store.RangeRequest{Start: "/t/a", Revision: start + 2}, "/t/a=2@1,2", false},
		{store.RangeRequest{Start: "/t/", End: "/t0", Revision: start + 1}, "/t/a=1@1,1 /t/b=1@1,1", false},
	} {
		resp, err := e.Range(ctx, r.req)
		if err != nil || show(resp.KVs) != r.want || resp.More != r.more || resp.Revision != start+3 {
			s.Errorf("range %+v: %s, more %v, revision %d, %v; want %s", r.req, show(resp.KVs), resp.More, resp.Revision-start, err, r.want)
		}
	}
	if _, err := e.Range(ctx, store.RangeRequest{Start: "/t/a", Revision: start + 9}); !errors.Is(err, store.ErrFutureRevision) {
		s.Errorf("range of the future: %v", err)
	}
	testEngineWatch(s, start)
}

func testEngineWatch(s *suite, start int64) {
	e, ctx := s.engine, s.ctx
	stream, err := e.Watch(ctx, start+1, true)
	if err != nil {
		s.Fatal(err)
	}
	defer stream.Close()
	var got []string
	for len(got) < 5 {
		events, err := stream.Next(ctx)
		if err != nil {
			s.Fatal(err)
		}
		for _, ev := range events {
			text := fmt.Sprintf("%d %s=%s", ev.ModRevision-start, ev.Key, ev.Value)
			if ev.Delete {
				text = fmt.Sprintf("%d %s gone", ev.ModRevision-start, ev.Key)
			}
			if ev.Prev != nil {
				text += " was " + string(ev.Prev.Value)
			}
			got = append(got, text)
		}
	}
	want := "1 /t/a=1|1 /t/b=1|2 /t/a=2 was 1|2 /t/c=1|3 /t/a gone was 2"
	if strings.Join(got, "|") != want {
		s.Errorf("events %q, want %q", got, want)
	}
	for range 2 {
		if err := e.Compact(ctx, start+2); err != nil {
			s.Errorf("compact: %v", err)
		}
	}
	var gone *store.CompactedError
	if _, err := e.Range(ctx, store.RangeRequest{Start: "/t/a", Revision: start + 1}); !errors.As(err, &gone) {
		s.Errorf("range of what is compacted: %v", err)
	}
	if resp, err := e.Range(ctx, store.RangeRequest{Start: "/t/a", Revision: start + 2}); err != nil || len(resp.KVs) != 1 {
		s.Errorf("range at the compacted revision itself: %v, %v", resp, err)
	}
	old, err := e.Watch(ctx, start+1, false)
	if err == nil {
		defer old.Close()
		_, err = old.Next(ctx)
	}
	if !errors.As(err, &gone) {
		s.Errorf("watch of what is compacted: %v", err)
	}
}
