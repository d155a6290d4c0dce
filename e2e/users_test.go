package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// "User Namespaces": each pod has IDs of the machine that no other has, it keeps them
// when Hansa is killed and when its container begins anew, and what is mounted for it
// is its own.
func TestUserNamespaces(t *testing.T) {
	if !alone(t) {
		return
	}
	c := started(t, newCluster("users"))
	s := newSpace(t, c)
	s.kubectl("create", "secret", "generic", "s", "--from-literal=key=hidden")
	const spec = `
hostUsers: false
securityContext: {%s}
volumes: [{name: s, secret: {secretName: s, defaultMode: 0400}}, {name: work, emptyDir: {}}]
containers:
- name: main
  image: hansa.local/busybox:1
  command: [sh, -c, "trap exit TERM; sleep 1000 & wait"]
  volumeMounts: [{name: s, mountPath: /secret}, {name: work, mountPath: /work}]
`
	contexts := map[string]string{"root": "", "other": "runAsUser: 1000, runAsGroup: 1000, fsGroup: 2000"}
	for name, context := range contexts {
		s.create(name, fmt.Sprintf(spec, context))
	}
	look := func(name string) uint64 {
		t.Helper()
		s.ready(name)
		if got := s.exec(name, "cat", "/secret/key"); got != "hidden" {
			t.Errorf("%s: secret %q", name, got)
		}
		if got := s.exec(name, "cat", "/var/run/secrets/kubernetes.io/serviceaccount/token"); strings.Count(got, ".") != 2 {
			t.Errorf("%s: token %q", name, got)
		}
		s.exec(name, "touch", "/work/file")
		var first uint64
		for _, file := range []string{"uid_map", "gid_map"} {
			of := strings.Fields(s.exec(name, "cat", "/proc/self/"+file))
			if len(of) != 3 || of[0] != "0" || of[2] != "65536" {
				t.Fatalf("%s: %s %v", name, file, of)
			}
			n, err := strconv.ParseUint(of[1], 10, 32)
			if err != nil || n < 65536 || n%65536 != 0 || first != 0 && n != first {
				t.Errorf("%s: %s %v, %v", name, file, of, err)
			}
			first = n
		}
		return first
	}
	ranges := map[string]uint64{}
	for name := range contexts {
		ranges[name] = look(name)
	}
	if ranges["root"] == ranges["other"] {
		t.Errorf("both have %d", ranges["root"])
	}
	if err := c.stop(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := c.up(); err != nil {
		t.Fatal(err)
	}
	for name, first := range ranges {
		if got := look(name); got != first {
			t.Errorf("%s has %d after the kill, had %d", name, got, first)
		}
	}
	s.create("new", fmt.Sprintf(spec, ""))
	if got := look("new"); got == ranges["root"] || got == ranges["other"] {
		t.Errorf("the new pod has %d, as another has", got)
	}
	// A container that begins anew has the pod's IDs, and its files.
	if err := killHard(s.processOf(s.ready("root"), "main")); err != nil {
		t.Fatal(err)
	}
	s.until("root", "it was restarted", func(p *corev1.Pod) bool {
		return condition(p, corev1.PodReady) == corev1.ConditionTrue && p.Status.ContainerStatuses[0].RestartCount == 1
	})
	if got := look("root"); got != ranges["root"] {
		t.Errorf("after a restart it has %d, had %d", got, ranges["root"])
	}
}
