package core

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
)

// What scoring takes a container to need that says nothing, so that containers
// without requests still spread: 100m of a CPU and 200 MiB.
const (
	defaultMilliCPU = 100
	defaultMemory   = 200 << 20
)

// demand is what a pod takes of a node, or a node has.
type demand struct {
	milliCPU int64
	memory   int64 // bytes
	storage  int64 // ephemeral, bytes
	extra    []amount
}

// amount is a quantity of an extended resource or of huge pages.
type amount struct {
	name  corev1.ResourceName
	value int64
}

// demandOf reads a resource list. Pods are counted elsewhere.
func demandOf(list corev1.ResourceList) demand {
	var d demand
	for name, q := range list {
		switch name {
		case corev1.ResourceCPU:
			d.milliCPU = q.MilliValue()
		case corev1.ResourceMemory:
			d.memory = q.Value()
		case corev1.ResourceEphemeralStorage:
			d.storage = q.Value()
		case corev1.ResourcePods:
		default:
			if v := q.Value(); v != 0 {
				d.extra = append(d.extra, amount{name, v})
			}
		}
	}
	slices.SortFunc(d.extra, func(a, b amount) int { return strings.Compare(string(a.name), string(b.name)) })
	return d
}

var missingRequests = corev1.ResourceList{
	corev1.ResourceCPU:    *resource.NewMilliQuantity(defaultMilliCPU, resource.DecimalSI),
	corev1.ResourceMemory: *resource.NewQuantity(defaultMemory, resource.BinarySI),
}

// requestsOf is what a pod requests, and the CPU and memory that scoring counts
// for it. Of a pod on a node, what a resize in progress still holds counts too.
func requestsOf(p *corev1.Pod) (request demand, scoredCPU, scoredMemory int64) {
	opts := resourcehelper.PodResourcesOptions{
		UseStatusResources: p.Spec.NodeName != "",
		InPlacePodLevelResourcesVerticalScalingEnabled: p.Spec.NodeName != "",
	}
	request = demandOf(resourcehelper.PodRequests(p, opts))
	opts.NonMissingContainerRequests = missingRequests
	scored := resourcehelper.PodRequests(p, opts)
	return request, scored.Cpu().MilliValue(), scored.Memory().Value()
}

// column is one resource over all slots.
type column struct {
	allocatable []int64
	used        []int64
}

func (c *column) grow(slots int) {
	for len(c.used) < slots {
		c.allocatable = append(c.allocatable, 0)
		c.used = append(c.used, 0)
	}
}

func (c *column) free(slot int) int64 { return c.allocatable[slot] - c.used[slot] }

// resources are the columns of everything that NodeResourcesFit counts.
type resources struct {
	cpu, memory, storage column
	extra                map[corev1.ResourceName]*column
	slots                int

	pods, maxPods           []int64
	scoredCPU, scoredMemory []int64
}

func (r *resources) grow(slots int) {
	r.slots = slots
	r.cpu.grow(slots)
	r.memory.grow(slots)
	r.storage.grow(slots)
	for _, c := range r.extra {
		c.grow(slots)
	}
	for _, s := range []*[]int64{&r.pods, &r.maxPods, &r.scoredCPU, &r.scoredMemory} {
		for len(*s) < slots {
			*s = append(*s, 0)
		}
	}
}

func (r *resources) column(name corev1.ResourceName) *column {
	c := r.extra[name]
	if c == nil {
		c = &column{}
		c.grow(r.slots)
		r.extra[name] = c
	}
	return c
}

// setNode takes over what a node offers; nil for one that is gone.
func (r *resources) setNode(slot int, node *corev1.Node) {
	var has demand
	r.maxPods[slot] = 0
	if node != nil {
		has = demandOf(node.Status.Allocatable)
		r.maxPods[slot] = node.Status.Allocatable.Pods().Value()
	}
	r.cpu.allocatable[slot] = has.milliCPU
	r.memory.allocatable[slot] = has.memory
	r.storage.allocatable[slot] = has.storage
	for _, c := range r.extra {
		c.allocatable[slot] = 0
	}
	for _, a := range has.extra {
		r.column(a.name).allocatable[slot] = a.value
	}
}

// count adds a pod to a slot (sign 1) or takes it away (-1).
func (r *resources) count(slot int, p *Pod, sign int64) {
	r.cpu.used[slot] += sign * p.request.milliCPU
	r.memory.used[slot] += sign * p.request.memory
	r.storage.used[slot] += sign * p.request.storage
	for _, a := range p.request.extra {
		r.column(a.name).used[slot] += sign * a.value
	}
	r.pods[slot] += sign
	r.scoredCPU[slot] += sign * p.scoredCPU
	r.scoredMemory[slot] += sign * p.scoredMemory
}

