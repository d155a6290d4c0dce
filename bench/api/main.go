// Command api measures the API over HTTPS and HTTP/2 with ConfigMaps of 512
// bytes: many connections, each with one request at a time, asked by this
// program on the same processors. What begins with a name of -only:
//
//	create get patch delete   requests per second
//	pods_create pods_get      the same of pods of 2 KiB, in protobuf
//	…_p50 …_p99               how long one took
//	…_cpu …_cpu_client        processor time for one, of the server's processes and of this program
//	list                      time of one list of -objects, with 20 asked at once; also per second
//	list_label                lists a second that select 2 % of them by label, 20 at once
//	watch                     events a second to -watchers together while objects are created, none lost
//	watch_resumed             watches that the server ended and that were taken up again
//	flood                     requests a second of 200 connections of one service account: creates, lists of 100, deletes
//	flood_lists …_creates     the same of lists of 5,000 objects, of creates,
//	flood_watches             of watches that begin with 5,000 objects
//	…_refused                 how many of a hundred of them are refused
//	…_heartbeat_p99           how long a node's lease takes meanwhile
//	…_admin_p99               how long the administrator's gets take
//	…_admin_list_p99 …        the same of lists, watches (to the first event) and writes
//	memory_private_N          private memory after a run with N = -objects objects on a fresh server
//	memory_private_N_database the part of it that is etcd's file mapped
//	memory_pss_loaded         memory of all processes of Hansa after the phases up to here
//
// These, with memory_pss_loaded, are measured -rounds times, and the median is
// printed. With -peer the same is asked, in turn, of custom resources served by
// the API machinery of Kubernetes over the same etcd; with -bare of a server of
// a hundred lines: TLS, HTTP/2, JSON in and out, one synced put of the embedded
// etcd, no checks; with -custom of Hansa once more, of the peer's custom resources.
// Their figures begin with peer_, bare_ and custom_, and ratios follow:
// how many times faster, or smaller, Hansa is. They say more than figures, since
// machines differ and are shared. The rest is of Hansa alone, once:
//
//	definitions1000           time until 1,000 definitions, made by all connections at once, are all served
//	definitions1000_memory    the private memory that they add, without etcd's file mapped
//	custom50k                 private memory with 50,000 custom resources of 2 KiB, without etcd's file mapped
//	custom50k_database        the file's pages that are mapped
//	policy_create             creates per second of custom resources with three rules, a default and a validating policy
//	webhook_added             what a local mutating webhook adds to a create on one connection beyond its own time, medians
//	webhook_with_p50 …        the median with it, without it, and of its own time
//	idlewatches               memory for one of 10,000 idle watches over 100 connections
//	lists100k_fast            time of 50 lists at once of as many ConfigMaps as -pods says
//	lists100k_slow            the same by slow readers, that give up after a phase
//	lists100k_chunks          the same in chunks of 500
//	lists100k_…_growth        the most private memory meanwhile above that at rest (…_rest), without etcd's file mapped
//	pods100k_templates        private memory with -pods pods of 200 templates, without etcd's file mapped
//	pods100k_distinct         the same of pods of which no two are alike
//	pods100k_…_database       the file's pages that are mapped
//	start100k                 from the start of the process, with as many pods in etcd, to the first list
//	start100k_ready           the same to the ready line
//
// It fails, once all is measured, when a heartbeat or what the administrator asks
// takes 100 ms within a flood (p99), or when lists100k adds 512 MiB.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"hansa.dev/hansa/bench/internal/rig"
)

var (
	connections = flag.Int("connections", 64, "`number` of connections")
	phase       = flag.Duration("phase", 20*time.Second, "how long each phase is measured")
	objects     = flag.Int("objects", 5000, "`number` of objects that are listed")
	watchers    = flag.Int("watchers", 50, "`number` of watchers, each on a connection of its own")
	podCount    = flag.Int("pods", 100_000, "`number` of pods in pods100k and start100k, of ConfigMaps in lists100k")
	settle      = flag.Duration("settle", 5*time.Second, "how long after a load memory is looked at")
	rounds      = flag.Int("rounds", 1, "`number` of times that each server is started and measured, in turn")
	peer        = flag.Bool("peer", false, "measure the API machinery of Kubernetes as well, and print ratios to it")
	bare        = flag.Bool("bare", false, "measure a server without any checks as well, and print ratios to it")
	only        = flag.String("only", "", "only these `phases`, comma separated, of "+strings.Join(phases, ",")+"; creates come before any of the first four")
)

var phases = []string{"create", "get", "patch", "delete", "list", "watch", "pods", "flood", "memory", "definitions1000", "custom50k", "policy", "webhook", "idlewatches", "lists100k", "pods100k", "start100k"}

