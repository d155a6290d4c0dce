package storetest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/store"
)

// Run is the suite. newEngine makes an empty engine; the suite closes it.
func Run(t *testing.T, newEngine func(t *testing.T) store.Engine) {
	run := func(name string, f func(s *suite)) {
		t.Run(name, func(t *testing.T) { f(newSuite(t, newEngine(t), store.Options{})) })
	}
	run("engine", testEngine)
	run("objects", testObjects)
	run("refusals", testRefusals)
	run("keys", testKeys)
	run("versions", testVersions)
	run("batch", testBatch)
	run("batch larger than a transaction", testLargeBatch)
	run("object larger than a transaction", testLargeObject)
	run("fence", testFence)
	run("sides", testSides)
	run("ttl", testTTL)
	run("conflicts", testCounter)
	run("two servers", testTwoServers)
	run("cancelled", testCancelled)
	run("list", testList)
	run("paging", testPaging)
	run("paging under writes", testPagingUnderWrites)
	run("resource version rules", testVersionRules)
	run("watch", testWatch)
	run("watch cut after every event", testWatchCut)
	run("watch of a selection", testWatchSelection)
	run("watch from the beginning", testWatchInitial)
	run("watch too old", testWatchTooOld)
	run("progress", testProgress)
	run("encodings", testEncodings)
	run("view", testView)
	run("newer data", testNewerData)
	run("reopen", testReopen)
	t.Run("twin", func(t *testing.T) { testTwin(t, newEngine) })
}

func testObjects(s *suite) {
	ref := s.ref("default", "a")
	if _, err := s.Get(s.ctx, ref, ""); !apierrors.IsNotFound(err) {
		s.Errorf("get of nothing: %v, want NotFound", err)
	}
	made := s.create(configMap("default", "a", "1"))
	if got, err := s.Get(s.ctx, ref, ""); err != nil || got != made {
		s.Errorf("get after create gives %v, %v; want the object that create gave", got, err)
	}
	if gvk := made.GetObjectKind().GroupVersionKind(); !gvk.Empty() {
		s.Errorf("a stored object says that it is a %v; want no TypeMeta", gvk)
	}
	changed := s.update("default", "a", "2")
	if valueOf(made) != "1" || valueOf(changed) != "2" {
		s.Errorf("values are %q and then %q, want 1 and 2", valueOf(made), valueOf(changed))
	}
	if got, err := s.Get(s.ctx, ref, ""); err != nil || got != changed {
		s.Errorf("get after update gives %v, %v", got, err)
	}
	gone := s.remove("default", "a")
	if valueOf(gone) != "2" || version(gone) <= version(changed) {
		s.Errorf("deleted %q @%d, want the last state with a newer version than %d", valueOf(gone), version(gone), version(changed))
	}
	if _, err := s.Get(s.ctx, ref, "0"); !apierrors.IsNotFound(err) {
		s.Errorf("get after delete: %v, want NotFound", err)
	}
}

func version(obj api.Object) int64 {
	rv, err := strconv.ParseInt(obj.GetResourceVersion(), 10, 64)
	if err != nil {
		panic(err)
	}
	return rv
}

func testRefusals(s *suite) {
	s.create(configMap("default", "a", "1"))
	_, err := s.Create(s.ctx, s.configmaps, configMap("default", "a", "2"), store.WriteOptions{})
	wantStatus(s, "create of what exists", err, http.StatusConflict, metav1.StatusReasonAlreadyExists, `configmaps "a" already exists`)

	_, err = s.Delete(s.ctx, s.ref("default", "b"), store.WriteOptions{}, nil)
	wantStatus(s, "delete of nothing", err, http.StatusNotFound, metav1.StatusReasonNotFound, `configmaps "b" not found`)

	mine := errors.New("no")
	_, err = s.Delete(s.ctx, s.ref("default", "a"), store.WriteOptions{}, func(api.Object) error { return mine })
	if err != mine {
		s.Errorf("delete with an objection: %v, want the objection", err)
	}
	before := s.Revision()
	obj, err := s.Update(s.ctx, s.ref("default", "a"), store.WriteOptions{}, func(cur api.Object) (store.Outcome, error) {
		return store.Outcome{Unchanged: true}, nil
	})
	if err != nil || valueOf(obj) != "1" || s.Revision() != before {
		s.Errorf("update without change: %v, %v, revision %s (was %s)", obj, err, s.Revision(), before)
	}
	obj, err = s.Update(s.ctx, s.ref("default", "new"), store.WriteOptions{}, func(cur api.Object) (store.Outcome, error) {
		if cur != nil {
			return store.Outcome{}, errors.New("something there")
		}
		return store.Outcome{Object: configMap("default", "new", "made")}, nil
	})
	if err != nil || valueOf(obj) != "made" {
		s.Errorf("update that creates: %v, %v", obj, err)
	}
}

