package settings

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	kubelet "k8s.io/kubelet/config/v1beta1"
)

// Effect is what a field of a KubeletConfiguration does here.
type Effect int

// The effects. A value of an Idle or Fixed field that is what holds anyhow (the
// default, nothing, or one that the field names) is taken without a word.
const (
	Applied Effect = iota
	Idle           // other values are said to do nothing
	Fixed          // other values are refused
)

// Field is a row of the table of fields.
type Field struct {
	Path   string // as in a file, with dots
	Flag   string // the kubelet's, "" where there is none or hansa's own says it
	Effect Effect
	// Why an Idle field does nothing, or a Fixed one has its value; what an
	// Applied one does differently, if anything.
	Why string
	// As are further values that hold anyhow.
	As []string
}

const (
	ownRuntime = "the runtime is the carried containerd, or that of --container-runtime-endpoint"
	ownGroups  = "all of Hansa's control groups are below /hansa"
	noPinning  = "containers get no processors or memory nodes of their own"
	inMemory   = "nothing is asked of the API in vain: objects come by watch, and writes in batches"
	ownCA      = "the cluster's own authority issues, renews and checks the node's certificates"
	byNftables = "services are nftables maps"
	noStorage  = "no volume drivers are run"
	ownLog     = "--log-level says what is logged"
	onRequest  = "it is measured when somebody asks"
	byEvents   = "changes are events, nothing is looked at again and again"
)

