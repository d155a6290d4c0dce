package settings_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	kubelet "k8s.io/kubelet/config/v1beta1"

	"hansa.dev/hansa/agent/settings"
)

const head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"

func file(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// load reads a file's fields and flags.
func load(t *testing.T, fields string, flags map[string]string) (*settings.Settings, error) {
	t.Helper()
	return settings.Load(settings.Sources{File: file(t, t.TempDir(), "kubelet.yaml", head+fields), Flags: flags})
}

func mustLoad(t *testing.T, fields string, flags map[string]string) *settings.Settings {
	t.Helper()
	s, err := load(t, fields, flags)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// "KubeletConfiguration", the defaults that are documented.
func TestDefaults(t *testing.T) {
	s := settings.Default()
	if s.MaxPods != 110 || *s.PodPidsLimit != -1 || s.EvictionHard["memory.available"] != "100Mi" || len(s.Thresholds) != 5 ||
		s.EvictionPressureTransitionPeriod.Duration != 5*time.Minute || *s.ImageGCHighThresholdPercent != 85 || *s.ImageGCLowThresholdPercent != 80 ||
		s.ImageMinimumGCAge.Duration != 2*time.Minute || s.LogMaxSize != 10<<20 || *s.ContainerLogMaxFiles != 5 || !*s.CPUCFSQuota ||
		s.NodeLeaseDurationSeconds != 40 || !s.EnforcesPods() || !s.MemoryQoS || s.Grace() != 0 || len(s.Reserved) != 0 || len(s.Warnings) != 0 {
		t.Errorf("%+v", s)
	}
}

// Every field of the type has a row, and every row a field.
func TestFields(t *testing.T) {
	var walk func(path string, typ reflect.Type)
	rows := map[string]bool{}
	for _, f := range settings.Fields {
		if rows[f.Path] {
			t.Errorf("%s has two rows", f.Path)
		}
		rows[f.Path] = true
		if f.Effect != settings.Applied && f.Why == "" {
			t.Errorf("%s does nothing, and nobody says why", f.Path)
		}
	}
	covered := map[string]bool{}
	walk = func(path string, typ reflect.Type) {
		for i := range typ.NumField() {
			name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			if name == "" {
				continue
			}
			at := strings.TrimPrefix(path+"."+name, ".")
			inside := slices.ContainsFunc(settings.Fields, func(f settings.Field) bool { return strings.HasPrefix(f.Path, at+".") })
			switch {
			case rows[at]:
				covered[at] = true
			case inside:
				walk(at, typ.Field(i).Type)
			default:
				t.Errorf("field %s has no row", at)
			}
		}
	}
	walk("", reflect.TypeFor[kubelet.KubeletConfiguration]())
	for path := range rows {
		if !covered[path] {
			t.Errorf("row %s is of no field", path)
		}
	}
}

// The table of the design is that of the code.
func TestTableIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../design/kubelet.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range strings.Split(strings.TrimSpace(settings.Table()), "\n") {
		if !strings.Contains(string(doc), row+"\n") {
			t.Errorf("design/kubelet.md lacks the row\n%s\n(the whole table:\n%s)", row, settings.Table())
			return
		}
	}
}

// A field that does not exist, or twice, is refused by name; so is another kind.
func TestStrict(t *testing.T) {
	for fields, want := range map[string]string{
		"maxPod: 3":              `unknown field "maxPod"`,
		"maxPods: 3\nmaxPods: 4": `key "maxPods" already set in map`,
		"maxPods: many":          "cannot unmarshal string into Go struct field",
		"authentication: {x: 1}": `unknown field "authentication.x"`,
	} {
		if _, err := load(t, fields, nil); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "kubelet.yaml") {
			t.Errorf("%s: %v, want %s", fields, err, want)
		}
	}
	dir := t.TempDir()
	_, err := settings.Load(settings.Sources{File: file(t, dir, "f", "apiVersion: v1\nkind: Pod\n")})
	if err == nil || !strings.Contains(err.Error(), `apiVersion "v1", kind "Pod": it has to be kubelet.config.k8s.io/v1beta1, KubeletConfiguration`) {
		t.Error(err)
	}
	if _, err := settings.Load(settings.Sources{File: filepath.Join(dir, "none")}); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Error(err)
	}
}

