package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// A HealthCheck is what a load balancer is told at a service's
// healthCheckNodePort: whether this node has endpoints for it
// (Service.spec.healthCheckNodePort, externalTrafficPolicy Local).
type HealthCheck struct {
	Port    uint16
	Service Key
	Local   int // ready endpoints on this node
}

// healthCheck returns the service's check, or nil if it has none.
func healthCheck(c Config, svc *corev1.Service, eps []*discoveryv1.EndpointSlice) *HealthCheck {
	port := svc.Spec.HealthCheckNodePort
	if svc.Spec.Type != corev1.ServiceTypeLoadBalancer || port <= 0 ||
		svc.Spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal {
		return nil
	}
	local := map[string]bool{}
	for _, s := range eps {
		for i := range s.Endpoints {
			if e, ok := endpointOf(c, &s.Endpoints[i], 0); ok && e.ready && e.local {
				local[e.addr.Addr().String()] = true
			}
		}
	}
	return &HealthCheck{Port: uint16(port), Service: Key{Namespace: svc.Namespace, Name: svc.Name}, Local: len(local)}
}

// checks serves health checks over HTTP, one listener per port.
type checks struct {
	mu      sync.Mutex
	servers map[uint16]*checkServer
}

type checkServer struct {
	mu     sync.Mutex
	answer HealthCheck
	http   *http.Server
}

// set makes the served checks those of want.
func (c *checks) set(want []HealthCheck) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.servers == nil {
		c.servers = map[uint16]*checkServer{}
	}
	keep := map[uint16]bool{}
	var errs []error
	for _, w := range want {
		if keep[w.Port] {
			continue
		}
		keep[w.Port] = true
		s := c.servers[w.Port]
		if s == nil {
			var err error
			if s, err = serveCheck(w); err != nil {
				errs = append(errs, err)
				continue
			}
			c.servers[w.Port] = s
		}
		s.mu.Lock()
		s.answer = w
		s.mu.Unlock()
	}
	for port, s := range c.servers {
		if !keep[port] {
			errs = append(errs, s.http.Close())
			delete(c.servers, port)
		}
	}
	return errors.Join(errs...)
}

func serveCheck(h HealthCheck) (*checkServer, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp4", ":"+strconv.Itoa(int(h.Port)))
	if err != nil {
		return nil, fmt.Errorf("health check of service %s: %w", h.Service, err)
	}
	s := &checkServer{answer: h}
	s.http = &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = s.http.Serve(l) }() // ends with Close
	return s, nil
}

// ServeHTTP answers 200 while the node has local endpoints and 503 otherwise.
func (s *checkServer) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	h := s.answer
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("X-Load-Balancing-Endpoint-Weight", strconv.Itoa(h.Local))
	if h.Local == 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{
		"service":             map[string]string{"namespace": h.Service.Namespace, "name": h.Service.Name},
		"localEndpoints":      h.Local,
		"serviceProxyHealthy": true,
	})
}
