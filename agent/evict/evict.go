// Package evict decides which pods have to leave the node: those that use more
// local storage than they may, and, when the node is short of something, the one
// whose going helps most and hurts least.
//
// It is pure: usage comes in as values. The words are Kubernetes'.
package evict

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/component-helpers/resource"

	"hansa.dev/hansa/agent/pod"
)

// Reason is the reason in the status of an evicted pod.
const Reason = "Evicted"

// Usage is what a pod uses, in bytes.
type Usage struct {
	Memory int64 // working set
	// EmptyDirs by volume: those on disk.
	EmptyDirs map[string]int64
	// Containers: writable layer and logs of each.
	Containers map[string]int64
	// ContainerMemory is the working set of each.
	ContainerMemory map[string]int64
	// Layers are the part of Containers that is beside the images.
	Layers map[string]int64
	// Inodes and PIDs are numbers; LayerInodes are those of Layers.
	Inodes, LayerInodes, PIDs int64
}

// On is what of u is on the file system of a signal, where images have one of their
// own: the writable layers are there, volumes and logs on the node's.
func (u Usage) On(s Signal) Usage {
	switch {
	case !s.Disk():
	case s.Images():
		u.EmptyDirs, u.Containers, u.Inodes = nil, u.Layers, u.LayerInodes
	default:
		logs := maps.Clone(u.Containers)
		for name, n := range u.Layers {
			logs[name] -= n
		}
		u.Containers, u.Inodes = logs, u.Inodes-u.LayerInodes
	}
	return u
}

// Disk is all that the pod keeps on the node's disk.
func (u Usage) Disk() int64 {
	var sum int64
	for _, n := range u.EmptyDirs {
		sum += n
	}
	for _, n := range u.Containers {
		sum += n
	}
	return sum
}

// Limited says whether a pod's local storage is limited, and so has to be
// measured.
func Limited(p *v1.Pod) bool {
	limits := resource.PodLimits(p, resource.PodResourcesOptions{})
	if _, ok := limits[v1.ResourceEphemeralStorage]; ok {
		return true
	}
	return slices.ContainsFunc(p.Spec.Volumes, func(v v1.Volume) bool { return sizeLimit(&v) != nil })
}

// sizeLimit is the limit of an emptyDir on disk; one in memory cannot grow
// beyond its own.
func sizeLimit(v *v1.Volume) *apiresource.Quantity {
	if v.EmptyDir == nil || v.EmptyDir.Medium != v1.StorageMediumDefault || v.EmptyDir.SizeLimit == nil || v.EmptyDir.SizeLimit.IsZero() {
		return nil
	}
	return v.EmptyDir.SizeLimit
}

// What a pod's own limits are of, as evictions for them are counted.
const (
	EmptyDirLimit  = "emptydirfs.limit"
	PodLimit       = "ephemeralpodfs.limit"
	ContainerLimit = "ephemeralcontainerfs.limit"
)

// OverLimit answers why a pod has to go for what it keeps on disk, and of what the
// limit is that it exceeds, or nothing.
func OverLimit(p *v1.Pod, u Usage) (message, limited string) {
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		if limit := sizeLimit(v); limit != nil && u.EmptyDirs[v.Name] > limit.Value() {
			return fmt.Sprintf("Usage of EmptyDir volume %q exceeds the limit %q. ", v.Name, limit), EmptyDirLimit
		}
	}
	limits := resource.PodLimits(p, resource.PodResourcesOptions{})
	if limit, ok := limits[v1.ResourceEphemeralStorage]; ok && u.Disk() > limit.Value() {
		return fmt.Sprintf("Pod ephemeral local storage usage exceeds the total limit of containers %s. ", &limit), PodLimit
	}
	for c := range pod.Containers(&p.Spec) {
		if limit, ok := c.Resources.Limits[v1.ResourceEphemeralStorage]; ok && !limit.IsZero() && u.Containers[c.Name] > limit.Value() {
			return fmt.Sprintf("Container %s exceeded its local ephemeral storage limit %q. ", c.Name, &limit), ContainerLimit
		}
	}
	return "", ""
}

// Message says why a pod is evicted for a threshold that is passed, and which of
// its containers use more than they requested.
func Message(t Threshold, o Observations, c Candidate) string {
	r := t.Signal.Resource()
	is := o[t.Signal]
	out := fmt.Sprintf("The node was low on resource: %s. Threshold quantity: %s, available: %s. ",
		r, t.Signal.quantity(t.Min.of(is.Capacity)), t.Signal.quantity(is.Available))
	if own := c.Pod.Spec.Resources; own != nil && r == v1.ResourceMemory {
		if request, ok := own.Requests[r]; ok {
			out += fmt.Sprintf("Pod %s was using %s, request is %s, has larger consumption of %s. ", c.Pod.Name, t.Signal.quantity(c.Usage.Memory), &request, r)
		}
	}
	used := map[v1.ResourceName]map[string]int64{v1.ResourceMemory: c.Usage.ContainerMemory, v1.ResourceEphemeralStorage: c.Usage.Containers}[r]
	for spec := range pod.Containers(&c.Pod.Spec) {
		usage, ok := used[spec.Name]
		request := spec.Resources.Requests[r]
		if ok && usage > request.Value() {
			out += fmt.Sprintf("Container %s was using %s, request is %s, has larger consumption of %s. ", spec.Name, t.Signal.quantity(usage), &request, r)
		}
	}
	return out
}

// Candidate is a pod that could go.
type Candidate struct {
	Pod   *v1.Pod
	Usage Usage
}

// Choose picks the pod to evict, or nil: first those that use more than they
// requested, then by priority, then by how much more ("Node-pressure Eviction",
// "Pod selection for kubelet eviction"). Of process IDs nothing is requested.
// Static and critical pods stay.
func Choose(r v1.ResourceName, candidates []Candidate) *Candidate {
	candidates = slices.DeleteFunc(slices.Clone(candidates), func(c Candidate) bool {
		return pod.IsCritical(c.Pod) || pod.Terminal(c.Pod)
	})
	if len(candidates) == 0 {
		return nil
	}
	slices.SortStableFunc(candidates, func(a, b Candidate) int {
		overA, overB := over(r, a), over(r, b)
		if r != pids && (overA > 0) != (overB > 0) {
			if overA > 0 {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(priority(a.Pod), priority(b.Pod)), cmp.Compare(overB, overA))
	})
	return &candidates[0]
}

func priority(p *v1.Pod) int32 {
	if p.Spec.Priority == nil {
		return 0
	}
	return *p.Spec.Priority
}

// over is how much more a pod uses than it requested.
func over(name v1.ResourceName, c Candidate) int64 {
	requests := resource.PodRequests(c.Pod, resource.PodResourcesOptions{})
	request := requests[name]
	switch name {
	case v1.ResourceMemory:
		return c.Usage.Memory - request.Value()
	case v1.ResourceEphemeralStorage:
		return c.Usage.Disk() - request.Value()
	case inodes:
		return c.Usage.Inodes
	case pids:
		return c.Usage.PIDs
	}
	return 0
}

// Grace is what a pod is given to end: as good as nothing at a hard threshold,
// and at a soft one what it asks for, up to most seconds (evictionMaxPodGracePeriod).
func Grace(t Threshold, p *v1.Pod, most int32) time.Duration {
	if t.Hard() {
		return 0
	}
	bound := time.Duration(most) * time.Second
	if p.Spec.TerminationGracePeriodSeconds == nil {
		return bound
	}
	return min(bound, pod.SpecGrace(p))
}
