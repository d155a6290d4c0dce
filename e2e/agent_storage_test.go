package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

var storageRows = []row{
	{"hostPath volumes, all types", hostPathTypes},
	{"parts of volumes, safe against symlinks", subPathSymlinks},
	{"recursive read-only mounts", recursiveReadOnly},
	{"modes of volumes' files", func(s *space) { volumeModes(s, plainVolume) }},
	{"modes of projected volumes' files", func(s *space) { volumeModes(s, projectedOf) }},
	{"updates of volumes are atomic", atomicUpdates},
}

// Each type with what it is about, and with something else.
func hostPathTypes(s *space) {
	dir := filepath.Join("/tmp", s.name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { os.RemoveAll(dir) })
	s.write(dir+"/file", []byte("x"))
	if err := os.Mkdir(dir+"/dir", 0o755); err != nil {
		s.t.Fatal(err)
	}
	l, err := net.Listen("unix", dir+"/socket")
	if err != nil {
		s.t.Fatal(err)
	}
	defer l.Close()
	if err := unix.Mknod(dir+"/char", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))); err != nil {
		s.t.Fatal(err)
	}
	if err := unix.Mknod(dir+"/block", unix.S_IFBLK|0o600, int(unix.Mkdev(7, 200))); err != nil {
		s.t.Fatal(err)
	}
	var volumes, mounts []string
	add := func(kind, path string) {
		n := len(volumes)
		volumes = append(volumes, fmt.Sprintf("{name: v%d, hostPath: {path: %s/%s, type: %q}}", n, dir, path, kind))
		mounts = append(mounts, fmt.Sprintf("{name: v%d, mountPath: /v%d}", n, n))
	}
	for _, c := range [][2]string{{"", "dir"}, {"Directory", "dir"}, {"DirectoryOrCreate", "new"}, {"File", "file"}, {"FileOrCreate", "created"}, {"Socket", "socket"}, {"CharDevice", "char"}, {"BlockDevice", "block"}} {
		add(c[0], c[1])
	}
	s.output("right", fmt.Sprintf(`
restartPolicy: Never
volumes: [%s]
containers:
- {name: main, image: hansa.local/busybox:1, command: [sh, -c, "test -d /v0 -a -d /v1 -a -d /v2 -a -f /v3 -a -f /v4 -a -S /v5 -a -c /v6 -a -b /v7"], volumeMounts: [%s]}
`, strings.Join(volumes, ", "), strings.Join(mounts, ", ")))
	for _, file := range []string{"new", "created"} {
		if _, err := os.Stat(filepath.Join(dir, file)); err != nil {
			s.t.Error(err)
		}
	}
	for name, c := range map[string]struct{ kind, path, why string }{
		"directory": {"Directory", "none", "is not a directory"}, "file": {"File", "dir", "is not a file"},
		"socket": {"Socket", "file", "is not a socket file"}, "char": {"CharDevice", "block", "is not a character device"},
		"block": {"BlockDevice", "char", "is not a block device"},
	} {
		s.create("wrong-"+name, fmt.Sprintf(`
volumes: [{name: v, hostPath: {path: %s/%s, type: %s}}]
containers:
- {name: main, image: hansa.local/busybox:1, volumeMounts: [{name: v, mountPath: /v}]}
`, dir, c.path, c.kind))
		s.event("wrong-"+name, fmt.Sprintf(`MountVolume.SetUp failed for volume "v" : hostPath type check failed: %s/%s %s`, dir, c.path, c.why))
	}
}

// A link inside a volume that leads out of it, to the host, gives nothing of the
// host; one that stays inside works.
func subPathSymlinks(s *space) {
	pod := func(sub string) string {
		return fmt.Sprintf(`
restartPolicy: Never
volumes: [{name: work, emptyDir: {}}]
initContainers:
- name: make
  image: hansa.local/busybox:1
  command: [sh, -c, "mkdir /work/real; echo mine > /work/real/file; ln -s real /work/inside; ln -s /etc /work/absolute; ln -s ../../../../../../../../etc /work/relative"]
  volumeMounts: [{name: work, mountPath: /work}]
containers:
- {name: main, image: hansa.local/busybox:1, command: [sh, -c, "cat /part/file; ls /part/passwd"], volumeMounts: [{name: work, mountPath: /part, subPath: %s}]}
`, sub)
	}
	// Both streams are logged as they come, in either order.
	if got := s.output("inside", pod("inside"), 1); !strings.Contains(got, "mine\n") {
		s.t.Errorf("a link that stays inside: %q", got)
	}
	for _, sub := range []string{"absolute", "relative"} {
		s.create(sub, pod(sub))
		s.until(sub, "it is refused", func(p *corev1.Pod) bool {
			w := waiting(p)
			return w.Reason == "CreateContainerConfigError" && strings.HasPrefix(w.Message, `failed to prepare subPath for volumeMount "work" of container "main"`)
		})
	}
}

