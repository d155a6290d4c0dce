// Command backend is the demo's server: it says who answered and in which
// version, and it leaves without dropping a request.
//
// A pod that is told to stop is still sent requests: the proxies of the
// cluster learn of it at the same time as the process does. So on SIGTERM it
//
//  1. goes on accepting and answering for the drain time, asking each client
//     to close its connection (so that the next request goes elsewhere),
//  2. then stops listening and waits for what is still being answered.
//
// That is all that a rolling update without a failed request asks of a program:
// no preStop hook, no retry in the load balancer.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

// version is set when the image is built.
var version = "0"

func main() {
	listen := flag.String("listen", ":8080", "`address` to serve on")
	drain := flag.Duration("drain", 3*time.Second, "how long to go on accepting after SIGTERM")
	flag.Parse()
	hostname, err := os.Hostname()
	if err != nil {
		log.Fatalf("backend: %v", err)
	}
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatalf("backend: %v", err)
	}
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	log.Printf("version %s serves on %s", version, l.Addr())
	drained := func() <-chan time.Time { return time.After(*drain) }
	if err := serve(stop, l, newMux(hostname, version), drained); err != nil {
		log.Fatalf("backend: %v", err)
	}
	log.Print("drained, bye")
}

// newMux answers / with who answers, and /healthz with 200.
func newMux(hostname, version string) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello from %s version %s\n", hostname, version)
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	return mux
}

// serve answers on l until stop is done, then drains as the package comment
// says; drained starts the drain time and fires at its end. It returns when the
// last request has been answered.
func serve(stop context.Context, l net.Listener, h http.Handler, drained func() <-chan time.Time) error {
	var draining atomic.Bool
	server := &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if draining.Load() {
				w.Header().Set("Connection", "close")
			}
			h.ServeHTTP(w, r)
		}),
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-stop.Done():
	}
	draining.Store(true)
	select {
	case err := <-failed:
		return err
	case <-drained():
	}
	// The pod's grace period ends it if a request never ends.
	if err := server.Shutdown(context.Background()); err != nil {
		return err
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
