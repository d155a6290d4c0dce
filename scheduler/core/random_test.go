package core

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
)

// world keeps the fast cluster and its twin in step.
type world struct {
	c      *Cluster
	t      *twin
	serial int
}

func newWorld() *world { return &world{c: NewCluster(), t: newTwin()} }

func (w *world) setNode(n *corev1.Node) {
	w.c.SetNode(n)
	w.t.nodes[n.Name] = n
}

func (w *world) removeNode(name string) {
	w.c.RemoveNode(name)
	delete(w.t.nodes, name)
}

func (w *world) add(p *corev1.Pod, node string) {
	w.c.Add(NewPod(p), node)
	w.t.pods[p.UID] = placedPod{p, node}
}

func (w *world) remove(uid types.UID) {
	w.c.Remove(uid)
	delete(w.t.pods, uid)
}

func (w *world) nominate(p *corev1.Pod, node string) {
	w.c.Nominate(NewPod(p), node)
	w.t.promised[p.UID] = placedPod{p, node}
}

func (w *world) withdraw(uid types.UID) {
	w.c.Withdraw(uid)
	delete(w.t.promised, uid)
}

// check compares everything that both say about a pod, and answers with the
// node chosen.
func (w *world) check(t *rapid.T, p *corev1.Pod, spread labels.Selector) string {
	pending := NewPending(p, spread)
	node, refusal := w.c.Choose(pending)
	want := w.t.verdicts(p, spread)
	got := w.c.Explain(pending)
	gotText, wantText := printAll(got), printAll(want)
	if gotText != wantText {
		t.Fatalf("pod %s:\n%s\nwant\n%s", p.Name, gotText, wantText)
	}
	if best := w.best(p, want); node != best {
		t.Fatalf("pod %s goes to %q, want %q of\n%s", p.Name, node, best, wantText)
	}
	if node == "" && (refusal == nil || refusal.Message == "") {
		t.Fatalf("pod %s was refused without a word", p.Name)
	}
	return node
}

func printAll(vs []Verdict) string {
	var lines []string
	for _, v := range vs {
		lines = append(lines, v.print())
	}
	return strings.Join(lines, "\n")
}

func (w *world) best(p *corev1.Pod, verdicts []Verdict) string {
	var best *Verdict
	for i := range verdicts {
		v := &verdicts[i]
		if v.Refused != 0 {
			continue
		}
		if w.t.promised[p.UID].node == v.Node {
			return v.Node
		}
		if best == nil || w.better(v, best) {
			best = v
		}
	}
	if best == nil {
		return ""
	}
	return best.Node
}

func (w *world) better(a, b *Verdict) bool {
	at, bt := w.c.slotOf[a.Node], w.c.slotOf[b.Node]
	return better(at, w.c.standing(at, a.Scores.Total()), bt, w.c.standing(bt, b.Scores.Total()))
}

var (
	zones      = []string{"a", "b", "c"}
	apps       = []string{"web", "db", "job"}
	namespaces = []string{"one", "two"}
	taintKeys  = []string{"gpu", "spot"}
	effects    = []corev1.TaintEffect{corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute, corev1.TaintEffectPreferNoSchedule}
	keys       = []string{corev1.LabelHostname, corev1.LabelTopologyZone, "rack"}
)

func oneOf[T any](t *rapid.T, what string, from []T) T { return rapid.SampledFrom(from).Draw(t, what) }

// chance is true once in n times.
func chance(t *rapid.T, what string, n int) bool { return rapid.IntRange(0, n-1).Draw(t, what) == 0 }