// Fields is the table. Every field of the type has a row: its own or that of
// what it is in.
var Fields = []Field{
	{Path: "enableServer", Effect: Fixed, Why: "the cluster needs the node's API"},
	{Path: "staticPodPath", Flag: "pod-manifest-path"},
	{Path: "podLogsDir", Why: "default: DATA_DIR/logs"},
	{Path: "syncFrequency", Effect: Idle, Why: byEvents},
	{Path: "fileCheckFrequency", Flag: "file-check-frequency", Why: "changes are seen at once; a directory that cannot be watched is read so often"},
	{Path: "httpCheckFrequency", Flag: "http-check-frequency"},
	{Path: "staticPodURL", Flag: "manifest-url"},
	{Path: "staticPodURLHeader", Flag: "manifest-url-header"},
	{Path: "address", Effect: Fixed, Why: "the node's API is on all addresses"},
	{Path: "port", Effect: Fixed, Why: "others expect the node's API there"},
	{Path: "readOnlyPort", Effect: Fixed, Why: "nobody is served unknown"},
	{Path: "tlsCertFile", Effect: Fixed, Why: ownCA},
	{Path: "tlsPrivateKeyFile", Effect: Fixed, Why: ownCA},
	{Path: "tlsCipherSuites", Effect: Fixed, Why: "they are Go's"},
	{Path: "tlsCurvePreferences", Effect: Fixed, Why: "they are Go's"},
	{Path: "tlsMinVersion", Effect: Fixed, Why: "it is TLS 1.2 or later", As: []string{"VersionTLS12"}},
	{Path: "rotateCertificates", Effect: Idle, Why: ownCA, As: []string{"true"}},
	{Path: "serverTLSBootstrap", Effect: Idle, Why: ownCA},
	{Path: "authentication.anonymous", Effect: Fixed, Why: "nobody is served unknown"},
	{Path: "authentication.webhook", Effect: Idle, Why: "tokens are those of the cluster"},
	{Path: "authentication.x509", Effect: Idle, Why: ownCA},
	{Path: "authorization.mode", Effect: Fixed, Why: "the cluster's roles say who may what"},
	{Path: "authorization.webhook", Effect: Idle, Why: "the roles are in memory"},
	{Path: "registryPullQPS", Effect: Idle, Why: "pulls are bounded by maxParallelImagePulls and back-off"},
	{Path: "registryBurst", Effect: Idle, Why: "pulls are bounded by maxParallelImagePulls and back-off"},
	{Path: "imagePullCredentialsVerificationPolicy"},
	{Path: "preloadedImagesVerificationAllowlist"},
	{Path: "eventRecordQPS", Effect: Idle, Why: "events are bounded by object, and folded"},
	{Path: "eventBurst", Effect: Idle, Why: "events are bounded by object, and folded"},
	{Path: "enableDebuggingHandlers", Flag: "enable-debugging-handlers"},
	{Path: "enableContentionProfiling", Effect: Idle, Why: "there is no profiling on the node's API"},
	{Path: "healthzPort", Effect: Idle, Why: "health is /healthz of the node's API", As: []string{"0"}},
	{Path: "healthzBindAddress", Effect: Idle, Why: "health is /healthz of the node's API"},
	{Path: "oomScoreAdj", Effect: Idle, Why: "it is that of whoever starts hansa"},
	{Path: "clusterDomain", Why: "default: --cluster-domain"},
	{Path: "clusterDNS", Flag: "cluster-dns", Why: "default: the service kube-dns"},
	{Path: "streamingConnectionIdleTimeout", Flag: "streaming-connection-idle-timeout"},
	{Path: "nodeStatusUpdateFrequency", Flag: "node-status-update-frequency"},
	{Path: "nodeStatusReportFrequency", Effect: Idle, Why: "the lease says that the node lives; its status is written when it changes"},
	{Path: "nodeLeaseDurationSeconds"},
	{Path: "imageMinimumGCAge", Flag: "minimum-image-ttl-duration"},
	{Path: "imageMaximumGCAge"},
	{Path: "imageGCHighThresholdPercent", Flag: "image-gc-high-threshold"},
	{Path: "imageGCLowThresholdPercent", Flag: "image-gc-low-threshold"},
	{Path: "volumeStatsAggPeriod", Effect: Idle, Why: onRequest},
	{Path: "kubeletCgroups", Effect: Fixed, Why: ownGroups},
	{Path: "systemCgroups", Effect: Fixed, Why: ownGroups},
	{Path: "cgroupRoot", Effect: Fixed, Why: ownGroups},
	{Path: "cgroupsPerQOS", Effect: Fixed, Why: "each class of pods has its group"},
	{Path: "cgroupDriver", Effect: Idle, Why: "groups are made as directories, which systemd leaves alone"},
	{Path: "cpuManagerPolicy", Effect: Fixed, Why: noPinning},
	{Path: "singleProcessOOMKill", Why: "default: false on cgroup version 2; on version 1 it is always true"},
	{Path: "cpuManagerPolicyOptions", Effect: Fixed, Why: noPinning},
	{Path: "cpuManagerReconcilePeriod", Effect: Idle, Why: noPinning},
	{Path: "memoryManagerPolicy", Effect: Fixed, Why: noPinning},
	{Path: "topologyManagerPolicy", Effect: Fixed, Why: noPinning},
	{Path: "topologyManagerScope", Effect: Idle, Why: noPinning},
	{Path: "topologyManagerPolicyOptions", Effect: Fixed, Why: noPinning},
	{Path: "qosReserved", Effect: Fixed, Why: "the feature gate QOSReserved is off"},
	{Path: "runtimeRequestTimeout", Effect: Idle, Why: "requests to the runtime end with what they are for"},
	{Path: "hairpinMode", Effect: Idle, Why: "pods reach themselves through their services anyhow"},
	{Path: "maxPods", Flag: "max-pods"},
	{Path: "podCIDR", Effect: Idle, Why: "the cluster gives the node its range"},
	{Path: "podPidsLimit", Flag: "pod-max-pids"},
	{Path: "resolvConf", Flag: "resolv-conf"},
	{Path: "runOnce", Effect: Fixed, Why: "Kubernetes refuses it, too"},
	{Path: "cpuCFSQuota", Flag: "cpu-cfs-quota"},
	{Path: "cpuCFSQuotaPeriod", Flag: "cpu-cfs-quota-period"},
	{Path: "nodeStatusMaxImages", Flag: "node-status-max-images"},
	{Path: "maxOpenFiles", Effect: Idle, Why: "it is that of whoever starts hansa"},
	{Path: "contentType", Effect: Idle, Why: inMemory},
	{Path: "kubeAPIQPS", Effect: Idle, Why: inMemory},
	{Path: "kubeAPIBurst", Effect: Idle, Why: inMemory},
	{Path: "serializeImagePulls", Flag: "serialize-image-pulls"},
	{Path: "maxParallelImagePulls"},
	{Path: "evictionHard", Flag: "eviction-hard", Why: "imagefs counts only where it is a file system of its own"},
	{Path: "evictionSoft", Flag: "eviction-soft"},
	{Path: "evictionSoftGracePeriod", Flag: "eviction-soft-grace-period"},
	{Path: "evictionPressureTransitionPeriod", Flag: "eviction-pressure-transition-period"},
	{Path: "evictionMaxPodGracePeriod", Flag: "eviction-max-pod-grace-period"},
	{Path: "evictionMinimumReclaim", Flag: "eviction-minimum-reclaim"},
	{Path: "mergeDefaultEvictionSettings"},
	{Path: "podsPerCore", Flag: "pods-per-core"},
	{Path: "enableControllerAttachDetach", Effect: Idle, Why: noStorage},
	{Path: "protectKernelDefaults", Flag: "protect-kernel-defaults"},
	{Path: "makeIPTablesUtilChains", Effect: Idle, Why: byNftables},
	{Path: "iptablesMasqueradeBit", Effect: Idle, Why: byNftables},
	{Path: "iptablesDropBit", Effect: Idle, Why: byNftables},
	{Path: "featureGates", Why: "MemoryQoS can be switched; others may be given as what they are"},
	{Path: "failSwapOn", Flag: "fail-swap-on", Why: "default: false"},
	{Path: "memorySwap", Effect: Fixed, Why: "containers do not swap", As: []string{`{"swapBehavior":"NoSwap"}`}},
	{Path: "containerLogMaxSize", Flag: "container-log-max-size"},
	{Path: "containerLogMaxFiles", Flag: "container-log-max-files"},
	{Path: "containerLogMaxWorkers", Effect: Idle, Why: "logs are rotated one after the other"},
	{Path: "containerLogMonitorInterval"},
	{Path: "configMapAndSecretChangeDetectionStrategy", Effect: Idle, Why: byEvents},
	{Path: "systemReserved", Flag: "system-reserved"},
	{Path: "kubeReserved", Flag: "kube-reserved"},
	{Path: "reservedSystemCPUs", Flag: "reserved-cpus"},
	{Path: "showHiddenMetricsForVersion", Effect: Idle, Why: "no metrics are hidden"},
	{Path: "systemReservedCgroup", Flag: "system-reserved-cgroup"},
	{Path: "kubeReservedCgroup", Flag: "kube-reserved-cgroup"},
	{Path: "enforceNodeAllocatable", Flag: "enforce-node-allocatable"},
	{Path: "allowedUnsafeSysctls", Flag: "allowed-unsafe-sysctls"},
	{Path: "defaultPodSysctls", Effect: Fixed, Why: "the feature gate DefaultPodSysctls is off"},
	{Path: "volumePluginDir", Effect: Idle, Why: noStorage},
	{Path: "providerID", Flag: "provider-id"},
	{Path: "kernelMemcgNotification", Effect: Idle, Why: "memory is looked at every ten seconds"},
	{Path: "logging", Effect: Idle, Why: ownLog},
	{Path: "enableSystemLogHandler", Effect: Idle, Why: "the node's API does not serve the machine's logs", As: []string{"false"}},
	{Path: "enableSystemLogQuery", Effect: Fixed, Why: "the node's API does not serve the machine's logs"},
	{Path: "shutdownGracePeriod"},
	{Path: "shutdownGracePeriodCriticalPods"},
	{Path: "shutdownGracePeriodByPodPriority"},
	{Path: "crashLoopBackOff"},
	{Path: "reservedMemory", Effect: Fixed, Why: noPinning},
	{Path: "enableProfilingHandler", Effect: Idle, Why: "there is no profiling on the node's API", As: []string{"false"}},
	{Path: "enableDebugFlagsHandler", Effect: Idle, Why: "there are no debugging flags on the node's API", As: []string{"false"}},
	{Path: "seccompDefault", Flag: "seccomp-default"},
	{Path: "memoryThrottlingFactor"},
	{Path: "memoryReservationPolicy"},
	{Path: "registerWithTaints", Flag: "register-with-taints"},
	{Path: "registerNode", Flag: "register-node"},
	{Path: "tracing", Effect: Idle, Why: "the agent makes no traces"},
	{Path: "localStorageCapacityIsolation", Flag: "local-storage-capacity-isolation"},
	{Path: "containerRuntimeEndpoint", Effect: Idle, Why: ownRuntime},
	{Path: "imageServiceEndpoint", Effect: Idle, Why: ownRuntime},
	{Path: "failCgroupV1", Flag: "fail-cgroupv1", Why: "default: false"},
	{Path: "userNamespaces", Effect: Fixed, Why: "each pod with users of its own has 65536 of them", As: []string{`{"idsPerPod":65536}`}},
}