// fits says whether a slot has room for a pod.
func (r *resources) fits(slot int, p *Pod) bool {
	d := &p.request
	if r.pods[slot]+1 > r.maxPods[slot] {
		return false
	}
	if d.milliCPU > 0 && d.milliCPU > r.cpu.free(slot) ||
		d.memory > 0 && d.memory > r.memory.free(slot) ||
		d.storage > 0 && d.storage > r.storage.free(slot) {
		return false
	}
	for _, a := range d.extra {
		if c := r.extra[a.name]; c == nil || a.value > c.free(slot) {
			return false
		}
	}
	return true
}

// shortages says what a slot lacks for a pod, and whether it would still lack
// something if it were empty.
func (r *resources) shortages(slot int, p *Pod) (reasons []string, unresolvable bool) {
	if r.pods[slot]+1 > r.maxPods[slot] {
		reasons = append(reasons, reasonTooManyPods)
	}
	lack := func(name string, want int64, c *column) {
		if want > 0 && want > c.free(slot) {
			reasons = append(reasons, reasonInsufficient+name)
			unresolvable = unresolvable || want > c.allocatable[slot]
		}
	}
	lack("cpu", p.request.milliCPU, &r.cpu)
	lack("memory", p.request.memory, &r.memory)
	lack("ephemeral-storage", p.request.storage, &r.storage)
	for _, a := range p.request.extra {
		lack(string(a.name), a.value, r.column(a.name))
	}
	return reasons, unresolvable
}

// couldHold says whether a node would take a pod if nothing else ran there.
func couldHold(node *corev1.Node, p *Pod) bool {
	has := demandOf(node.Status.Allocatable)
	if node.Status.Allocatable.Pods().Value() < 1 {
		return false
	}
	d := &p.request
	if d.milliCPU > has.milliCPU || d.memory > has.memory || d.storage > has.storage {
		return false
	}
	for _, a := range d.extra {
		i, ok := slices.BinarySearchFunc(has.extra, a.name, func(h amount, name corev1.ResourceName) int {
			return strings.Compare(string(h.name), string(name))
		})
		if !ok || has.extra[i].value < a.value {
			return false
		}
	}
	return true
}

// offersMore says whether a node offers more than before of what a pod wants.
func offersMore(old, now *corev1.Node, p *Pod) bool {
	more := func(name corev1.ResourceName) bool {
		before, after := old.Status.Allocatable[name], now.Status.Allocatable[name]
		return after.Cmp(before) > 0
	}
	d := &p.request
	if more(corev1.ResourcePods) || d.milliCPU > 0 && more(corev1.ResourceCPU) ||
		d.memory > 0 && more(corev1.ResourceMemory) || d.storage > 0 && more(corev1.ResourceEphemeralStorage) {
		return true
	}
	return slices.ContainsFunc(d.extra, func(a amount) bool { return more(a.name) })
}

// leastAllocated is the score of NodeResourcesFit: the free share of CPU and
// memory with the pod there, averaged.
func (r *resources) leastAllocated(slot int, p *Pod) int64 {
	var sum, weights int64
	share := func(allocatable, requested int64) {
		if allocatable == 0 {
			return
		}
		weights++
		if requested <= allocatable {
			sum += (allocatable - requested) * maxScore / allocatable
		}
	}
	share(r.cpu.allocatable[slot], r.scoredCPU[slot]+p.scoredCPU)
	share(r.memory.allocatable[slot], r.scoredMemory[slot]+p.scoredMemory)
	if weights == 0 {
		return 0
	}
	return sum / weights
}

// balanced is the score of NodeResourcesBalancedAllocation: high when the pod
// brings the used shares of CPU and memory closer to each other, 75 when it
// changes nothing about that. A pod that requests neither is not scored.
func (r *resources) balanced(slot int, p *Pod) int64 {
	d := &p.request
	if d.milliCPU == 0 && d.memory == 0 {
		return 0
	}
	better := r.imbalance(slot, 0, 0) - r.imbalance(slot, d.milliCPU, d.memory)
	return int64((0.75 + better/2) * maxScore)
}

// imbalance is the standard deviation of the used shares of CPU and memory, with
// some more of them used: between 0 and 0.5.
func (r *resources) imbalance(slot int, moreCPU, moreMemory int64) float64 {
	cpu, memory := r.cpu.allocatable[slot], r.memory.allocatable[slot]
	if cpu == 0 || memory == 0 {
		return 0
	}
	a := min(float64(r.cpu.used[slot]+moreCPU)/float64(cpu), 1)
	b := min(float64(r.memory.used[slot]+moreMemory)/float64(memory), 1)
	return max(a-b, b-a) / 2
}

func (d *demand) equal(o *demand) bool {
	return d.milliCPU == o.milliCPU && d.memory == o.memory && d.storage == o.storage && slices.Equal(d.extra, o.extra)
}
