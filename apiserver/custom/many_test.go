package custom_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"hansa.dev/hansa/store"
)

const manyDefinitions = 100

func manyDefinition(i int) string {
	name := fmt.Sprintf("thing%d", i)
	return fmt.Sprintf(`{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"%[1]ss.many.example.com"},
"spec":{"group":"many.example.com","scope":"Namespaced","names":{"plural":"%[1]ss","singular":"%[1]s","kind":"Thing%[2]d"},
"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","properties":{"n":{"type":"integer","default":1}}}}}]}}`, name, i)
}

// Definitions come, change and go at random, and so do their objects, while all of
// it is watched. Whoever watches something else is not disturbed, and nothing is
// left in the end.
func TestManyDefinitions(t *testing.T) {
	w := newWorld(t)
	w.run()
	configMaps := w.registry.Must("", "configmaps")
	watcher, err := w.store.Watch(t.Context(), store.Query{Resource: configMaps}, store.WatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Stop()
	var workers sync.WaitGroup
	const each = 120
	for worker := range 8 {
		workers.Go(func() {
			m := &mess{world: w, random: rand.New(rand.NewPCG(1, uint64(worker)))}
			for n := range each {
				m.step()
				m.try("POST", "/api/v1/namespaces/default/configmaps", fmt.Sprintf(`{"metadata":{"name":"c%d-%d"}}`, worker, n))
			}
		})
	}
	workers.Wait()
	for seen := 0; seen < 8*each; {
		events, err := watcher.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		seen += len(events)
	}
	w.want(200, "DELETE", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "")
	w.until("all definitions are gone", func() bool {
		items := w.do("GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "").object()["items"]
		list, _ := items.([]any)
		return len(list) == 0
	})
	w.until("nothing is served any more", func() bool { return w.do("GET", "/apis/many.example.com/v1", "").code == 404 })
	for page, err := range store.Pages(t.Context(), w.engine, store.RangeRequest{Start: "/registry/many.example.com/", End: "/registry/many.example.com0"}) {
		if err != nil || len(page.KVs) > 0 {
			t.Fatalf("%d objects are left (%v), the first at %s", len(page.KVs), err, page.KVs[0].Key)
		}
	}
}

// mess does one thing after the other.
type mess struct {
	*world
	random *rand.Rand
}

// try asks for something that may fail for what others do meanwhile, but never for
// a mistake of the server.
func (m *mess) try(method, path, body string, kind ...string) {
	if a := m.do(method, path, body, kind...); a.code >= 500 || a.code == 400 || a.code == 422 {
		m.t.Errorf("%s %s: %d: %s", method, path, a.code, a.body)
	}
}

func (m *mess) step() {
	i := m.random.IntN(manyDefinitions)
	definition := fmt.Sprintf("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/thing%ds.many.example.com", i)
	objects := fmt.Sprintf("/apis/many.example.com/v1/namespaces/default/thing%ds", i)
	object := fmt.Sprintf(`{"apiVersion":"many.example.com/v1","kind":"Thing%d","metadata":{"name":"o%d"},"n":%d}`, i, m.random.IntN(3), m.random.IntN(9))
	switch m.random.IntN(9) {
	case 0, 1, 2:
		m.try("POST", definition[:strings.LastIndexByte(definition, '/')], manyDefinition(i))
	case 3:
		m.try("DELETE", definition, "")
	case 4:
		m.try("PATCH", definition, fmt.Sprintf(`{"spec":{"names":{"categories":["c%d"]}}}`, m.random.IntN(9)), "application/merge-patch+json")
	case 5, 6:
		m.try("POST", objects, object)
	case 7:
		m.try("PATCH", objects+"/o1", `{"n":5}`, "application/merge-patch+json")
		m.try("DELETE", objects+"/o2", "")
	case 8:
		m.try("GET", objects, "")
		m.try("GET", "/apis", "")
		m.watch(i)
	}
}

// watch watches the objects of a definition until it is told of something, or the
// kind ends.
func (m *mess) watch(i int) {
	row := m.registry.ByPrefix(fmt.Sprintf("many.example.com/thing%ds", i))
	if row == nil {
		return
	}
	ctx, cancel := context.WithCancel(m.t.Context())
	watcher, err := m.store.Watch(ctx, store.Query{Resource: row}, store.WatchOptions{})
	if err != nil {
		cancel()
		m.t.Error(err)
		return
	}
	go func() {
		defer cancel()
		defer watcher.Stop()
		select {
		case <-row.Ended:
		case <-watcher.Done():
		}
	}()
	go func() { _, _ = watcher.Next(ctx) }()
}
