package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	engine "hansa.dev/hansa/store/memory"
)

// A pod is as large as the figures say, and two differ in what they should.
func TestPodBodies(t *testing.T) {
	body := templatePod()
	for _, i := range []int64{0, 7, templates, 3*templates + 7, 99_999} {
		for name, b := range map[string][]byte{"template": body(i), "distinct": distinctPod(i)} {
			if len(b) != podSize || bytes.Count(b, []byte(podName(i))) != 1 {
				t.Errorf("pod %d, %s: %d bytes, its name %d times", i, name, len(b), bytes.Count(b, []byte(podName(i))))
			}
		}
	}
	rename := func(b []byte, from, to int64) []byte {
		return bytes.Replace(b, []byte(podName(from)), []byte(podName(to)), 1)
	}
	if !bytes.Equal(rename(body(7), 7, templates+7), body(templates+7)) {
		t.Error("pods of one template differ in more than their names")
	}
	if bytes.Equal(rename(body(7), 7, 8), body(8)) {
		t.Error("templates are alike")
	}
	if bytes.Equal(rename(distinctPod(7), 7, templates+7), distinctPod(templates+7)) {
		t.Error("distinct pods are alike")
	}
}

func event(i, version int64) string {
	return fmt.Sprintf(`{"type":"ADDED","object":{"metadata":{"name":"%s","resourceVersion":"%d"}}}`+"\n", nameOf(i), version)
}

// A watcher counts each object once, over all the watches it had.
func TestWatcher(t *testing.T) {
	w := &watcher{}
	if done, err := w.read(strings.NewReader(event(1, 10) + event(5000, 11) + `{"type":"ADD`)); done || err != nil {
		t.Fatalf("a watch cut short: %v, %v", done, err)
	}
	if w.version != "11" || w.n != 2 {
		t.Errorf("at %s with %d objects", w.version, w.n)
	}
	if done, err := w.read(strings.NewReader(event(0, 12) + event(lastObject, 13) + "not looked at")); !done || err != nil || w.n != 3 {
		t.Errorf("%v, %v, %d objects", done, err, w.n)
	}
	for name, stream := range map[string]string{
		"twice":   event(5000, 14),
		"error":   `{"type":"ERROR","object":{"kind":"Status","code":410}}` + "\n",
		"deleted": strings.Replace(event(9, 15), "ADDED", "DELETED", 1),
	} {
		if _, err := w.read(strings.NewReader(stream)); err == nil {
			t.Errorf("%s is no error", name)
		}
	}
}

func TestParts(t *testing.T) {
	for path, want := range map[string][2]string{
		"/api/v1/namespaces/load/configmaps":   {"load", ""},
		"/api/v1/namespaces/load/configmaps/a": {"load", "a"},
	} {
		namespace, name, err := parts(path)
		if err != nil || [2]string{namespace, name} != want {
			t.Errorf("%s: %q %q %v", path, namespace, name, err)
		}
	}
	if _, _, err := parts("/api/v1/namespaces/load/pods/a"); err == nil {
		t.Error("pods are served")
	}
}

// What the bare server lists is what it has, over all pages.
func TestBareList(t *testing.T) {
	server := httptest.NewServer(&bareServer{engine.New(engine.Options{})})
	defer server.Close()
	for _, n := range []int64{0, 3, listPage, 2*listPage + 1} {
		path := server.URL + configMaps.collection(fmt.Sprint("n", n))
		for i := range n {
			resp, err := http.Post(path, "", bytes.NewReader(configMaps.body(i)))
			if err != nil || resp.StatusCode != http.StatusCreated {
				t.Fatal(resp, err)
			}
			resp.Body.Close()
		}
		resp, err := http.Get(path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var list corev1.ConfigMapList
		if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
			t.Fatal(err)
		}
		if len(list.Items) != int(n) || list.ResourceVersion == "" {
			t.Errorf("of %d: %d at %q", n, len(list.Items), list.ResourceVersion)
		}
		for i, cm := range list.Items {
			if cm.Name != nameOf(int64(i)) || cm.ResourceVersion == "" || len(cm.Data["payload"]) != 512 {
				t.Fatalf("object %d is %+v", i, cm.ObjectMeta)
			}
		}
	}
}

// The program fails by what it has measured, and by nothing else.
func TestBounds(t *testing.T) {
	for _, c := range []struct {
		have map[string]float64
		want string
	}{
		{nil, ""},
		{map[string]float64{"flood_heartbeat_p99": 99.9, "lists100k_fast_growth": 511, "flood_lists": 1000}, ""},
		{map[string]float64{"flood_heartbeat_p99": 100, "flood_admin_p99": 250, "flood_watches_admin_list_p99": 101, "lists100k_slow_growth": 600},
			"flood_heartbeat_p99 is 100 ms, and must stay below 100\nflood_admin_p99 is 250 ms, and must stay below 100\nflood_watches_admin_list_p99 is 101 ms, and must stay below 100\nlists100k_slow_growth is 600 MiB, and must stay below 512"},
	} {
		err := exceeded(func(name string) (float64, bool) {
			value, ok := c.have[name]
			return value, ok
		})
		if got := fmt.Sprint(err); err == nil && c.want != "" || err != nil && got != c.want {
			t.Errorf("%v: %s, want %s", c.have, got, c.want)
		}
	}
	for _, b := range bounds {
		if phase, _, _ := strings.Cut(b.name, "_"); !slices.Contains(phases, phase) {
			t.Errorf("no phase measures %s", b.name)
		}
	}
}
