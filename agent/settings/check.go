package settings

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/component-helpers/node/util/sysctl"
	kubelet "k8s.io/kubelet/config/v1beta1"
	"k8s.io/utils/cpuset"

	"hansa.dev/hansa/agent/evict"
)

// The levels of enforceNodeAllocatable.
const (
	enforcePods       = "pods"
	enforceNone       = "none"
	enforceSystem     = "system-reserved"
	enforceKube       = "kube-reserved"
	compressible      = "-compressible"
	enforceSystemOnly = enforceSystem + compressible
	enforceKubeOnly   = enforceKube + compressible
)

// EnforcesPods says that all pods together are limited to what the node has for
// them.
func (s *Settings) EnforcesPods() bool { return slices.Contains(s.EnforceNodeAllocatable, enforcePods) }

// Enforced is what a group of others on the node is limited to.
type Enforced struct {
	Level    string // of enforceNodeAllocatable, by which it is
	Setting  string // that names the group
	Group    string // from the root of the hierarchy
	Reserved v1.ResourceList
}

// Enforces lists the groups of others that are limited to what is reserved for
// them (systemReservedCgroup, kubeReservedCgroup).
func (s *Settings) Enforces() []Enforced {
	var out []Enforced
	for _, e := range []struct {
		level, setting, group string
		reserved              v1.ResourceList
	}{
		{enforceSystem, "systemReservedCgroup", s.SystemReservedCgroup, s.SystemReserved},
		{enforceKube, "kubeReservedCgroup", s.KubeReservedCgroup, s.KubeReserved},
	} {
		switch {
		case slices.Contains(s.EnforceNodeAllocatable, e.level):
			out = append(out, Enforced{e.level, e.setting, e.group, e.reserved})
		case slices.Contains(s.EnforceNodeAllocatable, e.level+compressible):
			only := v1.ResourceList{}
			if cpu, ok := e.reserved[v1.ResourceCPU]; ok {
				only[v1.ResourceCPU] = cpu
			}
			out = append(out, Enforced{e.level + compressible, e.setting, e.group, only})
		}
	}
	return out
}

// derive makes values of the texts.
func (s *Settings) derive() (err error) {
	if err := s.readGates(); err != nil {
		return err
	}
	if s.Thresholds, err = evict.Thresholds(s.EvictionHard, s.EvictionSoft, s.EvictionSoftGracePeriod, s.EvictionMinimumReclaim); err != nil {
		return err
	}
	if s.KubeReserved, err = reserved("kubeReserved", s.KubeletConfiguration.KubeReserved); err != nil {
		return err
	}
	if s.SystemReserved, err = reserved("systemReserved", s.KubeletConfiguration.SystemReserved); err != nil {
		return err
	}
	if err := s.reserveCPUs(); err != nil {
		return err
	}
	s.Reserved = s.SystemReserved.DeepCopy()
	for name, q := range s.KubeReserved {
		sum := s.Reserved[name]
		sum.Add(q)
		s.Reserved[name] = sum
	}
	size, err := resource.ParseQuantity(s.ContainerLogMaxSize)
	switch {
	case err != nil:
		return fmt.Errorf("containerLogMaxSize: %q is not a quantity such as 10Mi", s.ContainerLogMaxSize)
	case size.Sign() <= 0:
		return fmt.Errorf("containerLogMaxSize: %s is not positive", s.ContainerLogMaxSize)
	}
	s.LogMaxSize = size.Value()
	return nil
}

// reserveCPUs counts the processors of reservedSystemCPUs as reserved, instead
// of what is said of cpu elsewhere.
func (s *Settings) reserveCPUs() error {
	if s.ReservedSystemCPUs == "" {
		return nil
	}
	set, err := cpuset.Parse(s.ReservedSystemCPUs)
	if err != nil {
		return fmt.Errorf("reservedSystemCPUs: %q is not a list of processors such as 0-1,4", s.ReservedSystemCPUs)
	}
	if s.SystemReservedCgroup != "" || s.KubeReservedCgroup != "" {
		return fmt.Errorf("reservedSystemCPUs: it cannot be used with systemReservedCgroup or kubeReservedCgroup")
	}
	delete(s.KubeReserved, v1.ResourceCPU)
	s.SystemReserved[v1.ResourceCPU] = *resource.NewQuantity(int64(set.Size()), resource.DecimalSI)
	return nil
}

// PIDs is the resource of process IDs in reservations.
const PIDs = v1.ResourceName("pid")

func reserved(field string, texts map[string]string) (v1.ResourceList, error) {
	out := v1.ResourceList{}
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		if r := v1.ResourceName(name); r != v1.ResourceCPU && r != v1.ResourceMemory && r != v1.ResourceEphemeralStorage && r != PIDs && !strings.HasPrefix(name, v1.ResourceHugePagesPrefix) {
			return nil, fmt.Errorf("%s: %q cannot be reserved; cpu, memory, ephemeral-storage, pid and hugepages-SIZE can", field, name)
		}
		q, err := resource.ParseQuantity(texts[name])
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s: %s: %q is not a quantity", field, name, texts[name])
		case q.Sign() < 0:
			return nil, fmt.Errorf("%s: %s: %s is negative", field, name, texts[name])
		}
		out[v1.ResourceName(name)] = q
	}
	return out, nil
}

