package work

import (
	"context"
	"fmt"
	"maps"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"hansa.dev/hansa/agent/pod"
	"hansa.dev/hansa/runtime"
)

// runSandbox runs the pod's sandbox, with its network.
func (w *Worker) runSandbox(attempt uint32) step {
	p := w.state.Granted()
	if attempt > 0 {
		w.podEvent(p, v1.EventTypeNormal, "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
	}
	return func(ctx context.Context) (func(), error) {
		handler, err := w.node.handler(p)
		var config *cri.PodSandboxConfig
		var complaint string
		if err == nil {
			config, complaint, err = w.node.sandboxConfig(p, attempt, handler, w.node.Groups.Path(w.group(p)), w.logDir(p))
		}
		own := p.Spec.HostUsers != nil && !*p.Spec.HostUsers
		if err != nil {
			w.node.Metrics.Sandbox(own, err)
			w.podEvent(p, v1.EventTypeWarning, "FailedCreatePodSandBox", fmt.Sprintf("Failed to create pod sandbox: %v", err))
			return nil, err
		}
		if complaint != "" {
			w.podEvent(p, v1.EventTypeWarning, "DNSConfigForming", complaint)
		}
		id, err := w.node.Runtime.RunSandbox(ctx, config, handler)
		w.node.Metrics.Sandbox(own, err)
		if err != nil {
			if ctx.Err() == nil {
				w.podEvent(p, v1.EventTypeWarning, "FailedCreatePodSandBox", "Failed to create pod sandbox: "+runtime.Said(err))
			}
			return w.findSandboxes(ctx), fmt.Errorf("run sandbox: %w", err)
		}
		st, err := w.node.Runtime.SandboxStatus(ctx, id)
		if err != nil {
			return nil, fmt.Errorf("look at sandbox %s: %w", id, err)
		}
		return func() {
			w.state.ObserveSandbox(sandboxInfo(st))
			for i := range p.Spec.Volumes {
				v := &p.Spec.Volumes[i]
				if v.DownwardAPI != nil || v.Projected != nil {
					w.state.Refresh.Stale = true // they may show the pod's address
				}
			}
		}, nil
	}
}

// findSandboxes looks for sandboxes of the pod: one that was asked for before, of
// which its caller did not hear, keeps another of its attempt from being made.
func (w *Worker) findSandboxes(ctx context.Context) (note func()) {
	list, err := w.node.Runtime.Sandboxes(ctx, map[string]string{LabelUID: string(w.uid)})
	if err != nil {
		return nil // the runtime has died, and is looked at when it is back
	}
	var found []pod.SandboxInfo
	for _, s := range list {
		if st, err := w.node.Runtime.SandboxStatus(ctx, s.Id); err == nil {
			found = append(found, sandboxInfo(st))
		}
	}
	return func() {
		for _, s := range found {
			w.state.ObserveSandbox(s)
		}
	}
}

// handler is the runtime's way to run a pod: that of its class, or the default
// one ("Runtime Class").
func (n *Node) handler(p *v1.Pod) (string, error) {
	name := p.Spec.RuntimeClassName
	if name == nil || *name == "" {
		return "", nil
	}
	class := n.Objects.RuntimeClass(*name)
	if class == nil {
		return "", fmt.Errorf("runtimeclass.node.k8s.io %q not found", *name)
	}
	return class.Handler, nil
}

func (w *Worker) stopSandbox(id string) step {
	return func(ctx context.Context) (func(), error) {
		if err := w.node.Runtime.StopSandbox(ctx, id); err != nil {
			return nil, fmt.Errorf("stop sandbox %s: %w", id, err)
		}
		return func() {
			if w.state.Sandbox.ID == id {
				w.state.Sandbox.Ready = false
			}
		}, nil
	}
}

func (w *Worker) removeSandbox(id string) step {
	return func(ctx context.Context) (func(), error) {
		if err := w.node.Runtime.RemoveSandbox(ctx, id); err != nil {
			return nil, fmt.Errorf("remove sandbox %s: %w", id, err)
		}
		return func() { w.state.ForgetSandbox(id) }, nil
	}
}

// sandboxConfig is what the runtime is told of a pod. complaint is that of
// DNS.Resolve.
func (n *Node) sandboxConfig(p *v1.Pod, attempt uint32, handler, cgroupParent, logDir string) (config *cri.PodSandboxConfig, complaint string, err error) {
	name, _, err := n.Hostname(p)
	if err != nil {
		return nil, "", err
	}
	dns, complaint, err := n.DNS.Resolve(p)
	if err != nil {
		return nil, "", err
	}
	config = &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: p.Name, Namespace: p.Namespace, Uid: string(p.UID), Attempt: attempt},
		LogDirectory: logDir,
		DnsConfig:    dns.cri(),
		Labels:       podLabels(p),
		Annotations:  maps.Clone(p.Annotations),
		Linux: &cri.LinuxPodSandboxConfig{
			CgroupParent:    cgroupParent,
			SecurityContext: n.sandboxSecurity(p, handler),
			Resources:       n.sandboxResources(p),
			Overhead:        overhead(p),
		},
	}
	if _, err := n.mapUsers(p, config.Linux.SecurityContext.NamespaceOptions); err != nil {
		return nil, "", err
	}
	if !p.Spec.HostNetwork {
		config.Hostname = name
		config.PortMappings = portMappings(p)
	}
	if sc := p.Spec.SecurityContext; sc != nil && len(sc.Sysctls) > 0 {
		config.Linux.Sysctls = map[string]string{}
		for _, s := range sc.Sysctls {
			config.Linux.Sysctls[s.Name] = s.Value
		}
	}
	return config, complaint, nil
}

// podLabels are the pod's own labels and those by which it is found again.
func podLabels(p *v1.Pod) map[string]string {
	out := maps.Clone(p.Labels)
	if out == nil {
		out = map[string]string{}
	}
	out[LabelName], out[LabelNamespace], out[LabelUID] = p.Name, p.Namespace, string(p.UID)
	return out
}

// portMappings are the pod's ports that are open on the node.
func portMappings(p *v1.Pod) []*cri.PortMapping {
	var out []*cri.PortMapping
	for c := range pod.Containers(&p.Spec) {
		for _, port := range c.Ports {
			if port.HostPort <= 0 {
				continue
			}
			protocol := cri.Protocol_TCP
			switch port.Protocol {
			case v1.ProtocolUDP:
				protocol = cri.Protocol_UDP
			case v1.ProtocolSCTP:
				protocol = cri.Protocol_SCTP
			}
			out = append(out, &cri.PortMapping{Protocol: protocol, ContainerPort: port.ContainerPort, HostPort: port.HostPort, HostIp: port.HostIP})
		}
	}
	return out
}