func randomNode(t *rapid.T, name string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{}}}
	if !chance(t, "no hostname", 8) {
		n.Labels[corev1.LabelHostname] = name
	}
	if !chance(t, "no zone", 5) {
		n.Labels[corev1.LabelTopologyZone] = oneOf(t, "zone", zones)
	}
	if chance(t, "rack", 2) {
		n.Labels["rack"] = fmt.Sprint(rapid.IntRange(1, 4).Draw(t, "rack"))
	}
	n.Spec.Unschedulable = chance(t, "cordoned", 12)
	for range rapid.IntRange(0, 2).Draw(t, "taints") {
		if chance(t, "taint", 2) {
			n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{
				Key: oneOf(t, "taint", taintKeys), Value: oneOf(t, "value", []string{"", "x"}), Effect: oneOf(t, "effect", effects),
			})
		}
	}
	n.Status.Allocatable = corev1.ResourceList{
		corev1.ResourceCPU:              *resource.NewMilliQuantity(rapid.Int64Range(0, 8).Draw(t, "cpu")*500, resource.DecimalSI),
		corev1.ResourceMemory:           *resource.NewQuantity(rapid.Int64Range(0, 16).Draw(t, "memory")<<28, resource.BinarySI),
		corev1.ResourcePods:             *resource.NewQuantity(rapid.Int64Range(2, 10).Draw(t, "pods"), resource.DecimalSI),
		corev1.ResourceEphemeralStorage: *resource.NewQuantity(10<<30, resource.BinarySI),
	}
	if chance(t, "gpus", 3) {
		n.Status.Allocatable["example.com/gpu"] = *resource.NewQuantity(rapid.Int64Range(0, 3).Draw(t, "gpus"), resource.DecimalSI)
	}
	if chance(t, "image", 2) {
		n.Status.Images = []corev1.ContainerImage{{Names: []string{"big:latest", "big@sha256:1"}, SizeBytes: 700 << 20}}
	}
	return n
}

func randomSelector(t *rapid.T) *metav1.LabelSelector {
	switch rapid.IntRange(0, 9).Draw(t, "selector") {
	case 0:
		return nil
	case 1:
		return &metav1.LabelSelector{}
	case 2:
		return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: metav1.LabelSelectorOpNotIn, Values: []string{oneOf(t, "app", apps)}}}}
	}
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": oneOf(t, "app", apps)}}
}

func randomTerm(t *rapid.T) corev1.PodAffinityTerm {
	term := corev1.PodAffinityTerm{LabelSelector: randomSelector(t), TopologyKey: oneOf(t, "key", keys)}
	switch rapid.IntRange(0, 5).Draw(t, "namespaces") {
	case 0:
		term.Namespaces = []string{oneOf(t, "namespace", namespaces)}
	case 1:
		term.NamespaceSelector = &metav1.LabelSelector{}
	case 2:
		term.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "x"}}
	}
	return term
}

func randomNodeTerm(t *rapid.T) corev1.NodeSelectorTerm {
	r := func(key string, op corev1.NodeSelectorOperator, values ...string) corev1.NodeSelectorTerm {
		return corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: key, Operator: op, Values: values}}}
	}
	switch rapid.IntRange(0, 7).Draw(t, "node term") {
	case 0:
		return r(corev1.LabelTopologyZone, corev1.NodeSelectorOpNotIn, oneOf(t, "zone", zones))
	case 1:
		return r("rack", corev1.NodeSelectorOpGt, "2")
	case 2:
		return r("rack", corev1.NodeSelectorOpLt, "3")
	case 3:
		return r("rack", corev1.NodeSelectorOpDoesNotExist)
	case 4:
		return r("rack", corev1.NodeSelectorOpExists)
	case 5:
		return corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpNotIn, Values: []string{"n1"}}}}
	case 6:
		return corev1.NodeSelectorTerm{}
	}
	return r(corev1.LabelTopologyZone, corev1.NodeSelectorOpIn, oneOf(t, "zone", zones), oneOf(t, "zone", zones))
}

