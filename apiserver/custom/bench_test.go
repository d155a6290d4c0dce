package custom_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/store"
	"hansa.dev/hansa/store/memory"
)

const blob = `
type: object
properties:
  spec: {type: object, properties: {data: {type: string}, count: {type: integer}, tags: {type: array, items: {type: string}}}}
`

// sink is a response that nobody reads.
type sink struct {
	header http.Header
	code   int
}

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) WriteHeader(code int)        { s.code = code }
func (s *sink) Write(b []byte) (int, error) { return len(b), nil }

func serve(b *testing.B, w *world, method, path, body, kind string, want int) {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Content-Type", kind)
	answer := &sink{header: http.Header{}}
	w.http.ServeHTTP(answer, r)
	if answer.code != want {
		b.Fatalf("%s %s: %d", method, path, answer.code)
	}
}

// ofHalfAKilobyte is a widget.
func ofHalfAKilobyte(name string) string {
	return fmt.Sprintf(`{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":%q},"spec":{"data":%q,"count":3,"tags":["a","b"]}}`, name, strings.Repeat("x", 380))
}

func benchWorld(b *testing.B) *world {
	return worldOver(b, memory.New(memory.Options{}), store.Options{}, definitionOf(blob, ""))
}

func BenchmarkCreate(b *testing.B) {
	w := benchWorld(b)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		serve(b, w, "POST", widgets, ofHalfAKilobyte(fmt.Sprint("w", i)), "application/json", http.StatusCreated)
	}
}

func BenchmarkGet(b *testing.B) {
	w := benchWorld(b)
	serve(b, w, "POST", widgets, ofHalfAKilobyte("a"), "application/json", http.StatusCreated)
	b.ReportAllocs()
	for b.Loop() {
		serve(b, w, "GET", widgets+"/a", "", "", http.StatusOK)
	}
}

func BenchmarkMergePatch(b *testing.B) {
	w := benchWorld(b)
	serve(b, w, "POST", widgets, ofHalfAKilobyte("a"), "application/json", http.StatusCreated)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		serve(b, w, "PATCH", widgets+"/a", fmt.Sprintf(`{"spec":{"count":%d}}`, i), "application/merge-patch+json", http.StatusOK)
	}
}

// A thousand definitions at once, with a hundred fields each: until all are served,
// and what they take in memory.
func BenchmarkThousandDefinitions(b *testing.B) {
	fields := make([]string, 100)
	for i := range fields {
		fields[i] = fmt.Sprintf(`"field%d":{"type":"string","description":"Field %d."}`, i, i)
	}
	schema := `"properties":{` + strings.Join(fields, ",") + `,`
	for b.Loop() {
		w := worldOver(b, memory.New(memory.Options{}), store.Options{})
		w.run()
		before := heap()
		for i := range 1000 {
			definition := strings.Replace(manyDefinition(i), `"properties":{`, schema, 1)
			serve(b, w, "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition, "application/json", http.StatusCreated)
		}
		w.until("all are served", func() bool { return len(w.registry.Served()) >= len(kinds.Registry().Served())+1000 })
		b.ReportMetric(float64(heap()-before)/(1<<20), "MiB")
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
