package conformance

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// anonymous is the memory of the daemon that is no file's, in bytes
// (proc_pid_status(5), RssAnon).
func (c *cluster) anonymous(t *testing.T) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.daemon.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(status, []byte("RssAnon:"))
	fields := strings.Fields(string(rest[:min(len(rest), 64)]))
	if len(fields) == 0 {
		t.Fatalf("no RssAnon in %s", status)
	}
	kib, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// slowReader is a client whose answers are not read any faster than it reads
// them: little is on its way.
func slowReader(t *testing.T, p *peer) *peer {
	t.Helper()
	security, err := tlsOf(p)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{
		TLSClientConfig: security, ForceAttemptHTTP2: true, DisableCompression: true,
		HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &peer{config: p.config, http: &http.Client{Transport: transport}}
}

// fillConfigMaps makes objects of 512 bytes.
func fillConfigMaps(t *testing.T, p *peer, objects int) {
	t.Helper()
	var next atomic.Int64
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			for i := next.Add(1); i <= int64(objects); i = next.Add(1) {
				a := p.do(t, call{method: "POST", path: at("configmaps", "default"), contentType: "application/json",
					body: fmt.Sprintf(`{"metadata":{"name":"cm-%05d"},"data":{"payload":"%s"}}`, i, strings.Repeat("x", 512))})
				if a.code != http.StatusCreated {
					t.Errorf("create: %d %s", a.code, a.body)
					return
				}
			}
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// However many read a large collection at once, and however slowly, the server
// keeps no list, table or metadata of it: the 3 to 13 MB of each would be 150 to
// 650 of all. A third of the bound is what a page of the history takes for each
// of them, the rest room for garbage.
func TestListsAreStreamed(t *testing.T) {
	const objects, lists, most = 5000, 50, 176 << 20
	c, p := started(t, "streamed")
	fillConfigMaps(t, p, objects)
	version := p.want(t, http.StatusOK, call{path: at("configmaps", "default") + "?limit=1", accept: "application/json"}, nil).object(t).GetResourceVersion()
	// From here on that version is history.
	p.want(t, http.StatusCreated, call{method: "POST", path: at("configmaps", "default"), body: "metadata: {name: later}"}, nil)
	slow := slowReader(t, p)
	rest := c.anonymous(t)
	const past = "application/json;charset=past"
	for _, accept := range []string{
		past,
		"application/json;as=Table;v=v1;g=meta.k8s.io",
		"application/json;pretty=1",
		"application/yaml",
		"application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
		"application/json",
		"application/vnd.kubernetes.protobuf",
	} {
		answers := make([]*http.Response, lists)
		path := at("configmaps", "default")
		if accept == past {
			path += "?resourceVersionMatch=Exact&resourceVersion=" + version
		}
		for i := range answers {
			resp, err := slow.open(t.Context(), call{path: path, accept: accept})
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if _, err := io.ReadFull(resp.Body, make([]byte, 100<<10)); err != nil || resp.StatusCode != http.StatusOK {
				t.Fatalf("%s: %d, %v", accept, resp.StatusCode, err)
			}
			answers[i] = resp
		}
		if grown := c.anonymous(t) - rest; grown > most {
			t.Errorf("%d of %s at once take %d MiB, want less than %d", lists, accept, grown>>20, most>>20)
		}
		if n, err := io.Copy(io.Discard, answers[0].Body); err != nil || n < objects*100 {
			t.Errorf("%s: %d bytes more, %v", accept, n, err)
		}
		for _, resp := range answers {
			resp.Body.Close()
		}
	}
}

// What is streamed is the whole: each object once, in order, however it looks.
func TestStreamedListsAreComplete(t *testing.T) {
	const objects = 1200
	_, p := started(t, "complete")
	fillConfigMaps(t, p, objects)
	type item struct {
		Metadata metav1.ObjectMeta
		Object   struct{ Metadata metav1.ObjectMeta }
	}
	var list struct{ Items, Rows []item }
	for _, accept := range []string{
		"application/json", "application/json;pretty=1", "application/yaml",
		"application/json;as=Table;v=v1;g=meta.k8s.io", "application/json;pretty=1;as=Table;v=v1;g=meta.k8s.io",
		"application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
	} {
		list.Items, list.Rows = nil, nil
		a := p.want(t, http.StatusOK, call{path: at("configmaps", "default"), accept: accept}, &list)
		var names []string
		for _, i := range append(list.Items, list.Rows...) {
			if name := i.Metadata.Name + i.Object.Metadata.Name; strings.HasPrefix(name, "cm-") {
				names = append(names, name)
			}
		}
		for i, name := range names {
			if want := fmt.Sprintf("cm-%05d", i+1); name != want {
				t.Fatalf("%s: number %d is %s, want %s", accept, i, name, want)
			}
		}
		if len(names) != objects {
			t.Errorf("%s: %d objects, want %d", accept, len(names), objects)
		}
		if strings.Contains(accept, "pretty") {
			var again bytes.Buffer
			if err := json.Indent(&again, a.body, "", "  "); err != nil || !bytes.Equal(again.Bytes(), a.body) {
				t.Errorf("%s: not laid out as json.Indent does it, %v", accept, err)
			}
		}
	}
}

// A watcher that does not read is dropped, or waits, and costs the server no
// memory meanwhile: there is no queue for it.
func TestSlowWatchersTakeNoMemory(t *testing.T) {
	const watchers, rounds, most = 50, 40, 64 << 20
	c, p := started(t, "slow-watchers")
	slow := slowReader(t, p)
	from := p.want(t, http.StatusOK, call{path: at("configmaps", "default")}, nil).object(t).GetResourceVersion()
	var watches []*http.Response
	for range watchers {
		resp, err := slow.open(t.Context(), call{path: at("configmaps", "default") + "?watch=true&resourceVersion=" + from})
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		watches = append(watches, resp)
	}
	rest := c.anonymous(t)
	// 40 × 500 KB of changes: 20 MB as objects and 20 as texts, where watchers are
	// at each of them; with queues it would be 20 MB for each watcher.
	p.want(t, http.StatusCreated, call{method: "POST", path: at("configmaps", "default"), body: "metadata: {name: large}"}, nil)
	for i := range rounds {
		p.want(t, http.StatusOK, call{method: "PATCH", path: at("configmaps", "default", "large"), contentType: mergePatch,
			body: fmt.Sprintf(`{"data":{"a":"%d%s"}}`, i, strings.Repeat("x", 500<<10))}, nil)
	}
	// The load's garbage goes once it is over; what is kept for them stays.
	eventually(t, fmt.Sprintf("%d watchers that do not read to take less than %d MiB", watchers, most>>20), func() bool {
		return c.anonymous(t)-rest < most
	})
	// Each sees all of it in order, or is told that it is too late.
	for i, resp := range watches {
		if err := readToTheLast(resp.Body, rounds-1); err != nil {
			t.Errorf("watcher %d: %v", i, err)
		}
	}
}

// readToTheLast reads a watch of changes that count up, until the last or an
// error 410.
func readToTheLast(r io.Reader, last int) error {
	lines := bufio.NewReaderSize(r, 1<<20)
	for next := -1; ; next++ {
		line, err := lines.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("before change %d: %w", next, err)
		}
		if bytes.HasPrefix(line, []byte(`{"type":"ERROR"`)) {
			if bytes.Contains(line, []byte(`"code":410`)) {
				return nil
			}
			return fmt.Errorf("before change %d: %.300s", next, line)
		}
		if next < 0 {
			continue // the creation
		}
		if want := fmt.Sprintf(`"data":{"a":"%dx`, next); !bytes.Contains(line, []byte(want)) {
			return fmt.Errorf("change %d is %.300s", next, line)
		}
		if next == last {
			return nil
		}
	}
}
