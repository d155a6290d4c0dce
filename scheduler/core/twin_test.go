package core

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	resourcehelper "k8s.io/component-helpers/resource"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
)

// twin is the cluster written down as the documentation of each filter and score
// has it, object by object, nothing remembered and nothing shared.
type twin struct {
	nodes      map[string]*corev1.Node
	pods       map[types.UID]placedPod
	namespaces map[string]map[string]string
	promised   map[types.UID]placedPod
}

type placedPod struct {
	pod  *corev1.Pod
	node string
}

func newTwin() *twin {
	return &twin{
		nodes: map[string]*corev1.Node{}, pods: map[types.UID]placedPod{},
		namespaces: map[string]map[string]string{}, promised: map[types.UID]placedPod{},
	}
}

// on are the pods on a node, and which are supposed to be on top.
func (t *twin) on(node string, more []placedPod) []*corev1.Pod {
	var out []*corev1.Pod
	for _, p := range t.everywhere(more) {
		if p.node == node {
			out = append(out, p.pod)
		}
	}
	return out
}

func (t *twin) everywhere(more []placedPod) []placedPod {
	var out []placedPod
	for _, p := range slices.Concat(slices.Collect(maps.Values(t.pods)), more) {
		if t.nodes[p.node] != nil {
			out = append(out, p)
		}
	}
	return out
}

// refuse gives the first filter that refuses a node, with its reasons.
func (t *twin) refuse(p *corev1.Pod, node *corev1.Node) (Filter, []string, bool) {
	if f, reasons, hopeless := t.refuseNode(p, node); f != 0 {
		return f, reasons, hopeless
	}
	var rivals []placedPod
	for uid, r := range t.promised {
		if r.node == node.Name && uid != p.UID && prio(r.pod) >= prio(p) {
			rivals = append(rivals, r)
		}
	}
	if len(rivals) > 0 {
		if f, reasons, hopeless := t.refuseWith(p, node, rivals); f != 0 {
			return f, reasons, hopeless
		}
	}
	return t.refuseWith(p, node, nil)
}

func prio(p *corev1.Pod) int32 {
	if p.Spec.Priority == nil {
		return 0
	}
	return *p.Spec.Priority
}

func (t *twin) refuseNode(p *corev1.Pod, node *corev1.Node) (Filter, []string, bool) {
	cordon := corev1.Taint{Key: "node.kubernetes.io/unschedulable", Effect: "NoSchedule"}
	if node.Spec.Unschedulable && !twinTolerates(p, cordon) {
		return NodeUnschedulable, []string{"node(s) were unschedulable"}, true
	}
	if !twinTaintsOK(p, node) {
		return TaintToleration, []string{"node(s) had untolerated taint(s)"}, true
	}
	if ok, err := nodeaffinity.GetRequiredNodeAffinity(p).Match(node); err != nil || !ok {
		return NodeAffinity, []string{"node(s) didn't match Pod's node affinity/selector"}, true
	}
	return 0, nil, false
}

func twinTaintsOK(p *corev1.Pod, node *corev1.Node) bool {
	for _, taint := range node.Spec.Taints {
		if taint.Effect != corev1.TaintEffectPreferNoSchedule && !twinTolerates(p, taint) {
			return false
		}
	}
	return true
}

func twinTolerates(p *corev1.Pod, taint corev1.Taint) bool {
	for _, tol := range p.Spec.Tolerations {
		if tol.ToleratesTaint(klog.Background(), &taint, true) {
			return true
		}
	}
	return false
}

func twinRequests(p *corev1.Pod) corev1.ResourceList {
	return resourcehelper.PodRequests(p, resourcehelper.PodResourcesOptions{})
}

func twinScored(p *corev1.Pod) corev1.ResourceList {
	return resourcehelper.PodRequests(p, resourcehelper.PodResourcesOptions{NonMissingContainerRequests: missingRequests})
}

// measure is an amount as the scheduler compares it: CPU in thousandths.
func measure(list corev1.ResourceList, name corev1.ResourceName) int64 {
	q := list[name]
	if name == corev1.ResourceCPU {
		return q.MilliValue()
	}
	return q.Value()
}

func (t *twin) refuseWith(p *corev1.Pod, node *corev1.Node, more []placedPod) (Filter, []string, bool) {
	here := t.on(node.Name, more)
	for _, o := range here {
		for _, taken := range hostPorts(&o.Spec) {
			for _, want := range hostPorts(&p.Spec) {
				if taken.port == want.port && taken.protocol == want.protocol &&
					(taken.ip == want.ip || taken.ip == "0.0.0.0" || want.ip == "0.0.0.0") {
					return NodePorts, []string{"node(s) didn't have free ports for the requested pod ports"}, false
				}
			}
		}
	}
	if reasons, hopeless := t.lacking(p, node, here); len(reasons) > 0 {
		return NodeResourcesFit, reasons, hopeless
	}
	if f, reasons, hopeless := t.refuseSpread(p, node, more); f != 0 {
		return f, reasons, hopeless
	}
	return t.refuseAffinity(p, node, more)
}

