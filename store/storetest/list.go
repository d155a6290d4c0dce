package storetest

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	testingclock "k8s.io/utils/clock/testing"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/store"
)

// names are NAMESPACE/NAME of a list's items, joined.
func names(l store.List) string {
	var out []string
	for _, obj := range l.Items {
		out = append(out, obj.GetNamespace()+"/"+obj.GetName())
	}
	return strings.Join(out, " ")
}

func (s *suite) list(q store.Query, o store.ListOptions) store.List {
	s.Helper()
	q.Resource = s.configmaps
	l, err := s.List(s.ctx, q, o)
	if err != nil {
		s.Fatalf("list %+v: %v", o, err)
	}
	return l
}

func testList(s *suite) {
	// The order is that of etcd's keys, where - and . come before /.
	for _, cm := range []struct{ namespace, name, color string }{
		{"a", "x", "red"}, {"a-b", "x", "blue"}, {"a", "y", "blue"}, {"b", "x", "red"}, {"a.b", "x", "red"},
	} {
		s.create(colored(cm.namespace, cm.name, cm.color))
	}
	isBlue := func(o api.Object) bool { return o.GetLabels()["color"] == "blue" }
	for _, c := range []struct {
		q    store.Query
		want string
	}{
		{store.Query{}, "a-b/x a.b/x a/x a/y b/x"},
		{store.Query{Namespace: "a"}, "a/x a/y"},
		{store.Query{Namespace: "a", Name: "y"}, "a/y"},
		{store.Query{Namespace: "a", Name: "z"}, ""},
		{store.Query{Name: "x"}, "a-b/x a.b/x a/x b/x"},
		{store.Query{Index: IndexColor, Value: "red"}, "a.b/x a/x b/x"},
		{store.Query{Index: IndexColor, Value: "red", Namespace: "a"}, "a/x"},
		{store.Query{Index: IndexColor, Value: "green"}, ""},
		{store.Query{Match: isBlue}, "a-b/x a/y"},
		{store.Query{Match: isBlue, Namespace: "a", Index: IndexColor, Value: "blue"}, "a/y"},
	} {
		now := s.list(c.q, store.ListOptions{})
		if names(now) != c.want {
			s.Errorf("list %+v: %q, want %q", c.q, names(now), c.want)
		}
	}
	// The same of the past, which the copy no longer has.
	then := s.Revision()
	s.create(colored("a", "z", "red"))
	s.remove("a-b", "x")
	for _, c := range []struct {
		q    store.Query
		want string
	}{
		{store.Query{}, "a-b/x a.b/x a/x a/y b/x"},
		{store.Query{Index: IndexColor, Value: "red", Namespace: "a"}, "a/x"},
		{store.Query{Match: isBlue}, "a-b/x a/y"},
		{store.Query{Namespace: "a", Name: "y"}, "a/y"},
	} {
		o := store.ListOptions{ResourceVersion: then, ResourceVersionMatch: metav1.ResourceVersionMatchExact}
		if past := s.list(c.q, o); names(past) != c.want || past.ResourceVersion != then {
			s.Errorf("list %+v of the past: %q @%s, want %q @%s", c.q, names(past), past.ResourceVersion, c.want, then)
		}
	}
}

