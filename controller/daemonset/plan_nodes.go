package daemonset

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"

	"hansa.dev/hansa/controller"
)

// generationLabel tells pods of one number of the template; versions of old knew
// them by it.
const generationLabel = "pod-template-generation"

// needs are what a daemon set asks of a node, read once for many of them.
type needs struct {
	node        string // by name; "": any
	affinity    nodeaffinity.RequiredNodeAffinity
	tolerations []corev1.Toleration
}

func needsOf(ds *appsv1.DaemonSet) needs {
	spec := &ds.Spec.Template.Spec
	return needs{spec.NodeName, nodeaffinity.NewRequiredNodeAffinity(spec.NodeSelector, spec.Affinity), tolerations(spec)}
}

// fit is what a node is to a daemon set.
type fit struct {
	run  bool // a pod is to be there
	stay bool // a pod that is there may stay
}

// on says what a node is to the set; nil: a node that is not there.
func (n needs) on(node *corev1.Node) fit {
	if node == nil || n.node != "" && n.node != node.Name {
		return fit{}
	}
	if ok, err := n.affinity.Match(node); err != nil || !ok {
		return fit{}
	}
	f := fit{run: true, stay: true}
	for i := range node.Spec.Taints {
		t := &node.Spec.Taints[i]
		if t.Effect == corev1.TaintEffectPreferNoSchedule || slices.ContainsFunc(n.tolerations, func(tol corev1.Toleration) bool { return tol.ToleratesTaint(klog.Background(), t, false) }) {
			continue
		}
		f.run = false
		f.stay = f.stay && t.Effect != corev1.TaintEffectNoExecute
	}
	return f
}

// tolerations are those of a template and those that all daemon pods have
// (documentation: "DaemonSet", "Taints and tolerations").
func tolerations(spec *corev1.PodSpec) []corev1.Toleration {
	out := slices.Clone(spec.Tolerations)
	add := func(key string, effect corev1.TaintEffect) {
		t := corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: effect}
		for i := range out {
			if out[i].MatchToleration(&t) {
				out[i] = t // without a limit of time
				return
			}
		}
		out = append(out, t)
	}
	add(corev1.TaintNodeNotReady, corev1.TaintEffectNoExecute)
	add(corev1.TaintNodeUnreachable, corev1.TaintEffectNoExecute)
	add(corev1.TaintNodeDiskPressure, corev1.TaintEffectNoSchedule)
	add(corev1.TaintNodeMemoryPressure, corev1.TaintEffectNoSchedule)
	add(corev1.TaintNodePIDPressure, corev1.TaintEffectNoSchedule)
	add(corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule)
	if spec.HostNetwork {
		add(corev1.TaintNodeNetworkUnavailable, corev1.TaintEffectNoSchedule)
	}
	return out
}

// newPod is the pod of a revision for a node. It is placed by the scheduler, which
// is left no choice.
func newPod(ds *appsv1.DaemonSet, hash, node string) *corev1.Pod {
	p := controller.PodFromTemplate(&ds.Spec.Template, ds, kind)
	p.Labels[appsv1.ControllerRevisionHashLabelKey] = hash
	if n, ok := templateGeneration(ds); ok {
		p.Labels[generationLabel] = strconv.FormatInt(n, 10)
	}
	p.Spec.Tolerations = tolerations(&p.Spec)
	if p.Spec.Affinity == nil {
		p.Spec.Affinity = &corev1.Affinity{}
	}
	if p.Spec.Affinity.NodeAffinity == nil {
		p.Spec.Affinity.NodeAffinity = &corev1.NodeAffinity{}
	}
	p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{
			{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{node}},
		}}},
	}
	return p
}

// nodeOf is the node that a pod is on, or is made for.
func nodeOf(p *corev1.Pod) (string, error) {
	if p.Spec.NodeName != "" {
		return p.Spec.NodeName, nil
	}
	if a := p.Spec.Affinity; a != nil && a.NodeAffinity != nil && a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		for _, term := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
			for _, f := range term.MatchFields {
				if f.Key == metav1.ObjectNameField && f.Operator == corev1.NodeSelectorOpIn && len(f.Values) == 1 {
					return f.Values[0], nil
				}
			}
		}
	}
	return "", fmt.Errorf("pod %s/%s: %w", p.Namespace, p.Name, errNoNode)
}

var errNoNode = errors.New("its affinity names no node")

// templateGeneration is the number of the template in an annotation of old.
func templateGeneration(ds *appsv1.DaemonSet) (int64, bool) {
	n, err := strconv.ParseInt(ds.Annotations[appsv1.DeprecatedTemplateGeneration], 10, 64)
	return n, err == nil
}
