package conformance

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// held is a body that comes when a channel is closed. A client that is answered
// before closes it, and waits for it no longer.
func held(until <-chan struct{}, text string) io.ReadCloser {
	body, in := io.Pipe()
	go func() {
		<-until
		_, err := io.WriteString(in, text)
		in.CloseWithError(err)
	}()
	return body
}

// --max-requests-inflight and --max-mutating-requests-inflight, without fairness: so
// many that read and so many that write are served at once, others are refused with
// 429 and told when to come again, and the administrator is served all the same.
func TestMaxRequestsInFlight(t *testing.T) {
	t.Parallel()
	p := startPlane(t, "--enable-priority-and-fairness=false", "--max-requests-inflight=2", "--max-mutating-requests-inflight=2", "--authorization-mode=AlwaysAllow")
	const configMaps = "/api/v1/namespaces/default/configmaps"
	bob, root := p.as(t, "bob", "devs"), p.as(t, "admin", "system:masters")
	write := func(name string) call {
		return call{method: "POST", path: configMaps + "?dryRun=All", body: "metadata: {name: " + name + "}"}
	}
	read := call{path: configMaps, header: map[string]string{"Accept-Encoding": "identity"}} // as it is, so that it is long
	refused := func(what string, c call) {
		t.Helper()
		var a answer
		eventually(t, what+" is refused", func() bool {
			a = bob.do(t, c)
			return a.code == http.StatusTooManyRequests
		})
		if a.header.Get("Retry-After") != "1" || string(a.body) != "Too many requests, please try again later.\n" {
			t.Errorf("%s: %d %v %s", what, a.code, a.header, a.body)
		}
	}

	served := func(what string, c call) { // the seat of one that was answered may not be free yet
		t.Helper()
		eventually(t, what+" is served", func() bool { return bob.do(t, c).code/100 == 2 })
	}

	// Two that write wait for the rest of their bodies.
	release, codes := make(chan struct{}), make(chan int, 2)
	var writing sync.WaitGroup
	free := sync.OnceFunc(func() { close(release); writing.Wait() })
	defer free()
	for i := range cap(codes) {
		writing.Go(func() {
			for { // whoever looks may be in the way
				body := held(release, fmt.Sprintf("metadata: {name: held-%d}", i))
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url+configMaps, body)
				if err != nil {
					t.Error(err)
					return
				}
				req.Header.Set("Content-Type", "application/yaml")
				resp, err := bob.http.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				resp.Body.Close()
				if resp.StatusCode != http.StatusTooManyRequests {
					codes <- resp.StatusCode
					return
				}
			}
		})
	}
	refused("a third that writes", write("third"))
	served("who reads meanwhile", read)
	root.want(t, http.StatusCreated, write("root"), nil)
	free()
	for range cap(codes) {
		if code := <-codes; code != http.StatusCreated {
			t.Errorf("one that was held: %d", code)
		}
	}
	served("a fourth that writes", write("fourth"))

	// Two that read are not read any further: what they ask for is more than there
	// is room for on the way.
	for i := range 12 {
		root.want(t, http.StatusCreated, call{method: "POST", path: configMaps, body: fmt.Sprintf("metadata: {name: long-%d}\ndata: {a: %s}", i, strings.Repeat("x", 1_000_000))}, nil)
	}
	var open []io.Closer
	for range 2 {
		eventually(t, "one reads", func() bool {
			resp, err := bob.open(t.Context(), read)
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, resp.Body)
			return resp.StatusCode == http.StatusOK
		})
	}
	refused("a third that reads", read)
	served("who writes meanwhile", write("fifth"))
	root.want(t, http.StatusOK, call{path: configMaps + "/long-1"}, nil)
	for _, o := range open {
		o.Close()
	}
	served("who reads again", call{path: configMaps + "/long-1"})
}
