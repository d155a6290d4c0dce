// Command up measures `hansa up` by itself: how long it takes to its ready
// line, and what the cluster costs at rest, without pods.
//
//	start_first        fresh data directory, median of -n
//	start_second       again after SIGTERM, containerd still there, median of -n
//	start_after_down   again after `hansa down`, containerd gone, median of -n
//	memory_pss         sum over all processes of the data directory, -settle after ready
//	memory_private     the same, pages that nobody shares
//	memory_anonymous   the same, pages that are in no file
//	memory_…_NAME      the same of one program
//	cpu_at_rest        share of a core over -settle
//	revisions_at_rest  growth of the store's revision a minute; renewals of leases only
//	binary             size
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/bench/internal/rig"
)

var (
	starts = flag.Int("n", 5, "`number` of starts of each sort")
	settle = flag.Duration("settle", time.Minute, "how long to watch the cluster at rest")
)

func main() {
	rig.Main(rig.Program{
		Doc: "up measures how long `hansa up` takes to its ready line, and what a cluster without pods costs at rest.",
		Run: run,
	})
}

func run(ctx context.Context, r *rig.Rig) (err error) {
	info, err := os.Stat(r.Binary)
	if err != nil {
		return err
	}
	r.Figure("binary", mib(info.Size()), "MiB")
	if err := measureStarts(ctx, r); err != nil {
		return err
	}
	return measureRest(ctx, r)
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// measureStarts starts clusters that are not needed afterwards.
func measureStarts(ctx context.Context, r *rig.Rig) error {
	var first, second, afterDown []time.Duration
	for i := range *starts {
		f, s, d, err := threeStarts(ctx, r.NewCluster("starts"+strconv.Itoa(i)))
		if err != nil {
			return err
		}
		first, second, afterDown = append(first, f), append(second, s), append(afterDown, d)
	}
	r.Spread("start_first", first)
	r.Spread("start_second", second)
	r.Spread("start_after_down", afterDown)
	return nil
}

func threeStarts(ctx context.Context, c *rig.Cluster) (first, second, afterDown time.Duration, err error) {
	defer c.Remove(ctx, &err)
	for _, step := range []struct {
		before func(context.Context) error
		took   *time.Duration
	}{
		{func(context.Context) error { return nil }, &first},
		{c.Stop, &second},
		{c.Down, &afterDown},
	} {
		if err := step.before(ctx); err != nil {
			return 0, 0, 0, err
		}
		if err := c.Up(ctx); err != nil {
			return 0, 0, 0, err
		}
		*step.took = c.Took
	}
	return first, second, afterDown, nil
}

// measureRest leaves a cluster alone, and looks at it from outside only: a
// request would be work.
func measureRest(ctx context.Context, r *rig.Rig) (err error) {
	c := r.NewCluster("rest")
	defer c.Remove(ctx, &err)
	if err := c.Up(ctx); err != nil {
		return err
	}
	before, err := c.Processes()
	if err != nil {
		return err
	}
	if err := rig.Wait(ctx, *settle); err != nil {
		return err
	}
	after, err := c.Processes()
	if err != nil {
		return err
	}
	if err := r.Profile(ctx, c, "rest", "heap", 0); err != nil {
		return err
	}
	reportMemory(r, after)
	reportCPU(r, "cpu_first_minute", before, after, *settle)
	// The first minute still has the end of the start in it.
	target, err := c.Target()
	if err != nil {
		return err
	}
	client := target.Connect()
	defer client.Close()
	revision, err := storeRevision(ctx, client)
	if err != nil {
		return err
	}
	if err := rig.Wait(ctx, 5*time.Second); err != nil {
		return err
	}
	if before, err = c.Processes(); err != nil {
		return err
	}
	began := time.Now()
	profile := make(chan error, 1)
	go func() { profile <- r.Profile(ctx, c, "rest", "cpu", *settle) }()
	if err := rig.Wait(ctx, *settle); err != nil {
		return err
	}
	if after, err = c.Processes(); err != nil {
		return err
	}
	reportCPU(r, "cpu_at_rest", before, after, time.Since(began))
	now, err := storeRevision(ctx, client)
	if err != nil {
		return err
	}
	r.Figure("revisions_at_rest", float64(now-revision)/(time.Since(began)+5*time.Second).Minutes(), "1/min")
	return <-profile
}

func reportMemory(r *rig.Rig, ps []rig.Process) {
	var pss, own, anon int64
	for _, p := range ps {
		pss += p.PSS
		own += p.Own
		anon += p.Anon
	}
	r.Figure("memory_pss", mib(pss), "MiB")
	r.Figure("memory_private", mib(own), "MiB")
	r.Figure("memory_anonymous", mib(anon), "MiB")
	for _, p := range ps {
		r.Figure("memory_pss_"+p.Name, mib(p.PSS), "MiB")
		r.Figure("memory_private_"+p.Name, mib(p.Own), "MiB")
		r.Figure("memory_anonymous_"+p.Name, mib(p.Anon), "MiB")
	}
}

func reportCPU(r *rig.Rig, name string, before, after []rig.Process, during time.Duration) {
	percent := func(d time.Duration) float64 { return 100 * d.Seconds() / during.Seconds() }
	spent := map[int]time.Duration{}
	var sum time.Duration
	for _, p := range before {
		spent[p.PID] = p.CPU
	}
	for _, p := range after {
		sum += p.CPU - spent[p.PID]
	}
	r.Figure(name, percent(sum), "%")
	for _, p := range after {
		r.Figure(name+"_"+p.Name, percent(p.CPU-spent[p.PID]), "%")
	}
}

// storeRevision is the store's own revision: a list answers revision × 128 and
// a slot.
func storeRevision(ctx context.Context, c *rig.Client) (int64, error) {
	var list metav1.PartialObjectMetadataList
	if err := c.Call(ctx, "GET", "/api/v1/namespaces?limit=1", nil, &list); err != nil {
		return 0, err
	}
	v, err := strconv.ParseInt(list.ResourceVersion, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read the version of a list: %w", err)
	}
	return v / 128, nil
}