// "Kubelet configuration drop-in directory": files *.conf in the order of their
// names, maps merged, lists replaced; flags come last.
func TestDropIns(t *testing.T) {
	dir := t.TempDir()
	sub := filepath.Join(dir, "d")
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	base := file(t, dir, "base", head+"maxPods: 1\npodsPerCore: 1\nallowedUnsafeSysctls: [kernel.sem]\nsystemReserved: {cpu: 100m, memory: 1Gi}\n")
	file(t, sub, "10-a.conf", head+"maxPods: 2\nallowedUnsafeSysctls: [net.core.somaxconn]\n")
	file(t, sub, "20-b.conf", head+"maxPods: 3\nsystemReserved: {cpu: 200m}\n")
	file(t, sub, "30.yaml", "nonsense")
	s, err := settings.Load(settings.Sources{File: base, Dir: sub, Flags: map[string]string{"pods-per-core": "9"}})
	if err != nil {
		t.Fatal(err)
	}
	cpu, memory := s.SystemReserved[v1.ResourceCPU], s.SystemReserved[v1.ResourceMemory]
	if s.MaxPods != 3 || s.PodsPerCore != 9 || !slices.Equal(s.AllowedUnsafeSysctls, []string{"net.core.somaxconn"}) || cpu.String() != "200m" || memory.String() != "1Gi" {
		t.Errorf("%+v", s)
	}
	file(t, sub, "40.conf", "nonsense: 1")
	if _, err := settings.Load(settings.Sources{Dir: sub}); err == nil || !strings.Contains(err.Error(), "40.conf") {
		t.Error(err)
	}
}

// The kubelet's flags set the fields of their names, in the kubelet's syntax.
func TestFlags(t *testing.T) {
	s := mustLoad(t, "maxPods: 5", map[string]string{
		"max-pods": "7", "eviction-hard": "memory.available<1Gi,nodefs.available<5%", "eviction-soft": "memory.available<2Gi",
		"eviction-soft-grace-period": "memory.available=1m30s", "eviction-minimum-reclaim": "memory.available=1Gi", "seccomp-default": "true",
		"cpu-cfs-quota-period": "10ms", "kube-reserved": "cpu=1,pid=100", "allowed-unsafe-sysctls": "kernel.msg*,net.core.somaxconn",
		"register-with-taints": "a=b:NoSchedule,c:NoExecute", "manifest-url-header": "a:b,a:c", "pod-max-pids": "50", "cluster-dns": "10.0.0.1",
	})
	if s.MaxPods != 7 || s.EvictionHard["nodefs.available"] != "5%" || len(s.EvictionHard) != 2 || s.EvictionSoftGracePeriod["memory.available"] != "1m30s" ||
		len(s.Thresholds) != 3 || !*s.SeccompDefault || s.CPUCFSQuotaPeriod.Duration != 10*time.Millisecond || s.KubeReserved.Cpu().Value() != 1 ||
		len(s.AllowedUnsafeSysctls) != 2 || len(s.RegisterWithTaints) != 2 || s.RegisterWithTaints[1].Effect != v1.TaintEffectNoExecute ||
		!slices.Equal(s.StaticPodURLHeader["a"], []string{"b", "c"}) || *s.PodPidsLimit != 50 || s.ClusterDNS[0] != "10.0.0.1" {
		t.Errorf("%+v", s.KubeletConfiguration)
	}
	for name, c := range map[string][2]string{
		"max-pods": {"x", `--max-pods: "x" is not a whole number`}, "eviction-hard": {"memory.available=1", `--eviction-hard: "memory.available=1" is not NAME<VALUE`},
		"seccomp-default": {"maybe", `--seccomp-default: "maybe" is neither true nor false`}, "cpu-cfs-quota-period": {"1", `--cpu-cfs-quota-period: "1" is not a duration such as 1m30s`},
		"no-such": {"", "--no-such: not a flag of the kubelet that applies here"}, "register-with-taints": {"a", `--register-with-taints: "a" is not KEY=VALUE:EFFECT`},
	} {
		if _, err := load(t, "", map[string]string{name: c[0]}); err == nil || err.Error() != c[1] {
			t.Errorf("got %v, want %s", err, c[1])
		}
	}
}

