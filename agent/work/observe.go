package work

import (
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/kubelet/pkg/types"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/agent/logs"
	"hansa.dev/hansa/agent/pod"
	"hansa.dev/hansa/runtime"
)

// Labels and annotations of what we give to the runtime. The labels are the
// kubelet's, which tools look for.
const (
	LabelUID       = types.KubernetesPodUIDLabel
	LabelName      = types.KubernetesPodNameLabel
	LabelNamespace = types.KubernetesPodNamespaceLabel
	LabelContainer = types.KubernetesContainerNameLabel

	noteAttempt       = "hansa.dev/attempt"
	noteImage         = "hansa.dev/image"
	noteBackoff       = "hansa.dev/backoff"
	noteMessagePath   = "hansa.dev/termination-message-path"
	noteMessagePolicy = "hansa.dev/termination-message-policy"
	// NoteGrace is how long a container is given when its pod is known no more.
	NoteGrace = "hansa.dev/grace-period"
)

// Known is what the runtime has of one pod.
type Known struct {
	Sandboxes  []*cri.PodSandboxStatus
	Containers []*cri.ContainerStatus
	// SandboxOf names the sandbox of each container, by container ID.
	SandboxOf map[string]string
}

// verify forgets what is in the state and neither in known nor, when asked for
// by its ID, in the runtime: it may have been made since known was gathered.
func (w *Worker) verify(ctx context.Context, known Known) {
	listed := map[string]bool{}
	for _, c := range known.Containers {
		listed[c.Id] = true
	}
	for _, s := range known.Sandboxes {
		listed[s.Id] = true
	}
	check := func(id string, look func() error, forget func()) {
		if id == "" || listed[id] {
			return
		}
		go func() {
			if errors.Is(look(), runtime.ErrNotFound) {
				w.post(func(time.Time) { forget() })
			}
		}()
	}
	for _, c := range w.state.Containers {
		for _, r := range c.Runs {
			id := r.ID
			check(id, func() error { _, err := w.node.Runtime.ContainerStatus(ctx, id); return err }, func() { w.state.ForgetRun(id) })
		}
	}
	for _, id := range append(slices.Collect(maps.Keys(w.state.Garbage)), w.state.Sandbox.ID) {
		check(id, func() error { _, err := w.node.Runtime.SandboxStatus(ctx, id); return err }, func() { w.state.ForgetSandbox(id) })
	}
}

func (w *Worker) observe(known Known) {
	for _, s := range known.Sandboxes {
		w.state.ObserveSandbox(sandboxInfo(s))
	}
	for _, c := range known.Containers {
		w.observeRun(known.SandboxOf[c.Id], c)
	}
}

// event takes an event of the runtime: the state of the pod at its time.
func (w *Worker) event(e *cri.ContainerEventResponse) {
	sandbox := e.GetPodSandboxStatus()
	deleted := e.ContainerEventType == cri.ContainerEventType_CONTAINER_DELETED_EVENT
	if sandbox != nil && !(deleted && e.ContainerId == sandbox.Id) {
		w.state.ObserveSandbox(sandboxInfo(sandbox))
	}
	for _, c := range e.ContainersStatuses {
		if !(deleted && c.Id == e.ContainerId) {
			w.observeRun(sandbox.GetId(), c)
		}
	}
	if deleted {
		w.state.ForgetRun(e.ContainerId)
		w.state.ForgetSandbox(e.ContainerId)
	}
}

func sandboxInfo(s *cri.PodSandboxStatus) pod.SandboxInfo {
	info := pod.SandboxInfo{
		ID:      s.Id,
		Attempt: s.GetMetadata().GetAttempt(),
		Ready:   s.State == cri.PodSandboxState_SANDBOX_READY,
		Created: time.Unix(0, s.CreatedAt),
	}
	if n := s.GetNetwork(); n != nil && n.Ip != "" {
		info.IPs = append(info.IPs, n.Ip)
		for _, more := range n.AdditionalIps {
			info.IPs = append(info.IPs, more.Ip)
		}
	}
	return info
}

