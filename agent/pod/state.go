package pod

import (
	"iter"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"hansa.dev/hansa/api/dependency"
)

// State is what the agent knows of one pod. It belongs to one goroutine.
type State struct {
	// Pod is the newest version of the object; frozen.
	Pod *v1.Pod
	// Gone says that the API has the object no more.
	Gone bool
	// StartTime is when this node's agent first saw the pod.
	StartTime time.Time
	// HostIPs are the node's addresses, the primary one first.
	HostIPs []string
	// Refused is set when the node does not admit the pod; nothing is started.
	Refused *Refusal
	// Stop is set once the pod has to end. It is never taken back; its deadline
	// may move closer.
	Stop *Stop

	Host    Op // directories and cgroup
	Volumes Op
	Refresh Refresh
	Sandbox Sandbox
	// Containers holds one entry for each container of the spec (init, regular
	// and ephemeral) and keeps those it has.
	Containers map[string]*Container

	StopSandbox Op
	// Resources are the pod's own, beside those of its containers.
	Resources PodResources
	Release   Op // volumes, cgroup
	Finish    Op // deletion of the API object
	Remove    Op // containers, sandboxes, directories

	// MaxRestartDelay bounds the back-off of containers that crash; 0 for five
	// minutes.
	MaxRestartDelay time.Duration

	// Keep says which ended runs stay; Excess are runs that go although it
	// would keep them, by ID: the node has too many.
	Keep   Keep
	Excess map[string]bool

	// Garbage are the sandboxes that were replaced, by ID.
	Garbage map[string]*Garbage

	// Shed says that the disk is full: once the pod is over, its containers go.
	Shed bool

	// Pending is why the resources that the spec asks for are not granted.
	Pending *Failure

	// reported are the conditions that Status gave last.
	reported []v1.PodCondition
	// granted is what Granted made of grantedOf.
	granted, grantedOf *v1.Pod
}

// Keep says which ended runs of containers stay for their logs and last state.
// The newest run of a container stays whatever it says, until the pod is over:
// what is done next follows from it.
type Keep struct {
	// Old is how many runs stay beside the newest; negative is all.
	Old int
	// MinAge is how long a run stays at least, counted from its creation.
	MinAge time.Duration
}

// DefaultKeep is the kubelet's.
var DefaultKeep = Keep{Old: 1}

// Refusal is why the node does not run a pod.
type Refusal struct{ Reason, Message string }

// Stop is why a pod has to end, and until when.
type Stop struct {
	Since time.Time
	// Grace is what each container is given, counted from Since.
	Grace time.Duration
	// Reason and Message go to the pod's status; empty for a deletion.
	Reason, Message string
	// Fail forces the phase Failed.
	Fail bool
}

// Deadline is when the kill signal is due.
func (s *Stop) Deadline() time.Time { return s.Since.Add(s.Grace) }

// Op is the progress of one idempotent step.
type Op struct {
	Busy bool
	Done bool
	// Err is why the last attempt failed, nil after a success.
	Err      error
	Failures int
	// RetryAt is when a failed step may be tried again.
	RetryAt time.Time
}

func (o *Op) begin() { o.Busy = true }

// end notes the outcome of an attempt.
func (o *Op) end(err error, now time.Time, retry func(failures int) time.Duration) {
	o.Busy = false
	o.Err = err
	if err == nil {
		o.Done, o.Failures = true, 0
		return
	}
	o.Failures++
	o.RetryAt = now.Add(retry(o.Failures))
}

// Again makes a finished or failed step due at once, as when what it depends
// on has changed. It has no effect on a step in progress.
func (o *Op) Again() {
	o.Done = false
	o.RetryAt = time.Time{}
}

// afresh forgets earlier attempts. It has no effect on a step in progress.
func (o *Op) afresh() {
	if !o.Busy {
		*o = Op{}
	}
}

// Refresh is the renewal of the content of mounted volumes.
type Refresh struct {
	Op
	// Stale says that an object which a volume shows has changed.
	Stale bool
	// At is when something in a volume has to be renewed (a token); zero for
	// never.
	At time.Time
}

// PodResources are the resources of a pod as such: what is granted, and what its
// group has. Nil for none.
type PodResources struct {
	Allocated, Applied *v1.ResourceRequirements
	Resize             Op
	resizeTo           *v1.ResourceRequirements
}

// resizing says that the pod's group has other resources than granted.
func (r *PodResources) resizing() bool { return !samePodResources(r.Allocated, r.Applied) }

// Sandbox is the pod's current sandbox.
type Sandbox struct {
	Run       Op // the attempt to run one
	ID        string
	Attempt   uint32
	Ready     bool
	IPs       []string
	CreatedAt time.Time
}

// Garbage is a sandbox that is to be stopped, and removed once no run that is
// still wanted belongs to it.
type Garbage struct{ Stop, Remove Op }

