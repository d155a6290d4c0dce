package main

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"

	"hansa.dev/hansa/daemon"
)

// parse is what `hansa up` makes of its arguments, without running anything.
func parse(args ...string) (daemon.Config, error) {
	var s settings
	cmd := &cobra.Command{Use: "up", SilenceErrors: true, SilenceUsage: true}
	s.clusterFlags(cmd.Flags())
	if err := cmd.ParseFlags(args); err != nil {
		return daemon.Config{}, err
	}
	if err := s.load(cmd); err != nil {
		return daemon.Config{}, err
	}
	return s.clusterConfig()
}

func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestDefaults(t *testing.T) {
	c, err := parse("--config", write(t, ""), "--node-name", "n1")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"/var/lib/hansa", "0.0.0.0:6443", "10.42.0.0/16", "10.43.0.0/16", "cluster.local", "WARN"}
	got := []string{c.DataDir, c.Listen, c.ClusterCIDR.String(), c.ServiceCIDR.String(), c.ClusterDomain, c.LogLevel.String()}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if n := runtime.GOMAXPROCS(0); !c.Fairness || c.MaxRequests != min(20*max(n, 2), 400) || c.MaxMutatingRequests != min(10*max(n, 2), 200) {
		t.Errorf("fairness %v, %d and %d requests at once with %d processors", c.Fairness, c.MaxRequests, c.MaxMutatingRequests, n)
	}
}

// Seats grow with the processors up to kube-apiserver's defaults, and are those
// where nothing can wait for a seat.
func TestSeats(t *testing.T) {
	for _, tt := range []struct {
		args             []string
		processors       int
		reading, writing int
	}{
		{nil, 1, 40, 20},
		{nil, 2, 40, 20},
		{nil, 16, 320, 160},
		{nil, 20, 400, 200},
		{nil, 128, 400, 200},
		{[]string{"--max-requests-inflight=7"}, 2, 7, 20},
		{[]string{"--max-mutating-requests-inflight=0"}, 2, 40, 0},
		{[]string{"--enable-priority-and-fairness=false"}, 2, 400, 200},
		{[]string{"--enable-priority-and-fairness=false", "--max-requests-inflight=0"}, 2, 0, 200},
	} {
		var s settings
		flags := pflag.NewFlagSet("up", pflag.ContinueOnError)
		s.clusterFlags(flags)
		if err := flags.Parse(tt.args); err != nil {
			t.Fatal(err)
		}
		var c daemon.Config
		if flag, why := s.limits(&c, tt.processors); why != "" || c.MaxRequests != tt.reading || c.MaxMutatingRequests != tt.writing {
			t.Errorf("%q with %d processors: %d and %d, want %d and %d; %s %s", tt.args, tt.processors, c.MaxRequests, c.MaxMutatingRequests, tt.reading, tt.writing, flag, why)
		}
	}
}

// A flag wins over the environment, and that over the file.
func TestPrecedence(t *testing.T) {
	file := write(t, "listen: 127.0.0.1:1\nnode-name: from-file\ncluster-domain: from.file\n")
	t.Setenv("HANSA_CONFIG", file)
	t.Setenv("HANSA_LISTEN", "127.0.0.1:2")
	t.Setenv("HANSA_NODE_NAME", "from-environment")
	c, err := parse("--listen", "127.0.0.1:3")
	if err != nil {
		t.Fatal(err)
	}
	got := []string{c.Listen, c.NodeName, c.ClusterDomain}
	if diff := cmp.Diff([]string{"127.0.0.1:3", "from-environment", "from.file"}, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestListsInFile(t *testing.T) {
	c, err := parse("--config", write(t, "node-label: [a=b, c=d]\nnode-taint: [k=v:NoSchedule]\netcd-endpoints: [https://a:2379]\nnode-ip: 192.0.2.7\n"), "--node-name", "n1")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"a": "b", "c": "d"}, c.NodeLabels); diff != "" {
		t.Errorf("labels: %s", diff)
	}
	if diff := cmp.Diff([]corev1.Taint{{Key: "k", Value: "v", Effect: corev1.TaintEffectNoSchedule}}, c.NodeTaints); diff != "" {
		t.Errorf("taints: %s", diff)
	}
	if c.NodeIP != netip.MustParseAddr("192.0.2.7") || len(c.EtcdEndpoints) != 1 {
		t.Errorf("config = %+v", c)
	}
}

