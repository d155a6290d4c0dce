// Package work runs pods: for each one a Worker, a goroutine around the pure
// core in agent/pod. The worker gathers what happens (the object changed, the
// runtime reports, a step ended, a probe spoke), asks the core what to do, and
// carries that out in steps, one file each.
//
// A step is a function made on the worker's goroutine, where it may look at the
// state, and run on one of its own, where it may not. Steps are idempotent, and
// each has one that undoes it:
//
//	prepare   directories, cgroup           release, remove
//	mount     volumes                       release
//	sandbox   sandbox, network              stop-sandbox, remove-sandbox
//	pull      image                         (images are kept)
//	start     container, postStart hook     kill, remove-container
package work

import (
	"context"
	"log/slog"
	"time"

	v1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/agent/cgroup"
	"hansa.dev/hansa/agent/image"
	"hansa.dev/hansa/agent/logs"
	"hansa.dev/hansa/agent/metrics"
	"hansa.dev/hansa/agent/pod"
	"hansa.dev/hansa/agent/probe"
	"hansa.dev/hansa/agent/userns"
	"hansa.dev/hansa/agent/volume"
	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/runtime"
)

// Groups is the part of the cgroup tree that workers use.
type Groups interface {
	Path(group string) string
	Ensure(group string, l cgroup.Limits) error
	Set(group string, l cgroup.Limits) error
	Remove(group string) error
	Inside(group string) map[string]string
}

// Statuses takes pods' statuses to the API.
type Statuses interface {
	Set(pod *v1.Pod, st *v1.PodStatus)
	Flush(ctx context.Context, uid types.UID) error
	Forget(uid types.UID)
}

// Objects are what pods use of the API.
type Objects interface {
	volume.Objects
	Services(yield func(*v1.Service) bool)
	// RuntimeClass is nil when there is none of that name.
	RuntimeClass(name string) *nodev1.RuntimeClass
}

// DNS is how pods resolve names.
type DNS struct {
	Servers []string // of the cluster
	Domain  string   // of the cluster
	// Host reads the node's own resolver configuration, as it is when a pod begins;
	// nil where pods are to have nothing of it.
	Host func() (Resolver, error)
}

// Node is what all workers of a node share. It is not written to after the
// first worker is made.
type Node struct {
	Name     string
	IPs      []string
	Runtime  runtime.Runtime
	Clock    clock.WithTicker
	Client   client.Interface
	Pods     *api.Resource
	Images   *image.Puller
	Volumes  *volume.Manager
	Groups   Groups
	Statuses Statuses
	Users    *userns.Allocator
	Events   events.Recorder
	Objects  Objects
	DNS      DNS
	// LogsDir is the root of the container logs, SeccompDir that of profiles of
	// type Localhost.
	LogsDir, SeccompDir string
	// Logs takes the logs of pods that are going.
	Logs *logs.Keeper
	// HostsFile is the node's own, for pods on its network: /etc/hosts.
	HostsFile string
	// Capacity and Allocatable of the node. Not to be written to.
	Capacity, Allocatable func() v1.ResourceList
	// Rules are those by which pods are limited.
	Rules cgroup.Rules
	// MemoryQoS keeps memory.min, memory.low and memory.high of containers on
	// version 2; MemoryThrottling is where between request and limit they are
	// slowed down, 0 for nowhere.
	MemoryQoS        bool
	MemoryThrottling float64
	// OneProcessOOM has the kernel kill a single process of a container that is
	// out of memory rather than all.
	OneProcessOOM bool
	// SeccompDefault gives containers that ask for no profile the runtime's.
	SeccompDefault bool
	// SelfConfined says that the program of the default handler's sandboxes confines
	// itself, so that they need no profile.
	SelfConfined bool
	// MaxRestartDelay bounds the back-off of containers that crash; 0 for
	// Kubernetes' default.
	MaxRestartDelay time.Duration
	// Keep says which ended runs of containers stay.
	Keep pod.Keep
	// Claim notes what a pod holds, and asks for what it wants instead, nil for
	// nothing else, since a time. Why not is one of the reasons for a pending resize;
	// nil without a grant: that is not decided yet. Reconsider is called when the
	// answer may be another.
	Claim func(p *v1.Pod, holds, wants v1.ResourceList, since time.Time) (granted bool, why *pod.Failure)
	// PodsChanged is called when the set of pods that hold cgroups changed.
	PodsChanged func()
	// Metrics counts what is done; nil: nothing does.
	Metrics *metrics.Metrics
	// Probes counts probes; nil: nothing does.
	Probes *probe.Metrics
	Log    *slog.Logger
}
