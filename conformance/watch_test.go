package conformance

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	apiwatch "k8s.io/apimachinery/pkg/watch"
)

// event is one event of a watch in JSON.
type event struct {
	Type   string
	Object json.RawMessage
	object *unstructured.Unstructured
}

// watching is a watch over plain HTTP.
type watching struct {
	header http.Header
	events chan event // closed at the end of the stream
	cancel context.CancelFunc
}

// watch starts a watch as the administrator; it ends with the test. path may
// have a query.
func watch(t *testing.T, path string) *watching {
	t.Helper()
	return admin.watch(t, call{path: path})
}

func (p *peer) watch(t *testing.T, c call) *watching {
	t.Helper()
	separator := "?"
	if strings.Contains(c.path, "?") {
		separator = "&"
	}
	c.path += separator + "watch=1"
	ctx, cancel := context.WithCancel(t.Context())
	resp, err := p.open(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	w := &watching{header: resp.Header, events: make(chan event, 1000), cancel: cancel}
	if resp.StatusCode != http.StatusOK {
		defer cancel()
		var status metav1.Status
		_ = json.NewDecoder(resp.Body).Decode(&status) // best effort for the text
		t.Fatalf("watch %s gave %d: %s", c.path, resp.StatusCode, status.Message)
	}
	go func() {
		defer close(w.events)
		defer resp.Body.Close()
		lines := bufio.NewReaderSize(resp.Body, 64<<10)
		for {
			line, err := lines.ReadBytes('\n')
			if err != nil {
				return
			}
			var e event
			if json.Unmarshal(line, &e) != nil {
				e.Type = "UNREADABLE " + string(line)
			}
			e.object = &unstructured.Unstructured{}
			_ = e.object.UnmarshalJSON(e.Object) // what has no kind is no object
			w.events <- e
		}
	}()
	t.Cleanup(cancel)
	return w
}

// next waits for the next event.
func (w *watching) next(t *testing.T) event {
	t.Helper()
	limit := time.NewTimer(waitLimit)
	defer limit.Stop()
	select {
	case e, ok := <-w.events:
		if !ok {
			t.Fatal("the watch has ended")
		}
		return e
	case <-limit.C:
		t.Fatalf("no event within %s", waitLimit)
	}
	panic("unreachable")
}

// expect compares the next events, as "TYPE name".
func (w *watching) expect(t *testing.T, want ...string) {
	t.Helper()
	for i, text := range want {
		e := w.next(t)
		if got := e.Type + " " + e.object.GetName(); got != text {
			t.Errorf("event %d is %s, want %s", i, got, text)
		}
	}
}

// API concepts, "Efficient detection of changes": a watch resumes after any
// version that was seen, and misses and repeats nothing.
func TestWatchResumesFromAnyVersion(t *testing.T) {
	ns := namespace(t)
	// Nothing but this test makes secrets in the namespace.
	start := create(t, "secrets", ns, "metadata: {name: before}").GetResourceVersion()
	for i := range 5 {
		name := fmt.Sprintf("c%d", i)
		create(t, "secrets", ns, "metadata: {name: "+name+"}")
		patch(t, "secrets", ns, name, `{"data":{"k":"dg=="}}`)
		admin.want(t, http.StatusOK, deleteCall("secrets", ns, name, ""), nil)
	}
	read := func(from string, n int) (types, versions []string) {
		w := watch(t, at("secrets", ns)+"?resourceVersion="+from)
		defer w.cancel()
		for range n {
			e := w.next(t)
			types = append(types, e.Type+" "+e.object.GetName())
			versions = append(versions, e.object.GetResourceVersion())
		}
		return types, versions
	}
	all, versions := read(start, 15)
	for i, kind := range []string{"ADDED", "MODIFIED", "DELETED"} {
		if all[i] != kind+" c0" {
			t.Errorf("event %d is %s", i, all[i])
		}
	}
	for i, version := range versions[:14] {
		rest, same := read(version, 14-i)
		if !slices.Equal(rest, all[i+1:]) || !slices.Equal(same, versions[i+1:]) {
			t.Errorf("resumed after event %d: %v, want %v", i, rest, all[i+1:])
		}
	}
}

// API concepts, "Semantics for watch": without a version, and from "0", a watch
// begins with what is there.
func TestWatchBeginsWithWhatIsThere(t *testing.T) {
	ns := namespace(t)
	create(t, "secrets", ns, "metadata: {name: a}")
	create(t, "secrets", ns, "metadata: {name: b}")
	for _, version := range []string{"", "0"} {
		w := watch(t, at("secrets", ns)+"?resourceVersion="+version)
		w.expect(t, "ADDED a", "ADDED b")
		create(t, "secrets", ns, "metadata: {name: c"+version+"}")
		w.expect(t, "ADDED c"+version)
		admin.want(t, http.StatusOK, deleteCall("secrets", ns, "c"+version, ""), nil)
		w.expect(t, "DELETED c"+version)
	}
}

// API concepts, "Streaming lists": initial events end with an annotated
// bookmark from which a watch can go on.
func TestStreamingList(t *testing.T) {
	ns := namespace(t)
	create(t, "secrets", ns, "metadata: {name: a}")
	query := "?sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
	w := watch(t, at("secrets", ns)+query)
	w.expect(t, "ADDED a")
	mark := w.next(t)
	if mark.Type != "BOOKMARK" || mark.object.GetKind() != "Secret" || mark.object.GetAnnotations()[metav1.InitialEventsAnnotationKey] != "true" || mark.object.GetResourceVersion() == "" {
		t.Fatalf("after the initial events comes %s %s", mark.Type, mark.Object)
	}
	create(t, "secrets", ns, "metadata: {name: b}")
	w.expect(t, "ADDED b")
	watch(t, at("secrets", ns)+"?resourceVersion="+mark.object.GetResourceVersion()).expect(t, "ADDED b")

	empty := watch(t, at("secrets", ns)+query+"&labelSelector=no%3Dsuch")
	if e := empty.next(t); e.Type != "BOOKMARK" {
		t.Errorf("an empty list begins with %s", e.Type)
	}
	for _, bad := range []string{
		"?watch=1&sendInitialEvents=true",
		"?watch=1&sendInitialEvents=true&resourceVersionMatch=Exact&resourceVersion=5",
		"?watch=1&resourceVersionMatch=NotOlderThan",
		"?sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
	} {
		s := admin.do(t, call{path: at("secrets", ns) + bad}).refused(t, 422, metav1.StatusReasonInvalid, "is invalid")
		if len(causesOf(s)) == 0 {
			t.Errorf("%s: no causes", bad)
		}
	}
}

// API concepts, "Label and field selectors" of watches: an object that begins to
// match is ADDED, one that ceases to is DELETED.
func TestSelectorTransitions(t *testing.T) {
	ns := namespace(t)
	from := create(t, "configmaps", ns, "metadata: {name: a, labels: {on: 'no'}}").GetResourceVersion()
	w := watch(t, at("configmaps", ns)+"?labelSelector=on%3Dyes&resourceVersion="+from)
	on := patch(t, "configmaps", ns, "a", `{"metadata":{"labels":{"on":"yes"}}}`)
	patch(t, "configmaps", ns, "a", `{"data":{"k":"1"}}`)
	off := patch(t, "configmaps", ns, "a", `{"metadata":{"labels":{"on":"no"}},"data":{"k":"2"}}`)
	patch(t, "configmaps", ns, "a", `{"data":{"k":"3"}}`)
	patch(t, "configmaps", ns, "a", `{"metadata":{"labels":{"on":"yes"}}}`)
	admin.want(t, http.StatusOK, deleteCall("configmaps", ns, "a", ""), nil)
	added := w.next(t)
	if added.Type != "ADDED" || added.object.GetResourceVersion() != on.GetResourceVersion() {
		t.Errorf("began to match: %s %s", added.Type, added.Object)
	}
	w.expect(t, "MODIFIED a")
	left := w.next(t)
	if left.Type != "DELETED" || left.object.GetResourceVersion() != off.GetResourceVersion() || left.object.GetLabels()["on"] != "yes" || field(left.object, "data", "k") != "1" {
		t.Errorf("ceased to match: %s %s; want the last state that matched, at version %s", left.Type, left.Object, off.GetResourceVersion())
	}
	w.expect(t, "ADDED a", "DELETED a")

	node := ghost(t)
	bound := create(t, "pods", ns, podOf("p"))
	pods := watch(t, at("pods", "")+"?fieldSelector=spec.nodeName%3D"+node+"&resourceVersion="+bound.GetResourceVersion())
	admin.want(t, http.StatusCreated, call{method: "POST", path: at("pods", ns, "p", "binding"), body: "{target: {kind: Node, name: " + node + "}}"}, nil)
	pods.expect(t, "ADDED p")
}

// All watchers see the same changes in the same order with the same versions.
func TestWatchersAgree(t *testing.T) {
	ns := namespace(t)
	from := create(t, "secrets", ns, "metadata: {name: first}").GetResourceVersion()
	const writers, writes, watchers = 4, 25, 5
	var all []*watching
	for range watchers {
		all = append(all, watch(t, at("secrets", ns)+"?resourceVersion="+from))
	}
	failed := make(chan error, writers)
	for w := range writers {
		go func() {
			for i := range writes {
				body := fmt.Sprintf("metadata: {name: w%d-%d}", w, i)
				resp, err := admin.open(t.Context(), call{method: "POST", path: at("secrets", ns), body: body})
				if err == nil {
					resp.Body.Close()
				}
				if err != nil || resp.StatusCode != http.StatusCreated {
					failed <- fmt.Errorf("create: %v %v", resp, err)
					return
				}
			}
			failed <- nil
		}()
	}
	for range writers {
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
	}
	var want []string
	for i, w := range all {
		var got []string
		for range writers * writes {
			e := w.next(t)
			got = append(got, e.object.GetResourceVersion()+" "+e.object.GetName())
		}
		if i == 0 {
			want = got
		}
		if !slices.Equal(got, want) {
			t.Errorf("watcher %d saw %v, the first %v", i, got, want)
		}
	}
}

// API concepts, "Watch" on the wire: frames are lines of JSON, or protobuf with
// its own media type; a time limit ends the stream; the old path still works.
func TestWatchOnTheWire(t *testing.T) {
	ns := namespace(t)
	create(t, "secrets", ns, "metadata: {name: a}")
	w := watch(t, at("secrets", ns)+"?timeoutSeconds=1")
	if got := w.header.Get("Content-Type"); got != "application/json" {
		t.Errorf("content type is %s", got)
	}
	w.expect(t, "ADDED a")
	select {
	case e, ok := <-w.events:
		if ok {
			t.Errorf("unexpected %s", e.Type)
		}
	case <-time.After(waitLimit):
		t.Error("the time limit did not end the watch")
	}
	watch(t, "/api/v1/watch/namespaces/"+ns+"/secrets").expect(t, "ADDED a")
	watch(t, "/api/v1/watch/namespaces/"+ns+"/secrets/a").expect(t, "ADDED a")
	watch(t, at("secrets", ns)+"?fieldSelector=metadata.name%3Da").expect(t, "ADDED a")

	typed, err := kube.CoreV1().Secrets(ns).Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer typed.Stop()
	if e := <-typed.ResultChan(); e.Type != apiwatch.Added {
		t.Errorf("a protobuf watch begins with %v", e)
	}
	resp, err := admin.open(t.Context(), call{path: at("secrets", ns) + "?watch=1&timeoutSeconds=1", accept: "application/vnd.kubernetes.protobuf;stream=watch"})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); got != "application/vnd.kubernetes.protobuf;stream=watch" {
		t.Errorf("content type of protobuf is %s", got)
	}
	admin.do(t, call{path: at("secrets", ns) + "?watch=1", accept: "application/yaml"}).refused(t, 406, metav1.StatusReasonNotAcceptable, "")
}

