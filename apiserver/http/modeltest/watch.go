package modeltest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/watch"
	"pgregory.net/rapid"
)

// moment is what happened to one object. Those of one group happened at once,
// in any order.
type moment struct {
	group   int
	name    string
	was, is *object // nil: there is none
}

// stream is a watch since the start of a run.
type stream struct {
	selector string
	body     io.ReadCloser
	events   *json.Decoder
}

func (r *run) watch(selector string) *stream {
	r.Helper()
	now := r.do(call{method: http.MethodGet, path: r.path("", "", nil), accept: media[0]})
	version, _ := get(now.obj, path("metadata resourceVersion")).(string)
	query := url.Values{"watch": {"1"}, "labelSelector": {selector}, "resourceVersion": {version}}
	req, err := http.NewRequestWithContext(r.ctx, http.MethodGet, r.server.URL+r.path("", "", query), nil)
	if err != nil {
		r.Fatal(err)
	}
	resp, err := r.server.Client.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		r.Fatalf("watch is answered %d", resp.StatusCode)
	}
	return &stream{selector, resp.Body, json.NewDecoder(resp.Body)}
}

func (s *stream) stop() { _ = s.body.Close() }

// event is what a watch is to say of a moment, "" when nothing.
// https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
func (m *moment) event(selects func(content) bool) watch.EventType {
	before := m.was != nil && selects(m.was.content)
	after := m.is != nil && selects(m.is.content)
	switch {
	case before && after:
		return watch.Modified
	case before:
		return watch.Deleted
	case after:
		return watch.Added
	}
	return ""
}

// compare reads the watch to its end and holds it against the history.
func (s *stream) compare(r *run, selects func(content) bool) {
	r.Helper()
	var due []*moment
	for i := range r.history {
		if r.history[i].event(selects) != "" {
			due = append(due, &r.history[i])
		}
	}
	last := int64(0)
	for len(due) > 0 {
		var got struct {
			Type   watch.EventType
			Object map[string]any
		}
		if err := s.events.Decode(&got); err != nil {
			r.Fatalf("watch of %s ended with %v, and %d are to come, first %s of %s", s.selector, err, len(due), due[0].event(selects), due[0].name)
		}
		obj := normal(r, got.Object)
		version := versionOf(r, obj)
		if version <= last {
			r.Fatalf("watch of %s: version %d behind %d", s.selector, version, last)
		}
		last = version
		i := slices.IndexFunc(due, func(m *moment) bool {
			return m.group == due[0].group && m.name == get(obj, path("metadata name"))
		})
		if i < 0 || due[i].event(selects) != got.Type {
			r.Fatalf("watch of %s tells of %s of %v, want %s of %s", s.selector, got.Type, get(obj, path("metadata name")), due[0].event(selects), due[0].name)
		}
		if is := due[i].is; is != nil && got.Type != watch.Deleted {
			r.compareObject("watch", is, obj)
			if is.version != 0 && is.version != version {
				r.Fatalf("watch of %s: version %d of %s, which was answered as %d", s.selector, version, due[i].name, is.version)
			}
		}
		due = slices.Delete(due, i, i+1)
	}
}

// normal is an object with the numbers that others decode to.
func normal(t rapid.TB, obj map[string]any) map[string]any {
	t.Helper()
	text, err := json.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	out, err := decode(media[0], text)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func versionOf(t rapid.TB, obj map[string]any) int64 {
	t.Helper()
	text, _ := get(obj, path("metadata resourceVersion")).(string)
	version, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatalf("version %q of %v", text, obj)
	}
	return version
}

// path is that of the collection, of an object or of its subresource.
func (r *run) path(name, subresource string, query url.Values) string {
	prefix := "/apis/"
	if !strings.Contains(r.kind.version, "/") {
		prefix = "/api/"
	}
	p := fmt.Sprintf("%s%s/namespaces/%s/%s", prefix, r.kind.version, r.server.Namespace, r.kind.plural)
	for _, part := range []string{name, subresource} {
		if part != "" {
			p += "/" + part
		}
	}
	if len(query) > 0 {
		p += "?" + query.Encode()
	}
	return p
}