// check refuses values that Kubernetes refuses.
func (s *Settings) check() error {
	type bound struct {
		field      string
		v, low, up int64
	}
	const most = 1 << 62
	for _, b := range []bound{
		{"nodeLeaseDurationSeconds", int64(s.NodeLeaseDurationSeconds), 1, most},
		{"cpuCFSQuotaPeriod in microseconds", s.CPUCFSQuotaPeriod.Microseconds(), 1000, 1000000},
		{"imageGCHighThresholdPercent", int64(*s.ImageGCHighThresholdPercent), 0, 100},
		{"imageGCLowThresholdPercent", int64(*s.ImageGCLowThresholdPercent), 0, 100},
		{"imageMinimumGCAge", int64(s.ImageMinimumGCAge.Duration), 0, most},
		{"imageMaximumGCAge", int64(s.ImageMaximumGCAge.Duration), 0, most},
		{"nodeStatusMaxImages", int64(*s.NodeStatusMaxImages), -1, most},
		{"maxPods", int64(s.MaxPods), 0, most},
		{"podsPerCore", int64(s.PodsPerCore), 0, most},
		{"port", int64(s.Port), 1, 65535},
		{"registryPullQPS", int64(*s.RegistryPullQPS), 0, most},
		{"registryBurst", int64(s.RegistryBurst), 0, most},
		{"containerLogMaxFiles", int64(*s.ContainerLogMaxFiles), 2, most},
		{"containerLogMaxWorkers", int64(*s.ContainerLogMaxWorkers), 1, most},
		{"containerLogMonitorInterval in seconds", int64(s.ContainerLogMonitorInterval.Seconds()), 3, most},
		{"crashLoopBackOff.maxContainerRestartPeriod in seconds", int64(s.CrashLoopBackOff.MaxContainerRestartPeriod.Seconds()), 1, 300},
	} {
		switch {
		case b.v < b.low && b.up == most:
			return fmt.Errorf("%s: %d is less than %d", b.field, b.v, b.low)
		case b.v < b.low || b.v > b.up:
			return fmt.Errorf("%s: %d is not between %d and %d", b.field, b.v, b.low, b.up)
		}
	}
	for _, check := range []func() error{s.checkImages, s.checkEnforcement, s.checkShutdown, s.checkPods} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (s *Settings) checkImages() error {
	switch low, high := *s.ImageGCLowThresholdPercent, *s.ImageGCHighThresholdPercent; {
	case low >= high:
		return fmt.Errorf("imageGCLowThresholdPercent: %d is not less than imageGCHighThresholdPercent, %d", low, high)
	case positive(s.ImageMaximumGCAge) && s.ImageMaximumGCAge.Duration <= s.ImageMinimumGCAge.Duration:
		return fmt.Errorf("imageMaximumGCAge: %s is not more than imageMinimumGCAge, %s", s.ImageMaximumGCAge.Duration, s.ImageMinimumGCAge.Duration)
	case s.MaxParallelImagePulls != nil && *s.MaxParallelImagePulls < 1:
		return fmt.Errorf("maxParallelImagePulls: %d is less than 1", *s.MaxParallelImagePulls)
	case s.MaxParallelImagePulls != nil && *s.MaxParallelImagePulls > 1 && *s.SerializeImagePulls:
		return fmt.Errorf("maxParallelImagePulls: it cannot be more than 1 unless serializeImagePulls is false")
	}
	policy := s.ImagePullCredentialsVerificationPolicy
	allowed := []kubelet.ImagePullCredentialsVerificationPolicy{kubelet.NeverVerify, kubelet.NeverVerifyPreloadedImages, kubelet.NeverVerifyAllowlistedImages, kubelet.AlwaysVerify}
	if !slices.Contains(allowed, policy) {
		return fmt.Errorf("imagePullCredentialsVerificationPolicy: %q is none of %q", policy, allowed)
	}
	if len(s.PreloadedImagesVerificationAllowlist) > 0 && policy != kubelet.NeverVerifyAllowlistedImages {
		return fmt.Errorf("preloadedImagesVerificationAllowlist: it goes with imagePullCredentialsVerificationPolicy %q only", kubelet.NeverVerifyAllowlistedImages)
	}
	return nil
}

func (s *Settings) checkEnforcement() error {
	levels := []string{enforcePods, enforceSystem, enforceSystemOnly, enforceKube, enforceKubeOnly, enforceNone}
	seen := map[string]bool{}
	for _, level := range s.EnforceNodeAllocatable {
		switch {
		case !slices.Contains(levels, level):
			return fmt.Errorf("enforceNodeAllocatable: %q is none of %q", level, levels)
		case seen[level]:
			return fmt.Errorf("enforceNodeAllocatable: %q is given twice", level)
		case level == enforceNone && len(s.EnforceNodeAllocatable) > 1:
			return fmt.Errorf("enforceNodeAllocatable: nothing goes with %q", level)
		case strings.HasPrefix(level, enforceSystem) && s.SystemReservedCgroup == "":
			return fmt.Errorf("enforceNodeAllocatable: %q needs systemReservedCgroup", level)
		case strings.HasPrefix(level, enforceKube) && s.KubeReservedCgroup == "":
			return fmt.Errorf("enforceNodeAllocatable: %q needs kubeReservedCgroup", level)
		}
		seen[level] = true
	}
	for _, base := range []string{enforceSystem, enforceKube} {
		if seen[base] && seen[base+compressible] {
			return fmt.Errorf("enforceNodeAllocatable: %q and %q exclude each other", base, base+compressible)
		}
	}
	return nil
}

func (s *Settings) checkShutdown() error {
	all, critical := s.ShutdownGracePeriod.Duration, s.ShutdownGracePeriodCriticalPods.Duration
	tooShort := func(d time.Duration) bool { return d < 0 || d > 0 && d < time.Second }
	switch {
	case critical > all:
		return fmt.Errorf("shutdownGracePeriodCriticalPods: %s is more than shutdownGracePeriod, %s", critical, all)
	case tooShort(all):
		return fmt.Errorf("shutdownGracePeriod: %s is neither 0 nor at least 1s", all)
	case tooShort(critical):
		return fmt.Errorf("shutdownGracePeriodCriticalPods: %s is neither 0 nor at least 1s", critical)
	case len(s.ShutdownGracePeriodByPodPriority) > 0 && all > 0:
		return fmt.Errorf("shutdownGracePeriodByPodPriority: it cannot be used with shutdownGracePeriod")
	}
	for _, p := range s.ShutdownGracePeriodByPodPriority {
		if p.ShutdownGracePeriodSeconds < 0 {
			return fmt.Errorf("shutdownGracePeriodByPodPriority: priority %d: %d seconds are less than none", p.Priority, p.ShutdownGracePeriodSeconds)
		}
	}
	return nil
}

// checkPods checks what pods get and nodes register.
func (s *Settings) checkPods() error {
	if f := s.MemoryThrottlingFactor; f != nil && (*f <= 0 || *f > 1) {
		return fmt.Errorf("memoryThrottlingFactor: %v is not above 0 and at most 1", *f)
	}
	switch {
	case s.MemoryThrottlingFactor != nil && !s.MemoryQoS && *s.MemoryThrottlingFactor != 0.9:
		return fmt.Errorf("memoryThrottlingFactor: it needs the feature gate MemoryQoS")
	case s.MemoryReservationPolicy != kubelet.NoneMemoryReservationPolicy && s.MemoryReservationPolicy != kubelet.TieredReservationMemoryReservationPolicy:
		return fmt.Errorf("memoryReservationPolicy: %q is neither %s nor %s", s.MemoryReservationPolicy, kubelet.NoneMemoryReservationPolicy, kubelet.TieredReservationMemoryReservationPolicy)
	case s.MemoryReservationPolicy == kubelet.TieredReservationMemoryReservationPolicy && !s.MemoryQoS:
		return fmt.Errorf("memoryReservationPolicy: %s needs the feature gate MemoryQoS", s.MemoryReservationPolicy)
	}
	for _, pattern := range s.AllowedUnsafeSysctls {
		if err := checkSysctl(pattern); err != nil {
			return err
		}
	}
	for i := range s.RegisterWithTaints {
		t := &s.RegisterWithTaints[i]
		why := append(validation.IsQualifiedName(t.Key), validation.IsValidLabelValue(t.Value)...)
		switch {
		case len(why) > 0:
			return fmt.Errorf("registerWithTaints: %s: %s", t.ToString(), why[0])
		case t.Effect != v1.TaintEffectNoSchedule && t.Effect != v1.TaintEffectPreferNoSchedule && t.Effect != v1.TaintEffectNoExecute:
			return fmt.Errorf("registerWithTaints: %s: effect %q is not NoSchedule, PreferNoSchedule or NoExecute", t.ToString(), t.Effect)
		case t.TimeAdded != nil:
			return fmt.Errorf("registerWithTaints: %s: timeAdded is for the cluster to say", t.ToString())
		}
	}
	return nil
}

// checkSysctl refuses patterns of sysctls that would be the whole node's.
func checkSysctl(pattern string) error {
	if ns, _, _ := sysctl.GetNamespace(pattern); ns == sysctl.UnknownNamespace {
		return fmt.Errorf("allowedUnsafeSysctls: %q is not a pod's own: kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.* and net.* are", pattern)
	}
	return nil
}
