package env

import (
	"net"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// Links chooses the services whose variables a pod gets: those of its own
// namespace when it enables service links, and always default/kubernetes. Only
// services with a cluster address have variables.
func Links(p *v1.Pod, services func(yield func(*v1.Service) bool)) []*v1.Service {
	own := p.Spec.EnableServiceLinks == nil || *p.Spec.EnableServiceLinks
	var out []*v1.Service
	var master *v1.Service
	for s := range services {
		switch {
		case s.Spec.ClusterIP == "" || s.Spec.ClusterIP == v1.ClusterIPNone:
		case s.Namespace == metaDefault && s.Name == "kubernetes":
			master = s
		case own && s.Namespace == p.Namespace:
			out = append(out, s)
		}
	}
	if master != nil {
		// A service of that name in the pod's own namespace comes after it,
		// and wins.
		out = append([]*v1.Service{master}, out...)
	}
	return out
}

const metaDefault = "default"

// serviceVars are the variables that tell where services are: the {NAME}_SERVICE_…
// ones and those of Docker links.
func serviceVars(services []*v1.Service) map[string]string {
	out := map[string]string{}
	for _, s := range services {
		if len(s.Spec.Ports) == 0 {
			continue
		}
		name := variable(s.Name)
		ip := s.Spec.ClusterIP
		out[name+"_SERVICE_HOST"] = ip
		out[name+"_SERVICE_PORT"] = strconv.Itoa(int(s.Spec.Ports[0].Port))
		for i := range s.Spec.Ports {
			p := &s.Spec.Ports[i]
			if p.Name != "" {
				out[name+"_SERVICE_PORT_"+variable(p.Name)] = strconv.Itoa(int(p.Port))
			}
			protocol := string(v1.ProtocolTCP)
			if p.Protocol != "" {
				protocol = string(p.Protocol)
			}
			port := strconv.Itoa(int(p.Port))
			url := strings.ToLower(protocol) + "://" + net.JoinHostPort(ip, port)
			prefix := name + "_PORT_" + port + "_" + strings.ToUpper(protocol)
			if i == 0 {
				out[name+"_PORT"] = url
			}
			out[prefix] = url
			out[prefix+"_PROTO"] = strings.ToLower(protocol)
			out[prefix+"_PORT"] = port
			out[prefix+"_ADDR"] = ip
		}
	}
	return out
}

func variable(name string) string { return strings.ToUpper(strings.ReplaceAll(name, "-", "_")) }
