package etcd_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"testing"
	"time"

	"hansa.dev/hansa/store"
	"hansa.dev/hansa/store/etcd"
	"hansa.dev/hansa/store/storetest"
)

// serve runs a server of our own on a folder until the test ends.
func serve(t *testing.T, dir string) (endpoint string, stop func()) {
	t.Helper()
	free := func() url.URL {
		// Nobody else's connections take their ports on this address meanwhile.
		l, err := net.Listen("tcp", fmt.Sprintf("127.100.%d.%d:0", os.Getpid()>>8&0xff, os.Getpid()&0xff))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return url.URL{Scheme: "http", Host: l.Addr().String()}
	}
	client, peer := free(), free()
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- etcd.Serve(ctx, etcd.ServerOptions{
			Options: etcd.Options{Dir: dir}, Name: "default", ClusterToken: "t",
			ListenClient: []url.URL{client}, AdvertiseClient: []url.URL{client}, ListenPeer: []url.URL{peer}, AdvertisePeer: []url.URL{peer},
			UnsafeNoFsync: true, Tick: 10 * time.Millisecond, ElectionTicks: 5, SnapshotEntries: 10000, MaxRequestBytes: 4 << 20, MaxTxnOps: 128,
		}, func() { close(ready) })
	}()
	select {
	case <-ready:
	case err := <-ended:
		cancel()
		t.Fatal(err)
	}
	return client.String(), func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// What we serve is etcd for whoever connects.
func TestServe(t *testing.T) {
	t.Parallel()
	endpoint, stop := serve(t, t.TempDir())
	t.Cleanup(stop)
	storetest.Run(t, func(t *testing.T) store.Engine {
		e := connect(t, endpoint)
		wipe(t, e)
		return e
	})
}

// Health, version and metrics are on the port of gRPC, and what was written is
// there after a restart.
func TestServeAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	endpoint, stop := serve(t, dir)
	for _, path := range []string{"/health", "/version", "/metrics"} {
		resp, err := http.Get(endpoint + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	e := connect(t, endpoint)
	if _, err := e.Txn(t.Context(), []store.Step{{Then: []store.Put{{Key: "/k", Value: []byte("v")}}}}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // closing twice is no error
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}
	stop()
	endpoint, stop = serve(t, dir)
	defer stop()
	e = connect(t, endpoint)
	defer e.Close()
	resp, err := e.Range(t.Context(), store.RangeRequest{Start: "/k"})
	if err != nil || len(resp.KVs) != 1 || string(resp.KVs[0].Value) != "v" {
		t.Errorf("after a restart: %+v, %v", resp.KVs, err)
	}
}