func wantStatus(s *suite, what string, err error, code int32, reason metav1.StatusReason, message string) {
	s.Helper()
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		s.Errorf("%s: %v, want an API status", what, err)
		return
	}
	got := status.Status()
	if got.Code != code || got.Reason != reason || !strings.Contains(got.Message, message) {
		s.Errorf("%s: %d %s %q, want %d %s %q", what, got.Code, got.Reason, got.Message, code, reason, message)
	}
}

// Keys and values are those of Kubernetes, so that an etcd of either can be
// opened by the other.
func testKeys(s *suite) {
	s.create(configMap("ns", "a", "1"))
	s.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}})
	s.create(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "svc"}})
	resp, err := s.engine.Range(s.ctx, store.RangeRequest{Start: "/registry/", End: "/registry0"})
	if err != nil {
		s.Fatal(err)
	}
	var keys []string
	for _, kv := range resp.KVs {
		keys = append(keys, kv.Key)
		if !strings.HasPrefix(string(kv.Value), "k8s\x00") {
			s.Errorf("value of %s begins with %q", kv.Key, kv.Value[:4])
		}
	}
	want := []string{"/registry/configmaps/ns/a", "/registry/namespaces/ns", "/registry/services/specs/ns/svc"}
	if !slices.Equal(keys, want) {
		s.Errorf("keys %q, want %q", keys, want)
	}
	// What Kubernetes wrote has no resource version stored.
	_, err = s.engine.Txn(s.ctx, []store.Step{{Then: []store.Put{{Key: "/registry/configmaps/ns/b", Value: resp.KVs[0].Value}}}})
	if err != nil {
		s.Fatal(err)
	}
	if _, err := s.Get(s.ctx, s.ref("ns", "b"), ""); err != nil {
		s.Errorf("an object written by somebody else: %v", err)
	}
}

func testVersions(s *suite) {
	var ws []store.Write
	for i := range 10 {
		cm := configMap("default", fmt.Sprint("cm-", i), "")
		ws = append(ws, store.Write{Ref: s.ref("default", cm.Name), Create: cm})
	}
	seen := map[int64]bool{}
	for _, r := range s.Batch(s.ctx, ws) {
		if r.Err != nil {
			s.Fatal(r.Err)
		}
		seen[version(r.Object)] = true
	}
	if len(seen) != 10 {
		s.Errorf("10 objects of a batch have %d versions", len(seen))
	}
	list, err := s.List(s.ctx, store.Query{Resource: s.configmaps}, store.ListOptions{})
	if err != nil {
		s.Fatal(err)
	}
	for rv := range seen {
		if all := list.ResourceVersion; strconv.FormatInt(rv|127, 10) != all {
			s.Errorf("version %d is not of the transaction that the list %s shows", rv, all)
		}
	}
}