// Kind says which list of the spec a container is in.
type Kind int

// The kinds of containers.
const (
	Regular Kind = iota
	Init
	Sidecar // an init container with restartPolicy Always
	Ephemeral
)

// Container is what is known of one container of the spec.
type Container struct {
	Name string
	Kind Kind
	Spec *v1.Container // of the newest object; frozen

	// Runs are the attempts that the runtime knows, newest first.
	Runs []*Run
	// Cut are the runs that were set aside, to be removed: their start was cut off.
	Cut []*Run
	// Attempts is how many runs there have been, those removed included.
	Attempts int
	// Previous is the newest ended run that the runtime knows no more, from
	// the status of a former agent.
	Previous *v1.ContainerStateTerminated

	Pull  Pull
	Start Op
	// Failure is why the newest attempt did not come to run; nil once one did.
	Failure *Failure
	// Backoff delays restarts after a crash.
	Backoff Backoff

	// Of the newest run, while it runs:

	// Up says that the postStart hook is done.
	Up bool
	// Started says that the startup probe has succeeded (or there is none).
	Started bool
	// Ready is the readiness probe's result (true when there is none).
	Ready bool
	// Unfit, when not empty, is why the run has to be killed and restarted.
	Unfit string

	// Allocated is what the node has granted, Applied what the newest run has.
	Allocated, Applied v1.ResourceRequirements
	Resize             Op
	resizeTo           v1.ResourceRequirements // of the resize or start in progress

	Kill   Op
	KillBy time.Time // deadline that the kill in progress honours

	anew     bool           // the last attempt came to nothing, and is made once more
	removals map[string]*Op // of runs, by their ID
	told     string         // the back-off that was last reported
}

// Pull is the presence of the image for the next attempt.
type Pull struct {
	Op
	For int // the attempt it is for
	// Reason is the waiting reason of the failure: ErrImagePull, …
	Reason string
	// Image is what the step found, given to the start action.
	Image any
}

// Failure is why a container did not come to run.
type Failure struct {
	Reason, Message string
	At              time.Time
	// Of is the image of a volume that is missing; empty when it is the
	// container's own.
	Of string

	// Cut says that the runtime did not say so: it was away, or is asked no more.
	Cut bool

	image bool // the image is missing, rather than the container failing
}

func (f *Failure) Error() string { return f.Reason + ": " + f.Message }

// Run is one run of a container, as the runtime knows it.
type Run struct {
	ID       string
	Sandbox  string
	Attempt  int
	State    cri.ContainerState
	Created  time.Time
	Started  time.Time
	Finished time.Time
	ExitCode int32
	Reason   string
	Message  string // termination message, or the runtime's own
	// Asked is the image that the spec named when the run was created; Image
	// and ImageID are what the runtime calls it.
	Asked, Image, ImageID string
	User                  *cri.ContainerUser
	Resources             *cri.LinuxContainerResources
	StopSignal            cri.Signal
	// Backoff is the restart delay that was in force when it was created.
	Backoff time.Duration
	// Stale says that all containers have been restarted since it ended, so
	// that it counts for nothing.
	Stale bool
	// Again says that it was killed for another run to follow, whatever it ends with.
	Again bool
	// Told says that it was told how it ended: to whoever started it, or by a status.
	Told bool
}

// Ended says that the run is over, or cannot come to anything more.
func (r *Run) Ended() bool {
	return r.State == cri.ContainerState_CONTAINER_EXITED || r.State == cri.ContainerState_CONTAINER_UNKNOWN
}

// Running says that the run's process is there.
func (r *Run) Running() bool { return r.State == cri.ContainerState_CONTAINER_RUNNING }

// Newest is the newest run, or nil.
func (c *Container) Newest() *Run {
	if len(c.Runs) == 0 {
		return nil
	}
	return c.Runs[0]
}

// Running is the run that is going on, or nil.
func (c *Container) Running() *Run {
	if r := c.Newest(); r != nil && r.Running() {
		return r
	}
	return nil
}

// alive says that something of the container may be running.
func (c *Container) alive() bool {
	return c.Start.Busy || slices.ContainsFunc(c.Runs, func(r *Run) bool { return r.Running() })
}

// New is the state of a pod of which nothing is known but the object. now is
// its start time unless the status has one already.
func New(p *v1.Pod, hostIPs []string, now time.Time) *State {
	s := &State{HostIPs: hostIPs, Containers: map[string]*Container{}, Garbage: map[string]*Garbage{}, Keep: DefaultKeep}
	s.Resources.Allocated, s.Resources.Applied = p.Spec.Resources, p.Spec.Resources
	s.StartTime = now
	if t := p.Status.StartTime; t != nil {
		s.StartTime = t.Time
	}
	s.SetPod(p, now)
	return s
}

