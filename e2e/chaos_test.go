package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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

// chaosPorts is the first of the node's ports that pods of TestChaos have, each
// another one: five digits that begin with 2.
const chaosPorts = 20000

var chaosPort = regexp.MustCompile(`\b2[0-9]{4}\b`)

// chaos is what goes on during TestChaos.
type chaos struct {
	*space
	random *rand.Rand
	killed map[string]int

	// What was seen of containers: the restarts by pod and container, and the
	// exit codes by container ID. Of the goroutine that watches.
	restarts, ends map[string]int32
}

// Agent, containerd, shims and containers are killed at random while pods come
// and go. Then all is as the API says, and nothing is left over; restart counts
// never go back, and an exit code that was shown stays.
func TestChaos(t *testing.T) {
	if !alone(t) {
		return
	}
	seed := chaosSeed()
	t.Logf("HANSA_CHAOS_SEED=%d", seed)
	c := started(t, newCluster("chaos"))
	x := &chaos{
		space: newSpace(t, c), random: rand.New(rand.NewPCG(seed, 0)), killed: map[string]int{},
		restarts: map[string]int32{}, ends: map[string]int32{},
	}
	ctx, cancel := context.WithTimeout(t.Context(), chaosTime())
	defer cancel()
	var churning sync.WaitGroup
	for i := range 3 {
		random := rand.New(rand.NewPCG(seed, uint64(i+1)))
		churning.Go(func() { x.churn(ctx, i, random) })
	}
	churning.Go(func() { x.watch(ctx) })
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
	x.remember()
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
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: int32(chaosPorts + 2500*who + n%2500)}}
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

// watch remembers what the API says, over and over.
func (x *chaos) watch(ctx context.Context) {
	again := time.NewTicker(300 * time.Millisecond)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-again.C:
			x.remember()
		}
	}
}

// remember compares containers' history with what it was. While the API is away
// there is nothing to compare.
func (x *chaos) remember() {
	list, err := x.client.CoreV1().Pods(x.name).List(x.t.Context(), metav1.ListOptions{})
	if err != nil {
		return
	}
	for _, p := range list.Items {
		for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
			key := p.Name + " " + string(p.UID) + " " + c.Name
			if c.RestartCount < x.restarts[key] {
				x.t.Errorf("container %s was restarted %d times, and then %d times", key, x.restarts[key], c.RestartCount)
			}
			x.restarts[key] = c.RestartCount
			for _, state := range []corev1.ContainerState{c.State, c.LastTerminationState} {
				end := state.Terminated
				if end == nil || end.ContainerID == "" {
					continue
				}
				if code, ok := x.ends[end.ContainerID]; ok && code != end.ExitCode {
					x.t.Errorf("container %s ended with %d, and then with %d: %+v", key, code, end.ExitCode, end)
				}
				x.ends[end.ContainerID] = end.ExitCode
			}
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
// every container that is said to run has a process, and there is nothing on the
// machine but for the pods that run.
func (x *chaos) asTheAPISays() error {
	list, err := x.client.CoreV1().Pods("").List(x.t.Context(), metav1.ListOptions{})
	if err != nil {
		return err
	}
	var errs []error
	known, running, ports := map[string]bool{}, map[string]bool{}, map[string]bool{}
	containers := map[string]bool{} // that run
	for i := range list.Items {
		p := &list.Items[i]
		known[string(p.UID)] = true
		if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			continue
		}
		running[string(p.UID)] = true
		ports[fmt.Sprint(p.Spec.Containers[0].Ports[0].HostPort)] = true
		if p.DeletionTimestamp != nil || condition(p, corev1.PodReady) != corev1.ConditionTrue {
			errs = append(errs, fmt.Errorf("pod %s is %s, ready %q, deleted %v", p.Name, p.Status.Phase, condition(p, corev1.PodReady), p.DeletionTimestamp))
		}
		for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
			if c.State.Running == nil {
				continue
			}
			id := strings.TrimPrefix(c.ContainerID, "containerd://")
			containers[id] = true
			if _, err := processInGroup(id); err != nil {
				errs = append(errs, fmt.Errorf("container %s of pod %s: %w", c.Name, p.Name, err))
			}
		}
	}
	return errors.Join(append(errs, x.folders(known), x.groups(running, containers), x.shims(running), x.network(running, ports), x.mounts(running))...)
}

// exactly is an error unless there are as many things as pods.
func exactly(pods map[string]bool, what string, have []string) error {
	if len(have) == len(pods) {
		return nil
	}
	return fmt.Errorf("%d %s for %d pods: %q", len(have), what, len(pods), have)
}