func main() {
	if dir := os.Getenv(bareVariable); dir != "" {
		bareMain(dir)
		return
	}
	if dir := os.Getenv(floodVariable); dir != "" {
		floodMain(dir, os.Args[1], os.Args[2])
		return
	}
	rig.Main(rig.Program{
		Doc:     "api measures the API over HTTPS and HTTP/2 with ConfigMaps of 512 bytes.",
		Prepare: prepare,
		Run:     run,
	})
}

func prepare(ctx context.Context) error {
	for name := range strings.SplitSeq(*only, ",") {
		if name != "" && !slices.Contains(phases, name) {
			return fmt.Errorf("-only knows no %q, but %s", name, strings.Join(phases, ", "))
		}
	}
	return buildPeer(ctx)
}

// wanted says whether any of some phases is.
func wanted(phases ...string) bool {
	return *only == "" || slices.ContainsFunc(strings.Split(*only, ","), func(name string) bool { return slices.Contains(phases, name) })
}

func run(ctx context.Context, r *rig.Rig) error {
	subjects := []subject{hansaSubject}
	if *customToo {
		subjects = append(subjects, customSubject)
	}
	if *peer {
		subjects = append(subjects, peerSubject)
	}
	if *bare {
		subjects = append(subjects, bareSubject)
	}
	if err := r.Rounds(*rounds, func() error { return round(ctx, r, subjects) }); err != nil {
		return err
	}
	for _, s := range subjects {
		if s.prefix == peerSubject.prefix || s.prefix == bareSubject.prefix {
			ratios(r, s)
		}
	}
	if err := alone(ctx, r); err != nil {
		return err
	}
	return exceeded(r.Median)
}

// round measures each server.
func round(ctx context.Context, r *rig.Rig, subjects []subject) error {
	for _, s := range subjects {
		if wanted("create", "get", "patch", "delete", "list", "watch", "pods", "flood") {
			if err := s.run(ctx, r, compare); err != nil {
				return err
			}
		}
		if wanted("memory") {
			if err := s.run(ctx, r, memory); err != nil {
				return err
			}
		}
	}
	return nil
}

// compare has the phases that are asked of one server after the other.
func compare(ctx context.Context, l *load) error {
	isHansa := l.subject.prefix == hansaSubject.prefix
	for _, p := range []struct {
		do   func(context.Context) error
		want bool
	}{
		{l.writes, wanted("create", "get", "patch", "delete")},
		{l.lists, wanted("list")},
		{l.watches, wanted("watch") && l.subject.watches},
		{l.pods, wanted("pods") && isHansa},
		{l.flood, wanted("flood") && isHansa},
		{l.loaded, isHansa},
	} {
		if !p.want {
			continue
		}
		if err := p.do(ctx); err != nil {
			return err
		}
	}
	return nil
}

// loaded is the memory of all processes of Hansa.
func (l *load) loaded(ctx context.Context) error {
	ps, err := l.cluster.Processes()
	if err != nil {
		return err
	}
	var sum int64
	for _, p := range ps {
		sum += p.PSS
	}
	l.Figure("memory_pss_loaded", mib(sum), "MiB")
	return l.Profile(ctx, l.cluster, "loaded", "heap", 0)
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// ratios say how many times better Hansa is than another server.
func ratios(r *rig.Rig, s subject) {
	suffix, unit := "_ratio", "of_bare"
	if s.prefix == peerSubject.prefix {
		suffix, unit = "_peer_ratio", "of_peer"
	}
	for _, c := range []struct {
		name string
		less bool // is better
	}{
		{"create", false}, {"get", false}, {"patch", false}, {"list", true}, {"list_label", false},
		{"watch", false}, {"delete", false}, {memoryFigure(), true},
	} {
		ours, have := r.Median(c.name)
		theirs, haveTheirs := r.Median(s.prefix + c.name)
		if !have || !haveTheirs || ours == 0 || theirs == 0 {
			continue
		}
		if c.less {
			ours, theirs = theirs, ours
		}
		r.Figure(c.name+suffix, ours/theirs, unit)
	}
}

// alone are the phases of Hansa that nothing is compared with.
func alone(ctx context.Context, r *rig.Rig) error {
	for _, p := range []struct {
		of   subject
		do   func(context.Context, *load) error
		want bool
	}{
		{hansaSubject, definitions, wanted("definitions1000")},
		{customSubject, customResources, wanted("custom50k")},
		{hansaSubject, policies, wanted("policy")},
		{hansaSubject, webhook, wanted("webhook")},
		{hansaSubject, idleWatches, wanted("idlewatches")},
		{hansaSubject, listsOfMany, wanted("lists100k")},
		{hansaSubject, templatePods, wanted("pods100k", "start100k")},
		{hansaSubject, distinctPods, wanted("pods100k")},
	} {
		if !p.want {
			continue
		}
		if err := p.of.run(ctx, r, p.do); err != nil {
			return err
		}
	}
	return nil
}
