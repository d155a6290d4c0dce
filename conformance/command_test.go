package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/version"

	"hansa.dev/hansa/store"
	"hansa.dev/hansa/store/etcd"
)

var readyLine = regexp.MustCompile(`^hansa: ready in \d+\.\d\ds, node \S+, kubeconfig /\S+\n$`)

// refusedRun demands an exit status and one sentence on standard error, without
// a stack trace.
func refusedRun(t *testing.T, r result, code int, pattern string) {
	t.Helper()
	if r.code != code || r.out != "" || strings.Count(r.err, "\n") != 1 || strings.Contains(r.err, "goroutine") || !regexp.MustCompile("^hansa: "+pattern+"\n$").MatchString(r.err) {
		t.Errorf("exit status %d, %q and %q; want %d and one line like %q", r.code, r.out, r.err, code, pattern)
	}
}

// Wrong usage is exit status 2 and one sentence that names what is wrong.
func TestWrongUsage(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"upp"}, `"upp" is not a command; did you mean "up"\?`},
		{[]string{"statsu"}, `"statsu" is not a command; did you mean "status"\?`},
		{[]string{"nonsense"}, `"nonsense" is not a command; see hansa --help`},
		{[]string{"up", "--nonsense"}, `unknown flag: --nonsense; see hansa up --help`},
		{[]string{"up", "x"}, `.*accepts 0 arg.*`},
		{[]string{"up", "--listen", "x"}, `--listen: "x" is not ADDRESS:PORT`},
		{[]string{"up", "--listen", "0.0.0.0:70000"}, `--listen: "70000" is not a port`},
		{[]string{"up", "--listen", "host:6443"}, `--listen: "host" is not an address`},
		{[]string{"up", "--node-ip", "x"}, `--node-ip: "x" is not an address`},
		{[]string{"up", "--node-name", "Ä"}, `--node-name: "Ä": .*`},
		{[]string{"up", "--node-label", "x"}, `--node-label: "x" is not KEY=VALUE`},
		{[]string{"up", "--node-taint", "k=v:Never"}, `--node-taint: effect "Never" is not NoSchedule, PreferNoSchedule or NoExecute`},
		{[]string{"up", "--cluster-cidr", "10.0.0.1/16"}, `--cluster-cidr: "10.0.0.1/16" is not an IPv4 range such as 10.42.0.0/16`},
		{[]string{"up", "--service-cidr", "10.42.0.0/20"}, `--service-cidr: 10.42.0.0/20 overlaps the addresses of pods, 10.42.0.0/16`},
		{[]string{"up", "--cluster-domain", "a b"}, `--cluster-domain: "a b": .*`},
		{[]string{"up", "--feature-gates", "X=true"}, `--feature-gates: "X" is not a feature of this version`},
		{[]string{"up", "--log-level", "loud"}, `--log-level: "loud" is not debug, info, warn or error`},
		{[]string{"up", "--config", filepath.Join(dir, "none")}, `read configuration file: open .*/none: no such file or directory`},
		{[]string{"up", "--config", file("bad", "a: [")}, `configuration file .*/bad: .*`},
		{[]string{"up", "--config", file("unknown", "nonsense: 1")}, `configuration file .*/unknown: "nonsense" is not a setting`},
		{[]string{"up", "--config", file("twice", "listen: a\nlisten: b")}, `configuration file .*/twice: .*already set.*`},
		{[]string{"up", "--config", file("map", "listen: {a: b}")}, `configuration file .*/map: listen: a text, number or list of them is expected`},
		{[]string{"status", "-o", "xml"}, `output format "xml" is not known; it is json or nothing`},
		{[]string{"version", "-o", "xml"}, `output format "xml" is not known; it is json or nothing`},
		{[]string{"image", "imprt"}, `"imprt" is not a command; did you mean "import"\?`},
		{[]string{"image", "import"}, `.*accepts 1 arg.*`},
		{[]string{"down", "--purge=maybe"}, `invalid argument "maybe" for "--purge" flag: .*`},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			refusedRun(t, shared.run(t, c.args...), 2, c.want)
		})
	}
	wrong := shared.hansa(t.Context(), []string{"HANSA_LISTEN=nowhere"}, "up")
	refusedRun(t, shared.finish(t, wrong), 2, `--listen: "nowhere" is not ADDRESS:PORT`)
}