func fieldOfFlag(name string) *Field {
	i := slices.IndexFunc(Fields, func(f Field) bool { return f.Flag == name })
	if i < 0 || name == "" {
		return nil
	}
	return &Fields[i]
}

// tree is a configuration of this field alone.
func (f *Field) tree(v any) map[string]any {
	parts := strings.Split(f.Path, ".")
	out := map[string]any{parts[len(parts)-1]: v}
	for i := len(parts) - 2; i >= 0; i-- {
		out = map[string]any{parts[i]: out}
	}
	return out
}

// at is the value of a field in a tree.
func (f *Field) at(tree map[string]any) (any, bool) {
	var v any = tree
	for part := range strings.SplitSeq(f.Path, ".") {
		below, ok := v.(map[string]any)
		if !ok {
			return nil, false
		}
		if v, ok = below[part]; !ok {
			return nil, false
		}
	}
	return v, true
}

// without finds what is given to fields that do nothing here. It answers with
// what to warn of, or an error for what is refused.
func without(given map[string]any, c *kubelet.KubeletConfiguration) ([]string, error) {
	var base kubelet.KubeletConfiguration
	setDefaults(&base)
	defaults, err := encoded(&base)
	if err != nil {
		return nil, err
	}
	now, err := encoded(c)
	if err != nil {
		return nil, err
	}
	var warnings []string
	for i := range Fields {
		f := &Fields[i]
		if _, ok := f.at(given); !ok || f.Effect == Applied {
			continue
		}
		// What was given, with the defaults of what is in it.
		value, _ := f.at(now)
		is, _ := f.at(defaults)
		text := plain(value)
		if empty(value) || reflect.DeepEqual(value, is) || slices.Contains(f.As, text) {
			continue
		}
		if f.Effect == Fixed {
			return nil, fmt.Errorf("%s: %s is not possible: %s", f.Path, text, f.Why)
		}
		warnings = append(warnings, fmt.Sprintf("%s: %s has no effect: %s", f.Path, text, f.Why))
	}
	return warnings, nil
}

func encoded(c *kubelet.KubeletConfiguration) (map[string]any, error) {
	data, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	var tree map[string]any
	return tree, json.Unmarshal(data, &tree)
}

// empty says that there is nothing in a value.
func empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case map[string]any:
		return !slices.ContainsFunc(slices.Collect(maps.Values(v)), func(v any) bool { return !empty(v) })
	case []any:
		return len(v) == 0
	case string:
		return v == "" || v == "0s" || v == "0"
	case float64:
		return v == 0
	}
	return false
}

// plain is a value as messages show it.
func plain(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(data)
}

// Table is the table of fields as Markdown.
func Table() string {
	effects := map[Effect]string{Applied: "applies", Idle: "no effect, warned of", Fixed: "other values refused"}
	var b strings.Builder
	for _, f := range Fields {
		flag := ""
		if f.Flag != "" {
			flag = "`--" + f.Flag + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.Path, flag, effects[f.Effect], f.Why)
	}
	return b.String()
}
