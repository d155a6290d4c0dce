// Command node measures a node: how fast pods run and go, what they cost, and how
// soon the node reacts. Images are present.
//
//	pod_running        create accepted → Running seen by a watcher, median and p99 of -n
//	pod_…              when other steps were seen, from the same moment
//	pod_deleted        delete accepted → gone
//	many_ready         create of a Deployment accepted → all of -pods pods Ready
//	many_deleted       delete accepted → all gone; their processes end on SIGTERM
//	many_memory_…      what each of them adds, beside its own processes: PSS
//	idle_…             processor time with -pods pods whose HTTP probes come every 10 s
//	job                create of a Job accepted → Complete; -completions pods of `true`
//	job_cpu            processor time of all that takes, for each pod
//	restart_begun      a process killed → its restart begun, as an event tells
//	restart_running    the same → Running again
//	endpoint_gone      a probe answered with an error → connections by the service
//	                   are refused
//	rolling_failed     requests that failed while a served Deployment was updated five
//	                   times at 500 a second
//	swarm_…            the same of Docker Swarm, with -swarm (Debian's docker.io); `make bench`
//	                   does so where dockerd is in PATH
package main

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/bench/internal/rig"
	"hansa.dev/hansa/internal/ocibuild"
)

var (
	single      = flag.Int("n", 50, "`number` of single pods, one after the other")
	many        = flag.Int("pods", 100, "`number` of pods at once")
	completions = flag.Int("completions", 1000, "`number` of pods of the Job")
	parallelism = flag.Int("parallelism", 50, "`number` of pods of the Job at once")
	reactions   = flag.Int("reactions", 20, "`number` of deaths and of failed probes")
	settle      = flag.Duration("settle", 3*time.Second, "how long the cluster rests between two measurements")
	withSwarm   = flag.Bool("swarm", false, "measure Docker Swarm as well, afterwards: Debian's docker.io and iptables have to be installed")
	only        = flag.String("only", "", "only these `phases`, comma separated, of single,many,idle,job,restart,endpoint,rolling")
)

func main() {
	rig.Main(rig.Program{
		Doc:    "node measures how fast pods run and go, what they cost, and how soon the node reacts.",
		Images: []string{ocibuild.Busybox},
		Run:    run,
	})
}

const (
	pods        = "/api/v1/namespaces/default/pods"
	services    = "/api/v1/namespaces/default/services"
	events      = "/api/v1/namespaces/default/events"
	deployments = "/apis/apps/v1/namespaces/default/deployments"
	jobs        = "/apis/batch/v1/namespaces/default/jobs"
)

// timeout is how long one step may take before the benchmark gives up.
const timeout = 3 * time.Minute

// bench is a cluster with an administrator who asks and one who watches.
type bench struct {
	*rig.Rig
	cluster *rig.Cluster
	writer  *rig.Client
	watcher *rig.Client
}

// phases in the order in which they run.
var phases = []struct {
	name string
	run  func(*bench, context.Context) error
}{
	{"single", (*bench).singles},
	{"many", (*bench).many},
	{"idle", (*bench).idle},
	{"job", (*bench).job},
	{"restart", (*bench).restarts},
	{"endpoint", (*bench).endpoints},
	{"rolling", (*bench).rolling},
}

func run(ctx context.Context, r *rig.Rig) error {
	if err := measure(ctx, r); err != nil || !*withSwarm {
		return err
	}
	return compare(ctx, r)
}

// measure is about Hansa; it leaves nothing running.
func measure(ctx context.Context, r *rig.Rig) (err error) {
	c := r.NewCluster("node")
	defer c.Remove(ctx, &err)
	if err := c.Up(ctx); err != nil {
		return err
	}
	if err := c.Import(ctx, ocibuild.Busybox); err != nil {
		return err
	}
	target, err := c.Target()
	if err != nil {
		return err
	}
	b := &bench{Rig: r, cluster: c, writer: target.Connect(), watcher: target.Connect()}
	defer b.writer.Close()
	defer b.watcher.Close()
	// The default service account is a moment behind the ready line.
	if err := b.await(ctx, "/api/v1/namespaces/default/serviceaccounts?fieldSelector=metadata.name%3Ddefault"); err != nil {
		return err
	}
	for _, p := range phases {
		if *only != "" && !slices.Contains(strings.Split(*only, ","), p.name) {
			continue
		}
		if err := p.run(b, ctx); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		if err := rig.Wait(ctx, *settle); err != nil {
			return err
		}
	}
	return nil
}

// await returns when a list has something in it.
func (b *bench) await(ctx context.Context, list string) error {
	return rig.Watch(ctx, b.watcher, list+"&watch=true", nil, func(rig.Event[metav1.PartialObjectMetadata]) (bool, error) { return true, nil })
}

// watch starts a watch in the background and returns when it stands.
func watch[T any](ctx context.Context, c *rig.Client, path string, see func(rig.Event[T]) (bool, error)) (finished <-chan error, err error) {
	done, started := make(chan error, 1), make(chan struct{})
	go func() { done <- rig.Watch(ctx, c, path, func() { close(started) }, see) }()
	select {
	case <-started:
		return done, nil
	case err := <-done:
		return nil, err
	}
}

// named is the watch of one object.
func named(list, name string) string {
	return list + "?watch=true&fieldSelector=metadata.name%3D" + name
}

// labelled is the watch of the objects of an app.
func labelled(list, app string) string { return list + "?watch=true&labelSelector=app%3D" + app }