// dialWebSocket connects to a path of the server, as the administrator.
func dialWebSocket(t *testing.T, path string) *websocket.Conn {
	t.Helper()
	config, err := websocket.NewConfig(strings.Replace(admin.config.Host, "https:", "wss:", 1)+path, admin.config.Host)
	if err != nil {
		t.Fatal(err)
	}
	if config.TlsConfig, err = tlsOf(admin); err != nil {
		t.Fatal(err)
	}
	ws, err := config.DialContext(t.Context())
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return ws
}

// A browser watches by WebSocket: one message an event.
func TestWatchByWebSocket(t *testing.T) {
	ns := namespace(t)
	create(t, "secrets", ns, "metadata: {name: a}")
	ws := dialWebSocket(t, at("secrets", ns)+"?watch=1")
	defer ws.Close()
	var e event
	if err := websocket.JSON.Receive(ws, &e); err != nil || e.Type != "ADDED" {
		t.Errorf("first message is %s, %v", e.Type, err)
	}
}

// API concepts, "Watch bookmarks": only those who ask get them, and they carry
// nothing but a version.
func TestBookmarksAreAskedFor(t *testing.T) {
	ns := namespace(t)
	create(t, "secrets", ns, "metadata: {name: a}")
	w := watch(t, at("secrets", ns)+"?timeoutSeconds=1")
	w.expect(t, "ADDED a")
	for e := range w.events {
		t.Errorf("unasked comes %s", e.Type)
	}
	with := watch(t, at("secrets", ns)+"?allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan")
	with.expect(t, "ADDED a")
	mark := with.next(t)
	want := fmt.Sprintf(`{"apiVersion":"v1","kind":"Secret","metadata":{"annotations":{"k8s.io/initial-events-end":"true"},"creationTimestamp":null,"resourceVersion":"%s"}}`, mark.object.GetResourceVersion())
	if got := encode(t, mark.object.Object); got != want && got != strings.Replace(want, `"creationTimestamp":null,`, "", 1) {
		t.Errorf("bookmark is %s", got)
	}
}
