package storetest

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/store"
)

// wantEvents compares events, whose versions are left out of want.
func wantEvents(s *suite, what string, got []string, want ...string) {
	s.Helper()
	for i := range got {
		got[i], _, _ = strings.Cut(got[i], " @")
	}
	if !slices.Equal(got, want) {
		s.Errorf("%s: %q, want %q", what, got, want)
	}
}

func testWatch(s *suite) {
	w := s.watch(s.Store, store.Query{Resource: s.configmaps}, store.WatchOptions{ResourceVersion: s.Revision()})
	made := s.create(configMap("default", "a", "1"))
	changed := s.update("default", "a", "2")
	gone := s.remove("default", "a")
	got := s.next(w, 3)
	for i, obj := range []api.Object{made, changed, gone} {
		if want := []string{"ADDED default/a=1 @", "MODIFIED default/a=2 @", "DELETED default/a=2 @"}[i] + obj.GetResourceVersion(); got[i] != want {
			s.Errorf("event %d: %q, want %q", i, got[i], want)
		}
	}
	again := s.watch(s.Store, store.Query{Resource: s.configmaps}, store.WatchOptions{ResourceVersion: made.GetResourceVersion()})
	if replay := s.next(again, 2); !slices.Equal(replay, got[1:]) {
		s.Errorf("watch from the first version: %q, want %q", replay, got[1:])
	}
}

// A client that lost its connection after any event resumes from the version of
// that event, and must get exactly what followed: from the store that it was
// connected to, and from one that was started since, which has only the
// engine's history to offer.
func testWatchCut(s *suite) {
	start := s.Revision()
	query := store.Query{Resource: s.configmaps}
	w := s.watch(s.Store, query, store.WatchOptions{ResourceVersion: start})
	total := mixedWrites(s)
	all := s.next(w, total)
	versions := []string{start}
	for _, ev := range all {
		_, rv, _ := strings.Cut(ev, " @")
		if rv == versions[len(versions)-1] {
			s.Fatalf("two events with version %s in %q", rv, all)
		}
		versions = append(versions, rv)
	}
	for what, st := range map[string]*store.Store{"recent": s.Store, "history": s.open(store.Options{})} {
		for i, rv := range versions[:total] {
			w, err := st.Watch(s.ctx, query, store.WatchOptions{ResourceVersion: rv})
			if err != nil {
				s.Fatalf("%s: watch from %s: %v", what, rv, err)
			}
			if got := s.next(w, total-i)[:total-i]; !slices.Equal(got, all[i:]) {
				s.Fatalf("%s: watch from event %d: %q, want %q", what, i, got, all[i:])
			}
			w.Stop()
		}
		// What comes next follows on.
		w := s.watch(st, query, store.WatchOptions{ResourceVersion: s.Revision()})
		s.create(configMap("default", "after-"+what, ""))
		wantEvents(s, what, s.next(w, 1), "ADDED default/after-"+what)
	}
}

// mixedWrites makes transactions of creates, updates, deletions, conflicts,
// sides and other resources' writes, and says how many events of ConfigMaps.
func mixedWrites(s *suite) (events int) {
	var ws []store.Write
	for i := range 12 {
		cm := configMap("default", fmt.Sprintf("cm-%02d", i), "1")
		ws = append(ws, store.Write{Ref: s.ref("default", cm.Name), Create: cm})
	}
	s.batch(ws)
	ws = nil
	for i := range 12 {
		w := store.Write{Ref: s.ref("default", fmt.Sprintf("cm-%02d", i))}
		switch i % 4 {
		case 0, 3:
			w.Change = func(api.Object) (store.Outcome, error) { return store.Outcome{Delete: true}, nil }
		case 1:
			w.Change = set("2")
			w.Options.With = []store.Side{{Key: fmt.Sprint("ranges/r-", i), Value: []byte("x")}}
		case 2:
			// Conflicts within its transaction, writes nothing.
			w.Change = set("never")
			w.Options.With = []store.Side{{Key: fmt.Sprint("ranges/r-", i), Revision: 1, Value: []byte("x")}}
		}
		ws = append(ws, w)
		if i == 5 {
			ws = append(ws, store.Write{
				Ref:    api.Ref{Resource: s.reg.Must("", "namespaces"), Name: "ns"},
				Change: newNamespace(s),
			})
		}
	}
	for i, r := range s.Batch(s.ctx, ws) {
		if store.IsSideConflict(r.Err) != (ws[i].Options.With != nil && ws[i].Options.With[0].Revision == 1) {
			s.Fatalf("write %d: %v", i, r.Err)
		}
	}
	return 12 + 9
}

