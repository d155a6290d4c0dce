package pod

import (
	"fmt"
	"math"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hansa.dev/hansa/internal/gonames"
)

// updatable is what the refusal of any other change lists.
const updatable = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`," +
	"`spec.tolerations` (only additions to existing tolerations)," +
	"`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"

// ValidateUpdate says what is wrong with a pod that replaces old. Of the spec
// only the following may change: images; activeDeadlineSeconds, downwards;
// tolerations, by addition and in their seconds; a negative grace period, to 1;
// scheduling gates, by removal; and while there were gates, the node selector
// and the required node affinity, by addition.
func ValidateUpdate(p, old *corev1.Pod) field.ErrorList {
	c := updateChecker(old)
	c.podMetadataAndSpec(p)
	c.annotationsKept(p.Annotations, old.Annotations)

	at := field.NewPath("spec")
	if !c.sameNumber(at.Child("containers"), p.Spec.Containers, old.Spec.Containers) ||
		!c.sameNumber(at.Child("initContainers"), p.Spec.InitContainers, old.Spec.InitContainers) ||
		!c.deadlineNotExtended(at.Child("activeDeadlineSeconds"), p.Spec.ActiveDeadlineSeconds, old.Spec.ActiveDeadlineSeconds) {
		return c.errs
	}
	c.tolerationsAdded(at.Child("tolerations"), p.Spec.Tolerations, old.Spec.Tolerations)
	c.gatesRemoved(at.Child("schedulingGates"), p.Spec.SchedulingGates, old.Spec.SchedulingGates)
	if apiequality.Semantic.DeepEqual(p.Spec, old.Spec) {
		return c.errs
	}

	// What may change, and was checked above, is set back; the rest must be as
	// it was.
	rest := p.Spec.DeepCopy()
	takeImages(rest.Containers, old.Spec.Containers)
	takeImages(rest.InitContainers, old.Spec.InitContainers)
	rest.ActiveDeadlineSeconds = old.Spec.ActiveDeadlineSeconds
	rest.SchedulingGates = old.Spec.SchedulingGates
	rest.Tolerations = old.Spec.Tolerations
	if was := old.Spec.TerminationGracePeriodSeconds; deref(was) < 0 && deref(rest.TerminationGracePeriodSeconds) == 1 {
		rest.TerminationGracePeriodSeconds = was
	}
	if len(old.Spec.SchedulingGates) > 0 {
		c.gatedChanges(at, rest, &old.Spec)
	}
	if !apiequality.Semantic.DeepEqual(*rest, old.Spec) {
		c.forbidden(at, fmt.Sprintf("pod updates may not change fields other than %s\n%v", updatable, gonames.Diff(old.Spec, *rest)))
	}
	return c.errs
}

func updateChecker(old *corev1.Pod) *checker {
	return &checker{isPod: true, leniency: leniencyFor(&old.Spec, &old.ObjectMeta)}
}

// annotationsKept: annotations that steer the node are fixed at creation.
func (c *checker) annotationsKept(annotations, old map[string]string) {
	at := field.NewPath("metadata", "annotations")
	name := func(key string) string {
		switch {
		case strings.HasPrefix(key, appArmorPrefix):
			return "AppArmor annotations"
		case key == corev1.MirrorPodAnnotationKey:
			return "mirror pod annotation"
		}
		return ""
	}
	for _, key := range sortedKeys(old) {
		if v, ok := annotations[key]; name(key) != "" && (!ok || v != old[key]) {
			c.forbidden(at.Key(key), "may not remove or update "+name(key))
		}
	}
	for _, key := range sortedKeys(annotations) {
		if _, ok := old[key]; name(key) != "" && !ok {
			c.forbidden(at.Key(key), "may not add "+name(key))
		}
	}
}

func (c *checker) sameNumber(at *field.Path, ctrs, old []corev1.Container) bool {
	if len(ctrs) != len(old) {
		c.forbidden(at, "pod updates may not add or remove containers")
	}
	return len(ctrs) == len(old)
}

func takeImages(to, from []corev1.Container) {
	for i := range to {
		to[i].Image = from[i].Image
	}
}

// deadlineNotExtended answers whether it is worth looking further.
func (c *checker) deadlineNotExtended(at *field.Path, seconds, old *int64) bool {
	switch {
	case seconds == nil && old != nil:
		c.invalid(at, seconds, "must not update from a positive integer to nil value")
	case seconds == nil:
	case *seconds < 0 || *seconds > math.MaxInt32:
		c.invalid(at, *seconds, validation.InclusiveRangeError(0, math.MaxInt32))
		return false
	case old != nil && *old < *seconds:
		c.invalid(at, *seconds, "must be less than or equal to previous value")
		return false
	}
	return true
}

