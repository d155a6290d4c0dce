package pod

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Fields behind feature gates that are off by default in 1.37 are removed from
// what clients send, unless the stored object uses them already.

// sweep looks for the fields of one gate, and removes them if asked to.
type sweep struct{ remove, found bool }

func sweepPtr[T any](s *sweep, p **T) {
	if *p == nil {
		return
	}
	s.found = true
	if s.remove {
		*p = nil
	}
}

func sweepSlice[T any](s *sweep, list *[]T) {
	if len(*list) == 0 {
		return
	}
	s.found = true
	if s.remove {
		*list = nil
	}
}

// gatedSpecFields has one entry for each gate.
var gatedSpecFields = []func(*sweep, *corev1.PodSpec){
	sweepSchedulingGroup,    // GenericWorkload
	sweepEvictionResponders, // EvictionRequestAPI
	sweepStopSignals,        // ContainerStopSignals
	sweepHTTPProtocols,      // H2CContainerProbe
	sweepGRPCModes,          // GRPCContainerProbeTLS
	sweepMountOptions,       // VolumeBindMountOptions
	sweepEmptyDirModes,      // EmptyDirVolumeMode
	sweepFileOwners,         // AtomicWriteVolumeUserFields
}

// gatedStatusFields is gatedSpecFields for the status.
var gatedStatusFields = []func(*sweep, *corev1.PodStatus){
	sweepNodeAllocatable, // DRANodeAllocatableResources
	sweepVolumeHealth,    // CSIVolumeHealth
	sweepVolumeStatuses,  // ImageVolumeWithDigest
}

// dropDisabled removes the fields of gates that are off. old is the stored
// spec, or nil.
func dropDisabled(spec, old *corev1.PodSpec) { dropGated(gatedSpecFields, spec, old) }

func dropDisabledStatus(s, old *corev1.PodStatus) { dropGated(gatedStatusFields, s, old) }

func dropGated[T any](gates []func(*sweep, *T), value, old *T) {
	for _, gate := range gates {
		var used sweep
		if old != nil {
			gate(&used, old)
		}
		if !used.found {
			gate(&sweep{remove: true}, value)
		}
	}
}

func sweepSchedulingGroup(s *sweep, spec *corev1.PodSpec) { sweepPtr(s, &spec.SchedulingGroup) }

func sweepEvictionResponders(s *sweep, spec *corev1.PodSpec) {
	sweepSlice(s, &spec.EvictionResponders)
}

func sweepStopSignals(s *sweep, spec *corev1.PodSpec) {
	eachContainer(spec, nil, func(c *corev1.Container, _ *field.Path) {
		if c.Lifecycle == nil || c.Lifecycle.StopSignal == nil {
			return
		}
		sweepPtr(s, &c.Lifecycle.StopSignal)
		if s.remove && *c.Lifecycle == (corev1.Lifecycle{}) {
			c.Lifecycle = nil
		}
	})
}

func sweepHTTPProtocols(s *sweep, spec *corev1.PodSpec) {
	eachContainer(spec, nil, func(c *corev1.Container, _ *field.Path) {
		for _, p := range probesOf(c) {
			if p.HTTPGet != nil {
				sweepPtr(s, &p.HTTPGet.Protocol)
			}
		}
		for _, h := range hooksOf(c) {
			if h.HTTPGet != nil {
				sweepPtr(s, &h.HTTPGet.Protocol)
			}
		}
	})
}

func sweepGRPCModes(s *sweep, spec *corev1.PodSpec) {
	eachContainer(spec, nil, func(c *corev1.Container, _ *field.Path) {
		for _, p := range probesOf(c) {
			if p.GRPC != nil {
				sweepPtr(s, &p.GRPC.Mode)
			}
		}
	})
}

func sweepMountOptions(s *sweep, spec *corev1.PodSpec) {
	eachContainer(spec, nil, func(c *corev1.Container, _ *field.Path) {
		for i := range c.VolumeMounts {
			sweepSlice(s, &c.VolumeMounts[i].BindMountOptions)
		}
	})
}

func sweepEmptyDirModes(s *sweep, spec *corev1.PodSpec) {
	for _, v := range spec.Volumes {
		if v.EmptyDir != nil {
			sweepPtr(s, &v.EmptyDir.Mode)
		}
	}
}

func sweepFileOwners(s *sweep, spec *corev1.PodSpec) {
	for _, v := range spec.Volumes {
		if v.ConfigMap != nil {
			sweepPtr(s, &v.ConfigMap.DefaultUser)
			sweepKeyOwners(s, v.ConfigMap.Items)
		}
		if v.Secret != nil {
			sweepPtr(s, &v.Secret.DefaultUser)
			sweepKeyOwners(s, v.Secret.Items)
		}
		if v.DownwardAPI != nil {
			sweepPtr(s, &v.DownwardAPI.DefaultUser)
			sweepDownwardOwners(s, v.DownwardAPI.Items)
		}
		if v.Projected != nil {
			sweepPtr(s, &v.Projected.DefaultUser)
			for i := range v.Projected.Sources {
				sweepProjectedOwners(s, &v.Projected.Sources[i])
			}
		}
	}
}

// sweepProjectedOwners looks at one kind of source, though a pod that is refused may
// have several.
func sweepProjectedOwners(s *sweep, p *corev1.VolumeProjection) {
	switch {
	case p.Secret != nil:
		sweepKeyOwners(s, p.Secret.Items)
	case p.DownwardAPI != nil:
		sweepDownwardOwners(s, p.DownwardAPI.Items)
	case p.ConfigMap != nil:
		sweepKeyOwners(s, p.ConfigMap.Items)
	case p.ServiceAccountToken != nil:
		sweepPtr(s, &p.ServiceAccountToken.User)
	case p.ClusterTrustBundle != nil:
		sweepPtr(s, &p.ClusterTrustBundle.User)
	case p.PodCertificate != nil:
		sweepPtr(s, &p.PodCertificate.User)
	}
}

func sweepKeyOwners(s *sweep, items []corev1.KeyToPath) {
	for i := range items {
		sweepPtr(s, &items[i].User)
	}
}

func sweepDownwardOwners(s *sweep, items []corev1.DownwardAPIVolumeFile) {
	for i := range items {
		sweepPtr(s, &items[i].User)
	}
}

func sweepNodeAllocatable(s *sweep, status *corev1.PodStatus) {
	sweepSlice(s, &status.NodeAllocatableResourceClaimStatuses)
}

func sweepVolumeHealth(s *sweep, status *corev1.PodStatus) { sweepSlice(s, &status.VolumeHealth) }

func sweepVolumeStatuses(s *sweep, status *corev1.PodStatus) {
	eachContainerStatus(status, func(c *corev1.ContainerStatus) {
		for i := range c.VolumeMounts {
			sweepPtr(s, &c.VolumeMounts[i].VolumeStatus)
		}
	})
}