// What is mounted below a read-only volume can be written to, unless the mount
// is read-only recursively.
func recursiveReadOnly(s *space) {
	dir := filepath.Join("/tmp", s.name)
	if err := os.MkdirAll(dir+"/below", 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir+"/below", "tmpfs", 0, ""); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := unix.Unmount(dir+"/below", unix.MNT_DETACH); err != nil {
			s.t.Error(err)
		}
	})
	got := s.output("p", `
restartPolicy: Never
volumes: [{name: v, hostPath: {path: `+dir+`}}]
containers:
- name: main
  image: hansa.local/busybox:1
  command: [sh, -c, "touch /plain/below/a && echo plain; touch /deep/below/b && echo deep; touch /possible/below/c && echo possible; true"]
  volumeMounts:
  - {name: v, mountPath: /plain, readOnly: true}
  - {name: v, mountPath: /deep, readOnly: true, recursiveReadOnly: Enabled}
  - {name: v, mountPath: /possible, readOnly: true, recursiveReadOnly: IfPossible}
`)
	for word, want := range map[string]bool{"plain\n": true, "deep\n": false, "possible\n": false} {
		if strings.Contains("\n"+got, "\n"+word) != want {
			s.t.Errorf("%q written: want %v; %s", word, want, got)
		}
	}
	for _, m := range s.finished("p").Status.ContainerStatuses[0].VolumeMounts {
		want := map[string]corev1.RecursiveReadOnlyMode{"/plain": corev1.RecursiveReadOnlyDisabled, "/deep": corev1.RecursiveReadOnlyEnabled, "/possible": corev1.RecursiveReadOnlyEnabled}[m.MountPath]
		if want != "" && (m.RecursiveReadOnly == nil || *m.RecursiveReadOnly != want) {
			s.t.Errorf("the status of %s says %v", m.MountPath, m.RecursiveReadOnly)
		}
	}
}

// plainVolume and projectedOf are a volume of one source, called as the source is.
func plainVolume(kind, mode, source string) string {
	source = strings.Replace(source, "name: secret", "secretName: secret", 1)
	return fmt.Sprintf("{name: %s, %s: {%s%s}}", strings.ToLower(kind), kind, mode, source)
}

func projectedOf(kind, mode, source string) string {
	return fmt.Sprintf("{name: %s, projected: {%ssources: [{%s: {%s}}]}}", strings.ToLower(kind), mode, kind, source)
}

func volumeModes(s *space, volume func(kind, mode, source string) string) {
	s.kubectl("create", "configmap", "config", "--from-literal=a=1", "--from-literal=b=2")
	s.kubectl("create", "secret", "generic", "secret", "--from-literal=a=1", "--from-literal=b=2")
	got := s.output("p", fmt.Sprintf(`
restartPolicy: Never
volumes: [%s]
containers:
- name: main
  image: hansa.local/busybox:1
  command: [sh, -c, "stat -Lc '%%a %%n' /config/a /config/deep/b /secret/a /secret/deep/b /downward/a /downward/b; cat /config/deep/b /secret/deep/b /downward/b"]
  volumeMounts: [{name: configmap, mountPath: /config}, {name: secret, mountPath: /secret}, {name: downwardapi, mountPath: /downward}]
`, strings.Join([]string{
		volume("configMap", "defaultMode: 0400, ", "name: config, items: [{key: a, path: a}, {key: b, path: deep/b, mode: 0751}]"),
		volume("secret", "", "name: secret, items: [{key: a, path: a}, {key: b, path: deep/b, mode: 0440}]"),
		volume("downwardAPI", "defaultMode: 0600, ", "items: [{path: a, fieldRef: {fieldPath: metadata.name}}, {path: b, mode: 0604, fieldRef: {fieldPath: metadata.name}}]"),
	}, ", ")))
	if want := "400 /config/a\n751 /config/deep/b\n644 /secret/a\n440 /secret/deep/b\n600 /downward/a\n604 /downward/b\n22p"; got != want {
		s.t.Errorf("got %q", got)
	}
}

// A container that compares two keys all the time never sees one of an old and
// one of a new version.
func atomicUpdates(s *space) {
	s.kubectl("create", "configmap", "config", "--from-literal=a=0", "--from-literal=b=0")
	s.create("p", `
restartPolicy: Never
volumes: [{name: config, configMap: {name: config}}]
containers:
- name: main
  image: hansa.local/busybox:1
  command: [sh, -c, "until [ \"$a\" = 8 ]; do cd -P /config/..data; a=$(cat a) && b=$(cat b) || continue; test $a = $b || { echo torn; exit 1; }; done"]
  volumeMounts: [{name: config, mountPath: /config}]
`)
	s.ready("p")
	for i := 1; i <= 8; i++ {
		s.kubectl("patch", "configmap", "config", "-p", fmt.Sprintf(`{"data":{"a":"%d","b":"%[1]d"}}`, i))
	}
	if p := s.finished("p"); p.Status.Phase != corev1.PodSucceeded {
		s.t.Errorf("it ended so: %+v", p.Status.ContainerStatuses[0].State)
	}
}