// tolerationsAdded: each old toleration is still there, but for its seconds.
func (c *checker) tolerationsAdded(at *field.Path, list, old []corev1.Toleration) {
	for _, was := range old {
		kept := slices.ContainsFunc(list, func(t corev1.Toleration) bool {
			t.TolerationSeconds = was.TolerationSeconds
			return t == was
		})
		if !kept {
			c.forbidden(at, "existing toleration can not be modified except its tolerationSeconds")
			return
		}
	}
}

func (c *checker) gatesRemoved(at *field.Path, gates, old []corev1.PodSchedulingGate) {
	for i, g := range gates {
		if !slices.Contains(old, g) {
			c.forbidden(at.Index(i).Child("name"), fmt.Sprintf("only deletion is allowed, but found new scheduling gate '%s'", g.Name))
		}
	}
}

// gatedChanges: while a pod waits at a gate, where it may run can be narrowed.
// What was checked is set back in spec. Affinity to pods stays fixed: label keys
// were merged into its selectors at creation.
func (c *checker) gatedChanges(at *field.Path, spec, old *corev1.PodSpec) {
	for k, v := range old.NodeSelector {
		if now, ok := spec.NodeSelector[k]; !ok || now != v {
			c.invalid(at.Child("nodeSelector"), spec.NodeSelector, "only additions to spec.nodeSelector are allowed (no mutations or deletions)")
			break
		}
	}
	spec.NodeSelector = old.NodeSelector

	was, now := deref(old.Affinity).NodeAffinity, deref(spec.Affinity).NodeAffinity
	if apiequality.Semantic.DeepEqual(was, now) {
		return
	}
	c.termsNarrowed(at.Child("affinity", "nodeAffinity", required, "nodeSelectorTerms"), requiredTerms(now), requiredTerms(was))
	switch {
	case spec.Affinity == nil:
		spec.Affinity = &corev1.Affinity{NodeAffinity: was}
	case old.Affinity == nil && spec.Affinity.PodAffinity == nil && spec.Affinity.PodAntiAffinity == nil:
		spec.Affinity = nil
	default:
		spec.Affinity.NodeAffinity = was
	}
}

func requiredTerms(a *corev1.NodeAffinity) []corev1.NodeSelectorTerm {
	if a == nil || a.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return nil
	}
	return a.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
}

// termsNarrowed: terms are alternatives, so none may be added to a list that
// has some; within a term, requirements may.
func (c *checker) termsNarrowed(at *field.Path, terms, old []corev1.NodeSelectorTerm) {
	if len(old) == 0 {
		return
	}
	if len(terms) != len(old) {
		c.invalid(at, terms, "no additions/deletions to non-empty NodeSelectorTerms list are allowed")
		return
	}
	for i := range old {
		// A term without requirements matches nothing; with some, it might.
		wasEmpty := len(old[i].MatchExpressions)+len(old[i].MatchFields) == 0
		isEmpty := len(terms[i].MatchExpressions)+len(terms[i].MatchFields) == 0
		if wasEmpty && !isEmpty || !startsWith(terms[i].MatchExpressions, old[i].MatchExpressions) || !startsWith(terms[i].MatchFields, old[i].MatchFields) {
			c.invalid(at.Index(i), terms[i], "only additions are allowed (no mutations or deletions)")
		}
	}
}

func startsWith(list, prefix []corev1.NodeSelectorRequirement) bool {
	return len(prefix) == 0 || len(list) >= len(prefix) && apiequality.Semantic.DeepEqual(list[:len(prefix)], prefix)
}

// ValidateEphemeralContainersUpdate says what is wrong with containers that are
// added to a running pod. p must differ from old in its ephemeral containers
// only (PrepareEphemeralContainersUpdate sees to it).
func ValidateEphemeralContainersUpdate(p, old *corev1.Pod) field.ErrorList {
	if hasMirrorAnnotation(&old.ObjectMeta) {
		return field.ErrorList{field.Forbidden(field.NewPath(""), "static pods do not support ephemeral containers")}
	}
	c := updateChecker(old)
	c.podMetadataAndSpec(p)
	c.annotationsKept(p.Annotations, old.Annotations)
	at := field.NewPath("spec", "ephemeralContainers")
	byName := make(map[string]*corev1.EphemeralContainer, len(p.Spec.EphemeralContainers))
	for i := range p.Spec.EphemeralContainers {
		e := &p.Spec.EphemeralContainers[i]
		byName[e.Name] = e
	}
	for _, was := range old.Spec.EphemeralContainers {
		switch now := byName[was.Name]; {
		case now == nil:
			c.forbidden(at, fmt.Sprintf("existing ephemeral containers %q may not be removed\n", was.Name))
		case !apiequality.Semantic.DeepEqual(was, *now):
			c.forbidden(at, fmt.Sprintf("existing ephemeral containers %q may not be changed\n%v", was.Name, gonames.Diff(was, *now)))
		}
	}
	return c.errs
}