func (t *twin) lacking(p *corev1.Pod, node *corev1.Node, here []*corev1.Pod) (reasons []string, hopeless bool) {
	if int64(len(here)) >= measure(node.Status.Allocatable, "pods") {
		reasons = append(reasons, "Too many pods")
	}
	wants := twinRequests(p)
	order := []corev1.ResourceName{"cpu", "memory", "ephemeral-storage"}
	extended := slices.DeleteFunc(slices.Sorted(maps.Keys(wants)), func(n corev1.ResourceName) bool { return slices.Contains(order, n) })
	names := append(order, extended...)
	for _, name := range names {
		want := measure(wants, name)
		used := int64(0)
		for _, o := range here {
			used += measure(twinRequests(o), name)
		}
		if all := measure(node.Status.Allocatable, name); want > 0 && want > all-used {
			reasons = append(reasons, "Insufficient "+string(name))
			hopeless = hopeless || want > all
		}
	}
	return reasons, hopeless
}

// twinEligible says whether a node counts for a spread constraint.
func twinEligible(p *corev1.Pod, node *corev1.Node, c *corev1.TopologySpreadConstraint, all []corev1.TopologySpreadConstraint) bool {
	for _, o := range all {
		if _, ok := node.Labels[o.TopologyKey]; !ok {
			return false
		}
	}
	return twinIncluded(p, node, c)
}

func twinIncluded(p *corev1.Pod, node *corev1.Node, c *corev1.TopologySpreadConstraint) bool {
	if c.NodeAffinityPolicy == nil || *c.NodeAffinityPolicy == corev1.NodeInclusionPolicyHonor {
		if ok, err := nodeaffinity.GetRequiredNodeAffinity(p).Match(node); err != nil || !ok {
			return false
		}
	}
	if c.NodeTaintsPolicy != nil && *c.NodeTaintsPolicy == corev1.NodeInclusionPolicyHonor && !twinTaintsOK(p, node) {
		return false
	}
	return true
}

func twinSelector(s *metav1.LabelSelector) labels.Selector {
	out, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		panic(err)
	}
	return out
}

func twinCounts(p, o *corev1.Pod, s labels.Selector) bool {
	return !s.Empty() && o.Namespace == p.Namespace && o.DeletionTimestamp == nil && s.Matches(labels.Set(o.Labels))
}

func byAction(p *corev1.Pod, action corev1.UnsatisfiableConstraintAction) []corev1.TopologySpreadConstraint {
	return slices.DeleteFunc(slices.Clone(p.Spec.TopologySpreadConstraints), func(c corev1.TopologySpreadConstraint) bool {
		return c.WhenUnsatisfiable != action
	})
}

func (t *twin) refuseSpread(p *corev1.Pod, node *corev1.Node, more []placedPod) (Filter, []string, bool) {
	hard := byAction(p, corev1.DoNotSchedule)
	for i := range hard {
		c := &hard[i]
		s := twinSelector(c.LabelSelector)
		value, ok := node.Labels[c.TopologyKey]
		if !ok {
			return PodTopologySpread, []string{"node(s) didn't match pod topology spread constraints (missing required label)"}, true
		}
		domains := map[string]int64{}
		for _, n := range t.nodes {
			if twinEligible(p, n, c, hard) {
				v := n.Labels[c.TopologyKey]
				domains[v] += 0
				for _, o := range t.on(n.Name, more) {
					if twinCounts(p, o, s) {
						domains[v]++
					}
				}
			}
		}
		least := int64(math.MaxInt32)
		for _, n := range domains {
			least = min(least, n)
		}
		need := int32(1)
		if c.MinDomains != nil {
			need = *c.MinDomains
		}
		if len(domains) < int(need) {
			least = 0
		}
		self := int64(0)
		if s.Matches(labels.Set(p.Labels)) {
			self = 1
		}
		if domains[value]+self-least > int64(c.MaxSkew) {
			return PodTopologySpread, []string{"node(s) didn't match pod topology spread constraints"}, false
		}
	}
	return 0, nil, false
}