// folders looks at those of pods and of their logs.
func (x *chaos) folders(known map[string]bool) error {
	var errs []error
	for dir, uid := range map[string]func(name string) string{
		"pods": func(name string) string { return name },
		"logs": func(name string) string { return name[strings.LastIndexByte(name, '_')+1:] },
	} {
		entries, err := os.ReadDir(filepath.Join(x.dir, dir))
		errs = append(errs, err)
		for _, e := range entries {
			if e.IsDir() && e.Name()[0] != '.' && !known[uid(e.Name())] {
				errs = append(errs, fmt.Errorf("there is a folder %s/%s", dir, e.Name()))
			}
		}
	}
	return errors.Join(errs...)
}

// groups looks at the pods' control groups, and in them at those of containers:
// beside the ones that run there is one of the sandbox.
func (x *chaos) groups(running, containers map[string]bool) error {
	var errs []error
	for _, pattern := range []string{"/sys/fs/cgroup/hansa/", "/sys/fs/cgroup/*/hansa/"} {
		groups, err := filepath.Glob(pattern + x.id() + "/pods/*/*-*-*-*-*")
		errs = append(errs, err)
		for _, g := range groups {
			if !running[filepath.Base(g)] {
				errs = append(errs, fmt.Errorf("there is a control group %s", g))
			}
			inside, err := filepath.Glob(g + "/*/cgroup.procs")
			errs = append(errs, err)
			inside = slices.DeleteFunc(inside, func(file string) bool { return containers[filepath.Base(filepath.Dir(file))] })
			if running[filepath.Base(g)] && len(inside) > 1 {
				errs = append(errs, fmt.Errorf("there are control groups %q", inside))
			}
		}
	}
	return errors.Join(errs...)
}

// shims looks at them.
func (x *chaos) shims(running map[string]bool) error {
	var errs []error
	var have []string
	for _, pid := range x.processesOf("containerd-shim-runc-v2") {
		uid, line := x.podOfShim(pid)
		have = append(have, line)
		if !running[uid] {
			errs = append(errs, fmt.Errorf("there is a shim of pod %q: %s, of which containerd says:\n%s", uid, line, x.said(line)))
		}
	}
	return errors.Join(append(errs, exactly(running, "shims", have))...)
}

// network looks at addresses, links and ports of the node.
func (x *chaos) network(running, ports map[string]bool) error {
	all, err := net.Interfaces()
	var links []string
	for _, l := range all {
		if strings.HasPrefix(l.Name, "hansa") && !strings.HasPrefix(l.Name, "hansa-") {
			links = append(links, l.Name)
		}
	}
	errs := []error{err, exactly(running, "addresses", x.attached()), exactly(running, "links", links)}
	table, err := exec.Command("nft", "list", "table", "inet", "hansa-"+x.id()).Output()
	errs = append(errs, err)
	open := map[string]bool{}
	for _, port := range chaosPort.FindAllString(string(table), -1) {
		open[port] = true
	}
	if !maps.Equal(open, ports) {
		errs = append(errs, fmt.Errorf("ports %v are open, and not %v", slices.Sorted(maps.Keys(open)), slices.Sorted(maps.Keys(ports))))
	}
	return errors.Join(errs...)
}

// mounts looks at pods' volumes, network namespaces and, when no pod is to run,
// at all of the runtime's.
func (x *chaos) mounts(running map[string]bool) error {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	errs := []error{err}
	var namespaces, others []string
	for line := range strings.Lines(string(mounts)) {
		point := strings.Fields(line)[4]
		if rest, ok := strings.CutPrefix(point, filepath.Join(x.dir, "pods")+"/"); ok {
			if uid, _, _ := strings.Cut(rest, "/"); !running[uid] {
				errs = append(errs, fmt.Errorf("there is a mount at %s", point))
			}
		}
		switch {
		case !strings.HasPrefix(point, "/run/hansa/"+x.id()+"/"):
		case strings.Contains(point, "/netns/"):
			namespaces = append(namespaces, point)
		default:
			others = append(others, point)
		}
	}
	if len(running) == 0 && len(others) > 0 {
		errs = append(errs, fmt.Errorf("there are mounts at %q", others))
	}
	return errors.Join(append(errs, exactly(running, "network namespaces", namespaces))...)
}

// said are the last lines of containerd's log about something.
func (x *chaos) said(about string) string {
	var lines []string
	log, _ := os.ReadFile(filepath.Join(x.dir, "logs", "containerd.log"))
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, about) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(len(lines)-10, 0):], "")
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