func testBatch(s *suite) {
	s.create(configMap("default", "there", "1"))
	s.create(configMap("default", "doomed", "1"))
	mine := errors.New("no")
	ws := []store.Write{
		{Ref: s.ref("default", "a"), Create: configMap("default", "a", "1")},
		{Ref: s.ref("default", "there"), Create: configMap("default", "there", "2")},
		{Ref: s.ref("default", "there"), Change: set("3")},
		{Ref: s.ref("default", "doomed"), Change: func(api.Object) (store.Outcome, error) { return store.Outcome{Delete: true}, nil }},
		{Ref: s.ref("default", "missing"), Change: func(cur api.Object) (store.Outcome, error) { return store.Outcome{}, mine }},
		{Ref: s.ref("default", "b"), Create: configMap("default", "b", "1")},
	}
	got := s.Batch(s.ctx, ws)
	for i, want := range []func(store.Result) bool{
		func(r store.Result) bool { return r.Err == nil && valueOf(r.Object) == "1" },
		func(r store.Result) bool { return apierrors.IsAlreadyExists(r.Err) },
		func(r store.Result) bool { return r.Err == nil && valueOf(r.Object) == "3" },
		func(r store.Result) bool { return r.Err == nil && valueOf(r.Object) == "1" },
		func(r store.Result) bool { return r.Err == mine },
		func(r store.Result) bool { return r.Err == nil },
	} {
		if !want(got[i]) {
			s.Errorf("write %d: %v, %v", i, got[i].Object, got[i].Err)
		}
	}
	if _, err := s.Get(s.ctx, s.ref("default", "doomed"), ""); !apierrors.IsNotFound(err) {
		s.Errorf("what was deleted: %v", err)
	}
}

func testLargeBatch(s *suite) {
	big := strings.Repeat("x", 40<<10)
	var ws []store.Write
	for i := range 200 {
		cm := configMap("default", fmt.Sprintf("cm-%03d", i), big)
		ws = append(ws, store.Write{Ref: s.ref("default", cm.Name), Create: cm})
	}
	for i, r := range s.Batch(s.ctx, ws) {
		if r.Err != nil {
			s.Fatalf("write %d: %v", i, r.Err)
		}
	}
	list, err := s.List(s.ctx, store.Query{Resource: s.configmaps}, store.ListOptions{})
	if err != nil || len(list.Items) != 200 {
		s.Errorf("%d objects, %v; want 200", len(list.Items), err)
	}
}

func testLargeObject(s *suite) {
	s.create(configMap("default", "large", strings.Repeat("x", 1300<<10)))
	if _, err := s.Get(s.ctx, s.ref("default", "large"), ""); err != nil {
		s.Error(err)
	}
}

func testFence(s *suite) {
	const election = "/elections/loop"
	put := func(value string) int64 {
		s.Helper()
		resp, err := s.engine.Txn(s.ctx, []store.Step{{Then: []store.Put{{Key: election, Value: []byte(value)}}}})
		if err != nil {
			s.Fatal(err)
		}
		return resp.Revision
	}
	made := put("me")
	put("me, renewed") // the create revision stays
	o := store.WriteOptions{Fence: &store.Fence{Key: election, CreateRevision: made}}
	if _, err := s.Create(s.ctx, s.configmaps, configMap("default", "a", "1"), o); err != nil {
		s.Fatalf("write of the leader: %v", err)
	}
	_, err := s.engine.Txn(s.ctx, []store.Step{{Then: []store.Put{{Key: election, Delete: true}}}})
	if err != nil {
		s.Fatal(err)
	}
	put("another")
	_, err = s.Update(s.ctx, s.ref("default", "a"), o, set("2"))
	if !store.IsFenced(err) || !apierrors.IsConflict(err) {
		s.Errorf("update of a deposed leader: %v, want a Conflict that is Fenced", err)
	}
	_, err = s.Create(s.ctx, s.configmaps, configMap("default", "b", "1"), o)
	if !store.IsFenced(err) {
		s.Errorf("create of a deposed leader: %v", err)
	}
	_, err = s.Delete(s.ctx, s.ref("default", "a"), o, nil)
	if !store.IsFenced(err) {
		s.Errorf("delete of a deposed leader: %v", err)
	}
	if obj, err := s.Get(s.ctx, s.ref("default", "a"), ""); err != nil || valueOf(obj) != "1" {
		s.Errorf("the object is %v, %v; want it untouched", obj, err)
	}
}

