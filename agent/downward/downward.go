// Package downward reads what a pod may know of itself: fields of its object
// and the resources of its containers, as environment variables and downward
// volumes show them.
package downward

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"hansa.dev/hansa/agent/pod"
)

// Addresses are what the object may not show yet when a container is made.
type Addresses struct {
	Pod  []string // primary first
	Host []string
}

// Field is the value of a field path such as metadata.labels['app'].
func Field(p *v1.Pod, at Addresses, path string) (string, error) {
	if base, key, ok := subscript(path); ok {
		switch base {
		case "metadata.labels":
			return p.Labels[key], nil
		case "metadata.annotations":
			return p.Annotations[key], nil
		}
		return "", fmt.Errorf("invalid fieldPath with subscript %q: only metadata.labels and metadata.annotations have keys", path)
	}
	switch path {
	case "metadata.name":
		return p.Name, nil
	case "metadata.namespace":
		return p.Namespace, nil
	case "metadata.uid":
		return string(p.UID), nil
	case "metadata.labels":
		return lines(p.Labels), nil
	case "metadata.annotations":
		return lines(p.Annotations), nil
	case "spec.nodeName":
		return p.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return p.Spec.ServiceAccountName, nil
	case "status.hostIP":
		return first(at.Host), nil
	case "status.hostIPs":
		return strings.Join(at.Host, ","), nil
	case "status.podIP":
		return first(podIPs(p, at)), nil
	case "status.podIPs":
		return strings.Join(podIPs(p, at), ","), nil
	}
	return "", fmt.Errorf("unsupported fieldPath: %s", path)
}

func podIPs(p *v1.Pod, at Addresses) []string {
	if p.Spec.HostNetwork {
		return at.Host
	}
	return at.Pod
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// subscript splits "a.b['key']".
func subscript(path string) (base, key string, ok bool) {
	if !strings.HasSuffix(path, "']") {
		return "", "", false
	}
	return strings.Cut(strings.TrimSuffix(path, "']"), "['")
}

// lines shows a map as the files of a downward volume do, one key="value" a
// line, sorted.
func lines(m map[string]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k+"="+strconv.Quote(m[k]))
	}
	return strings.Join(out, "\n")
}

// Resource is the value of a resource reference. A container without a name in
// the reference is self; a limit that is not set is what the node can give.
func Resource(p *v1.Pod, self *v1.Container, ref *v1.ResourceFieldSelector, allocatable v1.ResourceList) (string, error) {
	c := self
	if ref.ContainerName != "" {
		if c = find(p, ref.ContainerName); c == nil {
			return "", fmt.Errorf("container %s not found", ref.ContainerName)
		}
	}
	if c == nil {
		return "", fmt.Errorf("resource %q names no container", ref.Resource)
	}
	list, name, ok := strings.Cut(ref.Resource, ".")
	if !ok || list != "limits" && list != "requests" {
		return "", fmt.Errorf("unsupported container resource : %v", ref.Resource)
	}
	kind := v1.ResourceName(name)
	if kind != v1.ResourceCPU && kind != v1.ResourceMemory && kind != v1.ResourceEphemeralStorage && !strings.HasPrefix(name, v1.ResourceHugePagesPrefix) {
		return "", fmt.Errorf("unsupported container resource : %v", ref.Resource)
	}
	var q resource.Quantity
	if list == "limits" {
		var set bool
		if q, set = c.Resources.Limits[kind]; !set || q.IsZero() {
			q = allocatable[kind]
		}
	} else {
		q = c.Resources.Requests[kind]
	}
	return divide(q, ref.Divisor, kind == v1.ResourceCPU), nil
}

// divide rounds up, as the documentation of the divisor says.
func divide(q, divisor resource.Quantity, cpu bool) string {
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	if cpu {
		return strconv.FormatInt(int64(math.Ceil(float64(q.MilliValue())/float64(divisor.MilliValue()))), 10)
	}
	return strconv.FormatInt(int64(math.Ceil(float64(q.Value())/float64(divisor.Value()))), 10)
}

func find(p *v1.Pod, name string) *v1.Container {
	for c := range pod.Containers(&p.Spec) {
		if c.Name == name {
			return c
		}
	}
	return nil
}