func testPaging(s *suite) {
	for i := range 7 {
		s.create(colored("default", fmt.Sprint("cm-", i), []string{"red", "blue"}[i%2]))
	}
	pages := func(q store.Query) (got []string) {
		o := store.ListOptions{Limit: 3}
		for {
			l := s.list(q, o)
			left := "?"
			if l.Remaining != nil {
				left = fmt.Sprint(*l.Remaining)
			}
			got = append(got, fmt.Sprintf("%d+%s", len(l.Items), left))
			if o.Continue = l.Continue; o.Continue == "" {
				return got
			}
		}
	}
	if got := pages(store.Query{}); !slices.Equal(got, []string{"3+4", "3+1", "1+?"}) {
		s.Errorf("pages of 7: %q", got)
	}
	if got := pages(store.Query{Namespace: "default"}); !slices.Equal(got, []string{"3+4", "3+1", "1+?"}) {
		s.Errorf("pages of a namespace: %q", got)
	}
	// With a selector nobody knows what remains without looking at everything.
	red := func(o api.Object) bool { return o.GetLabels()["color"] == "red" }
	if got := pages(store.Query{Match: red}); !slices.Equal(got, []string{"3+?", "1+?"}) {
		s.Errorf("pages of 4 of 7: %q", got)
	}
	for _, bad := range []string{"x", "e30", "bnVsbA"} {
		_, err := s.List(s.ctx, store.Query{Resource: s.configmaps}, store.ListOptions{Continue: bad})
		wantStatus(s, "continue "+bad, err, http.StatusBadRequest, metav1.StatusReasonBadRequest, "continue key is not valid")
	}
}

// All pages show the state of the first one, whatever is written meanwhile.
func testPagingUnderWrites(s *suite) {
	for i := range 10 {
		s.create(configMap("default", fmt.Sprint("cm-", i), "old"))
	}
	first := s.list(store.Query{}, store.ListOptions{Limit: 2})
	o := store.ListOptions{Limit: 3, Continue: first.Continue}
	seen := names(first)
	for i := 0; o.Continue != ""; i++ {
		s.create(configMap("default", fmt.Sprint("cm-5", i), "new"))
		s.remove("default", fmt.Sprint("cm-", 9-i))
		s.update("default", "cm-4", fmt.Sprint(i))
		l := s.list(store.Query{}, o)
		for _, obj := range l.Items {
			if valueOf(obj) != "old" {
				s.Errorf("%s=%s was written after the first page", obj.GetName(), valueOf(obj))
			}
		}
		if l.ResourceVersion != first.ResourceVersion {
			s.Errorf("page @%s, want @%s", l.ResourceVersion, first.ResourceVersion)
		}
		if want := int64(10 - len(strings.Fields(seen)) - len(l.Items)); l.Remaining != nil && *l.Remaining != want {
			s.Errorf("%d remain, want %d", *l.Remaining, want)
		}
		seen += " " + names(l)
		o.Continue = l.Continue
	}
	var want []string
	for i := range 10 {
		want = append(want, fmt.Sprint("default/cm-", i))
	}
	if seen != strings.Join(want, " ") {
		s.Errorf("pages show %q, want %q", seen, want)
	}
	// When history is forgotten, the error has a token with which to go on.
	revision, err := s.engine.CurrentRevision(s.ctx)
	if err != nil {
		s.Fatal(err)
	}
	if err := s.engine.Compact(s.ctx, revision); err != nil {
		s.Fatal(err)
	}
	_, err = s.List(s.ctx, store.Query{Resource: s.configmaps}, store.ListOptions{Continue: first.Continue})
	wantStatus(s, "continue after compaction", err, http.StatusGone, metav1.StatusReasonExpired, "too old to display a consistent list")
	if !apierrors.IsResourceExpired(err) {
		return
	}
	rest := s.list(store.Query{}, store.ListOptions{Continue: err.(apierrors.APIStatus).Status().ListMeta.Continue})
	if !strings.HasPrefix(names(rest), "default/cm-2 default/cm-3") {
		s.Errorf("the inconsistent rest is %q", names(rest))
	}
}

