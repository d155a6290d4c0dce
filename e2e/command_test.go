package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"hansa.dev/hansa/store"
	"hansa.dev/hansa/store/etcd"
)

// refusal is a command that fails, and how it says so.
type refusal struct {
	name string
	args []string
	env  []string
	code int // 2 for wrong usage, 1 for anything else
	want string
}

// refused runs a command that has to fail with one sentence and nothing else.
func refused(t *testing.T, r refusal, cmd *exec.Cmd) {
	t.Helper()
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	cmd.Env = append(os.Environ(), r.env...)
	err := cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != r.code {
		t.Errorf("%s: %v, want exit status %d\n%s", r.name, err, r.code, errOut.Bytes())
	}
	got := errOut.String()
	if out.Len() > 0 || strings.Count(got, "\n") != 1 || !strings.HasPrefix(got, "hansa: ") || !strings.Contains(got, r.want) {
		t.Errorf("%s said:\n%s%swant one line with: %s", r.name, out.String(), got, r.want)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().(*net.TCPAddr)
	none, others := filepath.Join(dir, "none"), filepath.Join(dir, "others")
	if err := errors.Join(os.Mkdir(others, 0o755), os.WriteFile(filepath.Join(others, "theirs"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	up := func(args ...string) []string {
		return append([]string{"up", "--data-dir", filepath.Join(dir, "data")}, args...)
	}
	for _, r := range []refusal{
		{"no such command", []string{"upp"}, nil, 2, `"upp" is not a command; did you mean "up"?`},
		{"no such flag", up("--nonsense"), nil, 2, "unknown flag: --nonsense; see hansa up --help"},
		{"nearly a flag", up("--node-nmae=n"), nil, 2, "unknown flag: --node-nmae; did you mean --node-name?"},
		{"too many words", up("more"), nil, 2, "usage: hansa up"},
		{"wrong address", up("--listen=here"), nil, 2, `--listen: "here" is not ADDRESS:PORT`},
		{"wrong range", up("--cluster-cidr=10.42.0.1/16"), nil, 2, `--cluster-cidr: "10.42.0.1/16" is not an IPv4 range`},
		{"overlapping ranges", up("--service-cidr=10.42.0.0/16"), nil, 2, "--service-cidr: 10.42.0.0/16 overlaps the addresses of pods"},
		{"wrong name", up("--node-name=UPPER_CASE"), nil, 2, "--node-name: "},
		{"wrong taint", up("--node-taint=a=b:Sometimes"), nil, 2, `effect "Sometimes" is not`},
		{"unknown feature", up("--feature-gates=Magic=true"), nil, 2, `--feature-gates: "Magic" is not a feature`},
		{"wrong environment", up(), []string{"HANSA_LISTEN=there"}, 2, `--listen: "there" is not`},
		{"wrong key in the file", up("--config", file("key.yaml", "data-dri: /x\n")), nil, 2, `key.yaml: "data-dri" is not a setting`},
		{"wrong file", up("--config", file("bad.yaml", "{\n")), nil, 2, "bad.yaml: "},
		{"no file", up("--config", none), nil, 2, none + ": no such file"},
		{"port in use", up("--listen", taken.String()), nil, 1, fmt.Sprintf("port %d is in use by another program: choose another address with --listen", taken.Port)},
		{"node's port in use", up("--listen=127.0.0.1:16443"), nil, 1, "port 10250, of the node's API, is in use: two nodes on one machine need a network namespace each"},
		{"data directory in use", []string{"up", "--data-dir", shared.dir}, nil, 1, fmt.Sprintf("data directory %s is in use by another hansa (process %d)", shared.dir, shared.process.Process.Pid)},
		{"down without data", []string{"down", "--data-dir", none}, nil, 1, "there is no data directory " + none},
		{"status without data", []string{"status", "--data-dir", none}, nil, 1, "there is no data directory " + none + ": start a cluster with hansa up"},
		{"kubectl without cluster", []string{"kubectl", "--data-dir", none, "get", "pods"}, nil, 1, "no cluster in data directory " + none},
		{"image list without cluster", []string{"image", "list", "--data-dir", none}, nil, 1, "nothing runs from data directory " + none + ": start it with hansa up"},
		{"no image file", []string{"image", "import", "--data-dir", shared.dir, none}, nil, 1, none + ": no such file"},
		{"no image", []string{"image", "remove", "--data-dir", shared.dir, "hansa.local/none:1"}, nil, 1, "there is no image hansa.local/none:1; hansa image list shows those there are"},
		{"not an image", []string{"image", "import", "--data-dir", shared.dir, file("text", "text")}, nil, 1, "text: this is no image, or only a part of one: what docker save writes is expected"},
		{"an empty file", []string{"image", "import", "--data-dir", shared.dir, file("empty", "")}, nil, 1, "empty: this is no image"},
		{"a torn image", []string{"image", "import", "--data-dir", shared.dir, torn(t, dir)}, nil, 1, "torn.tar: this is no image, or only a part of one"},
		{"others' folder", []string{"up", "--data-dir", others}, nil, 1, others + " is no data directory of hansa and holds other things (theirs): choose a new or empty one with --data-dir"},
		{"others' folder purged", []string{"down", "--purge", "--data-dir", others}, nil, 1, others + " is no data directory of hansa"},
		{"status of others' folder", []string{"status", "--data-dir", others}, nil, 1, others + " is no data directory of hansa: start a cluster with hansa up"},
		{"a file as data directory", []string{"up", "--data-dir", filepath.Join(others, "theirs")}, nil, 1, "theirs: not a directory"},
		{"others' address", up("--node-ip=192.0.2.9"), nil, 1, "no link of this machine has the address 192.0.2.9, given with --node-ip"},
		{"reserved label", up("--node-label=node-role.kubernetes.io/web="), nil, 2, `--node-label: a node may not give itself the label "node-role.kubernetes.io/web"`},
	} {
		refused(t, r, shared.program(r.args...))
	}
	if entries, err := os.ReadDir(others); err != nil || len(entries) != 1 {
		t.Errorf("others' folder now holds %v, %v", entries, err)
	}
	for _, args := range [][]string{
		up(), {"down", "--data-dir", shared.dir}, {"status", "--data-dir", shared.dir}, {"image", "list", "--data-dir", shared.dir},
		{"kubectl", "--data-dir", shared.dir, "get", "pods"},
	} {
		cmd := shared.program(args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		refused(t, refusal{name: "no root", code: 1, want: "root"}, cmd)
	}
	if left := shared.processesIn(filepath.Join(dir, "data")); len(left) > 0 {
		t.Errorf("refused commands left processes %v", left)
	}
}

// torn is the first half of an image's archive.
func torn(t *testing.T, dir string) string {
	t.Helper()
	whole, err := os.ReadFile(filepath.SplitList(os.Getenv(imagesVariable))[0])
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "torn.tar")
	if err := os.WriteFile(path, whole[:len(whole)/2], 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// processesIn are processes that run from a data directory.
func (c *cluster) processesIn(dir string) []int {
	other := &cluster{dir: dir}
	return other.processesOf("containerd")
}

// What a kernel lacks is shown to hansa by hiding it, in a mount namespace.
func TestMissingFeatures(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	hide := func(file, word string) string {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		less := filepath.Join(dir, filepath.Base(file))
		if err := os.WriteFile(less, regexp.MustCompile(word).ReplaceAll(b, nil), 0o644); err != nil {
			t.Fatal(err)
		}
		return "mount --bind " + less + " " + file
	}
	pids := "umount -l /sys/fs/cgroup/pids"
	if unified() {
		pids = hide("/sys/fs/cgroup/cgroup.controllers", `\bpids\b`)
	}
	for _, c := range []struct{ hide, want string }{
		{hide("/proc/filesystems", `nodev\toverlay\n`), "the kernel lacks overlayfs, on which images are unpacked: load the module overlay or use a kernel with CONFIG_OVERLAY_FS"},
		{pids, "the cgroup controller pids is missing, without which pods cannot be limited"},
	} {
		script := c.hide + " && exec " + hansaBinary() + " up --data-dir " + filepath.Join(dir, "data")
		refused(t, refusal{name: c.hide, code: 1, want: c.want}, exec.Command("unshare", "-m", "sh", "-c", script))
	}
}

func TestNewerData(t *testing.T) {
	if !alone(t) {
		return
	}
	c := newCluster("newer")
	if err := c.up(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.hansa("down", "--data-dir", c.dir); err != nil {
		t.Fatal(err)
	}
	<-c.ended
	// The one look inside: a version to come cannot be run.
	engine, err := etcd.Start(t.Context(), etcd.Options{Dir: filepath.Join(c.dir, "etcd")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := engine.Txn(t.Context(), []store.Step{{Then: []store.Put{{Key: "/hansa.dev/format", Value: []byte(`{"data":99}`)}}}}); err != nil {
		t.Fatal(err)
	}
	if err := engine.Close(); err != nil {
		t.Fatal(err)
	}
	refused(t, refusal{name: "newer data", code: 1, want: "the data was written by a newer version of hansa (data format 99, this one knows 1)"},
		c.program("up", "--data-dir", c.dir))
	if _, err := c.hansa("down", "--data-dir", c.dir, "--purge"); err != nil {
		t.Error(err)
	}
}

// Flags win over the environment, that over the file.
func TestSettings(t *testing.T) {
	if !alone(t) {
		return
	}
	c := newCluster("settings", "--config=/tmp/config.yaml", "--node-name=from-flag")
	config := "listen: 127.0.0.1:7443\nnode-name: from-file\nnode-label: [a=file, b=file]\ncluster-domain: test.internal\nlog-level: info\n"
	if err := os.WriteFile("/tmp/config.yaml", []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HANSA_NODE_NAME", "from-environment")
	t.Setenv("HANSA_LOG_LEVEL", "warn")
	started(t, c)
	s := newSpace(t, c)
	if got := s.kubectl("get", "nodes", "-L", "a", "-L", "b", "--no-headers"); !strings.HasPrefix(got, "from-flag ") || strings.Count(got, "file") != 2 {
		t.Errorf("nodes: %s", got)
	}
	if !strings.HasSuffix(c.config.Host, ":7443") {
		t.Errorf("API at %s", c.config.Host)
	}
	s.service("v", "clusterIP: 10.43.7.7, selector: {app: p}, ports: [{port: 80}]")
	s.resolves("v."+s.name+".svc.test.internal.", "10.43.7.7")
	if got := c.logTail(1000); strings.Contains(got, "level=INFO") {
		t.Errorf("logged at level info: %s", got)
	}
}

func TestCommands(t *testing.T) {
	t.Parallel()
	s := newSpace(t, shared)
	run := func(args ...string) string {
		t.Helper()
		out, err := shared.hansa(append(args, "--data-dir", shared.dir)...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if out, err := shared.hansa("version"); err != nil || !regexp.MustCompile(`^hansa \d+\.\d+\.\d+ \(Kubernetes v1\.37\.\d+, commit \w+\)\n$`).MatchString(out) {
		t.Errorf("version: %q, %v", out, err)
	}
	if out := s.kubectl("version"); !strings.Contains(out, "Server Version: v1.37.") || !strings.Contains(out, "+hansa.") {
		t.Errorf("kubectl version: %s", out)
	}
	if out := run("image", "list"); !strings.Contains(out, "hansa.local/busybox:1 ") {
		t.Errorf("image list:\n%s", out)
	}
	imageNames(t, s, run)
	// What is not well is named with its reason.
	s.create("broken", runs("hansa.local/none:1", "Never", ""))
	await(t, "status tells of the pod", func() error {
		if out := run("status"); !strings.Contains(out, "node-one 198.51.100.2, ready") || !strings.Contains(out, "pod "+s.name+"/broken  ErrImageNeverPull") {
			return errors.New(out)
		}
		return nil
	})
	var status struct {
		Running  bool
		PID      int
		Problems []struct{ Object, Reason string }
	}
	if err := json.Unmarshal([]byte(run("status", "-o", "json")), &status); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(status.Problems, func(p struct{ Object, Reason string }) bool { return p.Object == "pod "+s.name+"/broken" })
	if !status.Running || status.PID != shared.process.Process.Pid || i < 0 || status.Problems[i].Reason != "ErrImageNeverPull" {
		t.Errorf("status: %+v", status)
	}
}

// An image goes with its last name, and that one not while a pod runs from it.
func imageNames(t *testing.T, s *space, run func(args ...string) string) {
	t.Helper()
	first, second := s.publish("names/first", "two names"), s.publish("names/second", "two names")
	for name, image := range map[string]string{"first": first, "second": second} {
		s.create(name, fmt.Sprintf("containers: [{name: main, image: %q, command: [sleep, '1000']}]", image))
		s.ready(name)
	}
	run("image", "remove", first)
	if out := run("image", "list"); strings.Contains(out, first) || !strings.Contains(out, second+" ") {
		t.Errorf("after %s was removed:\n%s", first, out)
	}
	// What runs by the name that went runs on; the other one is as good as before.
	s.exec("first", "true")
	s.create("third", runs(second, "Never", ""))
	s.finished("third")
	refused(t, refusal{name: "last name", code: 1, want: "image " + second + " is in use by pod " + s.name + "/"},
		s.program("image", "remove", "--data-dir", s.dir, second))
	s.kubectl("delete", "pod", "first", "second", "third")
	await(t, "the image can be removed", func() error {
		_, err := s.hansa("image", "remove", "--data-dir", s.dir, second)
		return err
	})
	if out := run("image", "list"); strings.Contains(out, "/names/") {
		t.Errorf("after both names were removed:\n%s", out)
	}
}
