package work

import (
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"hansa.dev/hansa/agent/env"
	"hansa.dev/hansa/agent/logs"
	"hansa.dev/hansa/agent/pod"
)

// createConfigError is the waiting reason when the configuration of a container
// cannot be made, above all because something it refers to is missing.
const createConfigError = "CreateContainerConfigError"

// job is what the start of a container needs, copied from the state.
type job struct {
	pod     *v1.Pod
	spec    *v1.Container
	kind    pod.Kind
	attempt int
	backoff time.Duration
	image   *cri.Image
	ips     []string
	sandbox string
	// target is the container whose processes an ephemeral one sees.
	target string
	report func(kind, reason, message string)
}

// containerConfig is how the runtime is to create a container.
func (w *Worker) containerConfig(j *job) (*cri.ContainerConfig, error) {
	n := w.node
	vars, err := w.environment(j)
	if err != nil {
		return nil, err
	}
	lookup := func(name string) (string, bool) { v, ok := vars.Values[name]; return v, ok }
	mounts, err := n.Volumes.ContainerMounts(j.pod, j.spec, func(s string) (string, error) { return env.ExpandStrict(s, lookup) })
	if err != nil {
		return nil, err
	}
	own, err := w.ownMounts(j)
	if err != nil {
		return nil, err
	}
	security, err := n.containerSecurity(j.pod, j.spec, j.image)
	if err != nil {
		return nil, err
	}
	ids, err := n.mapUsers(j.pod, security.NamespaceOptions)
	if err != nil {
		return nil, err
	}
	mounts = append(mounts, own...)
	for _, m := range mounts {
		if m.Image == nil {
			m.UidMappings, m.GidMappings = ids, ids
		}
	}
	if j.target != "" {
		security.NamespaceOptions.Pid, security.NamespaceOptions.TargetId = cri.NamespaceMode_TARGET, j.target
	}
	if err := os.MkdirAll(filepath.Join(w.logDir(j.pod), j.spec.Name), 0o755); err != nil {
		return nil, fmt.Errorf("make log directory: %w", err)
	}
	config := &cri.ContainerConfig{
		Metadata:    &cri.ContainerMetadata{Name: j.spec.Name, Attempt: uint32(j.attempt)},
		Image:       &cri.ImageSpec{Image: j.image.GetId(), UserSpecifiedImage: j.spec.Image},
		Command:     env.ExpandAll(j.spec.Command, vars.Values),
		Args:        env.ExpandAll(j.spec.Args, vars.Values),
		WorkingDir:  j.spec.WorkingDir,
		Mounts:      mounts,
		Labels:      map[string]string{LabelName: j.pod.Name, LabelNamespace: j.pod.Namespace, LabelUID: string(j.pod.UID), LabelContainer: j.spec.Name},
		Annotations: containerNotes(j),
		LogPath:     logs.File(j.spec.Name, j.attempt),
		Stdin:       j.spec.Stdin,
		StdinOnce:   j.spec.StdinOnce,
		Tty:         j.spec.TTY,
		Linux: &cri.LinuxContainerConfig{
			Resources:       n.containerResources(j.pod, j.spec),
			SecurityContext: security,
		},
	}
	for _, v := range vars.Vars {
		config.Envs = append(config.Envs, &cri.KeyValue{Key: v.Name, Value: []byte(v.Value)})
	}
	if l := j.spec.Lifecycle; l != nil && l.StopSignal != nil {
		config.StopSignal = cri.Signal(cri.Signal_value[strings.ReplaceAll(strings.ReplaceAll(string(*l.StopSignal), "+", "PLUS"), "-", "MINUS")])
	}
	return config, nil
}

func (w *Worker) environment(j *job) (*env.Env, error) {
	n := w.node
	at := w.Addresses()
	at.Pod = j.ips
	vars, err := env.Build(j.pod, j.spec, env.Sources{
		ConfigMap: n.Objects.ConfigMap, Secret: n.Objects.Secret,
		Addresses: at, Allocatable: n.Allocatable(),
		Services: env.Links(j.pod, n.Objects.Services),
		File:     func(volume, path string) ([]byte, error) { return n.Volumes.ReadFile(j.pod, volume, path) },
	})
	if err != nil {
		return nil, err
	}
	return vars, nil
}

func containerNotes(j *job) map[string]string {
	notes := map[string]string{
		noteAttempt:       strconv.Itoa(j.attempt),
		noteImage:         j.spec.Image,
		noteBackoff:       j.backoff.String(),
		noteMessagePath:   messagePath(j.spec),
		noteMessagePolicy: string(j.spec.TerminationMessagePolicy),
		NoteGrace:         pod.SpecGrace(j.pod).String(),
	}
	return notes
}

func messagePath(c *v1.Container) string {
	if c.TerminationMessagePath == "" {
		return v1.TerminationMessagePathDefault
	}
	return c.TerminationMessagePath
}

// ownMounts are the files that every container gets: its hosts file, and the
// one for its termination message.
func (w *Worker) ownMounts(j *job) ([]*cri.Mount, error) {
	var out []*cri.Mount
	taken := map[string]bool{}
	for i := range j.spec.VolumeMounts {
		taken[filepath.Clean(j.spec.VolumeMounts[i].MountPath)] = true
	}
	if !taken["/etc/hosts"] {
		path, err := w.node.hostsFile(j.pod, j.ips)
		if err != nil {
			return nil, err
		}
		out = append(out, &cri.Mount{ContainerPath: "/etc/hosts", HostPath: path})
	}
	message := messagePath(j.spec)
	if taken[filepath.Clean(message)] {
		return out, nil
	}
	h := fnv.New32a()
	h.Write([]byte(strconv.Itoa(j.attempt)))
	dir := filepath.Join(w.node.Volumes.PodDir(j.pod.UID), "containers", j.spec.Name)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("make directory of container: %w", err)
	}
	path := filepath.Join(dir, hex.EncodeToString(h.Sum(nil)))
	if err := os.WriteFile(path, nil, 0o666); err != nil {
		return nil, fmt.Errorf("make termination message file: %w", err)
	}
	// Whoever runs in the container writes to it; the umask does not count.
	if err := os.Chmod(path, 0o666); err != nil {
		return nil, fmt.Errorf("make termination message file: %w", err)
	}
	return append(out, &cri.Mount{ContainerPath: message, HostPath: path}), nil
}
