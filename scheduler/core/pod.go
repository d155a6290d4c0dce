package core

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// Pod is what the core knows of a pod. It is never changed; a pod that changes
// becomes another Pod.
type Pod struct {
	// Object is the frozen pod itself.
	Object *corev1.Pod

	request                 demand
	scoredCPU, scoredMemory int64
	ports                   []hostPort
	terms                   *podTerms // nil: the pod has no opinion on others
}

// NewPod reads a pod.
func NewPod(p *corev1.Pod) *Pod {
	out := &Pod{Object: p, ports: hostPorts(&p.Spec), terms: termsOf(p)}
	out.request, out.scoredCPU, out.scoredMemory = requestsOf(p)
	return out
}

// UID is the pod's identity.
func (p *Pod) UID() types.UID { return p.Object.UID }

// Priority is zero for a pod without one.
func (p *Pod) Priority() int32 {
	if p.Object.Spec.Priority == nil {
		return 0
	}
	return *p.Object.Spec.Priority
}

// hostPort is a port that a pod takes of its node. Without an address it is that
// port of all addresses.
type hostPort struct {
	ip       string
	protocol corev1.Protocol
	port     int32
}

const anyAddress = "0.0.0.0"

// hostPorts are the ports of the containers that run side by side: the ordinary
// ones and the init containers that keep running.
func hostPorts(spec *corev1.PodSpec) []hostPort {
	var ports []hostPort
	add := func(c *corev1.Container) {
		for _, p := range c.Ports {
			if p.HostPort <= 0 {
				continue
			}
			ports = append(ports, hostPort{cmp.Or(p.HostIP, anyAddress), cmp.Or(p.Protocol, corev1.ProtocolTCP), p.HostPort})
		}
	}
	for i := range spec.InitContainers {
		if c := &spec.InitContainers[i]; c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			add(c)
		}
	}
	for i := range spec.Containers {
		add(&spec.Containers[i])
	}
	return ports
}

func (a hostPort) conflicts(b hostPort) bool {
	return a.port == b.port && a.protocol == b.protocol && (a.ip == b.ip || a.ip == anyAddress || b.ip == anyAddress)
}

// podTerms are a pod's opinions on where other pods are.
type podTerms struct {
	affinity, antiAffinity []podTerm // required
	likes, dislikes        []podTerm // preferred
}

// podTerm selects pods; it is about the nodes that have the same value of
// topologyKey as theirs.
type podTerm struct {
	namespaces  []string
	nsSelector  labels.Selector // nil: none
	selector    labels.Selector
	topologyKey string
	weight      int64
}

