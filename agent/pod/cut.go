package pod

import (
	"slices"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// startError is containerd's reason for a container that it could not start.
const startError = "StartError"

// Unborn says that a run never came to run, as far as the runtime knows. One that
// ran and ended while no containerd heard it has no time of its start either.
func (r *Run) Unborn() bool {
	return r.State == cri.ContainerState_CONTAINER_CREATED || r.Ended() && r.Reason == startError && r.Started.IsZero()
}

// untold says that a run never came to run, and that nobody was told why.
func (r *Run) untold() bool { return r.Unborn() && !r.Told }

// ended says that the newest run is over. Of one that never came to run that is not
// said before whoever is starting it has heard why: until then it is not known
// whether it was an attempt.
func (c *Container) ended() bool {
	r := c.Newest()
	return r != nil && r.Ended() && !(c.Start.Busy && r.untold())
}

// setAside takes away the runs whose start was cut off, because this agent, one
// before it or the runtime ended meanwhile: nobody is starting them, and of none was
// it said to anybody why it did not start. They are no attempts: they are removed,
// and then the attempt is made once more.
func (s *State) setAside() {
	if s.Stop != nil || s.Refused != nil || Terminal(s.Pod) {
		return
	}
	for _, c := range s.Containers {
		r := c.Newest()
		if r == nil || c.Start.Busy || !r.untold() {
			continue
		}
		c.Runs, c.Cut = c.Runs[1:], append(c.Cut, r)
		c.redo(r)
	}
}

// redo has the attempt of a run that is no longer the newest made once more.
func (c *Container) redo(r *Run) {
	c.anew = r.Attempt == c.Attempts-1
	c.Backoff = c.lastBackoff()
}

// isRun says that news of the runtime is of a run that counts. One that was set
// aside does once it has come to run after all.
func (c *Container) isRun(news Run) bool {
	if !slices.ContainsFunc(c.Cut, func(r *Run) bool { return r.ID == news.ID }) {
		return true
	}
	if news.Unborn() {
		return false
	}
	c.forgetCut(news.ID)
	return true
}

func (c *Container) forgetCut(id string) {
	delete(c.removals, id)
	c.Cut = slices.DeleteFunc(c.Cut, func(r *Run) bool { return r.ID == id })
}

// next is the number of the next attempt.
func (c *Container) next() int {
	if c.anew {
		return c.Attempts - 1
	}
	return c.Attempts
}

// lastBackoff is the back-off that was in force when the newest run was made.
func (c *Container) lastBackoff() Backoff {
	if r := c.Newest(); r != nil {
		return Backoff{Delay: r.Backoff, At: r.Created}
	}
	return Backoff{}
}
