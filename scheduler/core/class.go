package core

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// class is what is known for all pods of one key.
//
//	new ─build─▶ current ─placements─▶ behind ─catch up─▶ current
//	               │ a node or namespace changed, the log is gone, or a pod
//	               │ with opinions on this class appeared
//	               └──────────build──▶ current
type class struct {
	pod      *Pending // any of them
	lastUsed uint64

	// What the pods ask of nodes, compiled.
	selector  []labels.Requirement
	required  []nodeTerm
	mustMatch bool // one of required must match, even if there is none
	preferred []nodeTerm
	named     map[string]bool // the only nodes that required can mean; nil: any
	volumes   string          // why no node can give the pods their volumes

	// What follows from the nodes as of nodesVersion.
	built        bool
	nodesVersion uint64
	allowed      bitset  // passed every filter that only asks the node
	taints       []int64 // PreferNoSchedule taints not tolerated; nil: none anywhere
	affinity     []int64 // weights of preferred terms met; nil: none anywhere
	image        []int64 // score of ImageLocality; nil: none anywhere

	// What follows from the pods on them as of position at.
	at       uint64
	topology *topology // nil: no other pod matters
	ranking  *ranking  // nil: not asked for yet, or of no use

	// refusal holds as long as stamp is what it was.
	refusal *Refusal
	stamp   stamp
}

// stamp tells whether anything changed at all.
type stamp struct{ nodes, placed, touched uint64 }

func (c *Cluster) stamp() stamp { return stamp{c.nodesVersion, c.log.end(), c.log.touched} }

// classesKept bounds the classes that are remembered.
const classesKept = 256

type classCache struct {
	byKey map[string]*class
	clock uint64
}

// classOf finds or makes the class of a pod, and brings it up to date.
func (c *Cluster) classOf(p *Pending) *class {
	cl := c.classes.byKey[p.class]
	if cl == nil {
		if len(c.classes.byKey) >= classesKept {
			c.classes.evict()
		}
		cl = compile(p)
		c.classes.byKey[p.class] = cl
	}
	c.classes.clock++
	cl.lastUsed = c.classes.clock
	c.update(cl)
	return cl
}

// evict forgets the half that was not used for longest.
func (k *classCache) evict() {
	used := make([]uint64, 0, len(k.byKey))
	for _, cl := range k.byKey {
		used = append(used, cl.lastUsed)
	}
	slices.Sort(used)
	median := used[len(used)/2]
	maps.DeleteFunc(k.byKey, func(_ string, cl *class) bool { return cl.lastUsed < median })
}

func compile(p *Pending) *class {
	spec := &p.Object.Spec
	cl := &class{pod: p, volumes: volumeRefusal(p.Object)}
	cl.selector, _ = labels.SelectorFromSet(spec.NodeSelector).Requirements()
	if spec.Affinity == nil || spec.Affinity.NodeAffinity == nil {
		return cl
	}
	if required := spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution; required != nil {
		cl.mustMatch = true
		cl.named = namedNodes(required.NodeSelectorTerms)
		for i := range required.NodeSelectorTerms {
			if t, ok := compileTerm(&required.NodeSelectorTerms[i]); ok {
				cl.required = append(cl.required, t)
			}
		}
	}
	for i := range spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution {
		want := &spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution[i]
		if t, ok := compileTerm(&want.Preference); ok && want.Weight != 0 {
			t.weight = int64(want.Weight)
			cl.preferred = append(cl.preferred, t)
		}
	}
	return cl
}

// namedNodes are the nodes that required terms name, when each of them does;
// nil when one does not. Empty: the names contradict each other.
func namedNodes(terms []corev1.NodeSelectorTerm) map[string]bool {
	all := map[string]bool{}
	for i := range terms {
		var names map[string]bool
		for _, f := range terms[i].MatchFields {
			if f.Key != "metadata.name" || f.Operator != corev1.NodeSelectorOpIn {
				continue
			}
			these := map[string]bool{}
			for _, v := range f.Values {
				if names == nil || names[v] {
					these[v] = true
				}
			}
			names = these
		}
		if names == nil {
			return nil
		}
		maps.Copy(all, names)
	}
	if len(terms) == 0 {
		return nil
	}
	return all
}

// update brings a class up to date with the cluster.
func (c *Cluster) update(cl *class) {
	missed, complete := c.log.since(cl.at)
	if !cl.built || cl.nodesVersion != c.nodesVersion || !complete || len(missed) > max(64, c.Nodes()) {
		c.build(cl)
		return
	}
	for _, e := range missed {
		if cl.topology == nil && e.pod.terms != nil && c.mindsClass(e.pod, cl) {
			c.build(cl)
			return
		}
		if !c.present.has(e.slot) {
			continue
		}
		if cl.topology != nil {
			cl.topology.count(c, e.slot, e.pod, e.sign)
		}
		if cl.ranking != nil {
			c.rerank(cl, e.slot)
		}
	}
	cl.at = c.log.end()
}

