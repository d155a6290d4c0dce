package rig

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Target is where and as whom to speak to an API.
type Target struct {
	URL string
	TLS *tls.Config
	// Token is a bearer's, "" for whoever has the certificate.
	Token string
}

// Target is the cluster's API as its administrator sees it.
func (c *Cluster) Target() (Target, error) {
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(c.Dir, "kubeconfig"))
	if err != nil {
		return Target{}, fmt.Errorf("read kubeconfig: %w", err)
	}
	security, err := rest.TLSConfigFor(config)
	if err != nil {
		return Target{}, fmt.Errorf("read kubeconfig: %w", err)
	}
	return Target{URL: config.Host, TLS: security}, nil
}

// Client is one connection of HTTP/2 for requests and one for what is left open,
// each made when it is needed. Requests are made one at a time; any number of
// answers may be open.
type Client struct {
	Accept string // what answers are to be, "" for whatever the server likes

	target Target
	wire   *wire
	http   *http.Client
}

// Connect gives a client with connections of its own.
func (t Target) Connect() *Client {
	return &Client{target: t, http: &http.Client{Transport: &http.Transport{
		TLSClientConfig: t.TLS.Clone(), ForceAttemptHTTP2: true, DisableCompression: true, MaxConnsPerHost: 1,
	}}}
}

// Close ends the connections.
func (c *Client) Close() {
	_ = c.closeWire() // everything was answered
	c.http.CloseIdleConnections()
}

// Refusal is an answer that is no success.
type Refusal struct {
	Code int // of HTTP
	text string
}

func (r *Refusal) Error() string { return r.text }

// IsRefusal says whether an error is an answer with that code.
func IsRefusal(err error, code int) bool {
	var r *Refusal
	return errors.As(err, &r) && r.Code == code
}

// Open sends one request and returns the answer's body, which the caller
// closes. An answer that is no success is an error.
func (c *Client) Open(ctx context.Context, method, path, contentType string, body []byte) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.target.URL+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if c.Accept != "" {
		req.Header.Set("Accept", c.Accept)
	}
	if body != nil {
		req.Header.Set("Content-Type", contentType)
	}
	if c.target.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.target.Token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 2000)) //nolint:errcheck // the status says enough
		return nil, refused(method, path, resp.StatusCode, text)
	}
	if resp.ProtoMajor != 2 {
		resp.Body.Close()
		return nil, fmt.Errorf("%s %s was answered by %s, not HTTP/2", method, path, resp.Proto)
	}
	return resp.Body, nil
}

// refused is the error for an answer that is no success.
func refused(method, path string, status int, text []byte) error {
	return &Refusal{Code: status, text: fmt.Sprintf("%s %s: %d %s: %s", method, path, status, http.StatusText(status), text[:min(len(text), 2000)])}
}

// Discard sends one request and reads the answer to its end, whose size in
// bytes it returns.
func (c *Client) Discard(ctx context.Context, method, path, contentType string, body []byte) (size int64, err error) {
	var beginning []byte
	status, err := c.exchange(ctx, method, path, contentType, body, func(part []byte) {
		if size < 2000 && c.wire.status >= 300 {
			beginning = append(beginning, part...)
		}
		size += int64(len(part))
	})
	switch {
	case err != nil:
		return 0, err
	case status < 200 || status >= 300:
		return 0, refused(method, path, status, beginning)
	}
	return size, nil
}

// JSON is the content type of most bodies.
const JSON = "application/json"

// Call sends an object and reads the answer into another; either may be nil.
func (c *Client) Call(ctx context.Context, method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	var answer []byte
	status, err := c.exchange(ctx, method, path, JSON, body, func(part []byte) { answer = append(answer, part...) })
	switch {
	case err != nil:
		return err
	case status < 200 || status >= 300:
		return refused(method, path, status, answer)
	case out == nil:
		return nil
	}
	return json.Unmarshal(answer, out)
}

// Event is one line of a watch.
type Event[T any] struct {
	Type   string
	Object T
}

// Watch calls see with every event of a watch, until it says that it has seen
// enough. started is called once the watch stands; it may be nil.
func Watch[T any](ctx context.Context, c *Client, path string, started func(), see func(Event[T]) (done bool, err error)) error {
	answer, err := c.Open(ctx, http.MethodGet, path, "", nil)
	if err != nil {
		return err
	}
	defer answer.Close()
	if started != nil {
		started()
	}
	for d := json.NewDecoder(answer); ; {
		var e Event[T]
		if err := d.Decode(&e); err != nil {
			return fmt.Errorf("watch %s: %w", path, err)
		}
		if done, err := see(e); done || err != nil {
			return err
		}
	}
}
