//go:build chaos

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// chaosSeed is HANSA_CHAOS_SEED, or a new one.
func chaosSeed() uint64 {
	if n, err := strconv.ParseUint(os.Getenv("HANSA_CHAOS_SEED"), 10, 64); err == nil {
		return n
	}
	return uint64(time.Now().UnixNano())
}

// chaos is what goes on during TestChaos.
type chaos struct {
	*space
	random *rand.Rand
	killed map[string]int
}

// Agent, containerd, shims and containers are killed at random while pods come
// and go. Then all is as the API says, and nothing is left over.
func TestChaos(t *testing.T) {
	if !alone(t) {
		return
	}
	seed := chaosSeed()
	t.Logf("HANSA_CHAOS_SEED=%d", seed)
	c := started(t, newCluster("chaos"))
	x := &chaos{newSpace(t, c), rand.New(rand.NewPCG(seed, 0)), map[string]int{}}
	ctx, cancel := context.WithTimeout(t.Context(), chaosTime())
	defer cancel()
	var churning sync.WaitGroup
	for i := range 3 {
		random := rand.New(rand.NewPCG(seed, uint64(i+1)))
		churning.Go(func() { x.churn(ctx, i, random) })
	}
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(500+x.random.IntN(3000)) * time.Millisecond): // the chaos itself, not a wait for something
			x.strike()
		}
	}
	churning.Wait()
	t.Logf("killed: %v", x.killed)
	await(t, "what runs is what the API says", x.asTheAPISays)
	if err := c.client.CoreV1().Pods(x.name).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	await(t, "nothing is left", func() error {
		list, err := c.client.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
		if err != nil || len(list.Items) > 0 {
			return fmt.Errorf("%d pods are there: %v", len(list.Items), err)
		}
		return x.asTheAPISays()
	})
}

// churn makes pods and deletes them. While the API is away it fails, as
// everybody's calls do.
func (x *chaos) churn(ctx context.Context, who int, random *rand.Rand) {
	kinds := []string{
		sleeper,
		`
containers:
- {name: main, image: hansa.local/busybox:1, command: [sh, -c, "trap 'exit 0' TERM; while :; do sleep 0.2; done"]}
- {name: other, image: hansa.local/busybox:1, command: [sleep, "1000"], volumeMounts: [{name: work, mountPath: /work}]}
volumes: [{name: work, emptyDir: {medium: Memory}}]
`,
		"\nrestartPolicy: OnFailure" + `
containers:
- {name: main, image: hansa.local/busybox:1, command: ["true"]}
`,
		`
initContainers:
- {name: side, image: hansa.local/busybox:1, command: [sleep, "1000"], restartPolicy: Always}
containers:
- {name: main, image: hansa.local/busybox:1, command: [sleep, "1000"]}
`,
	}
	api := x.client.CoreV1().Pods(x.name)
	var mine []string
	for n := 0; ctx.Err() == nil; n++ {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("p%d-%d", who, n)}}
		grace := int64(random.IntN(3))
		if err := yaml.UnmarshalStrict([]byte(kinds[random.IntN(len(kinds))]), &p.Spec); err != nil {
			x.t.Error(err)
			return
		}
		p.Spec.TerminationGracePeriodSeconds = &grace
		if _, err := api.Create(ctx, p, metav1.CreateOptions{}); err == nil {
			mine = append(mine, p.Name)
		}
		if len(mine) > 4 {
			i := random.IntN(len(mine))
			if api.Delete(ctx, mine[i], metav1.DeleteOptions{}) == nil {
				mine = slices.Delete(mine, i, i+1)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(random.IntN(800)) * time.Millisecond):
		}
	}
}

// strike kills something.
func (x *chaos) strike() {
	x.t.Helper()
	pick := func(what string, pids []int) {
		if len(pids) > 0 && killHard(pids[x.random.IntN(len(pids))]) == nil {
			x.killed[what]++
		}
	}
	switch x.random.IntN(5) {
	case 0:
		if err := x.cluster.stop(syscall.SIGKILL); err != nil {
			x.t.Fatal(err)
		}
		x.killed["agent"]++
		if x.random.IntN(2) == 0 { // something happens while nobody looks
			pick("container, no agent", x.groupProcesses())
		}
		if err := x.up(); err != nil {
			x.t.Fatal(err)
		}
	case 1:
		pick("containerd", x.processesOf("containerd"))
	case 2, 3:
		pick("shim", x.processesOf("containerd-shim-runc-v2"))
	case 4:
		pick("container", x.groupProcesses())
	}
}

