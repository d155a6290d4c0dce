package pod

import (
	"fmt"
	"strings"
	"time"
)

// Verb is what an action does.
type Verb string

// The verbs. Each is idempotent: carried out twice it has the effect of once.
const (
	Prepare         Verb = "prepare"          // make directories and cgroup
	Mount           Verb = "mount"            // set up all volumes
	RefreshVolumes  Verb = "refresh"          // renew the content of volumes
	RunSandbox      Verb = "run-sandbox"      // Attempt
	PullImage       Verb = "pull"             // Container, Attempt
	Start           Verb = "start"            // Container, Attempt: create, start, postStart
	ResizePod       Verb = "resize-pod"       // give the pod's group what is granted
	Resize          Verb = "resize"           // Container, ID: give a run what is granted
	Kill            Verb = "kill"             // Container, ID, Grace, Message: preStop, stop
	StopSandbox     Verb = "stop-sandbox"     // ID
	ReleaseHost     Verb = "release"          // unmount volumes, remove cgroup
	FinishPod       Verb = "finish"           // delete the API object
	RemoveContainer Verb = "remove-container" // Container, ID
	RemoveSandbox   Verb = "remove-sandbox"   // ID
	RemovePod       Verb = "remove"           // containers, sandboxes, directories, logs
	Report          Verb = "report"           // Container, Reason, Message: an event; nothing to begin or end
)

// Action is one thing to do.
type Action struct {
	Verb      Verb
	Container string
	ID        string
	Attempt   int
	Grace     time.Duration
	Reason    string
	Message   string
	// Again says of a kill that another run follows whatever this one ends with.
	Again bool
}

// String is the form of the text scripts.
func (a Action) String() string {
	var b strings.Builder
	b.WriteString(string(a.Verb))
	if a.Container != "" {
		b.WriteString(" " + a.Container)
	}
	if a.ID != "" {
		b.WriteString(" id=" + a.ID)
	}
	switch a.Verb {
	case Start, PullImage, RunSandbox:
		fmt.Fprintf(&b, " attempt=%d", a.Attempt)
	case Kill:
		fmt.Fprintf(&b, " grace=%s", a.Grace)
	}
	if a.Reason != "" {
		b.WriteString(" " + a.Reason)
	}
	if a.Message != "" {
		fmt.Fprintf(&b, " %q", a.Message)
	}
	return b.String()
}