// Numbers stay as they were written.
func TestNumbersInFile(t *testing.T) {
	c, err := parse("--config", write(t, "node-name: 12345678\nnode-label: [build=7]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if c.NodeName != "12345678" || c.NodeLabels["build"] != "7" {
		t.Errorf("config = %+v", c)
	}
}

// What a command is to do now comes from its arguments alone.
func TestEnvironmentDoesNotPurge(t *testing.T) {
	t.Setenv("HANSA_PURGE", "true")
	t.Setenv("HANSA_CONFIG", write(t, ""))
	cmd := newDown()
	var s settings
	s.config = os.Getenv("HANSA_CONFIG")
	if err := s.load(cmd); err != nil {
		t.Fatal(err)
	}
	if purge, err := cmd.Flags().GetBool("purge"); err != nil || purge {
		t.Errorf("purge = %t, %v", purge, err)
	}
}

func TestWrongSettingsNameTheirFlag(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"--listen=x", "--listen: \"x\" is not ADDRESS:PORT"},
		{"--listen=0.0.0.0:99999", "--listen: \"99999\" is not a port"},
		{"--listen=host:1", "--listen: \"host\" is not an address"},
		{"--node-ip=x", "--node-ip: \"x\" is not an address"},
		{"--node-ip=fd00::1", "--node-ip: fd00::1 is not an IPv4 address"},
		{"--node-ip=127.0.0.1", "--node-ip: 127.0.0.1 is not an IPv4 address at which others"},
		{"--advertise-address=0.0.0.0", "--advertise-address: 0.0.0.0 is not"},
		{"--etcd-endpoints=127.0.0.1:2379", "--etcd-endpoints: \"127.0.0.1:2379\" is not a URL"},
		{"--etcd-cafile=/ca", "--etcd-cafile: there is no --etcd-endpoints that it could be for"},
		{"--etcd-prefix=/x", "--etcd-prefix: there is no --etcd-endpoints that it could be for"},
		{"--node-name=" + strings.Repeat("n", 64), "--node-name: "},
		{"--node-taint=a:NoSchedule,a=b:NoSchedule", "--node-taint: a:NoSchedule is given twice"},
		{"--cluster-cidr=10.42.0.1/16", "--cluster-cidr: "},
		{"--cluster-cidr=10.42.0.0/25", "--cluster-cidr: a node needs a /24"},
		{"--cluster-cidr=fd00::/48", "--cluster-cidr: "},
		{"--service-cidr=10.42.0.0/16", "--service-cidr: 10.42.0.0/16 overlaps"},
		{"--service-cidr=10.43.0.0/25", "--service-cidr: 10.43.0.0/25 is too small"},
		{"--node-name=A_b", "--node-name: "},
		{"--cluster-domain=a_b", "--cluster-domain: "},
		{"--node-label=x", "--node-label: \"x\" is not KEY=VALUE"},
		{"--node-label=node-role.kubernetes.io/a=", "--node-label: a node may not give itself the label"},
		{"--node-label=x.node-restriction.kubernetes.io/a=b", "--node-label: a node may not give itself the label"},
		{"--node-taint=x", "--node-taint: \"x\" is not KEY=VALUE:EFFECT"},
		{"--node-taint=x:Never", "--node-taint: effect \"Never\""},
		{"--feature-gates=Foo=true", "--feature-gates: \"Foo\" is not a feature"},
		{"--encryption-provider-config=/no/such/file", "--encryption-provider-config: open /no/such/file: "},
		{"--encryption-provider-config=/dev/null", "--encryption-provider-config: /dev/null: it is a \"\" of \"\""},
		{"--encryption-provider-config-automatic-reload", "--encryption-provider-config-automatic-reload: there is no --encryption-provider-config to reload"},
		{"--audit-log-path=-", "--audit-log-path: without --audit-policy-file nothing would be noted"},
		{"--audit-policy-file=x", "--audit-policy-file: without --audit-log-path nothing would be noted"},
		{"--audit-log-maxage=-1", "--audit-log-maxage: -1 is less than nothing"},
		{"--enable-admission-plugins=Priority,Nope", "enable-admission-plugins plugin \"Nope\" is unknown"},
		{"--disable-admission-plugins=Nope", "disable-admission-plugins plugin \"Nope\" is unknown"},
		{"--admission-control-config-file=/no/such/file", "--admission-control-config-file: open /no/such/file: "},
		{"--log-level=loud", "--log-level: \"loud\" is not"},
	} {
		_, err := parse("--config", write(t, ""), c.args)
		var usage usageError
		if !errors.As(err, &usage) || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: %v, want usage error %q", c.args, err, c.want)
		}
	}
}

