package http_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"hansa.dev/hansa/api/kinds"
	apihttp "hansa.dev/hansa/apiserver/http"
	"hansa.dev/hansa/store"
	"hansa.dev/hansa/store/memory"
)

func TestWatch(t *testing.T) {
	c := newCluster(t, nil)
	c.createConfigMap("a")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	resp := c.open(ctx, call{path: configMaps + "?watch=1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"})
	defer resp.Body.Close()
	events := json.NewDecoder(resp.Body)
	next := func() (string, metav1.PartialObjectMetadata) {
		t.Helper()
		var e struct {
			Type   string
			Object metav1.PartialObjectMetadata
		}
		if err := events.Decode(&e); err != nil {
			t.Fatal(err)
		}
		return e.Type, e.Object
	}
	if kind, obj := next(); kind != "ADDED" || obj.Name != "a" || obj.Kind != "ConfigMap" {
		t.Errorf("first event is %s %+v", kind, obj)
	}
	if kind, obj := next(); kind != "BOOKMARK" || obj.Annotations[metav1.InitialEventsAnnotationKey] != "true" || obj.ResourceVersion == "" {
		t.Errorf("end of the initial events is %s %+v", kind, obj)
	}
	c.do(call{method: "PATCH", path: configMaps + "/a", body: `{"data":{"k":"w"}}`, contentType: "application/merge-patch+json"})
	if kind, obj := next(); kind != "MODIFIED" || obj.Name != "a" {
		t.Errorf("after a patch came %s %+v", kind, obj)
	}
	c.do(call{method: "DELETE", path: configMaps + "/a"})
	if kind, obj := next(); kind != "DELETED" || obj.Name != "a" {
		t.Errorf("after a delete came %s %+v", kind, obj)
	}
	c.server.Stop()
	if _, err := io.ReadAll(events.Buffered()); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(resp.Body); err != nil {
		t.Errorf("a stopped server ended the watch with %v, want a clean end", err)
	}
}

func TestWatchOfSelectedObjectsLosesThemAsDeleted(t *testing.T) {
	c := newCluster(t, nil)
	c.createConfigMap("a")
	resp := c.open(t.Context(), call{path: configMaps + "?watch=1&labelSelector=l%3Da"})
	defer resp.Body.Close()
	events := json.NewDecoder(resp.Body)
	c.do(call{method: "PATCH", path: configMaps + "/a", body: `{"metadata":{"labels":{"l":"b"}}}`, contentType: "application/merge-patch+json"})
	for _, want := range []string{"ADDED", "DELETED"} {
		var e metav1.WatchEvent
		if err := events.Decode(&e); err != nil || e.Type != want {
			t.Fatalf("event is %s (%v), want %s", e.Type, err, want)
		}
	}
}

func TestWatchFromNonsense(t *testing.T) {
	c := newCluster(t, nil)
	c.createConfigMap("a")
	a := c.do(call{path: configMaps + "?watch=1&resourceVersion=abc"})
	if s := a.status(t); s.Code != http.StatusInternalServerError {
		t.Errorf("a version that is no number gave %+v", s)
	}
}

func TestWatchTables(t *testing.T) {
	c := newCluster(t, nil)
	c.createConfigMap("a")
	c.createConfigMap("b")
	resp := c.open(t.Context(), call{path: configMaps + "?watch=1", accept: "application/json;as=Table;v=v1;g=meta.k8s.io"})
	defer resp.Body.Close()
	events := json.NewDecoder(resp.Body)
	for i, columns := range []int{3, 0} {
		var e struct {
			Type   string
			Object metav1.Table
		}
		if err := events.Decode(&e); err != nil {
			t.Fatal(err)
		}
		if e.Object.Kind != "Table" || len(e.Object.Rows) != 1 || len(e.Object.ColumnDefinitions) != columns {
			t.Errorf("event %d is %+v", i, e)
		}
	}
}

// Of a version that history no longer has, or one that is yet to come, the
// client hears by an event.
// https://kubernetes.io/docs/reference/using-api/api-concepts/#410-gone-responses
func TestWatchOutOfReach(t *testing.T) {
	engine, clock := memory.New(memory.Options{}), clocktesting.NewFakeClock(time.Now())
	open := func() *store.Store {
		st, err := store.Open(t.Context(), engine, kinds.Registry(), store.Options{DetectMutations: true, Clock: clock})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = st.Close() })
		return st
	}
	c := newClusterOver(t, open(), nil)
	for _, name := range []string{"a", "b", "c"} {
		c.createConfigMap(name)
	}
	var first metav1.PartialObjectMetadata
	c.do(call{path: configMaps + "/a"}).decode(t, &first)
	now, err := engine.CurrentRevision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := engine.Compact(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	c = newClusterOver(t, open(), nil) // which has no recent events
	expect := func(query string, code int32, reason metav1.StatusReason) {
		t.Helper()
		a := c.do(call{path: configMaps + "?watch=1&timeoutSeconds=60&" + query})
		var e struct {
			Type   string
			Object metav1.Status
		}
		a.decode(t, &e)
		if e.Type != "ERROR" || e.Object.Kind != "Status" || e.Object.Code != code || e.Object.Reason != reason {
			t.Errorf("watch with %s gave %s", query, a.body)
		}
	}
	expect("resourceVersion="+first.ResourceVersion, http.StatusGone, metav1.StatusReasonExpired)
	go func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for !clock.HasWaiters() {
			<-tick.C
		}
		clock.Step(time.Minute)
	}()
	expect("sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion="+first.ResourceVersion+"000", http.StatusGatewayTimeout, metav1.StatusReasonTimeout)
	// The same for a list.
	if s := c.do(call{path: configMaps + "?resourceVersionMatch=Exact&resourceVersion=" + first.ResourceVersion}).status(t); s.Code != http.StatusGone {
		t.Errorf("list at an old version gave %+v", s)
	}
}

// A watch without changes says every minute how far it is, and once more before
// it ends.
func TestBookmarks(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Now())
	c := newCluster(t, func(c *apihttp.Config) { c.Clock = clock })
	c.createConfigMap("a")
	resp := c.open(t.Context(), call{path: configMaps + "?watch=1&allowWatchBookmarks=true&timeoutSeconds=100&fieldSelector=metadata.name%3Da"})
	defer resp.Body.Close()
	events := json.NewDecoder(resp.Body)
	next := func(want string) metav1.PartialObjectMetadata {
		t.Helper()
		var e struct {
			Type   string
			Object metav1.PartialObjectMetadata
		}
		if err := events.Decode(&e); err != nil || e.Type != want {
			t.Fatalf("event is %s %+v (%v), want %s", e.Type, e.Object, err, want)
		}
		return e.Object
	}
	next("ADDED")
	next("BOOKMARK") // the end of the beginning
	c.createConfigMap("elsewhere")
	var list metav1.PartialObjectMetadataList
	for _, step := range []time.Duration{time.Minute, 38 * time.Second} {
		c.do(call{path: configMaps}).decode(t, &list)
		clock.Step(step)
		if got := next("BOOKMARK"); got.ResourceVersion != list.ResourceVersion || got.Name != "" {
			t.Errorf("bookmark is %+v, want version %s", got, list.ResourceVersion)
		}
		c.createConfigMap("more" + step.String())
	}
	clock.Step(2 * time.Second)
	var none any
	if err := events.Decode(&none); err != io.EOF {
		t.Errorf("after its time the watch gave %v, %v", none, err)
	}
}