func newNamespace(s *suite) func(api.Object) (store.Outcome, error) {
	return func(api.Object) (store.Outcome, error) {
		ns := s.reg.Must("", "namespaces").New()
		ns.SetName("ns")
		return store.Outcome{Object: ns}, nil
	}
}

func (s *suite) batch(ws []store.Write) {
	s.Helper()
	for i, r := range s.Batch(s.ctx, ws) {
		if r.Err != nil {
			s.Fatalf("write %d: %v", i, r.Err)
		}
	}
}

// An object that begins to match is ADDED, one that ceases to is DELETED with
// its last matching state under the new version.
func testWatchSelection(s *suite) {
	red := func(o api.Object) bool { return o.GetLabels()["color"] == "red" }
	start := s.Revision()
	history := s.open(store.Options{})
	queries := map[string]store.Query{
		"match":     {Match: red},
		"index":     {Index: IndexColor, Value: "red"},
		"namespace": {Namespace: "a", Match: red},
		"name":      {Namespace: "a", Name: "x", Match: red},
	}
	watchers := map[string]*store.Watcher{}
	for name, q := range queries {
		q.Resource = s.configmaps
		queries[name] = q
		watchers[name] = s.watch(s.Store, q, store.WatchOptions{ResourceVersion: start})
	}
	paint := func(color string) func(api.Object) (store.Outcome, error) {
		return func(cur api.Object) (store.Outcome, error) {
			obj := cur.DeepCopyObject().(api.Object)
			obj.SetLabels(map[string]string{"color": color})
			return store.Outcome{Object: obj}, nil
		}
	}
	s.create(colored("a", "x", "red"))
	s.create(colored("a", "y", "blue"))
	s.create(colored("b", "x", "blue"))
	for _, step := range []struct{ namespace, name, color string }{
		{"a", "x", "blue"}, {"a", "x", "blue"}, {"a", "x", "red"}, {"a", "x", "red"}, {"b", "x", "red"}, {"a", "y", "green"},
	} {
		if _, err := s.Update(s.ctx, s.ref(step.namespace, step.name), store.WriteOptions{}, paint(step.color)); err != nil {
			s.Fatal(err)
		}
	}
	s.remove("a", "x")
	s.remove("a", "y")
	ax := []string{"ADDED a/x", "DELETED a/x", "ADDED a/x", "MODIFIED a/x"}
	all := append(append(slices.Clone(ax), "ADDED b/x"), "DELETED a/x")
	for name, q := range queries {
		want := append(slices.Clone(ax), "DELETED a/x")
		if name == "match" || name == "index" {
			want = all
		}
		got := s.next(watchers[name], len(want))
		replay := s.next(s.watch(history, q, store.WatchOptions{ResourceVersion: start}), len(want))
		if !slices.Equal(got, replay) {
			s.Errorf("%s: history has %q, want %q", name, replay, got)
		}
		wantEvents(s, name, got, want...)
	}
}

func testWatchInitial(s *suite) {
	query := store.Query{Resource: s.configmaps}
	w := s.watch(s.Store, query, store.WatchOptions{SendInitialEvents: true})
	wantEvents(s, "nothing there", s.next(w, 1), "BOOKMARK")
	// More than a batch of them.
	var ws []store.Write
	var want []string
	for i := range 600 {
		cm := configMap("default", fmt.Sprintf("cm-%03d", i), "")
		ws = append(ws, store.Write{Ref: s.ref("default", cm.Name), Create: cm})
		want = append(want, "ADDED default/"+cm.Name)
	}
	s.batch(ws)
	for _, rv := range []string{"", "0"} {
		plain := s.watch(s.Store, query, store.WatchOptions{ResourceVersion: rv})
		marked := s.watch(s.Store, query, store.WatchOptions{ResourceVersion: rv, SendInitialEvents: true})
		last := s.create(configMap("z", "later-"+rv, ""))
		wantEvents(s, "plain", s.next(plain, 601), append(slices.Clone(want), "ADDED z/later-"+rv)...)
		if marked.Progress() != "" {
			s.Errorf("progress before the initial events is %q", marked.Progress())
		}
		got := s.next(marked, 601)
		if p := marked.Progress(); p == "" || p >= last.GetResourceVersion() && len(p) == len(last.GetResourceVersion()) && rv == "" {
			// Whatever was written since may count, but only once it is handed out.
			s.Errorf("progress at the bookmark is %q, before %s", p, last.GetResourceVersion())
		}
		wantEvents(s, "with bookmark", got, append(slices.Clone(want), "BOOKMARK")...)
		wantEvents(s, "after the bookmark", s.next(marked, 1), "ADDED z/later-"+rv)
		s.remove("z", "later-"+rv)
	}
}

