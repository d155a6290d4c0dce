package http_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/apiserver/request/requesttest"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/direct"
)

// mixedRounds is how often each client of TestMixedLoad does its part.
const mixedRounds = 24

// mixedNames are the objects that all of them write to.
const mixedNames = 6

// Clients of every sort at once, mostly on the same few objects: none meets an
// error of the server's, every watch tells in order of all that happened to what
// it selects, and neither the race detector nor the store's own, which looks for
// writes to shared objects, finds anything.
func TestMixedLoad(t *testing.T) {
	m := &mixed{cluster: newCluster(t, nil)}
	var watches sync.WaitGroup
	for _, selector := range []string{"", "l=x", "l in (x,y)", "l!=z,m", "!o"} {
		for _, path := range []string{configMaps, mixedDeployments} {
			// The watch stands before anybody writes.
			resp := m.open(t.Context(), call{path: path + "?watch=1&labelSelector=" + url.QueryEscape(selector)})
			watches.Go(func() { m.follow(resp, path, selector) })
		}
	}
	var clients sync.WaitGroup
	for seed := range 2 {
		for _, part := range []func(n int){m.create, m.update, m.patch, m.apply, m.status, m.list, m.deleteSome, m.batch} {
			clients.Go(func() {
				for round := range mixedRounds {
					part(seed + 2*round)
				}
			})
		}
	}
	clients.Wait()
	// Every selector selects what comes last, which ends the watches.
	for _, path := range []string{configMaps, mixedDeployments} {
		m.send(call{method: "POST", path: path, body: mixedObject(path, mixedEnd, `"l":"x","m":"1"`)}, http.StatusCreated)
	}
	watches.Wait()
}

const mixedEnd = "the-end"

const mixedDeployments = "/apis/apps/v1/namespaces/default/deployments"

type mixed struct{ *cluster }

func mixedObject(path, name, labels string) string {
	if path == configMaps {
		return fmt.Sprintf(`{"metadata":{"name":%q,"labels":{%s}},"data":{"k":"v"}}`, name, labels)
	}
	return fmt.Sprintf(`{"metadata":{"name":%q,"labels":{%s}},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}`, name, labels)
}

// target is the collection and the name that a client's turn is about.
func (m *mixed) target(n int) (path, name string) {
	return []string{configMaps, mixedDeployments}[n%2], fmt.Sprint("o-", n/2%mixedNames)
}

// send does a request from any goroutine. Its answer has one of the codes.
func (m *mixed) send(in call, codes ...int) answer {
	req, err := http.NewRequestWithContext(m.t.Context(), in.method, m.URL+in.path, strings.NewReader(in.body))
	if err != nil {
		m.t.Error(err)
		return answer{}
	}
	req.Header.Set("Authorization", "Bearer admin")
	if in.body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if in.contentType != "" {
		req.Header.Set("Content-Type", in.contentType)
	}
	if in.accept != "" {
		req.Header.Set("Accept", in.accept)
	}
	resp, err := m.Client().Do(req)
	if err != nil {
		m.t.Error(err)
		return answer{}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		m.t.Error(err)
	}
	for _, code := range codes {
		if resp.StatusCode == code {
			return answer{resp.StatusCode, resp.Header, body}
		}
	}
	m.t.Errorf("%s %s: %d %s", in.method, in.path, resp.StatusCode, body)
	return answer{}
}

func (m *mixed) create(n int) {
	path, name := m.target(n)
	labels := []string{`"l":"x"`, `"l":"y","m":"1"`, `"m":"2"`}[n%3]
	m.send(call{method: "POST", path: path, body: mixedObject(path, name, labels)}, http.StatusCreated, http.StatusConflict)
}

// update writes what it has read, with its version; somebody may be faster.
func (m *mixed) update(n int) {
	path, name := m.target(n)
	a := m.send(call{method: "GET", path: path + "/" + name}, http.StatusOK, http.StatusNotFound)
	if a.code != http.StatusOK {
		return
	}
	var obj map[string]any
	if err := json.Unmarshal(a.body, &obj); err != nil {
		m.t.Error(err)
		return
	}
	obj["metadata"].(map[string]any)["annotations"] = map[string]string{"n": strconv.Itoa(n)}
	body, err := json.Marshal(obj)
	if err != nil {
		m.t.Error(err)
	}
	m.send(call{method: "PUT", path: path + "/" + name, body: string(body)}, http.StatusOK, http.StatusNotFound, http.StatusConflict)
}

func (m *mixed) patch(n int) {
	path, name := m.target(n)
	label := []string{"x", "y", "z"}[n%3]
	for kind, body := range map[string]string{
		"application/merge-patch+json":           fmt.Sprintf(`{"metadata":{"labels":{"l":%q}}}`, label),
		"application/strategic-merge-patch+json": fmt.Sprintf(`{"metadata":{"annotations":{"s":"%d"}}}`, n),
		"application/json-patch+json":            fmt.Sprintf(`[{"op":"add","path":"/metadata/labels/m","value":"%d"}]`, n),
	} {
		m.send(call{method: "PATCH", path: path + "/" + name, body: body, contentType: kind}, http.StatusOK, http.StatusNotFound)
	}
}

