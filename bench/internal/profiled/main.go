// Command profiled is `hansa up` with Go's profiles served on a unix socket,
// DATA_DIR.pprof.sock. hansa itself serves none. The benchmarks build it, with
// the carried programs appended, when they are asked for profiles.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	_ "net/http/pprof"
	"net/netip"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"hansa.dev/hansa/daemon"
)

func main() {
	dir := flag.String("data-dir", "", "data directory")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	err := run(ctx, *dir)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "profiled:", err)
		os.Exit(1)
	}
}

// run is `hansa up` with the defaults of its flags.
func run(ctx context.Context, dir string) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	socket := dir + ".pprof.sock" // not in it: a new data directory must be empty
	if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
		return err
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	go http.Serve(l, nil) //nolint:errcheck // ends with the process
	return daemon.Up(ctx, daemon.Config{
		DataDir: dir, Listen: "0.0.0.0:6443", NodeName: host, ClusterDomain: "cluster.local",
		ClusterCIDR: netip.MustParsePrefix("10.42.0.0/16"), ServiceCIDR: netip.MustParsePrefix("10.43.0.0/16"),
		LogLevel: slog.LevelWarn,
	}, os.Stdout, os.Stderr)
}
