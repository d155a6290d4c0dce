package main

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"hansa.dev/hansa/apiserver/auth/authz"
	"hansa.dev/hansa/apiserver/request/alloc"
	"hansa.dev/hansa/daemon"
)

// parseAPIServer is what `hansa apiserver` makes of its arguments.
func parseAPIServer(args ...string) (daemon.Config, daemon.GivenKeys, error) {
	var s apiserverFlags
	f := pflag.NewFlagSet("apiserver", pflag.ContinueOnError)
	s.flags(f)
	if err := f.Parse(args); err != nil {
		return daemon.Config{}, s.given, err
	}
	s.kubeDefaults(f)
	c, err := s.daemonConfig()
	return c, s.given, err
}

// required are the flags without which kube-apiserver does not start either.
var required = []string{"--etcd-servers=http://127.0.0.1:2379", "--service-account-issuer=https://a", "--service-account-key-file=/pub", "--service-account-signing-key-file=/key"}

// Without further flags all is as in kube-apiserver.
func TestAPIServerDefaults(t *testing.T) {
	c, given, err := parseAPIServer(required...)
	if err != nil {
		t.Fatal(err)
	}
	want := daemon.GivenKeys{CertFile: "/var/run/kubernetes/apiserver.crt", KeyFile: "/var/run/kubernetes/apiserver.key", Make: true, SigningKey: "/key", VerifyKeys: []string{"/pub"}}
	if diff := cmp.Diff(want, given); diff != "" {
		t.Errorf("keys: -want +got\n%s", diff)
	}
	got := []string{c.Listen, c.ServiceCIDR.String(), c.EtcdPrefix, c.Tokens.Issuer, c.LogLevel.String(), c.NodePorts.String()}
	if diff := cmp.Diff([]string{"0.0.0.0:6443", "10.0.0.0/24", "/registry", "https://a", "WARN", alloc.DefaultPorts.String()}, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if !c.ForbidPrivileged || c.NoEndpoints || c.Auth.Anonymous != nil || !c.Auth.AnonymousByDefault || !slices.Equal(c.Auth.Authorization.Modes, []string{authz.AlwaysAllow}) {
		t.Errorf("config = %+v", c)
	}
}

func TestAPIServerSettings(t *testing.T) {
	c, given, err := parseAPIServer(append(slices.Clone(required), "--service-account-issuer=https://b", "--bind-address=::1", "--secure-port=7", "--etcd-prefix=x/",
		"--tls-cert-file=/c", "--tls-private-key-file=/k", "--authorization-mode=Node,RBAC", "--anonymous-auth=false", "--allow-privileged", "-v=4",
		"--advertise-address=127.0.0.1", "--disable-admission-plugins=ServiceAccount", "--service-node-port-range=100+10")...)
	if err != nil {
		t.Fatal(err)
	}
	if given.CertFile != "/c" || given.KeyFile != "/k" || given.Make {
		t.Errorf("keys = %+v", given)
	}
	if c.Listen != "[::1]:7" || c.EtcdPrefix != "/x" || c.Tokens.Issuer != "https://a" || !slices.Equal(c.Tokens.OtherIssuers, []string{"https://b"}) || c.LogLevel != slog.LevelDebug ||
		c.ForbidPrivileged || *c.Auth.Anonymous || c.NodePorts != (alloc.PortRange{First: 100, Last: 110}) {
		t.Errorf("config = %+v", c)
	}
	// No endpoint can have an address that is for this host alone.
	if !c.NoEndpoints || slices.Contains(c.AdmissionPlugins, "ServiceAccount") || !slices.Contains(c.AdmissionPlugins, "LimitRanger") {
		t.Errorf("config = %+v", c)
	}
}

func TestWrongFlagsOfTheAPIServer(t *testing.T) {
	for _, c := range []struct{ flag, want string }{
		{"--etcd-servers=127.0.0.1:1", `--etcd-servers: "127.0.0.1:1" is not a URL`},
		{"--etcd-prefix=/", `--etcd-prefix: "/" cannot be used`},
		{"--etcd-prefix=/hansa.dev/x", `--etcd-prefix: "/hansa.dev/x" cannot be used`},
		{"--etcd-certfile=/c", "--etcd-certfile: it and --etcd-keyfile are given together"},
		{"--bind-address=host", `--bind-address: "host" is not an address`},
		{"--secure-port=0", "--secure-port: 0 must be between 1 and 65535"},
		{"--advertise-address=0.0.0.0", `--advertise-address: "0.0.0.0" is not`},
		{"--service-cluster-ip-range=10.0.0.0/24,fd00::/112", "--service-cluster-ip-range: "},
		{"--service-cluster-ip-range=10.0.0.0/30", "--service-cluster-ip-range: "},
		{"--tls-cert-file=/c", "--tls-cert-file: it and --tls-private-key-file are given together"},
		{"--cert-dir=", "--cert-dir: without it --tls-cert-file must be given"},
		{"--kubelet-client-key=/k", "--kubelet-client-certificate: it and --kubelet-client-key are given together"},
		{"--endpoint-reconciler-type=x", `--endpoint-reconciler-type: "x" is not lease or none`},
		{"--service-account-issuer=https://a", `--service-account-issuer: "https://a" is already specified`},
		{"--service-account-jwks-uri=http://x", "--service-account-jwks-uri: requires https scheme"},
		{"--service-account-max-token-expiration=1m", "--service-account-max-token-expiration: must be between"},
		{"--authorization-mode=X", "authorization-mode"},
		{"--enable-admission-plugins=X", `enable-admission-plugins plugin "X" is unknown`},
		{"--feature-gates=X=true", `--feature-gates: "X" is not a feature`},
		{"--audit-log-path=-", "--audit-log-path: without --audit-policy-file"},
		{"--max-requests-inflight=-2", "--max-requests-inflight: -2 is negative"},
	} {
		_, _, err := parseAPIServer(append(slices.Clone(required), c.flag)...)
		var usage usageError
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want usage error %q", c.flag, err, c.want)
		}
	}
	for i, flag := range required {
		name, _, _ := strings.Cut(flag, "=")
		_, _, err := parseAPIServer(slices.Delete(slices.Clone(required), i, i+1)...)
		if err == nil || !strings.HasPrefix(err.Error(), name+":") {
			t.Errorf("without %s: %v", name, err)
		}
	}
}

