package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Each worker sends its share of the load, one request after the other. Half
// of them keep their connection, half open a new one for every request.
const workers = 16

// requestTimeout is when a request that has no answer counts as failed.
const requestTimeout = 10 * time.Second

// load is a running load.
type load struct {
	cancel context.CancelFunc
	wait   sync.WaitGroup
	start  time.Time

	mu   sync.Mutex
	sum  result
	done bool
}

// result is what a load found out.
type result struct {
	took      time.Duration
	requests  map[string]int // by kind of connection
	versions  map[int]int    // answers by version of the backend
	latencies []time.Duration
	failures  []string
	last      int // version of the latest answer
}

// startLoad sends rate requests a second to addr until stop or the context's
// end.
//
// The requests are written to the connections by hand: net/http's client sends
// a request again on a fresh connection when a kept one breaks, which is what
// must not happen unseen here.
func startLoad(ctx context.Context, addr string, rate int) *load {
	ctx, cancel := context.WithCancel(ctx)
	l := &load{cancel: cancel, start: time.Now(), sum: result{requests: map[string]int{}, versions: map[int]int{}}}
	for i := range workers {
		l.wait.Go(func() { l.work(ctx, addr, i%2 == 0, time.Second*workers/time.Duration(rate)) })
	}
	return l
}

// stop ends the load and returns its result. It may be called again.
func (l *load) stop() result {
	l.cancel()
	l.wait.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.done {
		l.done = true
		l.sum.took = time.Since(l.start)
		slices.Sort(l.sum.latencies)
	}
	return l.sum
}

func (l *load) work(ctx context.Context, addr string, keep bool, every time.Duration) {
	kind := "new connections"
	if keep {
		kind = "kept connections"
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	var c *connection
	for {
		select {
		case <-ctx.Done():
			c.close()
			return
		case <-tick.C:
		}
		start := time.Now()
		var body string
		var err error
		if c == nil {
			c, err = dial(ctx, addr)
		}
		if err == nil {
			body, err = c.get(addr)
		}
		if ctx.Err() != nil && err != nil {
			c.close()
			return // it was us who ended it
		}
		l.record(kind, body, err, time.Since(start))
		if !keep || err != nil || c.closing {
			c.close()
			c = nil
		}
	}
}

func (l *load) record(kind, body string, err error, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sum.requests[kind]++
	version, ok := versionOf(body)
	if err == nil && !ok {
		err = fmt.Errorf("answer %q", body)
	}
	if err != nil {
		l.sum.failures = append(l.sum.failures, fmt.Sprintf("%s after %s: %v", kind, time.Since(l.start).Round(time.Millisecond), err))
		return
	}
	l.sum.versions[version]++
	l.sum.last = version
	l.sum.latencies = append(l.sum.latencies, took)
}

// total is how many requests were sent.
func (r result) total() int {
	n := 0
	for _, count := range r.requests {
		n += count
	}
	return n
}

func (r result) rate() float64 { return float64(r.total()) / r.took.Seconds() }

// quantile returns the latency that the part q of all requests kept within.
func (r result) quantile(q float64) time.Duration {
	if len(r.latencies) == 0 {
		return 0
	}
	return r.latencies[int(q*float64(len(r.latencies)-1))].Round(10 * time.Microsecond)
}

func (r result) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d requests in %.1fs, %.0f a second:", r.total(), r.took.Seconds(), r.rate())
	for i, kind := range slices.Sorted(maps.Keys(r.requests)) {
		if i > 0 {
			b.WriteString(" and")
		}
		fmt.Fprintf(&b, " %d on %s", r.requests[kind], kind)
	}
	b.WriteString("\nanswered by")
	for _, v := range slices.Sorted(maps.Keys(r.versions)) {
		fmt.Fprintf(&b, " version %d: %d", v, r.versions[v])
	}
	fmt.Fprintf(&b, "\nlatency: median %s, 99 %% within %s, worst %s\n", r.quantile(0.5), r.quantile(0.99), r.quantile(1))
	fmt.Fprintf(&b, "failed: %d\n", len(r.failures))
	for _, f := range r.failures[:min(10, len(r.failures))] {
		fmt.Fprintf(&b, "  %s\n", f)
	}
	return b.String()
}

// verdict says what is wrong with the result, if anything: a failed request,
// too few of them, or a last answer from another version than the one wanted.
func (r result) verdict(least float64, version int) error {
	switch {
	case len(r.failures) > 0:
		return fmt.Errorf("%d of %d requests failed", len(r.failures), r.total())
	case r.rate() < least:
		return fmt.Errorf("%.0f requests a second came through, fewer than %.0f", r.rate(), least)
	case r.last != version:
		return fmt.Errorf("the last answer came from version %d, not %d", r.last, version)
	}
	return nil
}

// connection is one connection to the server.
type connection struct {
	net.Conn
	r       *bufio.Reader
	closing bool // the server asked for it in its last answer
}

func dial(ctx context.Context, addr string) (*connection, error) {
	d := net.Dialer{Timeout: requestTimeout}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &connection{Conn: c, r: bufio.NewReader(c)}, nil
}

// close closes the connection if there is one.
func (c *connection) close() {
	if c != nil {
		c.Conn.Close()
	}
}

// get sends one request and returns the answer's body; any status but 200 is
// an error.
func (c *connection) get(host string) (string, error) {
	if err := c.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host); err != nil {
		return "", err
	}
	resp, err := http.ReadResponse(c.r, nil)
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return "", fmt.Errorf("the connection was closed without an answer")
	}
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	c.closing = resp.Close
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s", resp.Status)
	}
	return string(body), err
}

// get asks addr once, on a connection of its own.
func get(ctx context.Context, addr string) (string, error) {
	c, err := dial(ctx, addr)
	if err != nil {
		return "", err
	}
	defer c.close()
	return c.get(addr)
}

// answeredBy reads the host's name from "hello from HOSTNAME version V".
func answeredBy(body string) (string, bool) {
	fields := strings.Fields(body)
	if len(fields) != 5 || fields[0] != "hello" {
		return "", false
	}
	return fields[2], true
}

// versionOf reads the version.
func versionOf(body string) (int, bool) {
	if _, ok := answeredBy(body); !ok {
		return 0, false
	}
	v, err := strconv.Atoi(strings.Fields(body)[4])
	return v, err == nil
}
