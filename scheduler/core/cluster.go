package core

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
)

// Cluster is what decisions are made over: the nodes, and the pods that are on
// them or are assumed to be. Its owner keeps it up to date.
//
// Invariant: every pod that the API shows bound is here, and so is every pod
// that a binding is under way for (bound ⊆ assumed). So a decision never counts
// on room that an earlier one has taken.
type Cluster struct {
	slotOf   map[string]int
	names    []string       // by slot; "" for a free one
	nodes    []*corev1.Node // nil for a free slot, or one with pods of a node not seen
	free     []int
	present  bitset // slots with a node
	cordoned bitset
	tainted  bitset

	labels    labelTable
	resources resources
	images    map[string]map[int]int64 // name → slot → bytes

	on        [][]*Pod
	where     map[types.UID]int
	withPorts bitset
	withTerms bitset // slots with a pod that has terms

	namespaces  map[string]map[string]string
	nominated   map[int][]*Pod
	nominatedAt map[types.UID]int

	// nodesVersion counts the changes that classes cannot catch up with: those of
	// nodes and namespaces, and promises to pods that mind others.
	nodesVersion   uint64
	log            placementLog
	classes        classCache
	scratch        scratch
	firstCandidate int
}

// NewCluster is empty.
func NewCluster() *Cluster {
	return &Cluster{
		slotOf:      map[string]int{},
		labels:      labelTable{columns: map[string]*labelColumn{}},
		resources:   resources{extra: map[corev1.ResourceName]*column{}},
		images:      map[string]map[int]int64{},
		where:       map[types.UID]int{},
		namespaces:  map[string]map[string]string{},
		nominated:   map[int][]*Pod{},
		nominatedAt: map[types.UID]int{},
		classes:     classCache{byKey: map[string]*class{}},
	}
}

// slot finds the slot of a node, or makes one.
func (c *Cluster) slot(name string) int {
	if s, ok := c.slotOf[name]; ok {
		return s
	}
	var s int
	if n := len(c.free); n > 0 {
		s = c.free[n-1]
		c.free = c.free[:n-1]
	} else {
		s = len(c.names)
		c.names = append(c.names, "")
		c.nodes = append(c.nodes, nil)
		c.on = append(c.on, nil)
		slots := s + 1
		for _, b := range []*bitset{&c.present, &c.cordoned, &c.tainted, &c.withPorts, &c.withTerms} {
			*b = b.grow(slots)
		}
		c.labels.grow(slots)
		c.resources.grow(slots)
	}
	c.slotOf[name] = s
	c.names[s] = name
	return s
}

// release frees a slot that has neither node nor pods.
func (c *Cluster) release(slot int) {
	if c.nodes[slot] == nil && len(c.on[slot]) == 0 && len(c.nominated[slot]) == 0 {
		delete(c.slotOf, c.names[slot])
		c.names[slot] = ""
		c.free = append(c.free, slot)
	}
}

// SetNode takes in a node, new or changed. It answers false when nothing changed
// that a decision depends on.
func (c *Cluster) SetNode(node *corev1.Node) bool {
	s := c.slot(node.Name)
	old := c.nodes[s]
	if old != nil && sameToUs(old, node) {
		c.nodes[s] = node
		return false
	}
	c.place(s, old, node)
	return true
}

// RemoveNode forgets a node. Its pods stay until they are removed themselves.
func (c *Cluster) RemoveNode(name string) bool {
	s, ok := c.slotOf[name]
	if !ok || c.nodes[s] == nil {
		return false
	}
	c.place(s, c.nodes[s], nil)
	c.release(s)
	return true
}

func (c *Cluster) place(s int, old, node *corev1.Node) {
	var was, now corev1.Node
	if old != nil {
		was = *old
	}
	if node != nil {
		now = *node
	}
	c.nodes[s] = node
	c.present.set(s, node != nil)
	c.cordoned.set(s, now.Spec.Unschedulable)
	c.tainted.set(s, len(now.Spec.Taints) > 0)
	c.labels.set(s, was.Labels, now.Labels)
	c.resources.setNode(s, node)
	c.setImages(s, was.Status.Images, now.Status.Images)
	c.nodesVersion++
}