// Every flag here is one of kube-apiserver's, but for a few of everybody's.
func TestFlagsAreKubernetes(t *testing.T) {
	f := pflag.NewFlagSet("apiserver", pflag.ContinueOnError)
	new(apiserverFlags).flags(f)
	known := append(kubeFlags(), "v", "version")
	f.VisitAll(func(f *pflag.Flag) {
		if !slices.Contains(known, f.Name) {
			t.Errorf("kube-apiserver has no --%s", f.Name)
		}
	})
}

func TestProgramsByTheirName(t *testing.T) {
	for name, want := range map[string]string{"/d/kube-apiserver": "apiserver --x", "etcd": "etcd --x", "/usr/bin/hansa": "--x", "kube-apiserver-2": "--x"} {
		if got := strings.Join(byName([]string{name, "--x"}), " "); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// etcd is told what it cannot be.
func TestWrongFlagsOfEtcd(t *testing.T) {
	for _, c := range []struct{ flag, want string }{
		{"--listen-client-urls=127.0.0.1:1", `--listen-client-urls: "127.0.0.1:1" is not a URL`},
		{"--initial-cluster=a=http://a,b=http://b", "--initial-cluster: this etcd has a single member"},
		{"--initial-cluster=b=http://b", "--initial-cluster: b=http://b is not this member"},
		{"--initial-cluster-state=existing", `--initial-cluster-state: "existing"`},
		{"--election-timeout=40", "--election-timeout: 40 ms should be at least five times"},
		{"--cert-file=/c", "--cert-file: it and --key-file are given together"},
		{"--trusted-ca-file=/c", "--trusted-ca-file: there is no --cert-file"},
		{"--log-level=loud", `--log-level: "loud" is not`},
	} {
		var s etcdServer
		f := pflag.NewFlagSet("etcd", pflag.ContinueOnError)
		s.flags(f)
		err := f.Parse([]string{c.flag})
		if err == nil {
			_, err = s.complete()
		}
		var usage usageError
		if !errors.As(err, &usage) || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: %v, want usage error %q", c.flag, err, c.want)
		}
	}
}