// What cannot be done is exit status 1 and one sentence that says why, and how
// to go on.
func TestRefusalsOfCommands(t *testing.T) {
	refusedRun(t, shared.run(t, "up", "--node-name", "second", "--listen", "0.0.0.0:7443"), 1, fmt.Sprintf(`data directory %s is in use by another hansa \(process %d\)`, shared.dir, shared.daemon.cmd.Process.Pid))

	c := own(t, "refused")
	refusedRun(t, c.run(t, "status"), 1, `there is no data directory `+c.dir+`: start a cluster with hansa up`)
	refusedRun(t, c.run(t, "down"), 1, `there is no data directory `+c.dir)
	refusedRun(t, c.run(t, "kubectl", "get", "pods"), 1, `no cluster in data directory `+c.dir+`: start one with hansa up, or name another with --data-dir`)
	refusedRun(t, c.run(t, "image", "list"), 1, `.*`+c.dir+`.*`)
	var l net.Listener
	if err := c.enter(func() (err error) {
		l, err = (&net.ListenConfig{}).Listen(context.Background(), "tcp", "0.0.0.0:6443")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	refusedRun(t, c.run(t, "up"), 1, `port 6443 is in use by another program: choose another address with --listen`)
	l.Close()
}

// Without root a node says so at once.
func TestNoRoot(t *testing.T) {
	c := own(t, "noroot")
	for _, command := range []string{"up", "down"} {
		cmd := c.hansa(t.Context(), nil, command)
		setpriv, err := exec.LookPath("setpriv")
		if err != nil {
			t.Fatal(err)
		}
		cmd.Args = append([]string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"}, cmd.Args...)
		cmd.Path = setpriv
		refusedRun(t, c.finish(t, cmd), 1, `.*needs root.*`)
	}
}

// The data of a newer version is refused, untouched.
func TestNewerData(t *testing.T) {
	c := own(t, "newer")
	if err := os.MkdirAll(filepath.Join(c.dir, "etcd"), 0o700); err != nil {
		t.Fatal(err)
	}
	engine, err := etcd.Start(t.Context(), etcd.Options{Dir: filepath.Join(c.dir, "etcd")})
	if err != nil {
		t.Fatal(err)
	}
	_, err = engine.Txn(t.Context(), []store.Step{{Then: []store.Put{{Key: "/hansa.dev/format", Value: []byte(`{"data":99}`)}}}})
	if err := errors.Join(err, engine.Close()); err != nil {
		t.Fatal(err)
	}
	refusedRun(t, c.run(t, "up"), 1, `.*newer.*`)
}

// Settings come from flags, else the environment, else the file.
func TestPrecedenceOfSettings(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(config, []byte("data-dir: "+dir+"/file\nlisten: 0.0.0.0:9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	status := func(env []string, args ...string) result {
		cmd := shared.hansa(t.Context(), nil, append([]string{"status"}, args...)...)
		cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, env...)
		return shared.finish(t, cmd)
	}
	no := func(name string) string {
		return "there is no data directory " + dir + "/" + name + ": start a cluster with hansa up"
	}
	refusedRun(t, status(nil, "--config", config), 1, no("file"))
	refusedRun(t, status([]string{"HANSA_CONFIG=" + config}), 1, no("file"))
	refusedRun(t, status([]string{"HANSA_DATA_DIR=" + dir + "/env"}, "--config", config), 1, no("env"))
	refusedRun(t, status([]string{"HANSA_DATA_DIR=" + dir + "/env"}, "--config", config, "--data-dir", dir+"/flag"), 1, no("flag"))
}

// version and status speak to people and to programs.
func TestVersionAndStatus(t *testing.T) {
	if r := shared.run(t, "version"); r.code != 0 || !regexp.MustCompile(`^hansa \S+ \(Kubernetes v1\.37\.2, commit \S+\)\n$`).MatchString(r.out) {
		t.Errorf("version is %+v", r)
	}
	var v version.Info
	if r := shared.run(t, "version", "-o", "json"); r.code != 0 || json.Unmarshal([]byte(r.out), &v) != nil || !strings.HasPrefix(v.GitVersion, "v1.37.2+hansa.") || v.Major != "1" || v.Minor != "37" {
		t.Errorf("version -o json is %+v", r)
	}
	var s struct {
		DataDir, API, Kubeconfig string
		Running                  bool
		PID                      int
		Nodes                    []struct {
			Name    string
			Ready   bool
			Address string
		}
	}
	r := shared.run(t, "status", "-o", "json")
	if err := json.Unmarshal([]byte(r.out), &s); r.code != 0 || err != nil {
		t.Fatalf("status -o json is %+v: %v", r, err)
	}
	if s.DataDir != shared.dir || !s.Running || s.PID != shared.daemon.cmd.Process.Pid || s.API != "https://127.0.0.1:6443" || s.Kubeconfig != shared.dir+"/kubeconfig" {
		t.Errorf("status is %+v", s)
	}
	found := false
	for _, n := range s.Nodes {
		found = found || n.Name == "node-shared" && n.Ready && n.Address == shared.address.String()
	}
	if !found {
		t.Errorf("nodes are %+v", s.Nodes)
	}
	if r := shared.run(t, "status"); r.code != 0 || !strings.Contains(r.out, "node-shared") || r.err != "" {
		t.Errorf("status is %+v", r)
	}
	for _, help := range [][]string{{}, {"--help"}, {"up", "--help"}, {"image"}} {
		if r := shared.run(t, help...); r.code != 0 || r.out == "" || r.err != "" {
			t.Errorf("hansa %s: %+v", strings.Join(help, " "), r)
		}
	}
}
