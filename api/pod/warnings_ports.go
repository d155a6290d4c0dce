package pod

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ports compares each port with all before it: those with the same number, and those
// with the same name, also of containers that do not run at the same time.
func (w *warner) ports(at *field.Path, spec *corev1.PodSpec) {
	type place struct {
		at   *field.Path
		port corev1.ContainerPort
	}
	byNumber := map[string][]place{}
	eachContainer(spec, at, func(ctr *corev1.Container, p *field.Path) {
		for i, port := range ctr.Ports {
			here := place{p.Child("ports").Index(i), port}
			if port.HostIP != "" && port.HostPort == 0 {
				w.add("%s: hostIP set without hostPort: %+v", here.at, port)
			}
			key := fmt.Sprintf("%d/%s", port.ContainerPort, port.Protocol)
			for _, there := range byNumber[key] {
				if how := portClash(port, there.port); how != "" {
					w.add("%s: %s port definition with %s", here.at, how, there.at)
				}
			}
			byNumber[key] = append(byNumber[key], here)
		}
	})
	byName := map[string]*field.Path{}
	eachContainer(spec, at, func(ctr *corev1.Container, p *field.Path) {
		for i, port := range ctr.Ports {
			here := p.Child("ports").Index(i)
			switch there := byName[port.Name]; {
			case port.Name == "":
			case there != nil:
				w.add("%s: duplicate port name %q with %s, services and probes that select ports by name will use %s", here, port.Name, there, there)
			default:
				byName[port.Name] = here
			}
		}
	})
}

// portClash says how two ports of one number and protocol get into each other's
// way on the host.
func portClash(a, b corev1.ContainerPort) string {
	switch {
	case a.HostIP == b.HostIP && a.HostPort == b.HostPort:
		return "duplicate"
	case a.HostPort == 0 || b.HostPort == 0:
		return "overlapping"
	case a.HostPort == b.HostPort && (a.HostIP == "") != (b.HostIP == ""):
		return "dangerously ambiguous"
	}
	return ""
}