func TestAuditSettings(t *testing.T) {
	const head = "apiVersion: audit.k8s.io/v1\nkind: Policy\n"
	config := write(t, "audit-log-path: /log\naudit-log-maxsize: 7\n")
	c, err := parse("--config", config, "--audit-policy-file", write(t, head+"rules: [{level: Metadata}]"))
	if err != nil {
		t.Fatal(err)
	}
	a := c.Audit
	if a.Policy == nil || a.Doubt != nil || a.Path != "/log" || a.MaxSize != 7 || a.MaxBackups != 100 || a.MaxAge != 366 {
		t.Errorf("audit is %+v", a)
	}
	// As in Kubernetes a field that is not known is passed over.
	if c, err = parse("--config", config, "--audit-policy-file", write(t, head+"rules: [{level: Metadata, lvl: x}]")); err != nil || c.Audit.Doubt == nil {
		t.Errorf("unknown field: %v, %+v", err, c.Audit)
	}
	for text, want := range map[string]string{
		"":                              "it does not say that it is a Policy of audit.k8s.io/v1",
		"kind: Pod\napiVersion: v1":     "it is no Policy of audit.k8s.io/v1: ",
		"[":                             "it is no Policy of audit.k8s.io/v1: ",
		head:                            "rules: at least one rule is required",
		head + "rules: [{level: Loud}]": `rules[0].level: Unsupported value: "Loud"`,
		head + "omitStages: [X]\nrules: [{level: None}]":         `omitStages[0]: Invalid value: "X"`,
		head + "rules: [{level: None, nonResourceURLs: [/a*b]}]": "rules[0].nonResourceURLs[0]: Invalid value",
	} {
		_, err := parse("--config", config, "--audit-policy-file", write(t, text))
		var usage usageError
		if !errors.As(err, &usage) || !strings.HasPrefix(err.Error(), "--audit-policy-file: /") || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s\n%v, want %q", text, err, want)
		}
	}
}

