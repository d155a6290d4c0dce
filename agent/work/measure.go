package work

import (
	"cmp"
	"errors"
	"time"

	v1 "k8s.io/api/core/v1"

	"hansa.dev/hansa/agent/metrics"
	"hansa.dev/hansa/agent/pod"
)

// measures are what is measured of a pod as it comes, is worked at, and goes. They are
// the worker's goroutine's.
type measures struct {
	// seen is when the worker was made; ran and started say that it is known how long
	// it took until the pod ran, and until all its containers had started.
	seen         time.Time
	ran, started bool
	// steps are under way since a time; worked says that there were some before,
	// updated that the object has changed since.
	steps           int
	since           time.Time
	worked, updated bool
	// pulls are under way since a time; before, pulls took so long.
	pulls   int
	pulling time.Time
	pulled  time.Duration
	// ends are the newest runs whose ends are known, by container.
	ends map[string]string
}

// newMeasures takes what the object says and what there is as known: it was counted by
// an agent before this one.
func newMeasures(p *v1.Pod, known Known, now time.Time) measures {
	m := measures{
		seen: now, ran: p.Status.Phase != "" && p.Status.Phase != v1.PodPending || len(known.Sandboxes) > 0,
		started: p.Status.StartTime != nil || p.CreationTimestamp.IsZero(), // it began before, or is no pod of the API
		ends:    map[string]string{},
	}
	m.noteEnds(&p.Status, nil)
	return m
}

// begun notes that a step begins, and answers with what notes its end. failed is the
// reason of a container that could not be started.
func (w *Worker) begun(a pod.Action, now time.Time) (ended func(err error, now time.Time)) {
	m, kind := &w.measures, ""
	if m.steps++; m.steps == 1 {
		m.since = cmp.Or(m.since, now)
	}
	if c := w.state.Containers[a.Container]; c != nil {
		kind = typeOf(c.Kind)
	}
	if a.Verb == pod.PullImage {
		if m.pulls++; m.pulls == 1 {
			m.pulling = now
		}
	}
	return func(err error, now time.Time) {
		m.steps--
		if a.Verb == pod.PullImage {
			if m.pulls--; m.pulls == 0 {
				m.pulled += now.Sub(m.pulling)
			}
		}
		if a.Verb == pod.Start || a.Verb == pod.PullImage && err != nil {
			w.node.Metrics.Start(kind, failure(err))
		}
	}
}

func typeOf(k pod.Kind) string {
	switch k {
	case pod.Init, pod.Sidecar:
		return metrics.InitContainer
	case pod.Ephemeral:
		return metrics.EphemeralContainer
	}
	return metrics.Container
}

// failure is a container's waiting reason after a step that failed, or "".
func failure(err error) string {
	var f *pod.Failure
	switch {
	case err == nil:
		return ""
	case errors.As(err, &f):
		return f.Reason
	}
	return "RunContainerError"
}

// rested notes, once nothing is under way, how long something was.
func (w *Worker) rested(now time.Time) {
	m := &w.measures
	if m.steps > 0 || m.since.IsZero() {
		return
	}
	at := metrics.Sync
	switch {
	case !m.worked:
		at = metrics.Create
	case w.state.Stop != nil || w.state.Gone || w.state.Pod.DeletionTimestamp != nil:
		at = metrics.Kill
	case m.updated:
		at = metrics.Update
	}
	w.node.Metrics.Worked(at, now.Sub(m.since))
	m.since, m.worked, m.updated = time.Time{}, true, false
}

// measure notes what a new status tells.
func (w *Worker) measure(st *v1.PodStatus, now time.Time) {
	m, p := &w.measures, w.state.Pod
	if !m.ran && st.Phase != v1.PodPending {
		m.ran = true
		if st.Phase == v1.PodRunning {
			w.node.Metrics.Ran(now.Sub(m.seen))
		}
	}
	if !m.started && allStarted(p, st) {
		m.started = true
		total := max(now.Sub(p.CreationTimestamp.Time), 0)
		w.node.Metrics.Started(total, max(total-m.pulled-initialized(st), 0), stateful(p))
	}
	m.noteEnds(st, w.node.Metrics)
}

// allStarted says that all containers of a pod run.
func allStarted(p *v1.Pod, st *v1.PodStatus) bool {
	for i := range st.ContainerStatuses {
		if st.ContainerStatuses[i].State.Running == nil {
			return false
		}
	}
	return len(st.ContainerStatuses) == len(p.Spec.Containers)
}

// initialized is how long init containers ran.
func initialized(st *v1.PodStatus) (sum time.Duration) {
	for i := range st.InitContainerStatuses {
		if t := st.InitContainerStatuses[i].State.Terminated; t != nil {
			sum += max(t.FinishedAt.Sub(t.StartedAt.Time), 0)
		}
	}
	return sum
}

// stateful says that a pod has a volume of more than what the API and its own life
// give it.
func stateful(p *v1.Pod) bool {
	for i := range p.Spec.Volumes {
		if v := &p.Spec.Volumes[i]; v.Secret == nil && v.ConfigMap == nil && v.DownwardAPI == nil && v.EmptyDir == nil && v.Projected == nil {
			return true
		}
	}
	return false
}

// noteEnds counts the runs that have ended since the last status.
func (m *measures) noteEnds(st *v1.PodStatus, count *metrics.Metrics) {
	for kind, list := range map[string][]v1.ContainerStatus{
		metrics.InitContainer: st.InitContainerStatuses, metrics.Container: st.ContainerStatuses, metrics.EphemeralContainer: st.EphemeralContainerStatuses,
	} {
		for i := range list {
			cs := &list[i]
			end := cs.State.Terminated
			if end == nil { // the next run may be there already
				end = cs.LastTerminationState.Terminated
			}
			if end == nil || m.ends[cs.Name] == end.ContainerID {
				continue
			}
			m.ends[cs.Name] = end.ContainerID
			count.End(kind, end.ExitCode, end.Reason)
		}
	}
}

// imageVolumes counts a container's mounts of images.
func imageVolumes(p *v1.Pod, c *v1.Container) (n int) {
	for i := range c.VolumeMounts {
		for j := range p.Spec.Volumes {
			if v := &p.Spec.Volumes[j]; v.Name == c.VolumeMounts[i].Name && v.Image != nil {
				n++
			}
		}
	}
	return n
}
