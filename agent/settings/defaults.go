package settings

import (
	"maps"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubelet "k8s.io/kubelet/config/v1beta1"
	"k8s.io/utils/ptr"
)

// hardDefaults are the thresholds of a node that is given none.
var hardDefaults = map[string]string{
	"memory.available":   "100Mi",
	"nodefs.available":   "10%",
	"nodefs.inodesFree":  "5%",
	"imagefs.available":  "15%",
	"imagefs.inodesFree": "5%",
}

// or fills in what is not given.
func or[T comparable](field *T, v T) {
	var zero T
	if *field == zero {
		*field = v
	}
}

func orPtr[T any](field **T, v T) {
	if *field == nil {
		*field = ptr.To(v)
	}
}

func lasting(d time.Duration) metav1.Duration { return metav1.Duration{Duration: d} }

// setDefaults fills in the kubelet's defaults (documentation of
// KubeletConfiguration v1beta1), but for three of which SCOPE.md tells:
// failSwapOn and failCgroupV1 are false, and podLogsDir is below the data
// directory.
func setDefaults(c *kubelet.KubeletConfiguration) {
	c.APIVersion, c.Kind = kubelet.SchemeGroupVersion.String(), "KubeletConfiguration"
	serverDefaults(c)
	evictionDefaults(c)
	orPtr(&c.OOMScoreAdj, -999)
	or(&c.VolumeStatsAggPeriod, lasting(time.Minute))
	orPtr(&c.CgroupsPerQOS, true)
	or(&c.CgroupDriver, "cgroupfs")
	or(&c.CPUManagerPolicy, "none")
	or(&c.CPUManagerReconcilePeriod, lasting(10*time.Second))
	or(&c.MemoryManagerPolicy, kubelet.NoneMemoryManagerPolicy)
	or(&c.TopologyManagerPolicy, kubelet.NoneTopologyManagerPolicy)
	or(&c.TopologyManagerScope, kubelet.ContainerTopologyManagerScope)
	or(&c.RuntimeRequestTimeout, lasting(2*time.Minute))
	or(&c.HairpinMode, kubelet.PromiscuousBridge)
	or(&c.MaxPods, 110)
	if c.PodPidsLimit == nil || *c.PodPidsLimit < 0 {
		c.PodPidsLimit = ptr.To[int64](-1)
	}
	orPtr(&c.ResolverConfig, "/etc/resolv.conf")
	orPtr(&c.CPUCFSQuota, true)
	orPtr(&c.CPUCFSQuotaPeriod, lasting(100*time.Millisecond))
	or(&c.MaxOpenFiles, 1000000)
	orPtr(&c.SerializeImagePulls, c.MaxParallelImagePulls == nil || *c.MaxParallelImagePulls < 2)
	orPtr(&c.EnableControllerAttachDetach, true)
	orPtr(&c.MakeIPTablesUtilChains, true)
	orPtr(&c.IPTablesMasqueradeBit, 14)
	orPtr(&c.IPTablesDropBit, 15)
	orPtr(&c.FailSwapOn, false)
	orPtr(&c.FailCgroupV1, false)
	or(&c.ContainerLogMaxSize, "10Mi")
	orPtr(&c.ContainerLogMaxFiles, 5)
	orPtr(&c.ContainerLogMaxWorkers, 1)
	orPtr(&c.ContainerLogMonitorInterval, lasting(10*time.Second))
	or(&c.ConfigMapAndSecretChangeDetectionStrategy, kubelet.WatchChangeDetectionStrategy)
	if c.EnforceNodeAllocatable == nil {
		c.EnforceNodeAllocatable = []string{enforcePods}
	}
	or(&c.VolumePluginDir, "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/")
	orPtr(&c.SeccompDefault, false)
	or(&c.MemoryReservationPolicy, kubelet.NoneMemoryReservationPolicy)
	orPtr(&c.RegisterNode, true)
	orPtr(&c.LocalStorageCapacityIsolation, true)
	orPtr(&c.CrashLoopBackOff.MaxContainerRestartPeriod, lasting(5*time.Minute))
	or(&c.ImagePullCredentialsVerificationPolicy, kubelet.NeverVerifyPreloadedImages)
}

// serverDefaults are those of the node's own API and of what it says to the
// cluster.
func serverDefaults(c *kubelet.KubeletConfiguration) {
	orPtr(&c.EnableServer, true)
	or(&c.SyncFrequency, lasting(time.Minute))
	or(&c.FileCheckFrequency, lasting(20*time.Second))
	or(&c.HTTPCheckFrequency, lasting(20*time.Second))
	or(&c.Address, "0.0.0.0")
	or(&c.Port, 10250)
	orPtr(&c.Authentication.Anonymous.Enabled, false)
	orPtr(&c.Authentication.Webhook.Enabled, true)
	or(&c.Authentication.Webhook.CacheTTL, lasting(2*time.Minute))
	or(&c.Authorization.Mode, kubelet.KubeletAuthorizationModeWebhook)
	or(&c.Authorization.Webhook.CacheAuthorizedTTL, lasting(5*time.Minute))
	or(&c.Authorization.Webhook.CacheUnauthorizedTTL, lasting(30*time.Second))
	orPtr(&c.RegistryPullQPS, 5)
	or(&c.RegistryBurst, 10)
	orPtr(&c.EventRecordQPS, 50)
	or(&c.EventBurst, 100)
	orPtr(&c.EnableDebuggingHandlers, true)
	orPtr(&c.HealthzPort, 10248)
	or(&c.HealthzBindAddress, "127.0.0.1")
	or(&c.StreamingConnectionIdleTimeout, lasting(4*time.Hour))
	if c.NodeStatusReportFrequency.Duration == 0 {
		c.NodeStatusReportFrequency = lasting(5 * time.Minute)
		if c.NodeStatusUpdateFrequency.Duration != 0 {
			c.NodeStatusReportFrequency = c.NodeStatusUpdateFrequency
		}
	}
	or(&c.NodeStatusUpdateFrequency, lasting(10*time.Second))
	or(&c.NodeLeaseDurationSeconds, 40)
	orPtr(&c.NodeStatusMaxImages, 50)
	or(&c.ContentType, "application/vnd.kubernetes.protobuf")
	orPtr(&c.KubeAPIQPS, 50)
	or(&c.KubeAPIBurst, 100)
	orPtr(&c.EnableSystemLogHandler, true)
	orPtr(&c.EnableProfilingHandler, true)
	orPtr(&c.EnableDebugFlagsHandler, true)
}

// evictionDefaults are those of what the node takes back. Who gives thresholds
// gives all of them, unless the defaults are to be merged.
func evictionDefaults(c *kubelet.KubeletConfiguration) {
	or(&c.ImageMinimumGCAge, lasting(2*time.Minute))
	orPtr(&c.ImageGCHighThresholdPercent, 85)
	orPtr(&c.ImageGCLowThresholdPercent, 80)
	or(&c.EvictionPressureTransitionPeriod, lasting(5*time.Minute))
	orPtr(&c.MergeDefaultEvictionSettings, false)
	switch {
	case c.EvictionHard == nil:
		c.EvictionHard = maps.Clone(hardDefaults)
	case *c.MergeDefaultEvictionSettings:
		for signal, v := range hardDefaults {
			if _, ok := c.EvictionHard[signal]; !ok {
				c.EvictionHard[signal] = v
			}
		}
	}
}