// asTheAPISays compares the machine with the API: every pod that is to run runs,
// every container that is said to run has a process, and there are no folders,
// control groups, shims, links, network namespaces and mounts but those of pods
// that run.
func (x *chaos) asTheAPISays() error {
	list, err := x.client.CoreV1().Pods("").List(x.t.Context(), metav1.ListOptions{})
	if err != nil {
		return err
	}
	var errs []error
	known, running := map[string]bool{}, map[string]bool{}
	for i := range list.Items {
		p := &list.Items[i]
		known[string(p.UID)] = true
		if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			continue
		}
		running[string(p.UID)] = true
		if p.DeletionTimestamp != nil || condition(p, corev1.PodReady) != corev1.ConditionTrue {
			errs = append(errs, fmt.Errorf("pod %s is %s, ready %q, deleted %v", p.Name, p.Status.Phase, condition(p, corev1.PodReady), p.DeletionTimestamp))
		}
		for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
			if _, err := processInGroup(strings.TrimPrefix(c.ContainerID, "containerd://")); err != nil && c.State.Running != nil {
				errs = append(errs, fmt.Errorf("container %s of pod %s: %w", c.Name, p.Name, err))
			}
		}
	}
	folders, err := os.ReadDir(filepath.Join(x.dir, "pods"))
	errs = append(errs, err)
	for _, f := range folders {
		if !known[f.Name()] {
			errs = append(errs, fmt.Errorf("there is a folder of pod %s", f.Name()))
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/hansa/", "/sys/fs/cgroup/*/hansa/"} {
		for _, class := range []string{"", "burstable/", "besteffort/", "guaranteed/"} {
			groups, err := filepath.Glob(pattern + x.id() + "/pods/" + class + "*-*-*-*-*")
			errs = append(errs, err)
			for _, g := range groups {
				if !running[filepath.Base(g)] {
					errs = append(errs, fmt.Errorf("there is a control group %s", g))
				}
			}
		}
	}
	count := func(what string, have int) {
		if have != len(running) {
			errs = append(errs, fmt.Errorf("%d %s for %d pods", have, what, len(running)))
		}
	}
	count("shims", len(x.processesOf("containerd-shim-runc-v2")))
	for _, pid := range x.processesOf("containerd-shim-runc-v2") {
		if uid, line := x.podOfShim(pid); !running[uid] {
			errs = append(errs, fmt.Errorf("there is a shim of pod %q: %s", uid, line))
		}
	}
	addresses := x.attached()
	count(fmt.Sprintf("addresses %q", addresses), len(addresses))
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	errs = append(errs, err)
	namespaces := 0
	for line := range strings.Lines(string(mounts)) {
		point := strings.Fields(line)[4]
		if rest, ok := strings.CutPrefix(point, filepath.Join(x.dir, "pods")+"/"); ok {
			if uid, _, _ := strings.Cut(rest, "/"); !running[uid] {
				errs = append(errs, fmt.Errorf("there is a mount at %s", point))
			}
		}
		if strings.HasPrefix(point, "/run/hansa/"+x.id()+"/") && strings.Contains(point, "/netns/") {
			namespaces++
		}
	}
	count("network namespaces", namespaces)
	return errors.Join(errs...)
}

// podOfShim reads the pod of a shim from its container's configuration.
func (x *chaos) podOfShim(pid int) (uid, commandLine string) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return "", err.Error()
	}
	args := strings.Split(string(b), "\x00")
	i := slices.Index(args, "-id")
	if i < 0 || i+1 == len(args) {
		return "", strings.Join(args, " ")
	}
	files, _ := filepath.Glob("/run/hansa/" + x.id() + "/containerd/*/k8s.io/" + args[i+1] + "/config.json") // the pattern is good
	for _, file := range files {
		config, _ := os.ReadFile(file)
		_, rest, ok := strings.Cut(string(config), `"io.kubernetes.cri.sandbox-uid":"`)
		if uid, _, _ := strings.Cut(rest, `"`); ok {
			return uid, args[i+1]
		}
	}
	return "", fmt.Sprint(args[i+1], " of ", files)
}

// attached are the pods that have an address, by the network's own records.
func (x *chaos) attached() (pods []string) {
	files, _ := filepath.Glob(filepath.Join(x.dir, "cni", "attached", "*.json")) // the pattern is good
	for _, f := range files {
		var r struct{ Name, UID, Netns string }
		if b, err := os.ReadFile(f); err == nil && json.Unmarshal(b, &r) == nil {
			pods = append(pods, fmt.Sprintf("%s (%s) in %s", r.Name, r.UID, r.Netns))
		}
	}
	return pods
}