// What does nothing is said by name, unless it is what holds anyhow; what would
// be missed is refused.
func TestUnsupported(t *testing.T) {
	s := mustLoad(t, "iptablesDropBit: 3\ncgroupDriver: systemd\nhairpinMode: promiscuous-bridge\nrotateCertificates: true\ncpuManagerPolicy: none\nmemorySwap: {}\nsyncFrequency: 0s\n", nil)
	want := []string{
		"cgroupDriver: systemd has no effect: groups are made as directories, which systemd leaves alone",
		"iptablesDropBit: 3 has no effect: services are nftables maps",
	}
	if !slices.Equal(s.Warnings, want) {
		t.Errorf("%q", s.Warnings)
	}
	for fields, want := range map[string]string{
		"cpuManagerPolicy: static":                      "kubelet configuration: cpuManagerPolicy: static is not possible: containers get no processors or memory nodes of their own",
		"readOnlyPort: 10255":                           "kubelet configuration: readOnlyPort: 10255 is not possible: nobody is served unknown",
		"authentication: {anonymous: {enabled: true}}":  `kubelet configuration: authentication.anonymous: {"enabled":true} is not possible: nobody is served unknown`,
		"authorization: {mode: AlwaysAllow}":            "kubelet configuration: authorization.mode: AlwaysAllow is not possible: the cluster's roles say who may what",
		"enableServer: false":                           "",
		"memorySwap: {swapBehavior: LimitedSwap}":       `kubelet configuration: memorySwap: {"swapBehavior":"LimitedSwap"} is not possible: containers do not swap`,
		"featureGates: {Nonsense: true}":                `kubelet configuration: featureGates: "Nonsense": this node has no such switch; it has MemoryQoS`,
		"featureGates: {GracefulNodeShutdown: false}":   `kubelet configuration: featureGates: "GracefulNodeShutdown" is always true`,
		"featureGates: {SidecarContainers: true}\nx: 1": "",
	} {
		_, err := load(t, fields, nil)
		if err == nil || want != "" && err.Error() != want {
			t.Errorf("%s: got %v, want %s", fields, err, want)
		}
	}
}

// A file as kubeadm writes it for 1.37 is taken.
func TestKubeadmFile(t *testing.T) {
	s := mustLoad(t, `authentication:
  anonymous: {enabled: false}
  webhook: {cacheTTL: 0s, enabled: true}
  x509: {clientCAFile: /etc/kubernetes/pki/ca.crt}
authorization: {mode: Webhook, webhook: {cacheAuthorizedTTL: 0s, cacheUnauthorizedTTL: 0s}}
cgroupDriver: systemd
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
containerRuntimeEndpoint: ""
cpuManagerReconcilePeriod: 0s
crashLoopBackOff: {}
evictionPressureTransitionPeriod: 0s
fileCheckFrequency: 0s
healthzBindAddress: 127.0.0.1
healthzPort: 10248
httpCheckFrequency: 0s
imageMaximumGCAge: 0s
imageMinimumGCAge: 0s
logging: {flushFrequency: 0, options: {json: {infoBufferSize: "0"}, text: {infoBufferSize: "0"}}, verbosity: 0}
memorySwap: {}
nodeStatusReportFrequency: 0s
nodeStatusUpdateFrequency: 0s
rotateCertificates: true
runtimeRequestTimeout: 0s
shutdownGracePeriod: 0s
shutdownGracePeriodCriticalPods: 0s
staticPodPath: /etc/kubernetes/manifests
streamingConnectionIdleTimeout: 0s
syncFrequency: 0s
volumeStatsAggPeriod: 0s
`, nil)
	if len(s.Warnings) != 2 || s.StaticPodPath != "/etc/kubernetes/manifests" || s.ClusterDNS[0] != "10.96.0.10" {
		t.Errorf("%q", s.Warnings)
	}
	if data, err := json.Marshal(&s.KubeletConfiguration); err != nil || !strings.Contains(string(data), `"kind":"KubeletConfiguration"`) {
		t.Errorf("%s %v", data, err)
	}
}

