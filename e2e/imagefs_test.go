package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	statsv1alpha1 "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// "Node-pressure Eviction", images on a file system of their own: when it is short,
// unused images go, then the pods that have most there, until as much is free as
// evictionMinimumReclaim says. Who has more on the node's own file system stays.
func TestImageFileSystem(t *testing.T) {
	if !alone(t) {
		return
	}
	const mi = 1 << 20
	c := newCluster("imagefs", "--eviction-hard=imagefs.available<100Mi,memory.available<50Mi", "--eviction-minimum-reclaim=imagefs.available=150Mi",
		"--eviction-pressure-transition-period=1s", "--minimum-image-ttl-duration=1s")
	images := filepath.Join(c.dir, "containerd")
	if err := os.Mkdir(c.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	inner := &cluster{dir: images}
	inner.onTmpfs(t, "size=1200m")
	if err := errors.Join(c.up(), c.importImages()); err != nil {
		t.Fatal(err)
	}
	s := newSpace(t, c)
	unused := s.publishLayer("unused", "unused")
	s.create("once", runs(unused, "Always", ""))
	s.finished("once")
	s.kubectl("delete", "pod", "once")
	s.create("volume", `
volumes: [{name: v, emptyDir: {}}]
containers:
- {name: main, image: hansa.local/busybox:1, command: [sh, -c, "dd if=/dev/zero of=/v/f bs=1M count=200; exec sleep 1000"], volumeMounts: [{name: v, mountPath: /v}]}
`)
	layers := map[string]uint64{"most": 120, "more": 80, "some": 10}
	for name, size := range layers {
		s.create(name, fmt.Sprintf(`
containers:
- {name: main, image: hansa.local/busybox:1, command: [sh, -c, "dd if=/dev/zero of=/file bs=1M count=%d; exec sleep 1000"]}
`, size))
	}
	for name, size := range layers {
		s.ready(name)
		s.measured(name, size*mi)
	}
	s.ready("volume")
	var sum statsv1alpha1.Summary
	if err := json.Unmarshal([]byte(s.ofNode("/stats/summary")), &sum); err != nil {
		t.Fatal(err)
	}
	if n := sum.Node; *n.Runtime.ImageFs.CapacityBytes != 1200*mi || *n.Runtime.ContainerFs.CapacityBytes != 1200*mi || *n.Fs.CapacityBytes == 1200*mi {
		t.Errorf("file systems: %d of the node, %d of images", *n.Fs.CapacityBytes, *n.Runtime.ImageFs.CapacityBytes)
	}

	fillUp(t, filepath.Join(images, "ballast"), 90*mi)
	c.nodeSays(t, corev1.NodeDiskPressure, corev1.ConditionTrue, "", "NodeHasDiskPressure")
	await(t, "images that nobody uses make room, imported ones do not", func() error {
		out, err := c.hansa("image", "list", "--data-dir", c.dir)
		if err == nil && (strings.Contains(out, "unused") || !strings.Contains(out, "hansa.local/busybox")) {
			err = errors.New(out)
		}
		return err
	})
	first := s.evicted("most", "The node was low on resource: ephemeral-storage. Threshold quantity: 100Mi, available: ")
	second := s.evicted("more", "The node was low on resource: ephemeral-storage. Threshold quantity: 100Mi, available: ")
	if a, b := first.Status.ContainerStatuses[0].State.Terminated, second.Status.ContainerStatuses[0].State.Terminated; b.FinishedAt.Before(&a.FinishedAt) {
		t.Errorf("the one with less went first: %s, %s", a.FinishedAt, b.FinishedAt)
	}
	s.relieved(corev1.NodeDiskPressure, corev1.TaintNodeDiskPressure)
	s.undisturbed("volume")
	s.undisturbed("some")
}