func (w *Worker) observeRun(sandbox string, st *cri.ContainerStatus) {
	name := st.Labels[LabelContainer]
	c := w.state.Containers[name]
	if c == nil {
		return
	}
	for _, r := range c.Runs {
		if r.ID == st.Id && r.Ended() {
			return // all is known, its message was read
		}
	}
	w.state.ObserveRun(name, w.runOf(sandbox, st))
}

func (w *Worker) runOf(sandbox string, st *cri.ContainerStatus) pod.Run {
	attempt := int(st.GetMetadata().GetAttempt())
	if n, err := strconv.Atoi(st.Annotations[noteAttempt]); err == nil {
		attempt = n
	}
	backoff, err := time.ParseDuration(st.Annotations[noteBackoff])
	if err != nil {
		backoff = 0
	}
	r := pod.Run{
		ID:         st.Id,
		Sandbox:    sandbox,
		Attempt:    attempt,
		State:      st.State,
		Created:    time.Unix(0, st.CreatedAt),
		ExitCode:   st.ExitCode,
		Reason:     st.Reason,
		Asked:      st.Annotations[noteImage],
		Image:      st.GetImage().GetImage(),
		ImageID:    st.ImageRef,
		User:       st.User,
		Resources:  st.GetResources().GetLinux(),
		StopSignal: st.StopSignal,
		Backoff:    backoff,
	}
	if st.StartedAt > 0 {
		r.Started = time.Unix(0, st.StartedAt)
	}
	if st.FinishedAt > 0 {
		r.Finished = time.Unix(0, st.FinishedAt)
	}
	if r.Ended() {
		if r.Finished.IsZero() {
			r.Finished = w.node.Clock.Now()
		}
		r.Message = terminationMessage(w.node.Clock, st)
	}
	return r
}

// Limits of a termination message, as the API documents them.
const (
	maxMessage      = 4096
	maxLogMessage   = 2048
	maxMessageLines = 80
)

// terminationMessage is what an ended container has to say: the content of its
// message file, or the end of its log where the policy says so, after what the
// runtime says.
func terminationMessage(c clock.Clock, st *cri.ContainerStatus) string {
	text := ""
	path := st.Annotations[noteMessagePath]
	for _, m := range st.Mounts {
		if path != "" && m.ContainerPath == path {
			text = readMessage(m.HostPath)
		}
	}
	fallback := st.Annotations[noteMessagePolicy] == string(v1.TerminationMessageFallbackToLogsOnError)
	if text == "" && fallback && st.ExitCode != 0 {
		text = logTail(c, st.LogPath)
	}
	if st.Message != "" {
		if text != "" {
			return st.Message + ": " + text
		}
		return st.Message
	}
	return text
}

// readMessage reads the end of a file: what was said last explains most.
func readMessage(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return "" // the container may have removed it
	}
	defer f.Close()
	if _, err := f.Seek(-maxMessage, io.SeekEnd); err != nil {
		_, err = f.Seek(0, io.SeekStart) // it is shorter
		if err != nil {
			return ""
		}
	}
	data, err := io.ReadAll(io.LimitReader(f, maxMessage))
	if err != nil {
		return ""
	}
	return string(data)
}

// logTail is the end of the log of a container that has ended.
func logTail(c clock.Clock, path string) string {
	o := logs.All()
	o.Tail = maxMessageLines
	var tail tailBuffer
	ended := make(chan struct{})
	close(ended)
	if err := logs.Read(context.Background(), c, path, o, ended, &tail); err != nil {
		return ""
	}
	return string(tail)
}

// tailBuffer keeps the last bytes written to it.
type tailBuffer []byte

func (t *tailBuffer) Write(p []byte) (int, error) {
	*t = append(*t, p...)
	if over := len(*t) - maxLogMessage; over > 0 {
		*t = append((*t)[:0], (*t)[over:]...)
	}
	return len(p), nil
}