func TestReserved(t *testing.T) {
	s := mustLoad(t, "kubeReserved: {cpu: 100m, memory: 1Gi, pid: \"10\"}\nsystemReserved: {memory: 1Gi, ephemeral-storage: 1Gi, hugepages-2Mi: 2Mi}\n", nil)
	cpu, memory, pids := s.Reserved[v1.ResourceCPU], s.Reserved[v1.ResourceMemory], s.Reserved[settings.PIDs]
	if cpu.String() != "100m" || memory.String() != "2Gi" || pids.Value() != 10 || len(s.Reserved) != 5 {
		t.Errorf("%v", s.Reserved)
	}
	s = mustLoad(t, "reservedSystemCPUs: 0-1,3\nkubeReserved: {cpu: 100m}\n", nil)
	if got := s.Reserved[v1.ResourceCPU]; got.String() != "3" {
		t.Errorf("%v", s.Reserved)
	}
	s = mustLoad(t, "enforceNodeAllocatable: [pods, system-reserved, kube-reserved-compressible]\nsystemReservedCgroup: /a\nkubeReservedCgroup: /b\nkubeReserved: {cpu: \"1\", memory: 1Gi}\nsystemReserved: {memory: 1Gi}\n", nil)
	e := s.Enforces()
	if len(e) != 2 || e[0].Setting != "systemReservedCgroup" || e[0].Group != "/a" || e[0].Reserved.Memory().String() != "1Gi" || e[1].Level != "kube-reserved-compressible" || e[1].Group != "/b" || len(e[1].Reserved) != 1 {
		t.Errorf("%+v", e)
	}
}

