// Package probe asks containers whether they are well: by a command, an HTTP
// request, a TCP connection or the gRPC health protocol.
package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Target is what a probe is asked of.
type Target struct {
	Container *v1.Container
	// IP is the pod's address.
	IP string
	// Exec runs a command in the container.
	Exec func(ctx context.Context, command []string, timeout time.Duration) (output string, code int, err error)
}

// Outcome of one probe.
type Outcome struct {
	OK bool
	// Warning is set when a probe succeeded, but not in a way to be relied on.
	Warning bool
	Message string
}

// maxBody is how much of an answer is read and quoted.
const maxBody = 10 << 10

const userAgent = "kube-probe/1.37"

// Once carries out one probe. err is for when it could not be carried out at
// all, which says nothing of the container.
func Once(ctx context.Context, p *v1.Probe, t Target) (Outcome, error) {
	timeout := time.Duration(max(p.TimeoutSeconds, 1)) * time.Second
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	switch {
	case p.Exec != nil:
		return execProbe(ctx, p.Exec.Command, timeout, t)
	case p.HTTPGet != nil:
		return httpProbe(ctx, p.HTTPGet, t)
	case p.TCPSocket != nil:
		return tcpProbe(ctx, p.TCPSocket, t)
	case p.GRPC != nil:
		return grpcProbe(ctx, p.GRPC, t, timeout)
	}
	return Outcome{}, errors.New("the probe has no handler")
}

func execProbe(ctx context.Context, command []string, timeout time.Duration, t Target) (Outcome, error) {
	out, code, err := t.Exec(ctx, command, timeout)
	if errors.Is(err, context.DeadlineExceeded) || status.Code(err) == codes.DeadlineExceeded {
		return Outcome{Message: fmt.Sprintf("command timed out: %q timed out after %s", strings.Join(command, " "), timeout)}, nil
	}
	if err != nil {
		return Outcome{}, err
	}
	return Outcome{OK: code == 0, Message: out}, nil
}

// Port finds a port by number or by the name the container gives it.
func Port(port intstr.IntOrString, c *v1.Container) (int, error) {
	n := port.IntValue()
	if port.Type == intstr.String {
		found := false
		for _, p := range c.Ports {
			if p.Name == port.StrVal {
				n, found = int(p.ContainerPort), true
			}
		}
		if !found {
			var err error
			if n, err = strconv.Atoi(port.StrVal); err != nil {
				return 0, fmt.Errorf("couldn't find port: %v", port.StrVal)
			}
		}
	}
	if n <= 0 || n > 65535 {
		return 0, fmt.Errorf("invalid port number: %v", n)
	}
	return n, nil
}

// Request makes the HTTP request of a probe or a hook.
func Request(ctx context.Context, get *v1.HTTPGetAction, t Target, agent string) (*http.Request, error) {
	port, err := Port(get.Port, t.Container)
	if err != nil {
		return nil, err
	}
	host := get.Host
	if host == "" {
		host = t.IP
	}
	u, err := url.Parse(get.Path)
	if err != nil {
		// As written, escaped as a path.
		u = &url.URL{Path: get.Path}
	}
	u.Scheme = strings.ToLower(string(get.Scheme))
	if u.Scheme == "" {
		u.Scheme = "http"
	}
	u.Host = net.JoinHostPort(host, strconv.Itoa(port))
	if u.Path != "" && !strings.HasPrefix(u.Path, "/") {
		u.Path = path.Join("/", u.Path)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header = http.Header{}
	for _, h := range get.HTTPHeaders {
		req.Header.Add(h.Name, h.Value)
	}
	if _, ok := req.Header["User-Agent"]; !ok {
		req.Header.Set("User-Agent", agent)
	}
	if _, ok := req.Header["Accept"]; !ok {
		req.Header.Set("Accept", "*/*")
	}
	if v := req.Header.Get("Host"); v != "" {
		req.Host = v
	}
	return req, nil
}

// Client is for probes and hooks: one connection a request, any certificate,
// redirects followed on the same host only.
var Client = &http.Client{
	Transport: &http.Transport{
		TLSClientConfig:    &tls.Config{InsecureSkipVerify: true}, // pods have certificates of their own making
		DisableKeepAlives:  true,
		DisableCompression: true,
		Proxy:              nil,
		DialContext:        dialer.DialContext,
	},
	CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if req.URL.Hostname() != via[0].URL.Hostname() {
			return http.ErrUseLastResponse
		}
		if len(via) >= 10 {
			return errors.New("stopped after 10 redirects")
		}
		return nil
	},
}

// dialer closes at once: probes of many pods must not use up the node's ports
// with connections that linger.
var dialer = &net.Dialer{KeepAlive: -1}

func httpProbe(ctx context.Context, get *v1.HTTPGetAction, t Target) (Outcome, error) {
	req, err := Request(ctx, get, t, userAgent)
	if err != nil {
		return Outcome{}, err
	}
	resp, err := Client.Do(req)
	if err != nil {
		return Outcome{Message: err.Error()}, nil
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return Outcome{}, err
	}
	switch {
	case resp.StatusCode >= 200 && resp.StatusCode < 300:
		return Outcome{OK: true, Message: string(body)}, nil
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		return Outcome{OK: true, Warning: true, Message: fmt.Sprintf("Probe terminated redirects, Response body: %v", string(body))}, nil
	}
	return Outcome{Message: fmt.Sprintf("HTTP probe failed with statuscode: %d", resp.StatusCode)}, nil
}

func tcpProbe(ctx context.Context, s *v1.TCPSocketAction, t Target) (Outcome, error) {
	port, err := Port(s.Port, t.Container)
	if err != nil {
		return Outcome{}, err
	}
	host := s.Host
	if host == "" {
		host = t.IP
	}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return Outcome{Message: err.Error()}, nil
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // no TIME_WAIT; the connection carries no data
	}
	conn.Close()
	return Outcome{OK: true}, nil
}

func grpcProbe(ctx context.Context, g *v1.GRPCAction, t Target, timeout time.Duration) (Outcome, error) {
	addr := net.JoinHostPort(t.IP, strconv.Itoa(int(g.Port)))
	conn, err := grpc.NewClient("passthrough:///"+addr,
		grpc.WithUserAgent(userAgent),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return dialer.DialContext(ctx, "tcp", addr) }))
	if err != nil {
		return Outcome{}, err
	}
	defer conn.Close()
	service := ""
	if g.Service != nil {
		service = *g.Service
	}
	resp, err := healthpb.NewHealthClient(conn).Check(metadata.NewOutgoingContext(ctx, metadata.MD{}), &healthpb.HealthCheckRequest{Service: service})
	if err != nil {
		switch status.Code(err) {
		case codes.Unimplemented:
			return Outcome{Message: fmt.Sprintf("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): %s", status.Convert(err).Message())}, nil
		case codes.DeadlineExceeded:
			return Outcome{Message: fmt.Sprintf("timeout: health rpc did not complete within %v", timeout)}, nil
		case codes.Unavailable:
			return Outcome{Message: fmt.Sprintf("timeout: failed to connect service %q within %v: %s", addr, timeout, status.Convert(err).Message())}, nil
		}
		return Outcome{Message: fmt.Sprintf("error: health rpc probe failed: %s", err)}, nil
	}
	if resp.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		return Outcome{Message: fmt.Sprintf("service unhealthy (responded with %q)", resp.GetStatus().String())}, nil
	}
	return Outcome{OK: true, Message: "service healthy"}, nil
}