func (c *Cluster) setImages(s int, old, now []corev1.ContainerImage) {
	for _, image := range old {
		for _, name := range image.Names {
			delete(c.images[name], s)
			if len(c.images[name]) == 0 {
				delete(c.images, name)
			}
		}
	}
	for _, image := range now {
		for _, name := range image.Names {
			if c.images[name] == nil {
				c.images[name] = map[int]int64{}
			}
			c.images[name][s] = image.SizeBytes
		}
	}
}

// sameToUs says whether two versions of a node are the same for every filter and
// score; heartbeats and addresses are nothing to us.
func sameToUs(a, b *corev1.Node) bool {
	return a.Spec.Unschedulable == b.Spec.Unschedulable &&
		maps.Equal(a.Labels, b.Labels) &&
		equality.Semantic.DeepEqual(a.Spec.Taints, b.Spec.Taints) &&
		equality.Semantic.DeepEqual(a.Status.Allocatable, b.Status.Allocatable) &&
		slices.EqualFunc(a.Status.Images, b.Status.Images, func(x, y corev1.ContainerImage) bool {
			return x.SizeBytes == y.SizeBytes && slices.Equal(x.Names, y.Names)
		})
}

// Node is the node of a name, or nil.
func (c *Cluster) Node(name string) *corev1.Node {
	if s, ok := c.slotOf[name]; ok {
		return c.nodes[s]
	}
	return nil
}

// Nodes is how many nodes there are.
func (c *Cluster) Nodes() int { return c.present.count() }

// SetNamespace takes in a namespace's labels; nil forgets it.
func (c *Cluster) SetNamespace(name string, labels map[string]string) bool {
	old, known := c.namespaces[name]
	if labels == nil {
		delete(c.namespaces, name)
		return known
	}
	if known && maps.Equal(old, labels) {
		return false
	}
	c.namespaces[name] = labels
	c.nodesVersion++
	return true
}

// Add puts a pod on a node, in the place of an earlier version of itself if
// there is one. The node need not be known yet.
func (c *Cluster) Add(p *Pod, node string) {
	c.Remove(p.UID())
	s := c.slot(node)
	c.where[p.UID()] = s
	c.on[s] = append(c.on[s], p)
	c.count(s, p, 1)
	c.log.append(placement{slot: s, pod: p, sign: 1})
}

// Remove takes a pod off its node. It answers with the pod and where it was.
func (c *Cluster) Remove(uid types.UID) (*Pod, string) {
	s, ok := c.where[uid]
	if !ok {
		return nil, ""
	}
	delete(c.where, uid)
	i := slices.IndexFunc(c.on[s], func(p *Pod) bool { return p.UID() == uid })
	p, node := c.on[s][i], c.names[s]
	last := len(c.on[s]) - 1
	c.on[s][i] = c.on[s][last]
	c.on[s][last] = nil
	c.on[s] = c.on[s][:last]
	c.count(s, p, -1)
	c.log.append(placement{slot: s, pod: p, sign: -1})
	c.release(s)
	return p, node
}

// Find answers with a pod and its node; nil if it is on none.
func (c *Cluster) Find(uid types.UID) (*Pod, string) {
	s, ok := c.where[uid]
	if !ok {
		return nil, ""
	}
	i := slices.IndexFunc(c.on[s], func(p *Pod) bool { return p.UID() == uid })
	return c.on[s][i], c.names[s]
}

// count changes what a slot's columns say by one pod; c.on already says so.
func (c *Cluster) count(s int, p *Pod, sign int64) {
	c.resources.count(s, p, sign)
	if len(p.ports) > 0 {
		c.withPorts.set(s, slices.ContainsFunc(c.on[s], func(o *Pod) bool { return len(o.ports) > 0 }))
	}
	if p.terms != nil {
		c.withTerms.set(s, slices.ContainsFunc(c.on[s], func(o *Pod) bool { return o.terms != nil }))
	}
}

