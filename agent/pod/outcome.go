package pod

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Waiting reasons of images.
const (
	ErrImagePull     = "ErrImagePull"
	ImagePullBackOff = "ImagePullBackOff"
)

// Begin notes that the worker has taken an action that Plan returned.
func (s *State) Begin(a Action, now time.Time) {
	switch a.Verb {
	case Report:
		s.Containers[a.Container].told = a.ID
	case RefreshVolumes:
		s.Refresh.Stale = false
		s.Refresh.begin()
	case Kill:
		c := s.Containers[a.Container]
		c.Kill.begin()
		c.KillBy = now.Add(a.Grace)
		if run := c.Running(); run != nil && run.ID == a.ID {
			run.Again = run.Again || a.Again
		}
	case PullImage:
		c := s.Containers[a.Container]
		if c.Pull.For != a.Attempt {
			c.Pull = Pull{For: a.Attempt}
		}
		c.Pull.begin()
	case Start:
		c := s.Containers[a.Container]
		if newest := c.Newest(); newest != nil && newest.Ended() && !c.failed().IsZero() {
			c.Backoff = c.Backoff.raise(newest.Finished, now, cmp.Or(s.MaxRestartDelay, backoffMax))
		}
		c.resizeTo = c.Allocated
		c.Start.begin()
	case Resize:
		c := s.Containers[a.Container]
		c.resizeTo = c.Allocated
		c.Resize.begin()
	case ResizePod:
		s.Resources.resizeTo = s.Resources.Allocated
		s.Resources.Resize.begin()
	default:
		if o := s.op(a); o != nil {
			o.begin()
		}
	}
}

// End notes the outcome of an action that was begun. A kill that a later one
// with an earlier deadline has replaced is ended by that one only.
func (s *State) End(a Action, err error, now time.Time) {
	switch a.Verb {
	case Report:
	case RefreshVolumes:
		s.Refresh.end(err, now, stepRetry)
		s.Refresh.Stale = s.Refresh.Stale || err != nil
	case RunSandbox:
		s.Sandbox.Run.end(err, now, stepRetry)
		s.Sandbox.Run.Done = false // there may be another attempt
	case PullImage:
		s.endPull(s.Containers[a.Container], err, now)
	case ResizePod:
		s.Resources.Resize.end(err, now, createRetry)
		s.Resources.Resize.Done = false // there may be another one
		if err == nil {
			s.Resources.Applied = s.Resources.resizeTo
		}
	case Resize:
		c := s.Containers[a.Container]
		c.Resize.end(err, now, createRetry)
		c.Resize.Done = false // there may be another one
		if run := c.Running(); err == nil && run != nil && run.ID == a.ID {
			c.Applied = c.resizeTo
		}
	case Start:
		s.endStart(s.Containers[a.Container], err, now)
	default:
		if o := s.op(a); o != nil {
			o.end(err, now, stepRetry)
		}
	}
}

func (s *State) op(a Action) *Op {
	switch a.Verb {
	case Prepare:
		return &s.Host
	case Mount:
		return &s.Volumes
	case RunSandbox:
		return &s.Sandbox.Run
	case StopSandbox:
		if g := s.Garbage[a.ID]; g != nil {
			return &g.Stop
		}
		return &s.StopSandbox
	case RemoveSandbox:
		if g := s.Garbage[a.ID]; g != nil {
			return &g.Remove
		}
	case ReleaseHost:
		return &s.Release
	case FinishPod:
		return &s.Finish
	case RemovePod:
		return &s.Remove
	case Kill:
		return &s.Containers[a.Container].Kill
	case RemoveContainer:
		return s.Containers[a.Container].removals[a.ID]
	}
	return nil
}

func (s *State) endPull(c *Container, err error, now time.Time) {
	c.Pull.end(err, now, imageRetry)
	if err == nil {
		c.Pull.Reason = ""
		if c.Failure != nil && c.Failure.image {
			c.Failure = nil
		}
		return
	}
	f := failure(err, ErrImagePull, now)
	f.image = true
	c.Failure, c.Pull.Reason = f, f.Reason
	if !Fetched(f.Reason) {
		// Nothing was fetched: what is missing may be put right at any time.
		c.Pull.RetryAt = now.Add(stepRetry(c.Pull.Failures))
	}
}

// backoffMessage is what is said of an image while it is not asked for again.
func (c *Container) backoffMessage() string {
	return fmt.Sprintf("Back-off pulling image %q", cmp.Or(c.Failure.Of, c.Spec.Image))
}

// Fetched says that a pull with this reason failed in asking a registry, and is
// tried again as seldom as that is to be done.
func Fetched(reason string) bool {
	return reason == ErrImagePull || reason == "RegistryUnavailable" || reason == "SignatureValidationFailed"
}

func (s *State) endStart(c *Container, err error, now time.Time) {
	c.Start.end(err, now, createRetry)
	c.Start.Done = false // there may be another attempt
	c.Pull.Done = false  // the next attempt looks at the image anew
	if err == nil {
		c.Failure = nil
		if c.Running() != nil {
			c.up()
		}
		return
	}
	c.Failure = failure(err, "RunContainerError", now)
	if r := c.Newest(); r != nil && r.Ended() && !c.Failure.Cut {
		r.Told = true
		c.Start.RetryAt = time.Time{} // the crash back-off applies instead
	}
}

func failure(err error, reason string, now time.Time) *Failure {
	f := &Failure{Reason: reason, Message: err.Error()}
	var as *Failure
	if errors.As(err, &as) {
		f.Reason, f.Message, f.Of, f.Cut = as.Reason, as.Message, as.Of, as.Cut
	}
	f.At = now
	return f
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