// build computes a class from scratch.
func (c *Cluster) build(cl *class) {
	cl.built, cl.nodesVersion, cl.at = true, c.nodesVersion, c.log.end()
	cl.ranking, cl.refusal = nil, nil
	cl.allowed = c.nodesAllowed(cl)
	cl.taints = c.intolerable(cl)
	cl.affinity = c.preferences(cl)
	cl.image = c.imageScores(cl)
	cl.topology = c.newTopology(cl)
}

// nodesAllowed are the slots that pass all filters which only ask the node.
func (c *Cluster) nodesAllowed(cl *class) bitset {
	set := c.nodesSelected(cl)
	for slot := range set.all() {
		if !c.tolerated(cl, slot) {
			set.remove(slot)
		}
	}
	if name := cl.pod.Object.Spec.NodeName; name != "" {
		for slot := range set.all() {
			if c.names[slot] != name {
				set.remove(slot)
			}
		}
	}
	return set
}

// tolerated says whether the pods may be on a node in spite of its taints and of
// its being cordoned.
func (c *Cluster) tolerated(cl *class, slot int) bool {
	return !(c.cordoned.has(slot) && !toleratesCordon(cl.pod.Object)) &&
		!(c.tainted.has(slot) && untolerated(cl.pod.Object, c.nodes[slot]))
}

// nodesSelected are the slots that node selector and required affinity allow.
func (c *Cluster) nodesSelected(cl *class) bitset {
	set := c.present.clone()
	for i := range cl.selector {
		c.labels.require(set, &cl.selector[i])
	}
	if !cl.mustMatch {
		return set
	}
	matched := newBitset(len(c.names))
	for i := range cl.required {
		matched.or(c.matching(set, &cl.required[i]))
	}
	return matched
}

// cordonTaint is the taint that a cordoned node is taken to have.
var cordonTaint = corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}

func toleratesCordon(p *corev1.Pod) bool { return tolerates(p, &cordonTaint) }

// untolerated says whether a node has a taint that keeps a pod away.
func untolerated(p *corev1.Pod, node *corev1.Node) bool {
	return slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool {
		return (t.Effect == corev1.TaintEffectNoSchedule || t.Effect == corev1.TaintEffectNoExecute) && !tolerates(p, &t)
	})
}

func tolerates(p *corev1.Pod, taint *corev1.Taint) bool {
	return slices.ContainsFunc(p.Spec.Tolerations, func(t corev1.Toleration) bool {
		if t.Effect != "" && t.Effect != taint.Effect || t.Key != "" && t.Key != taint.Key {
			return false
		}
		switch t.Operator {
		case "", corev1.TolerationOpEqual:
			return t.Value == taint.Value
		case corev1.TolerationOpExists:
			return true
		}
		return false
	})
}

// intolerable counts, for each allowed slot, the taints that only advise
// against it.
func (c *Cluster) intolerable(cl *class) []int64 {
	var out []int64
	for slot := range cl.allowed.all() {
		if !c.tainted.has(slot) {
			continue
		}
		for i := range c.nodes[slot].Spec.Taints {
			t := &c.nodes[slot].Spec.Taints[i]
			if t.Effect == corev1.TaintEffectPreferNoSchedule && !tolerates(cl.pod.Object, t) {
				if out == nil {
					out = make([]int64, len(c.names))
				}
				out[slot]++
			}
		}
	}
	return out
}

// preferences sums, for each slot, the weights of the preferred terms it meets.
func (c *Cluster) preferences(cl *class) []int64 {
	if len(cl.preferred) == 0 {
		return nil
	}
	out := make([]int64, len(c.names))
	for i := range cl.preferred {
		for slot := range c.matching(cl.allowed, &cl.preferred[i]).all() {
			out[slot] += cl.preferred[i].weight
		}
	}
	return out
}

// Sizes between which ImageLocality tells images apart, in bytes.
const (
	smallImages = 23 << 20
	largeImage  = 1000 << 20 // for each image of the pod
)

// imageScores favours nodes that have the pod's images already, the more so the
// larger the images are and the more nodes have them: that keeps one node with
// a rare image from drawing all pods.
func (c *Cluster) imageScores(cl *class) []int64 {
	images := imagesOf(&cl.pod.Object.Spec)
	var sums []int64
	for _, name := range images {
		spread := float64(len(c.images[name])) / float64(max(c.Nodes(), 1))
		for slot, size := range c.images[name] {
			if sums == nil {
				sums = make([]int64, len(c.names))
			}
			sums[slot] += int64(float64(size) * spread)
		}
	}
	if sums == nil {
		return nil
	}
	most := int64(largeImage) * int64(len(images))
	for slot, sum := range sums {
		sums[slot] = maxScore * (min(max(sum, smallImages), most) - smallImages) / (most - smallImages)
	}
	return sums
}