func testWatchTooOld(s *suite) {
	query := store.Query{Resource: s.configmaps}
	first := s.create(configMap("default", "a", ""))
	s.update("default", "a", "1")
	revision, err := s.engine.CurrentRevision(s.ctx)
	if err != nil {
		s.Fatal(err)
	}
	fresh := s.open(store.Options{})
	if err := s.engine.Compact(s.ctx, revision); err != nil {
		s.Fatal(err)
	}
	_, err = fresh.Watch(s.ctx, query, store.WatchOptions{ResourceVersion: first.GetResourceVersion()})
	wantStatus(s, "watch of what is compacted", err, http.StatusGone, metav1.StatusReasonExpired, "too old resource version: "+first.GetResourceVersion())

	// A watcher that does not read is left behind, and told so. One of an
	// object that nobody writes to is not.
	slow := s.watch(s.Store, query, store.WatchOptions{ResourceVersion: s.Revision()})
	idle := s.watch(s.Store, store.Query{Resource: s.configmaps, Namespace: "default", Name: "a"}, store.WatchOptions{ResourceVersion: s.Revision()})
	big := strings.Repeat("x", 200<<10)
	s.create(configMap("default", "b", ""))
	for i := range 60 {
		s.update("default", "b", fmt.Sprint(i, big))
	}
	_, err = slow.Next(s.ctx)
	wantStatus(s, "slow watcher", err, http.StatusGone, metav1.StatusReasonExpired, "too old resource version: ")
	s.update("default", "a", "2")
	wantEvents(s, "idle watcher", s.next(idle, 1), "MODIFIED default/a=2")
}

func testProgress(s *suite) {
	query := store.Query{Resource: s.configmaps, Namespace: "default", Name: "a"}
	w := s.watch(s.Store, query, store.WatchOptions{ResourceVersion: s.Revision()})
	other := s.create(configMap("default", "b", ""))
	if p := w.Progress(); p != s.Revision() || p < other.GetResourceVersion() {
		s.Errorf("progress is %s although nothing happened that concerns the watcher; want %s", p, s.Revision())
	}
	mine := s.create(configMap("default", "a", ""))
	if p := w.Progress(); p >= mine.GetResourceVersion() && len(p) == len(mine.GetResourceVersion()) {
		s.Errorf("progress is %s, but %s was not handed out", p, mine.GetResourceVersion())
	}
	s.next(w, 1)
	read, cancel := context.WithCancel(s.ctx)
	done := make(chan error)
	go func() {
		_, err := w.Next(read)
		done <- err
	}()
	// The batch counts once Next is called again.
	waitFor(s, func() bool { return w.Progress() == s.Revision() })
	cancel()
	<-done
}

func testEncodings(s *suite) {
	red := func(o api.Object) bool { return o.GetLabels()["color"] == "red" }
	start := s.Revision()
	all := store.Query{Resource: s.configmaps}
	ws := []*store.Watcher{
		s.watch(s.Store, all, store.WatchOptions{ResourceVersion: start}),
		s.watch(s.Store, all, store.WatchOptions{ResourceVersion: start}),
		s.watch(s.Store, store.Query{Resource: s.configmaps, Match: red}, store.WatchOptions{ResourceVersion: start}),
	}
	s.create(colored("default", "a", "red"))
	s.update("default", "a", "1")
	if _, err := s.Update(s.ctx, s.ref("default", "a"), store.WriteOptions{}, func(cur api.Object) (store.Outcome, error) {
		obj := cur.DeepCopyObject().(api.Object)
		obj.SetLabels(nil)
		return store.Outcome{Object: obj}, nil
	}); err != nil {
		s.Fatal(err)
	}
	var mu sync.Mutex
	times := map[string]int{}
	for _, w := range ws {
		for seen := 0; seen < 3; {
			events, err := w.Next(s.ctx)
			if err != nil {
				s.Fatal(err)
			}
			for _, ev := range events {
				seen++
				text := show(ev)
				got, err := ev.Encoded("json", func() ([]byte, error) {
					mu.Lock()
					defer mu.Unlock()
					times[text]++
					return []byte(text), nil
				})
				if err != nil || string(got) != text {
					s.Errorf("encoding of %q is %q, %v", text, got, err)
				}
			}
		}
	}
	for text, n := range times {
		if n != 1 {
			s.Errorf("%q was encoded %d times", text, n)
		}
	}
	// To the third watcher the last change was a deletion.
	if len(times) != 4 {
		s.Errorf("encoded %v, want 3 changes and the deletion", times)
	}
}