// SetPod takes a newer version of the object.
func (s *State) SetPod(p *v1.Pod, now time.Time) {
	s.Pod = p
	each(&p.Spec, func(kind Kind, spec *v1.Container) {
		c := s.Containers[spec.Name]
		if c == nil {
			c = &Container{Name: spec.Name, Allocated: spec.Resources, removals: map[string]*Op{}}
			s.Containers[spec.Name] = c
		}
		c.Kind, c.Spec = kind, spec
	})
	// What others have to stop before runs on until its turn has come.
	if p.DeletionTimestamp == nil || slices.Contains(p.Finalizers, dependency.Finalizer) {
		return
	}
	grace := SpecGrace(p)
	if g := p.DeletionGracePeriodSeconds; g != nil {
		grace = time.Duration(*g) * time.Second
	}
	s.Terminate(Stop{Since: now, Grace: grace})
}

// SetGone notes that the API has the object no more.
func (s *State) SetGone(now time.Time) {
	if s.Gone {
		return
	}
	s.Gone = true
	s.Terminate(Stop{Since: now, Grace: SpecGrace(s.Pod)})
}

// Terminate asks the pod to end. When it is ending already, the earlier deadline
// holds and the first reason stays.
func (s *State) Terminate(stop Stop) {
	stop.Grace = max(stop.Grace, minGrace)
	if s.Stop == nil {
		s.Stop = &stop
		return
	}
	if stop.Deadline().Before(s.Stop.Deadline()) {
		s.Stop.Grace = max(stop.Deadline().Sub(s.Stop.Since), 0)
	}
}

// minGrace is what a container gets at least: a pod deleted with grace 0 by
// force still has its containers stopped in order.
const minGrace = time.Second

// SpecGrace is the termination grace period that the spec asks for.
func SpecGrace(p *v1.Pod) time.Duration {
	if g := p.Spec.TerminationGracePeriodSeconds; g != nil {
		return time.Duration(*g) * time.Second
	}
	return v1.DefaultTerminationGracePeriodSeconds * time.Second
}

// Terminal says that a pod has ended for good.
func Terminal(p *v1.Pod) bool {
	return p.Status.Phase == v1.PodSucceeded || p.Status.Phase == v1.PodFailed
}

// each goes through all containers of a spec: init, regular, ephemeral.
func each(spec *v1.PodSpec, f func(Kind, *v1.Container)) {
	for i := range spec.InitContainers {
		c := &spec.InitContainers[i]
		kind := Init
		if IsSidecar(c) {
			kind = Sidecar
		}
		f(kind, c)
	}
	for i := range spec.Containers {
		f(Regular, &spec.Containers[i])
	}
	for i := range spec.EphemeralContainers {
		f(Ephemeral, (*v1.Container)(&spec.EphemeralContainers[i].EphemeralContainerCommon))
	}
}

// Containers goes through the init and regular containers of a spec, in order.
func Containers(spec *v1.PodSpec) iter.Seq[*v1.Container] {
	return func(yield func(*v1.Container) bool) {
		for _, list := range [][]v1.Container{spec.InitContainers, spec.Containers} {
			for i := range list {
				if !yield(&list[i]) {
					return
				}
			}
		}
	}
}

// Priorities of pods that the system itself needs.
const (
	Critical     = 2000000000 // from which on pods are critical
	NodeCritical = 2000001000 // system-node-critical
)

// Annotations of static pods ("Create static Pods").
const (
	// NoteSource says where a pod comes from: api, file or http.
	NoteSource = "kubernetes.io/config.source"
	// NoteHash is the identity of a static pod, NoteMirror that of the static
	// pod which a pod of the API shows.
	NoteHash   = "kubernetes.io/config.hash"
	NoteMirror = "kubernetes.io/config.mirror"
)

// IsStatic says that a pod comes from a file or URL of the node.
func IsStatic(p *v1.Pod) bool {
	source, ok := p.Annotations[NoteSource]
	return ok && source != "api"
}

// IsMirror says that a pod only shows a static one.
func IsMirror(p *v1.Pod) bool { _, ok := p.Annotations[NoteMirror]; return ok }

// IsCritical says that a pod is never evicted for others' sake: a static one,
// or one that the system needs.
func IsCritical(p *v1.Pod) bool {
	return IsStatic(p) || IsMirror(p) || p.Spec.Priority != nil && *p.Spec.Priority >= Critical
}

// IsSidecar says that an init container keeps running beside the others.
func IsSidecar(c *v1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways
}

// list is the containers of a kind in the order of the spec.
func (s *State) list(kinds ...Kind) []*Container {
	var out []*Container
	each(&s.Pod.Spec, func(kind Kind, spec *v1.Container) {
		if slices.Contains(kinds, kind) {
			out = append(out, s.Containers[spec.Name])
		}
	})
	return out
}

// All is every container in the order of the spec.
func (s *State) All() []*Container { return s.list(Init, Sidecar, Regular, Ephemeral) }