func testSides(s *suite) {
	const side = "ranges/addresses"
	raw := func() (string, int64) {
		s.Helper()
		value, mod, err := s.Raw(s.ctx, side)
		if err != nil {
			s.Fatal(err)
		}
		return string(value), mod
	}
	if value, mod := raw(); value != "" || mod != 0 {
		s.Fatalf("absent key: %q at %d", value, mod)
	}
	with := func(value string, mod int64) store.WriteOptions {
		return store.WriteOptions{With: []store.Side{{Key: side, Revision: mod, Value: []byte(value)}}}
	}
	if _, err := s.Create(s.ctx, s.configmaps, configMap("default", "a", "1"), with("1 taken", 0)); err != nil {
		s.Fatal(err)
	}
	value, mod := raw()
	if value != "1 taken" || mod == 0 {
		s.Fatalf("the side is %q at %d", value, mod)
	}
	_, err := s.Create(s.ctx, s.configmaps, configMap("default", "b", "1"), with("lost update", 0))
	if !store.IsSideConflict(err) {
		s.Errorf("create with an old side: %v, want a side conflict", err)
	}
	if _, err := s.Get(s.ctx, s.ref("default", "b"), ""); !apierrors.IsNotFound(err) {
		s.Errorf("the object of a refused create: %v, want NotFound", err)
	}
	_, err = s.Create(s.ctx, s.configmaps, configMap("default", "a", "1"), with("also lost", mod))
	if now, _ := raw(); !apierrors.IsAlreadyExists(err) || now != value {
		s.Errorf("create of what exists: %v, side %q; want AlreadyExists and the side as it was", err, now)
	}
	_, err = s.Update(s.ctx, s.ref("default", "a"), store.WriteOptions{}, func(cur api.Object) (store.Outcome, error) {
		return store.Outcome{Delete: true, With: []store.Side{{Key: side, Revision: mod}}}, nil
	})
	if now, at := raw(); err != nil || now != "" || at != 0 {
		s.Errorf("delete with a side deleted: %v, side %q at %d", err, now, at)
	}
	// Writers that race for one side: exactly one may win each time.
	const racers = 8
	won := make(chan bool, racers)
	_, mod = raw()
	for i := range racers {
		go func() {
			_, err := s.Create(s.ctx, s.configmaps, configMap("race", fmt.Sprint("r-", i), ""), with(fmt.Sprint(i), mod))
			if err != nil && !store.IsSideConflict(err) {
				s.Error(err)
			}
			won <- err == nil
		}()
	}
	winners := 0
	for range racers {
		if <-won {
			winners++
		}
	}
	if winners != 1 {
		s.Errorf("%d of %d racers won the side, want 1", winners, racers)
	}
}

func testTTL(s *suite) {
	w := s.watch(s.Store, store.Query{Resource: s.configmaps}, store.WatchOptions{ResourceVersion: s.Revision()})
	for _, name := range []string{"a", "b"} {
		if _, err := s.Create(s.ctx, s.configmaps, configMap("default", name, ""), store.WriteOptions{TTL: time.Second}); err != nil {
			s.Fatal(err)
		}
	}
	s.create(configMap("default", "stays", ""))
	// Which of the two goes first is not said, nor that it is after the third came.
	var gone []string
	for _, event := range s.next(w, 5) {
		if rest, ok := strings.CutPrefix(event, "DELETED default/"); ok {
			name, _, _ := strings.Cut(rest, " @")
			gone = append(gone, name)
		}
	}
	if slices.Sort(gone); !slices.Equal(gone, []string{"a", "b"}) {
		s.Errorf("%v were deleted", gone)
	}
	if _, err := s.Get(s.ctx, s.ref("default", "stays"), ""); err != nil {
		s.Errorf("an object without a time to live: %v", err)
	}
}

// Writers that read, add one and write must not lose an addition.
func testCounter(s *suite) {
	const writers, additions = 8, 25
	s.create(configMap("default", "n", "0"))
	w := s.watch(s.Store, store.Query{Resource: s.configmaps}, store.WatchOptions{ResourceVersion: s.Revision()})
	failed := make(chan error, writers)
	for range writers {
		go func() {
			for range additions {
				_, err := s.Update(s.ctx, s.ref("default", "n"), store.WriteOptions{}, func(cur api.Object) (store.Outcome, error) {
					n, err := strconv.Atoi(valueOf(cur))
					if err != nil {
						return store.Outcome{}, err
					}
					return set(strconv.Itoa(n + 1))(cur)
				})
				if err != nil {
					failed <- err
					return
				}
			}
			failed <- nil
		}()
	}
	for range writers {
		if err := <-failed; err != nil {
			s.Fatal(err)
		}
	}
	for i, got := range s.next(w, writers*additions) {
		if !strings.HasPrefix(got, fmt.Sprintf("MODIFIED default/n=%d @", i+1)) {
			s.Fatalf("event %d is %q", i, got)
		}
	}
}

