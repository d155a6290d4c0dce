package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Of the node that collects what nobody uses: how full its disk may be, in percent,
// and how long ended containers stay.
const (
	fullFrom, fullTo = 90, 89
	keptRuns         = 20 * time.Second
)

// collecting is a node that removes images and ended containers, on a small disk.
func collecting(t *testing.T, name, fields string, flags ...string) *cluster {
	t.Helper()
	file := writeFile(t, "/tmp/kubelet.yaml", kubeletHead+"evictionHard: {memory.available: 30Mi}\n"+fields)
	c := newCluster(name, append(flags, "--kubelet-config", file)...)
	c.onTmpfs(t, "size=1g")
	if err := errors.Join(c.up(), c.importImages()); err != nil {
		t.Fatal(err)
	}
	return c
}

// "Garbage collection of unused containers and images": when a pull fills the disk
// beyond the high threshold, those images go that nobody has used for the longest, and
// no more of them than the low threshold asks for; and later those that nobody has used
// for long.
func TestImageCollection(t *testing.T) {
	if !alone(t) {
		return
	}
	limits := fmt.Sprintf("imageMinimumGCAge: 1s\nimageGCHighThresholdPercent: %d\nimageGCLowThresholdPercent: %d\n", fullFrom, fullTo)
	c := collecting(t, "images", limits)
	s := newSpace(t, c)
	used := func(name string) { // by a pod that has gone
		s.create(name, runs(s.publishLarge(name), "Always", ""))
		s.finished(name)
		s.kubectl("delete", "pod", name)
	}
	used("oldest")
	used("older")
	c.hasImages(t, []string{"oldest", "older", "hansa.local/busybox"})
	ballast := filepath.Join(c.dir, "ballast")
	fillDisk(t, ballast, fullFrom-8)
	s.create("p", strings.Replace(sleeper, shell, s.publishLarge("newest"), 1))
	s.ready("p")
	c.hasImages(t, []string{"older", "newest", "hansa.local/busybox"}, "oldest")
	await(t, "the disk has room again", func() error {
		if now := filled(t, c.dir); now >= fullFrom {
			return fmt.Errorf("%d %% are used", now)
		}
		return nil
	})
	s.undisturbed("p")

	if err := errors.Join(os.Remove(ballast), c.stop(unix.SIGTERM)); err != nil {
		t.Fatal(err)
	}
	writeFile(t, "/tmp/kubelet.yaml", kubeletHead+limits+"imageMaximumGCAge: 5s\n")
	if err := c.up(); err != nil {
		t.Fatal(err)
	}
	c.hasImages(t, []string{"newest", "hansa.local/busybox"}, "older")
	s.undisturbed("p")
}

// publishLarge publishes an image of 60 MB that takes 120 MB of a disk: the layer does
// not get smaller by compression.
func (s *space) publishLarge(name string) string {
	s.t.Helper()
	content := make([]byte, 60<<20)
	source := rand.NewChaCha8([32]byte([]byte(fmt.Sprintf("%-32s", name))))
	if _, err := source.Read(content); err != nil {
		s.t.Fatal(err)
	}
	return s.publishLayer(name, string(content))
}

// hasImages waits until some images are on the node and others are not.
func (c *cluster) hasImages(t *testing.T, there []string, gone ...string) {
	t.Helper()
	await(t, fmt.Sprintf("of images there are %v, and not %v", there, gone), func() error {
		out, err := c.hansa("image", "list", "--data-dir", c.dir)
		if err != nil {
			return err
		}
		for _, name := range there {
			if !strings.Contains(out, name) {
				t.Fatalf("image %s is not there:\n%s", name, out)
			}
		}
		for _, name := range gone {
			if strings.Contains(out, name) {
				return errors.New(out)
			}
		}
		return nil
	})
}

// filled is how many percent of a file system are used.
func filled(t *testing.T, folder string) int {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(folder, &st); err != nil {
		t.Fatal(err)
	}
	return int(100 - st.Bavail*100/st.Blocks)
}

// fillDisk makes a file, so large that so many percent of its disk are used.
func fillDisk(t *testing.T, file string, percent int) {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(file), &st); err != nil {
		t.Fatal(err)
	}
	size := (int64(st.Blocks)*int64(percent)/100 - int64(st.Blocks-st.Bavail)) * st.Bsize
	if size <= 0 {
		t.Fatalf("%d %% of the disk are used", filled(t, filepath.Dir(file)))
	}
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Fallocate(int(f.Fd()), 0, 0, size), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// The flags of "Garbage collection of unused containers and images" for containers.
func TestContainerCollection(t *testing.T) {
	if !alone(t) {
		return
	}
	c := collecting(t, "containers", "crashLoopBackOff: {maxContainerRestartPeriod: 1s}\n",
		"--minimum-container-ttl-duration="+keptRuns.String(), "--maximum-dead-containers=2", "--maximum-dead-containers-per-container=0")
	for _, r := range []row{
		{"ended containers: none is kept, once it is old enough", oldRuns},
		{"ended containers: the oldest of too many on the node", tooManyRuns},
	} {
		t.Run(r.noun, func(t *testing.T) { r.check(newSpace(t, c)) })
	}
}

// runLogs are the log files of a pod's runs, which go with them.
func (s *space) runLogs(pod string) []string {
	s.t.Helper()
	found, err := filepath.Glob(filepath.Join(s.dir, "logs", s.name+"_"+pod+"_*/main/*.log"))
	if err != nil {
		s.t.Fatal(err)
	}
	return found
}

// --maximum-dead-containers-per-container and --minimum-container-ttl-duration.
func oldRuns(s *space) {
	began := time.Now()
	s.create("p", strings.Replace(sleeper, `[sleep, "1000"]`, `[sh, -c, exit 3]`, 1))
	s.until("p", "it was restarted", func(p *corev1.Pod) bool {
		return len(p.Status.ContainerStatuses) > 0 && p.Status.ContainerStatuses[0].RestartCount > 0
	})
	await(s.t, "its first run goes", func() error {
		if found := s.runLogs("p"); len(found) == 0 || filepath.Base(found[0]) == "0.log" {
			return fmt.Errorf("there are %v", found)
		}
		return nil
	})
	if age := time.Since(began); age < keptRuns {
		s.t.Errorf("it went within %s", age)
	}
}

// --maximum-dead-containers: of pods that are over, the oldest container goes; what it
// showed stays.
func tooManyRuns(s *space) {
	names := []string{"oldest", "older", "newest"}
	for _, name := range names {
		s.create(name, "restartPolicy: Never\n"+strings.Replace(sleeper, `[sleep, "1000"]`, "[echo, "+name+"]", 1)[1:])
		s.finished(name)
	}
	await(s.t, "the oldest of three that ended goes", func() error {
		if found := s.runLogs("oldest"); len(found) > 0 {
			return fmt.Errorf("there is %s", found)
		}
		return nil
	})
	for _, name := range names {
		p, err := s.client.CoreV1().Pods(s.name).Get(s.t.Context(), name, metav1.GetOptions{})
		if err != nil {
			s.t.Fatal(err)
		}
		if e := p.Status.ContainerStatuses[0].State.Terminated; e == nil || e.ExitCode != 0 || p.Status.Phase != corev1.PodSucceeded {
			s.t.Errorf("pod %s: %+v", name, p.Status)
		}
		if name != "oldest" && s.logs(name, "main") != name+"\n" {
			s.t.Errorf("log of pod %s: %q", name, s.logs(name, "main"))
		}
	}
}