// The table in Kubernetes' "API Concepts", "Resource versions": the semantics
// of list for every combination of version, match and limit.
func testVersionRules(s *suite) {
	clock := testingclock.NewFakeClock(time.Now())
	st := s.open(store.Options{Clock: clock})
	s.create(configMap("default", "a", "1"))
	then := s.Revision()
	s.update("default", "a", "2")
	other := s.create(configMap("default", "b", ""))
	const exact, newer = metav1.ResourceVersionMatchExact, metav1.ResourceVersionMatchNotOlderThan
	for _, c := range []struct {
		rv, want string
		match    metav1.ResourceVersionMatch
		limit    int64
	}{
		{rv: "", want: "2"},
		{rv: then, want: "2"},
		{rv: then, match: newer, want: "2"},
		{rv: then, match: exact, want: "1"},
		{rv: then, limit: 1, want: "1"},
		{rv: then, limit: 1, match: newer, want: "2"},
		{rv: "", limit: 1, want: "2"},
		{rv: "", match: exact, want: "400"},
		{rv: "0", match: exact, want: "400"},
		{rv: "", match: newer, want: "400"},
		{rv: then, match: "Nearly", want: "400"},
		{rv: "x", want: "400"},
		{rv: "-1", want: "400"},
		{rv: "128", match: exact, want: "410"},
	} {
		what := fmt.Sprintf("list rv=%q match=%q limit=%d", c.rv, c.match, c.limit)
		if c.want == "410" {
			revision, err := s.engine.CurrentRevision(s.ctx)
			if err == nil {
				err = s.engine.Compact(s.ctx, revision)
			}
			if err != nil {
				s.Fatal(err)
			}
		}
		l, err := st.List(s.ctx, store.Query{Resource: s.configmaps}, store.ListOptions{ResourceVersion: c.rv, ResourceVersionMatch: c.match, Limit: c.limit})
		switch c.want {
		case "400":
			wantStatus(s, what, err, http.StatusBadRequest, metav1.StatusReasonBadRequest, "")
		case "410":
			wantStatus(s, what, err, http.StatusGone, metav1.StatusReasonExpired, "too old resource version: ")
		default:
			if err != nil || valueOf(l.Items[0]) != c.want {
				s.Errorf("%s: %v, %v; want %s", what, l.Items, err, c.want)
			}
		}
	}
	if got, err := st.Get(s.ctx, s.ref("default", "b"), other.GetResourceVersion()); err != nil || got.GetResourceVersion() != other.GetResourceVersion() {
		s.Errorf("get not older than its own version: %v, %v", got, err)
	}
	future(s, st, clock)
}

// A version that is yet to come is waited for, three seconds.
func future(s *suite, st *store.Store, clock *testingclock.FakeClock) {
	next := fmt.Sprint(version(s.update("default", "a", "3")) + 128)
	came := make(chan error, 1)
	go func() {
		obj, err := st.Get(s.ctx, s.ref("default", "a"), next)
		if err == nil && valueOf(obj) != "4" {
			err = fmt.Errorf("the value is %s, want 4", valueOf(obj))
		}
		came <- err
	}()
	s.update("default", "a", "4")
	if err := <-came; err != nil {
		s.Errorf("get of the next version: %v", err)
	}
	for what, ask := range map[string]func() error{
		"get": func() error {
			_, err := st.Get(s.ctx, s.ref("default", "a"), "999999999")
			return err
		},
		"list": func() error {
			_, err := st.List(s.ctx, store.Query{Resource: s.configmaps}, store.ListOptions{ResourceVersion: "999999999"})
			return err
		},
		"exact list": func() error {
			_, err := st.List(s.ctx, store.Query{Resource: s.configmaps},
				store.ListOptions{ResourceVersion: "999999999", ResourceVersionMatch: metav1.ResourceVersionMatchExact})
			return err
		},
		"watch": func() error {
			_, err := st.Watch(s.ctx, store.Query{Resource: s.configmaps}, store.WatchOptions{ResourceVersion: "999999999", SendInitialEvents: true})
			return err
		},
	} {
		go func() { came <- ask() }()
		waitFor(s, clock.HasWaiters)
		clock.Step(3 * time.Second)
		err := <-came
		wantStatus(s, what+" of the far future", err, http.StatusGatewayTimeout, metav1.StatusReasonTimeout, "Too large resource version: 999999999, current: ")
		if !apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge) {
			s.Errorf("%s of the far future: %v has no cause", what, err)
		}
	}
}

// waitFor returns once a condition holds.
func waitFor(s *suite, condition func() bool) {
	s.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			s.Fatal("the condition never came true")
		}
	}
}