// Values that Kubernetes refuses, each with its field.
func TestInvalid(t *testing.T) {
	for fields, want := range map[string]string{
		"nodeLeaseDurationSeconds: -1":                                 "nodeLeaseDurationSeconds: -1 is less than 1",
		"cpuCFSQuotaPeriod: 2s":                                        "cpuCFSQuotaPeriod in microseconds: 2000000 is not between 1000 and 1000000",
		"imageGCHighThresholdPercent: 101":                             "imageGCHighThresholdPercent: 101 is not between 0 and 100",
		"imageGCLowThresholdPercent: 90":                               "imageGCLowThresholdPercent: 90 is not less than imageGCHighThresholdPercent, 85",
		"imageMaximumGCAge: 1m":                                        "imageMaximumGCAge: 1m0s is not more than imageMinimumGCAge, 2m0s",
		"maxPods: -1":                                                  "maxPods: -1 is less than 0",
		"containerLogMaxFiles: 1":                                      "containerLogMaxFiles: 1 is less than 2",
		"containerLogMaxSize: big":                                     `containerLogMaxSize: "big" is not a quantity such as 10Mi`,
		"containerLogMonitorInterval: 1s":                              "containerLogMonitorInterval in seconds: 1 is less than 3",
		"maxParallelImagePulls: 0":                                     "maxParallelImagePulls: 0 is less than 1",
		"serializeImagePulls: true\nmaxParallelImagePulls: 2":          "maxParallelImagePulls: it cannot be more than 1 unless serializeImagePulls is false",
		"imagePullCredentialsVerificationPolicy: Sometimes":            `imagePullCredentialsVerificationPolicy: "Sometimes" is none of ["NeverVerify" "NeverVerifyPreloadedImages" "NeverVerifyAllowlistedImages" "AlwaysVerify"]`,
		"preloadedImagesVerificationAllowlist: [a]":                    `preloadedImagesVerificationAllowlist: it goes with imagePullCredentialsVerificationPolicy "NeverVerifyAllowlistedImages" only`,
		"enforceNodeAllocatable: [all]":                                `enforceNodeAllocatable: "all" is none of ["pods" "system-reserved" "system-reserved-compressible" "kube-reserved" "kube-reserved-compressible" "none"]`,
		"enforceNodeAllocatable: [system-reserved]":                    `enforceNodeAllocatable: "system-reserved" needs systemReservedCgroup`,
		"enforceNodeAllocatable: [none, pods]":                         `enforceNodeAllocatable: nothing goes with "none"`,
		"enforceNodeAllocatable: [pods, pods]":                         `enforceNodeAllocatable: "pods" is given twice`,
		"kubeReserved: {gpu: x}":                                       `kubeReserved: "gpu" cannot be reserved; cpu, memory, ephemeral-storage, pid and hugepages-SIZE can`,
		"kubeReserved: {cpu: x}":                                       `kubeReserved: cpu: "x" is not a quantity`,
		"kubeReserved: {cpu: \"-1\"}":                                  "kubeReserved: cpu: -1 is negative",
		"reservedSystemCPUs: a":                                        `reservedSystemCPUs: "a" is not a list of processors such as 0-1,4`,
		"shutdownGracePeriod: 10ms":                                    "shutdownGracePeriod: 10ms is neither 0 nor at least 1s",
		"shutdownGracePeriod: 1s\nshutdownGracePeriodCriticalPods: 2s": "shutdownGracePeriodCriticalPods: 2s is more than shutdownGracePeriod, 1s",
		"shutdownGracePeriod: 1s\nshutdownGracePeriodByPodPriority: [{priority: 1, shutdownGracePeriodSeconds: 1}]": "shutdownGracePeriodByPodPriority: it cannot be used with shutdownGracePeriod",
		"crashLoopBackOff: {maxContainerRestartPeriod: 10m}":                                                        "crashLoopBackOff.maxContainerRestartPeriod in seconds: 600 is not between 1 and 300",
		"memoryThrottlingFactor: 1.5":                                   "memoryThrottlingFactor: 1.5 is not above 0 and at most 1",
		"memoryThrottlingFactor: 0.5\nfeatureGates: {MemoryQoS: false}": "memoryThrottlingFactor: it needs the feature gate MemoryQoS",
		"memoryReservationPolicy: All":                                  "memoryReservationPolicy: \"All\" is neither None nor TieredReservation",
		"allowedUnsafeSysctls: [vm.swappiness]":                         `allowedUnsafeSysctls: "vm.swappiness" is not a pod's own: kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.* and net.* are`,
		"registerWithTaints: [{key: a, effect: Now}]":                   `registerWithTaints: a:Now: effect "Now" is not NoSchedule, PreferNoSchedule or NoExecute`,
		"evictionSoft: {memory.available: 1Gi}":                         "evictionSoft: memory.available: evictionSoftGracePeriod has to say for how long",
	} {
		if _, err := load(t, fields, nil); err == nil || err.Error() != "kubelet configuration: "+want {
			t.Errorf("%s:\ngot  %v\nwant %s", fields, err, want)
		}
	}
}

// Thresholds that are given replace all defaults, unless these are to be merged.
func TestMergeDefaultEvictionSettings(t *testing.T) {
	if s := mustLoad(t, "evictionHard: {memory.available: 1Gi}", nil); len(s.EvictionHard) != 1 {
		t.Errorf("%v", s.EvictionHard)
	}
	s := mustLoad(t, "evictionHard: {memory.available: 1Gi}\nmergeDefaultEvictionSettings: true", nil)
	if len(s.EvictionHard) != 5 || s.EvictionHard["memory.available"] != "1Gi" {
		t.Errorf("%v", s.EvictionHard)
	}
}

func TestShutdownGrace(t *testing.T) {
	if s := mustLoad(t, "shutdownGracePeriod: 30s\nshutdownGracePeriodCriticalPods: 10s", nil); s.Grace() != 30*time.Second {
		t.Error(s.Grace())
	}
	s := mustLoad(t, "shutdownGracePeriodByPodPriority: [{priority: 0, shutdownGracePeriodSeconds: 20}, {priority: 100, shutdownGracePeriodSeconds: 10}]", nil)
	if s.Grace() != 30*time.Second {
		t.Error(s.Grace())
	}
}
