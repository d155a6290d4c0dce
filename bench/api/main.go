// Command api measures the API over HTTPS and HTTP/2 with ConfigMaps of 512
// bytes: many connections, each with one request at a time, asked by this
// program on the same processors.
//
//	create get patch delete   requests per second, for -phase each
//	…_p50 …_p99               how long one took
//	…_cpu …_cpu_client        processor time for one, of the server's processes and of this program
//	list                      time of one list of -objects, with 20 asked at once
//	list_label                lists a second that select 1 % of them by label, 20 at once
//	watch                     events a second to 100 watchers together while objects are created
//	flood                     requests a second of 200 connections of one service account
//	flood_refused             how many of a hundred of them are refused
//	heartbeat_p99 admin_p99   how long a node's lease and the administrator's gets take meanwhile
//	memory_pss_loaded         the server's memory after all that
//
// With -bare the same is asked of a server of a hundred lines: TLS, HTTP/2,
// JSON in and out, one synced put of the embedded etcd, no checks. Ratios say
// more than figures: machines differ and are shared.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/bench/internal/rig"
)

var (
	connections = flag.Int("connections", 64, "`number` of connections")
	phase       = flag.Duration("phase", 20*time.Second, "how long creates, gets, patches and deletes are measured each")
	objects     = flag.Int("objects", 5000, "`number` of objects that are listed")
	bare        = flag.Bool("bare", false, "measure a server without any checks as well, and print ratios to it")
	only        = flag.String("only", "", "only these `phases`, comma separated: get,patch,delete,list,watch,flood; creates always come first")
)

func main() {
	if dir := os.Getenv(bareVariable); dir != "" {
		bareMain(dir)
		return
	}
	rig.Main("api measures the API over HTTPS and HTTP/2 with ConfigMaps of 512 bytes.", run)
}

func wanted(phase string) bool {
	return *only == "" || strings.Contains(","+*only+",", ","+phase+",")
}

func run(ctx context.Context, r *rig.Rig) error {
	limit := rates{}
	if *bare {
		var err error
		if limit, err = runBare(ctx, r); err != nil {
			return fmt.Errorf("bare server: %w", err)
		}
		if err := rig.Wait(ctx, 2*time.Second); err != nil {
			return err
		}
	}
	got, err := runHansa(ctx, r)
	if err != nil {
		return err
	}
	for _, name := range []string{"create", "get", "patch", "delete"} {
		if limit[name] > 0 && got[name] > 0 {
			r.Figure(name+"_ratio", got[name]/limit[name], "of_bare")
		}
	}
	return nil
}

// rates are requests per second by the name of the phase.
type rates map[string]float64

func runHansa(ctx context.Context, r *rig.Rig) (_ rates, err error) {
	c := r.NewCluster("api")
	defer c.Remove(ctx, &err)
	if err := c.Up(ctx); err != nil {
		return nil, err
	}
	target, err := c.Target()
	if err != nil {
		return nil, err
	}
	l := newLoad(r, target, c)
	defer l.close()
	for _, name := range []string{"load", "list", "watch"} {
		ns := corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if err := l.clients[0].Call(ctx, "POST", "/api/v1/namespaces", ns, nil); err != nil {
			return nil, err
		}
	}
	got, err := l.writes(ctx, "")
	if err != nil {
		return nil, err
	}
	if wanted("list") {
		err = errors.Join(err, l.lists(ctx))
	}
	if wanted("watch") && err == nil {
		err = l.watches(ctx)
	}
	if wanted("flood") && err == nil {
		err = l.flood(ctx)
	}
	if err != nil {
		return nil, err
	}
	ps, err := c.Processes()
	if err != nil {
		return nil, err
	}
	var sum int64
	for _, p := range ps {
		sum += p.PSS
	}
	r.Figure("memory_pss_loaded", float64(sum)/(1<<20), "MiB")
	return got, r.Profile(ctx, c, "loaded", "heap", 0)
}