func (m *mixed) apply(n int) {
	_, name := m.target(n)
	body := fmt.Sprintf("{apiVersion: v1, kind: ConfigMap, metadata: {name: %s, labels: {p: x}}, data: {a%d: x, b: \"%d\"}}", name, n%3, n)
	m.send(call{
		method: "PATCH", path: fmt.Sprintf("%s/%s?force=%v&fieldManager=m%d", configMaps, name, n%3 > 0, n%2), body: body, contentType: "application/apply-patch+yaml",
	}, http.StatusOK, http.StatusCreated, http.StatusConflict)
}

func (m *mixed) status(n int) {
	_, name := m.target(n)
	m.send(call{
		method: "PATCH", path: mixedDeployments + "/" + name + "/status", body: fmt.Sprintf(`{"status":{"observedGeneration":%d}}`, n), contentType: "application/merge-patch+json",
	}, http.StatusOK, http.StatusNotFound)
}

func (m *mixed) list(n int) {
	path, name := m.target(n)
	accept := []string{
		"application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "application/cbor",
		"application/json;as=Table;v=v1;g=meta.k8s.io", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
	}[n/2%6]
	for _, query := range []string{"", "?labelSelector=l%3Dx", "?labelSelector=l+in+(x,y),m", "?fieldSelector=metadata.name%3D" + name, "?resourceVersion=0"} {
		m.send(call{method: "GET", path: path + query, accept: accept}, http.StatusOK)
	}
	more := ""
	for {
		var page listed
		if err := json.Unmarshal(m.send(call{method: "GET", path: path + "?limit=2&continue=" + more}, http.StatusOK).body, &page); err != nil {
			m.t.Error(err)
			return
		}
		if more = page.Metadata.Continue; more == "" {
			return
		}
	}
}

// deleteSome deletes one object, and now and then all that a selector has.
func (m *mixed) deleteSome(n int) {
	path, name := m.target(n)
	if n%5 == 0 {
		m.send(call{method: "DELETE", path: path + "?labelSelector=" + []string{"l%3Dx", "m", "l%21%3Dy"}[n%3]}, http.StatusOK)
		return
	}
	m.send(call{method: "DELETE", path: path + "/" + name}, http.StatusOK, http.StatusNotFound)
}

// batch writes in the process of the server.
func (m *mixed) batch(n int) {
	door := direct.New(m.requests, requesttest.Admin, "batch")
	row := kinds.Registry().Must("", "configmaps")
	var writes []client.Write
	for i := range mixedNames {
		cm := requesttest.ConfigMap(fmt.Sprint("o-", i), "batch", strconv.Itoa(n))
		cm.Labels = map[string]string{"l": "x", "m": "1"}
		if (n+i)%2 == 0 {
			writes = append(writes, client.Write{Resource: row, Create: cm})
		} else {
			writes = append(writes, client.Write{Resource: row, Update: cm})
		}
	}
	for _, r := range door.Batch(m.t.Context(), writes) {
		if r.Err != nil && !apierrors.IsAlreadyExists(r.Err) && !apierrors.IsNotFound(r.Err) {
			m.t.Errorf("batch: %v", r.Err)
		}
	}
}

// follow reads a watch until the object that ends it, and compares what it has
// led to with a list.
func (m *mixed) follow(resp *http.Response, path, selector string) {
	defer resp.Body.Close()
	has, last := map[string]string{}, int64(0)
	events := json.NewDecoder(resp.Body)
	for {
		var e struct {
			Type   string
			Object metav1.PartialObjectMetadata
		}
		if err := events.Decode(&e); err != nil {
			m.t.Errorf("watch of %s %s: %v", path, selector, err)
			return
		}
		name := e.Object.Name
		version, err := strconv.ParseInt(e.Object.ResourceVersion, 10, 64)
		if _, known := has[name]; err != nil || version <= last || known == (e.Type == "ADDED") {
			m.t.Errorf("watch of %s %s: %s of %s, known %v, at %s after %d", path, selector, e.Type, name, known, e.Object.ResourceVersion, last)
			return
		}
		last = version
		if has[name] = e.Object.ResourceVersion; e.Type == "DELETED" {
			delete(has, name)
		}
		if name == mixedEnd {
			break
		}
	}
	var now listed
	a := m.send(call{method: "GET", path: path + "?resourceVersion=" + strconv.FormatInt(last, 10) + "&resourceVersionMatch=Exact&labelSelector=" + url.QueryEscape(selector)}, http.StatusOK)
	if err := json.Unmarshal(a.body, &now); err != nil {
		m.t.Error(err)
		return
	}
	want := map[string]string{}
	for _, item := range now.Items {
		want[item.Name] = item.ResourceVersion
	}
	if !maps.Equal(has, want) {
		m.t.Errorf("watch of %s %s led to %v, where there is %v", path, selector, has, want)
	}
}