// Two stores over one engine are two servers of a cluster: what one answered,
// the other shows to whoever asks for the newest state.
func testTwoServers(s *suite) {
	other := s.open(store.Options{})
	for i := range 20 {
		name := fmt.Sprint("cm-", i)
		s.create(configMap("default", name, "1"))
		if _, err := other.Update(s.ctx, s.ref("default", name), store.WriteOptions{}, set("2")); err != nil {
			s.Fatalf("update of %s on the other server: %v", name, err)
		}
		if obj, err := s.Get(s.ctx, s.ref("default", name), ""); err != nil || valueOf(obj) != "2" {
			s.Fatalf("get of %s: %v, %v; want what the other server wrote", name, obj, err)
		}
		// A decision taken on an old copy is taken again on the newest.
		if _, err := other.Delete(s.ctx, s.ref("default", name), store.WriteOptions{}, nil); err != nil {
			s.Fatal(err)
		}
		s.create(configMap("default", name, "again"))
	}
}

func testCancelled(s *suite) {
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	if _, err := s.Create(ctx, s.configmaps, configMap("default", "a", ""), store.WriteOptions{}); !errors.Is(err, context.Canceled) {
		s.Errorf("create by a caller who has left: %v", err)
	}
	w := s.watch(s.Store, store.Query{Resource: s.configmaps}, store.WatchOptions{ResourceVersion: s.Revision()})
	if _, err := w.Next(ctx); !errors.Is(err, context.Canceled) {
		s.Errorf("next of a caller who has left: %v", err)
	}
	s.create(configMap("default", "b", ""))
	if got := s.next(w, 1); !strings.Contains(got[0], "default/b") {
		s.Errorf("the watch goes on with %q", got)
	}
	w.Stop()
	if _, err := w.Next(s.ctx); !errors.Is(err, context.Canceled) {
		s.Errorf("next after stop: %v", err)
	}
}

func testNewerData(s *suite) {
	_, err := s.engine.Txn(s.ctx, []store.Step{{Then: []store.Put{{Key: "/hansa.dev/format", Value: []byte(`{"data":99}`)}}}})
	if err != nil {
		s.Fatal(err)
	}
	_, err = store.Open(s.ctx, kept{s.engine}, s.reg, store.Options{})
	if err == nil || !strings.Contains(err.Error(), "newer version of hansa (data format 99, this one knows 1)") {
		s.Errorf("opening newer data: %v", err)
	}
}

func testReopen(s *suite) {
	for i := range 50 {
		s.create(colored("default", fmt.Sprint("cm-", i), "red"))
	}
	s.remove("default", "cm-7")
	before, err := s.List(s.ctx, store.Query{Resource: s.configmaps}, store.ListOptions{})
	if err != nil {
		s.Fatal(err)
	}
	other := s.open(store.Options{})
	after, err := other.List(s.ctx, store.Query{Resource: s.configmaps, Index: IndexColor, Value: "red"}, store.ListOptions{})
	if err != nil {
		s.Fatal(err)
	}
	if len(after.Items) != 49 || after.ResourceVersion != before.ResourceVersion {
		s.Fatalf("%d objects @%s, want 49 @%s", len(after.Items), after.ResourceVersion, before.ResourceVersion)
	}
	for i, obj := range after.Items {
		if obj.GetName() != before.Items[i].GetName() || version(obj) != version(before.Items[i]) {
			s.Errorf("%s @%d, want %s @%d", obj.GetName(), version(obj), before.Items[i].GetName(), version(before.Items[i]))
		}
	}
}