func TestWrongFiles(t *testing.T) {
	for text, want := range map[string]string{
		"listn: x":               `"listn" is not a setting`,
		"listen: {a: b}":         "listen: a text, number or list of them is expected",
		"listen:":                "listen: a text, number or list of them is expected",
		"node-label: [[a=b]]":    "node-label: a text, number or list of them is expected",
		"config: other.yaml":     `"config" is not a setting`,
		"listen: a\nlisten: b\n": "listen",
		"[":                      "configuration file",
		"- listen":               "settings are expected, each as NAME: VALUE",
		"listen":                 "settings are expected, each as NAME: VALUE",
	} {
		_, err := parse("--config", write(t, text))
		var usage usageError
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if _, err := parse("--config", "/no/such/file"); err == nil {
		t.Error("a missing file that was asked for is no error")
	}
}

func TestKubectlArguments(t *testing.T) {
	t.Setenv("HANSA_CONFIG", write(t, ""))
	for _, c := range []struct {
		args, rest []string
		dir        string
	}{
		{[]string{"get", "pods", "--data-dir", "x"}, []string{"get", "pods", "--data-dir", "x"}, "/var/lib/hansa"},
		{[]string{"--data-dir", "/d", "get"}, []string{"get"}, "/d"},
		{[]string{"--data-dir=/d", "get"}, []string{"get"}, "/d"},
		{nil, []string{}, "/var/lib/hansa"},
	} {
		config, rest, err := kubectlArgs(c.args)
		if err != nil {
			t.Fatal(err)
		}
		if config.DataDir != c.dir || strings.Join(rest, " ") != strings.Join(c.rest, " ") {
			t.Errorf("%v: %s, %v", c.args, config.DataDir, rest)
		}
	}
	if _, _, err := kubectlArgs([]string{"--data-dir"}); err == nil {
		t.Error("--data-dir without a value was taken")
	}
}

func TestExitStatus(t *testing.T) {
	for _, c := range []struct {
		args []string
		want int
	}{
		{[]string{"version"}, 0},
		{[]string{"--help"}, 0},
		{[]string{"upp"}, 2},
		{[]string{"up", "--foo"}, 2},
		{[]string{"up", "extra"}, 2},
		{[]string{"logs", "shop/web-0", "shop/web-1"}, 2},
		{[]string{"image", "import"}, 2},
		{[]string{"image", "lst"}, 2},
		{[]string{"version", "-o", "xml"}, 2},
		{[]string{"status", "--data-dir", "/no/such/dir"}, 1},
		{[]string{"kubectl", "--data-dir", "/no/such/dir", "get", "pods"}, 1},
	} {
		if got := run(context.Background(), c.args); got != c.want {
			t.Errorf("hansa %s: exit status %d, want %d", strings.Join(c.args, " "), got, c.want)
		}
	}
}

func TestATypoGetsASuggestion(t *testing.T) {
	for typo, want := range map[string]string{
		"dwon": `"down"`, "stauts": `"status"`, "imgae": `"image"`, "up --data-dri=x": "--data-dir", "down --prge": "--purge",
	} {
		root := newRoot()
		root.SetArgs(strings.Fields(typo))
		if err := root.Execute(); err == nil || !strings.HasSuffix(err.Error(), `did you mean `+want+`?`) {
			t.Errorf("%s: %v", typo, err)
		}
	}
}

// The node's settings: a KubeletConfiguration, and the kubelet's flags by their
// names, from command line, environment and file.
func TestKubeletSettings(t *testing.T) {
	file := write(t, "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: 5\npodsPerCore: 3\n")
	config := write(t, "pods-per-core: 4\nallowed-unsafe-sysctls: [kernel.sem, net.core.somaxconn]\n")
	t.Setenv("HANSA_POD_MAX_PIDS", "77")
	c, err := parse("--config", config, "--node-name=n1", "--kubelet-config", file, "--max-pods=6", "--seccomp-default", "--eviction-hard", "memory.available<1Gi", "--eviction-hard", "pid.available<5%")
	if err != nil {
		t.Fatal(err)
	}
	n := c.Node
	if n.MaxPods != 6 || n.PodsPerCore != 4 || *n.PodPidsLimit != 77 || !*n.SeccompDefault || len(n.AllowedUnsafeSysctls) != 2 || len(n.EvictionHard) != 2 {
		t.Errorf("%+v", n.KubeletConfiguration)
	}
	for _, c := range []struct{ flag, want string }{
		{"--max-pods=many", `--max-pods: "many" is not a whole number`},
		{"--kubelet-config=/nonexistent", "read kubelet configuration: open /nonexistent: no such file or directory"},
		{"--eviction-hard=memory<1", `kubelet configuration: evictionHard: "memory" is no signal; there are`},
	} {
		if _, err := parse("--config", config, "--node-name=n1", c.flag); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.flag, err)
		}
	}
}