func termsOf(p *corev1.Pod) *podTerms {
	a := p.Spec.Affinity
	if a == nil || a.PodAffinity == nil && a.PodAntiAffinity == nil {
		return nil
	}
	t := &podTerms{}
	if a.PodAffinity != nil {
		t.affinity = requiredTerms(p, a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution)
		t.likes = weightedTerms(p, a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if a.PodAntiAffinity != nil {
		t.antiAffinity = requiredTerms(p, a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution)
		t.dislikes = weightedTerms(p, a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	return t
}

func requiredTerms(p *corev1.Pod, terms []corev1.PodAffinityTerm) []podTerm {
	var out []podTerm
	for i := range terms {
		out = append(out, newTerm(p, &terms[i], 0))
	}
	return out
}

func weightedTerms(p *corev1.Pod, terms []corev1.WeightedPodAffinityTerm) []podTerm {
	var out []podTerm
	for i := range terms {
		out = append(out, newTerm(p, &terms[i].PodAffinityTerm, int64(terms[i].Weight)))
	}
	return out
}

func newTerm(p *corev1.Pod, t *corev1.PodAffinityTerm, weight int64) podTerm {
	out := podTerm{namespaces: t.Namespaces, selector: selectorOf(t.LabelSelector), topologyKey: t.TopologyKey, weight: weight}
	if t.NamespaceSelector != nil {
		out.nsSelector = selectorOf(t.NamespaceSelector)
	} else if len(t.Namespaces) == 0 {
		out.namespaces = []string{p.Namespace}
	}
	return out
}

// selectorOf reads a selector that validation has accepted; one that cannot be
// read selects nothing.
func selectorOf(s *metav1.LabelSelector) labels.Selector {
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return labels.Nothing()
	}
	return selector
}

// matches says whether a term selects a pod whose namespace has the given
// labels.
func (t *podTerm) matches(p *corev1.Pod, nsLabels map[string]string) bool {
	if !slices.Contains(t.namespaces, p.Namespace) && (t.nsSelector == nil || !t.nsSelector.Matches(labels.Set(nsLabels))) {
		return false
	}
	return t.selector.Matches(labels.Set(p.Labels))
}

// A Pending pod is one that wants a node.
type Pending struct {
	*Pod
	spread []spreadConstraint
	class  string
}

// NewPending reads a pod that wants a node. defaultSpread selects the pods that
// belong together with it because a service or a controller says so; nil when
// nothing does. They are spread when the pod itself says nothing about that.
func NewPending(p *corev1.Pod, defaultSpread labels.Selector) *Pending {
	out := &Pending{Pod: NewPod(p), spread: spreadOf(p, defaultSpread)}
	if len(p.Spec.TopologySpreadConstraints) > 0 {
		defaultSpread = nil
	}
	out.class = classKey(out, defaultSpread)
	return out
}

// Class names the pods that nothing here can tell apart from this one.
func (p *Pending) Class() string { return p.class }

// classKey writes down everything that a filter, a score or preemption reads of
// a pod. Pods with equal keys are treated alike.
func classKey(p *Pending, defaultSpread labels.Selector) string {
	spec := &p.Object.Spec
	var k keyWriter
	k.str(p.Object.Namespace)
	k.labels(p.Object.Labels)
	k.num(int64(p.Priority()))
	if spec.PreemptionPolicy != nil {
		k.str(string(*spec.PreemptionPolicy))
	}
	k.sep()
	k.str(spec.NodeName)
	k.labels(spec.NodeSelector)
	if spec.Affinity != nil {
		k.message(spec.Affinity)
	}
	k.sep()
	for i := range spec.Tolerations {
		k.message(&spec.Tolerations[i])
	}
	k.sep()
	for i := range spec.TopologySpreadConstraints {
		k.message(&spec.TopologySpreadConstraints[i])
	}
	k.sep()
	if defaultSpread != nil {
		k.str(defaultSpread.String())
	}
	k.sep()
	for _, n := range []int64{p.request.milliCPU, p.request.memory, p.request.storage, p.scoredCPU, p.scoredMemory} {
		k.num(n)
	}
	for _, a := range p.request.extra {
		k.str(string(a.name))
		k.num(a.value)
	}
	k.sep()
	for _, h := range p.ports {
		k.str(h.ip)
		k.str(string(h.protocol))
		k.num(int64(h.port))
	}
	k.sep()
	for _, image := range imagesOf(spec) {
		k.str(image)
	}
	k.sep()
	k.str(volumeRefusal(p.Object))
	return string(k)
}

// keyWriter builds an unambiguous key: every part has its length before it.
type keyWriter []byte

func (k *keyWriter) num(n int64) { *k = binary.AppendVarint(*k, n) }

func (k *keyWriter) str(s string) {
	k.num(int64(len(s)))
	*k = append(*k, s...)
}

func (k *keyWriter) sep() { k.num(-1) }

func (k *keyWriter) labels(m map[string]string) {
	for _, key := range slices.Sorted(maps.Keys(m)) {
		k.str(key)
		k.str(m[key])
	}
	k.sep()
}

// message writes an API message; its encoding has the keys of maps in order.
func (k *keyWriter) message(m interface{ Marshal() ([]byte, error) }) {
	b, err := m.Marshal()
	if err != nil {
		b = fmt.Appendf(nil, "%v", m) // no message of the API fails to encode
	}
	k.str(string(b))
}

// imagesOf are the images that a pod needs, as nodes name them.
func imagesOf(spec *corev1.PodSpec) []string {
	var images []string
	add := func(name string) {
		if name == "" {
			return
		}
		if strings.LastIndex(name, ":") <= strings.LastIndex(name, "/") {
			name += ":latest"
		}
		images = append(images, name)
	}
	for i := range spec.InitContainers {
		add(spec.InitContainers[i].Image)
	}
	for i := range spec.Containers {
		add(spec.Containers[i].Image)
	}
	for i := range spec.Volumes {
		if v := spec.Volumes[i].Image; v != nil {
			add(v.Reference)
		}
	}
	return images
}

// volumeRefusal says why no node can give a pod its volumes, or "". Whether a
// claim is there or not, nothing gives it a volume yet.
func volumeRefusal(p *corev1.Pod) string {
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		switch {
		case v.PersistentVolumeClaim != nil:
			return fmt.Sprintf("persistentvolumeclaim %q has no volume, and nothing finds or makes one in this version of Hansa", v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			return fmt.Sprintf("waiting for ephemeral volume controller to create the persistentvolumeclaim %q", p.Name+"-"+v.Name)
		}
	}
	if len(p.Spec.ResourceClaims) > 0 {
		c := &p.Spec.ResourceClaims[0]
		if c.ResourceClaimName != nil {
			return fmt.Sprintf("resourceclaim.resource.k8s.io %q not found", *c.ResourceClaimName)
		}
		return fmt.Sprintf("waiting for dynamic resource claim to be created for pod %s/%s", p.Namespace, p.Name)
	}
	return ""
}