func randomAffinity(t *rapid.T) *corev1.Affinity {
	a := &corev1.Affinity{}
	if chance(t, "node affinity", 3) {
		a.NodeAffinity = &corev1.NodeAffinity{}
		if chance(t, "required", 2) {
			a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{randomNodeTerm(t), randomNodeTerm(t)}}
		}
		if chance(t, "preferred", 2) {
			a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution = []corev1.PreferredSchedulingTerm{
				{Weight: 5, Preference: randomNodeTerm(t)}, {Weight: 30, Preference: randomNodeTerm(t)},
			}
		}
	}
	if chance(t, "pod affinity", 3) {
		a.PodAffinity = &corev1.PodAffinity{}
		if chance(t, "required", 2) {
			a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution = []corev1.PodAffinityTerm{randomTerm(t)}
		}
		if chance(t, "two", 4) {
			a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution = append(a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution, randomTerm(t))
		}
		if chance(t, "preferred", 2) {
			a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution = []corev1.WeightedPodAffinityTerm{{Weight: 7, PodAffinityTerm: randomTerm(t)}}
		}
	}
	if chance(t, "pod anti-affinity", 3) {
		a.PodAntiAffinity = &corev1.PodAntiAffinity{}
		if chance(t, "required", 2) {
			a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution = []corev1.PodAffinityTerm{randomTerm(t)}
		}
		if chance(t, "preferred", 2) {
			a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution = []corev1.WeightedPodAffinityTerm{{Weight: 11, PodAffinityTerm: randomTerm(t)}}
		}
	}
	return a
}

func randomSpread(t *rapid.T) []corev1.TopologySpreadConstraint {
	var out []corev1.TopologySpreadConstraint
	for _, key := range keys {
		if !chance(t, "constraint", 3) {
			continue
		}
		c := corev1.TopologySpreadConstraint{
			MaxSkew: int32(rapid.IntRange(1, 2).Draw(t, "skew")), TopologyKey: key,
			WhenUnsatisfiable: oneOf(t, "action", []corev1.UnsatisfiableConstraintAction{corev1.DoNotSchedule, corev1.ScheduleAnyway}),
			LabelSelector:     randomSelector(t),
		}
		policies := []corev1.NodeInclusionPolicy{corev1.NodeInclusionPolicyHonor, corev1.NodeInclusionPolicyIgnore}
		if chance(t, "affinity policy", 3) {
			p := oneOf(t, "policy", policies)
			c.NodeAffinityPolicy = &p
		}
		if chance(t, "taints policy", 3) {
			p := oneOf(t, "policy", policies)
			c.NodeTaintsPolicy = &p
		}
		if c.WhenUnsatisfiable == corev1.DoNotSchedule && chance(t, "min domains", 3) {
			n := int32(rapid.IntRange(1, 4).Draw(t, "domains"))
			c.MinDomains = &n
		}
		out = append(out, c)
	}
	return out
}

