package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// server answers over HTTP, TCP and gRPC, and is told over HTTP how healthy to
// seem:
//
//	GET  /             the host's name
//	GET  /word         the environment's WORD
//	GET  /client       the caller's address
//	GET  /healthz      200 or 503
//	POST /healthy      from now on well; /sick: from now on not
//	GET  /get?url=     what this container gets from there
//	GET  /hook         logs that it was called
//
// Sick means: 503 over HTTP, NOT_SERVING over gRPC, nobody listening on the TCP
// port.
type server struct {
	tcp    string
	health *health.Server

	mu       sync.Mutex
	sick     bool
	listener net.Listener
}

func serve(args []string) error {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	httpPort := flags.String("http", "8080", "`port` of HTTP")
	tcpPort := flags.String("tcp", "7000", "`port` that accepts and sends the host's name")
	grpcPort := flags.String("grpc", "9000", "`port` of gRPC's health service")
	sick := flags.Bool("sick", false, "begin sick")
	drain := flags.Duration("drain", 0, "how long to go on after SIGTERM, for callers who have not heard of it")
	if err := flags.Parse(args); err != nil {
		return err
	}
	s := &server{tcp: ":" + *tcpPort, health: health.NewServer()}
	if err := s.set(*sick); err != nil {
		return err
	}
	g := grpc.NewServer()
	healthpb.RegisterHealthServer(g, s.health)
	l, err := net.Listen("tcp", ":"+*grpcPort)
	if err != nil {
		return err
	}
	failed := make(chan error, 2)
	go func() { failed <- g.Serve(l) }()
	web := &http.Server{Addr: ":" + *httpPort, Handler: s.routes()}
	go func() { failed <- web.ListenAndServe() }()
	log.Println("serving")
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	select {
	case err := <-failed:
		return err
	case got := <-stop:
		log.Println("caught", got)
		<-time.After(*drain)
		return web.Shutdown(context.Background())
	}
}

func (s *server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, hostname()) })
	mux.HandleFunc("GET /word", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, os.Getenv("WORD")) })
	mux.HandleFunc("GET /client", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, r.RemoteAddr) })
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.sick {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	for path, sick := range map[string]bool{"POST /healthy": false, "POST /sick": true} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			if err := s.set(sick); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
			}
		})
	}
	mux.HandleFunc("GET /get", get)
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		fmt.Fprintf(w, "# TYPE testimage_info gauge\ntestimage_info{host=%q} 1\n", hostname())
	})
	mux.HandleFunc("GET /hook", func(http.ResponseWriter, *http.Request) { log.Println("hook called") })
	return mux
}

// set makes the server seem sick or well on all three.
func (s *server) set(sick bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sick = sick
	state := healthpb.HealthCheckResponse_SERVING
	if sick {
		state = healthpb.HealthCheckResponse_NOT_SERVING
	}
	s.health.SetServingStatus("", state)
	switch {
	case sick && s.listener != nil:
		err := s.listener.Close()
		s.listener = nil
		return err
	case !sick && s.listener == nil:
		l, err := net.Listen("tcp", s.tcp)
		if err != nil {
			return err
		}
		s.listener = l
		go greet(l)
	}
	return nil
}

// greet sends the host's name to whoever calls.
func greet(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		fmt.Fprintln(c, hostname())
		c.Close()
	}
}

// fetcher opens a connection for each request: which endpoint answers is up to
// the network each time.
var fetcher = http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

func get(w http.ResponseWriter, r *http.Request) {
	answer, err := fetcher.Get(r.FormValue("url"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer answer.Body.Close()
	w.WriteHeader(answer.StatusCode)
	if _, err := io.Copy(w, answer.Body); err != nil {
		log.Println(err)
	}
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return err.Error()
	}
	return name
}