// twinSelects says whether a term of owner selects a pod.
func (t *twin) twinSelects(owner *corev1.Pod, term *corev1.PodAffinityTerm, p *corev1.Pod) bool {
	inNamespace := slices.Contains(term.Namespaces, p.Namespace)
	if term.NamespaceSelector != nil {
		inNamespace = inNamespace || twinSelector(term.NamespaceSelector).Matches(labels.Set(t.namespaces[p.Namespace]))
	} else if len(term.Namespaces) == 0 {
		inNamespace = p.Namespace == owner.Namespace
	}
	return inNamespace && twinSelector(term.LabelSelector).Matches(labels.Set(p.Labels))
}

func requiredAffinity(p *corev1.Pod) (near, far []corev1.PodAffinityTerm) {
	if a := p.Spec.Affinity; a != nil {
		if a.PodAffinity != nil {
			near = a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution
		}
		if a.PodAntiAffinity != nil {
			far = a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution
		}
	}
	return near, far
}

func preferredAffinity(p *corev1.Pod) (near, far []corev1.WeightedPodAffinityTerm) {
	if a := p.Spec.Affinity; a != nil {
		if a.PodAffinity != nil {
			near = a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution
		}
		if a.PodAntiAffinity != nil {
			far = a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution
		}
	}
	return near, far
}

func (t *twin) meetsAll(owner *corev1.Pod, terms []corev1.PodAffinityTerm, p *corev1.Pod) bool {
	for i := range terms {
		if !t.twinSelects(owner, &terms[i], p) {
			return false
		}
	}
	return len(terms) > 0
}

// sameDomain says whether two nodes have a key, with the same value.
func sameDomain(a, b *corev1.Node, key string) bool {
	va, ok := a.Labels[key]
	vb, ok2 := b.Labels[key]
	return ok && ok2 && va == vb
}

func (t *twin) refuseAffinity(p *corev1.Pod, node *corev1.Node, more []placedPod) (Filter, []string, bool) {
	near, far := requiredAffinity(p)
	met, anyFriend := true, false
	for i := range near {
		if _, ok := node.Labels[near[i].TopologyKey]; !ok {
			return InterPodAffinity, []string{"node(s) didn't match pod affinity rules"}, true
		}
		found := false
		for _, o := range t.everywhere(more) {
			if t.meetsAll(p, near, o.pod) {
				_, has := t.nodes[o.node].Labels[near[i].TopologyKey]
				anyFriend = anyFriend || has
				found = found || sameDomain(node, t.nodes[o.node], near[i].TopologyKey)
			}
		}
		met = met && found
	}
	if !met && (anyFriend || !t.meetsAll(p, near, p)) {
		return InterPodAffinity, []string{"node(s) didn't match pod affinity rules"}, true
	}
	for i := range far {
		for _, o := range t.everywhere(more) {
			if t.twinSelects(p, &far[i], o.pod) && sameDomain(node, t.nodes[o.node], far[i].TopologyKey) {
				return InterPodAffinity, []string{"node(s) didn't match pod anti-affinity rules"}, false
			}
		}
	}
	for _, o := range t.everywhere(more) {
		_, theirs := requiredAffinity(o.pod)
		for i := range theirs {
			if t.twinSelects(o.pod, &theirs[i], p) && sameDomain(node, t.nodes[o.node], theirs[i].TopologyKey) {
				return InterPodAffinity, []string{"node(s) didn't satisfy existing pods anti-affinity rules"}, false
			}
		}
	}
	return 0, nil, false
}

// verdicts says of every node what Cluster.Explain should.
func (t *twin) verdicts(p *corev1.Pod, spread labels.Selector) []Verdict {
	var out []Verdict
	var feasible []*corev1.Node
	for _, name := range slices.Sorted(maps.Keys(t.nodes)) {
		f, reasons, hopeless := t.refuse(p, t.nodes[name])
		if f == 0 {
			feasible = append(feasible, t.nodes[name])
			continue
		}
		out = append(out, Verdict{Node: name, Refused: f, Reasons: reasons, Unresolvable: hopeless})
	}
	if len(feasible) > 0 {
		scores := t.scores(p, feasible, spread)
		for _, n := range feasible {
			out = append(out, Verdict{Node: n.Name, Scores: scores[n.Name]})
		}
	}
	slices.SortFunc(out, func(a, b Verdict) int { return cmp.Compare(a.Node, b.Node) })
	return out
}

// print writes a verdict without the scores that are zero, which the fast one
// does not always compute.
func (v Verdict) print() string {
	if v.Refused != 0 {
		return fmt.Sprintf("%s: %s %q unresolvable=%v", v.Node, v.Refused, v.Reasons, v.Unresolvable)
	}
	out := v.Node + ":"
	for _, s := range v.Scores {
		if s.Score != 0 {
			out += fmt.Sprintf(" %s=%d*%d", s.Name, s.Score, s.Weight)
		}
	}
	return out
}