func (w *world) randomPod(t *rapid.T) *corev1.Pod {
	w.serial++
	name := fmt.Sprintf("p%d", w.serial)
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: name, UID: types.UID(name), Namespace: oneOf(t, "namespace", namespaces), Labels: map[string]string{"app": oneOf(t, "app", apps)},
	}}
	prio := oneOf(t, "priority", []int32{0, 0, 0, 10})
	p.Spec.Priority = &prio
	c := corev1.Container{Name: "c", Image: oneOf(t, "image", []string{"big", "small:1"})}
	c.Resources.Requests = corev1.ResourceList{}
	if chance(t, "requests", 2) {
		c.Resources.Requests[corev1.ResourceCPU] = *resource.NewMilliQuantity(rapid.Int64Range(0, 10).Draw(t, "cpu")*100, resource.DecimalSI)
		c.Resources.Requests[corev1.ResourceMemory] = *resource.NewQuantity(rapid.Int64Range(0, 8).Draw(t, "memory")<<26, resource.BinarySI)
	}
	if chance(t, "gpu", 8) {
		c.Resources.Requests["example.com/gpu"] = *resource.NewQuantity(1, resource.DecimalSI)
	}
	if chance(t, "port", 6) {
		c.Ports = []corev1.ContainerPort{{HostPort: 80, HostIP: oneOf(t, "ip", []string{"", "10.0.0.1", "10.0.0.2"}), Protocol: oneOf(t, "protocol", []corev1.Protocol{"", "UDP"})}}
	}
	p.Spec.Containers = []corev1.Container{c}
	if chance(t, "init", 5) {
		init := corev1.Container{Name: "i", Image: "small:1"}
		init.Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("700m")}
		if chance(t, "sidecar", 2) {
			always := corev1.ContainerRestartPolicyAlways
			init.RestartPolicy = &always
		}
		p.Spec.InitContainers = []corev1.Container{init}
	}
	if chance(t, "node selector", 6) {
		p.Spec.NodeSelector = map[string]string{corev1.LabelTopologyZone: oneOf(t, "zone", zones)}
	}
	for range rapid.IntRange(0, 2).Draw(t, "tolerations") {
		p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{
			Key: oneOf(t, "key", taintKeys), Operator: oneOf(t, "operator", []corev1.TolerationOperator{"", corev1.TolerationOpExists}),
			Effect: oneOf(t, "effect", append([]corev1.TaintEffect{""}, effects...)),
		})
	}
	if chance(t, "affinity", 3) {
		p.Spec.Affinity = randomAffinity(t)
	}
	if chance(t, "spread", 3) {
		p.Spec.TopologySpreadConstraints = randomSpread(t)
	}
	return p
}

// again makes another pod of the same template.
func (w *world) again(p *corev1.Pod) *corev1.Pod {
	w.serial++
	p = p.DeepCopy()
	p.Name = fmt.Sprintf("p%d", w.serial)
	p.UID = types.UID(p.Name)
	return p
}

// TestTwin lets a cluster live through random histories, and compares each
// decision with one made from scratch by the documentation.
func TestTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		var templates []*corev1.Pod
		pick := func(t *rapid.T) *corev1.Pod {
			if len(templates) > 0 && !chance(t, "new template", 3) {
				return w.again(oneOf(t, "template", templates))
			}
			p := w.randomPod(t)
			templates = append(templates, p)
			return p
		}
		spread := func(t *rapid.T) labels.Selector {
			if chance(t, "owned", 3) {
				return labels.SelectorFromSet(labels.Set{"app": oneOf(t, "app", apps)})
			}
			return nil
		}
		for i := range 4 {
			w.setNode(randomNode(t, fmt.Sprintf("n%d", i)))
		}
		schedule := func(t *rapid.T) {
			p := pick(t)
			s := spread(t)
			if node := w.check(t, p, s); node != "" {
				w.add(p, node)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"schedule":       schedule,
			"schedule more":  schedule,
			"schedule again": schedule,
			"only ask":       func(t *rapid.T) { w.check(t, pick(t), spread(t)) },
			"set node":       func(t *rapid.T) { w.setNode(randomNode(t, someNode(t))) },
			"remove node":    func(t *rapid.T) { w.removeNode(someNode(t)) },
			"remove pod":     func(t *rapid.T) { w.remove(w.somePod(t)) },
			"foreign pod":    func(t *rapid.T) { w.add(pick(t), someNode(t)) },
			"terminate": func(t *rapid.T) {
				if u := w.somePod(t); u != "" {
					p := w.t.pods[u].pod.DeepCopy()
					p.DeletionTimestamp = &metav1.Time{}
					w.add(p, w.t.pods[u].node)
				}
			},
			"promise": func(t *rapid.T) { w.nominate(pick(t), someNode(t)) },
			"withdraw": func(t *rapid.T) {
				for u := range w.t.promised {
					w.withdraw(u)
				}
			},
			"label namespace": func(t *rapid.T) {
				name, set := oneOf(t, "namespace", namespaces), map[string]string{"team": oneOf(t, "team", []string{"x", "y"})}
				w.c.SetNamespace(name, set)
				w.t.namespaces[name] = set
			},
		})
	})
}