// Nominate promises room on a node to a pod that others were evicted for. Pods
// of lower priority do not get it.
func (c *Cluster) Nominate(p *Pod, node string) {
	c.Withdraw(p.UID())
	s := c.slot(node)
	c.nominated[s] = append(c.nominated[s], p)
	c.nominatedAt[p.UID()] = s
	c.promised(p)
}

// promised notes that a promise was made or taken back. If the pod has opinions
// on others, it may matter to classes that no topology concerned before.
func (c *Cluster) promised(p *Pod) {
	c.log.touch()
	if p.terms != nil {
		c.nodesVersion++
	}
}

// Withdraw takes back what was promised to a pod, if anything was, and answers
// with the node.
func (c *Cluster) Withdraw(uid types.UID) (node string) {
	s, ok := c.nominatedAt[uid]
	if !ok {
		return ""
	}
	node = c.names[s]
	i := slices.IndexFunc(c.nominated[s], func(o *Pod) bool { return o.UID() == uid })
	c.promised(c.nominated[s][i])
	if c.nominated[s] = slices.Delete(c.nominated[s], i, i+1); len(c.nominated[s]) == 0 {
		delete(c.nominated, s)
	}
	delete(c.nominatedAt, uid)
	c.release(s)
	return node
}

// NominatedTo answers with the node that was promised to a pod, or "".
func (c *Cluster) NominatedTo(uid types.UID) string {
	if s, ok := c.nominatedAt[uid]; ok {
		return c.names[s]
	}
	return ""
}

// rivals are the pods that a slot is promised to before p.
func (c *Cluster) rivals(slot int, p *Pod) []*Pod {
	var out []*Pod
	for _, o := range c.nominated[slot] {
		if o.UID() != p.UID() && o.Priority() >= p.Priority() {
			out = append(out, o)
		}
	}
	return out
}

// hasRivals says whether any slot is promised to somebody before p.
func (c *Cluster) hasRivals(p *Pod) bool {
	for slot := range c.nominated {
		if len(c.rivals(slot, p)) > 0 {
			return true
		}
	}
	return false
}

// placement is one entry of the log.
type placement struct {
	slot int
	pod  *Pod
	sign int64
}

// logLength bounds how far back the log goes. Who is further behind counts
// anew.
const logLength = 4096

// placementLog is what happened to the pods on nodes, for classes to catch up
// with.
type placementLog struct {
	entries []placement
	first   uint64 // position of entries[0]
	touched uint64 // changes that only matter to who asks whether anything changed
}

func (l *placementLog) append(p placement) {
	if len(l.entries) == 2*logLength {
		l.entries = append(l.entries[:0], l.entries[logLength:]...)
		l.first += logLength
		clear(l.entries[len(l.entries):cap(l.entries)])
	}
	l.entries = append(l.entries, p)
}

func (l *placementLog) touch() { l.touched++ }

func (l *placementLog) end() uint64 { return l.first + uint64(len(l.entries)) }

// since gives the entries from a position on; false when it no longer has them.
func (l *placementLog) since(at uint64) ([]placement, bool) {
	if at < l.first {
		return nil, false
	}
	return l.entries[at-l.first:], true
}

// Refresh takes in a newer version of a pod that is on a node. It answers false,
// having changed nothing, when the difference matters to others: then the pod
// has to be added anew.
func (c *Cluster) Refresh(p *Pod) bool {
	s, ok := c.where[p.UID()]
	if !ok {
		return false
	}
	i := slices.IndexFunc(c.on[s], func(o *Pod) bool { return o.UID() == p.UID() })
	if !sameLoad(c.on[s][i], p) {
		return false
	}
	c.on[s][i] = p
	return true
}

// sameLoad says whether two versions of a pod are the same to all other pods.
// Its affinity and ports cannot change.
func sameLoad(a, b *Pod) bool {
	return maps.Equal(a.Object.Labels, b.Object.Labels) &&
		(a.Object.DeletionTimestamp == nil) == (b.Object.DeletionTimestamp == nil) &&
		a.Priority() == b.Priority() &&
		a.scoredCPU == b.scoredCPU && a.scoredMemory == b.scoredMemory && a.request.equal(&b.request)
}

// Pods is how many pods are on nodes.
func (c *Cluster) Pods() int { return len(c.where) }
