package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"

	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/runtime"
)

// Whether pods can be run here, and what is said when they cannot.

const (
	// askTime is how long the runtime may take to say how it is.
	askTime = 5 * time.Second
	// downAfter is for how long it may say nothing before the node is not ready, as
	// the kubelet has it: a runtime that is restarted is nothing to tell of.
	downAfter = 30 * time.Second
	// hungAfter is for how long one may say nothing before it is called hung.
	hungAfter = time.Minute
)

// answers is how the runtime answers when it is asked how it is. The zero answers
// are those of one that has not been asked.
type answers struct {
	last   time.Time // of the last answer; zero for none yet
	said   error     // the last answer: nil is ready
	silent time.Time // since when there has been none; zero when there is one
	hung   time.Time // when it answered with an error or was called hung last
}

// note takes what came of a question that was asked at a time. It says whether the
// runtime hangs, once for each hungAfter that it does. One that answers with an error
// does not: it may be busy finding what it had before it was started, and to end it
// would begin that anew.
func (a *answers) note(err error, asked, now time.Time) (hung bool) {
	var refused *runtime.NotReady
	if err == nil || errors.As(err, &refused) {
		*a = answers{last: now, said: err}
		return false
	}
	if a.silent.IsZero() {
		a.silent, a.hung = asked, asked
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		a.hung = now
		return false
	}
	if now.Sub(a.hung) < hungAfter {
		return false
	}
	a.hung = now
	return true
}

// ready is what the last answer was, unless it is too long ago.
func (a *answers) ready(err error, now time.Time) error {
	if !a.silent.IsZero() && (a.last.IsZero() || now.Sub(a.last) >= downAfter) {
		return fmt.Errorf("container runtime is down: %w", err)
	}
	return a.said
}

// ready says why pods cannot be run here, if so.
func (a *Agent) ready(ctx context.Context) error {
	if a.goingDown.Load() {
		return errShutdown
	}
	asked := a.Clock.Now()
	asking, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	err := a.Runtime.Ready(asking)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	now := a.Clock.Now()
	if a.answers.note(err, asked, now) && a.Hung != nil {
		a.nodeEvent(events.Warning, "ContainerRuntimeHung", fmt.Sprintf("The container runtime has not answered for %s: it is ended and started again. Containers run on", hungAfter))
		a.Hung()
	}
	if err := a.answers.ready(err, now); err != nil {
		return err
	}
	if err := a.writable(); err != nil {
		return err
	}
	if a.Config.Ready != nil {
		return a.Config.Ready(ctx)
	}
	return nil
}

// link is whether there is a connection to the runtime. It is used by the runtime's
// goroutine alone.
type link struct {
	lost     time.Time // since when there is none; zero when there is one
	endLooks func()    // ends the looks after the last connection
}

// disconnected says that the runtime went away.
func (a *Agent) disconnected() {
	a.link.lost = a.Clock.Now()
	a.nodeEvent(events.Warning, "ContainerRuntimeDied", "The container runtime ended, or ended its connections. Containers run on; none is started or stopped until it is back")
}

// connected says that the runtime is back, if it was away.
func (a *Agent) connected() {
	if a.link.lost.IsZero() {
		return
	}
	gone := a.Clock.Since(a.link.lost).Round(10 * time.Millisecond)
	a.link.lost = time.Time{}
	a.nodeEvent(events.Normal, "ContainerRuntimeStarted", fmt.Sprintf("The container runtime serves again after %s", gone))
}

// writable says which folders that pods need cannot be written to, if one cannot,
// and tells of it when that changes.
func (a *Agent) writable() error {
	var dirs []string
	var why error
	for _, dir := range []string{a.volumes.PodsDir, a.node.LogsDir, filepath.Join(a.DataDir, "agent"), a.ImageDir} {
		if err := refusesWrites(dir); err != nil {
			dirs, why = append(dirs, dir), err
		}
	}
	var text string
	if why != nil {
		why = fmt.Errorf("no pod can be started: %s cannot be written to: %w", strings.Join(dirs, ", "), why)
		text = why.Error()
	}
	if text != a.unwritable {
		if a.unwritable = text; text != "" {
			a.nodeEvent(events.Warning, "FilesystemIsReadOnly", text)
		} else {
			a.nodeEvent(events.Normal, "FilesystemIsNotReadOnly", "All folders that pods need can be written to again")
		}
	}
	return why
}

// refusesWrites is why nothing can be changed in a folder, if that is so and it is
// there.
//
// To take away an attribute that is not there changes nothing, and is refused as all
// changes are: also by a file system that the kernel does not write to any more after
// an error, of which access(2) knows nothing (ext4 since Linux 6.15).
func refusesWrites(dir string) error {
	for _, err := range []error{unix.Removexattr(dir, "user.hansa.none"), unix.Access(dir, unix.W_OK)} {
		if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EIO) {
			return err
		}
	}
	return nil
}

// errSilent keeps the node's status from waiting for a runtime that was just
// asked in vain.
var errSilent = errors.New("the container runtime does not answer")

// offers is what the runtime can do.
func (a *Agent) offers(ctx context.Context) (runtime.Offers, error) {
	if !a.answers.silent.IsZero() {
		return runtime.Offers{}, errSilent
	}
	return a.Runtime.Offers(ctx)
}

func (a *Agent) runtimeVersion(ctx context.Context) (string, error) {
	if !a.answers.silent.IsZero() {
		return "", errSilent
	}
	v, err := a.Runtime.Version(ctx)
	if err != nil {
		return "", err
	}
	return v.RuntimeName + "://" + v.RuntimeVersion, nil
}

// imagesShown are the images that the node's status may name.
func (a *Agent) imagesShown(ctx context.Context) ([]v1.ContainerImage, error) {
	if !a.answers.silent.IsZero() {
		return nil, errSilent
	}
	began := a.Clock.Now()
	list, err := a.Runtime.ListImages(ctx)
	if err != nil {
		return nil, err
	}
	a.node.Images.Listed(list, began)
	var out []v1.ContainerImage
	for _, i := range list {
		var names []string
		names = append(names, i.RepoDigests...)
		names = append(names, i.RepoTags...)
		if len(names) > 0 {
			out = append(out, v1.ContainerImage{Names: names[:min(len(names), 5)], SizeBytes: int64(i.Size)})
		}
	}
	return out, nil
}
