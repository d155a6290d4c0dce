package optional

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"

	"hansa.dev/hansa/api/pod"
	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/admission/refusal"
)

// PodNodeSelector gives pods the node selector of their namespace.
type PodNodeSelector struct {
	namespaces
	// byDefault is for namespaces without an annotation; allowed has for a
	// namespace all that its pods may select.
	byDefault labels.Set
	allowed   map[string]labels.Set
}

// The key of the configuration that is no namespace, and the annotation.
const (
	defaultSelector    = "clusterDefaultNodeSelector"
	selectorAnnotation = "scheduler.alpha.kubernetes.io/node-selector"
)

func newPodNodeSelector(file []byte, spaces namespaces) (*PodNodeSelector, error) {
	var c struct {
		Selectors map[string]string `json:"podNodeSelectorPluginConfig"`
	}
	if err := yaml.UnmarshalStrict(file, &c); err != nil {
		return nil, err
	}
	p := &PodNodeSelector{namespaces: spaces, allowed: map[string]labels.Set{}}
	for name, text := range c.Selectors {
		set, err := labels.ConvertSelectorToLabelsMap(text)
		if err != nil {
			return nil, fmt.Errorf("podNodeSelectorPluginConfig[%s]: %w", name, err)
		}
		if name == defaultSelector {
			p.byDefault = set
		} else {
			p.allowed[name] = set
		}
	}
	return p, nil
}

// selector is that of a pod's namespace.
func (x *PodNodeSelector) selector(a *admission.Attributes) (labels.Set, error) {
	ns := x.get(a.Namespace)
	if ns == nil {
		return nil, apierrors.NewNotFound(x.resource.GroupResource(), a.Namespace)
	}
	text, ok := ns.Annotations[selectorAnnotation]
	if !ok {
		return x.byDefault, nil
	}
	set, err := labels.ConvertSelectorToLabelsMap(text)
	if err != nil {
		return nil, refusal.Unknown("annotation %s of namespace %s: %v", selectorAnnotation, ns.Name, err)
	}
	return set, nil
}

// agreed is the selector of a's namespace, with which that of the pod agrees.
func (x *PodNodeSelector) agreed(a *admission.Attributes, p *corev1.Pod) (labels.Set, error) {
	selector, err := x.selector(a)
	if err == nil && labels.Conflicts(selector, p.Spec.NodeSelector) {
		err = refusal.Forbidden(a, "pod node label selector conflicts with its namespace node label selector")
	}
	return selector, err
}

// Admit implements admission.Mutator.
func (x *PodNodeSelector) Admit(_ context.Context, a *admission.Attributes) error {
	p := podOf(a)
	if p == nil || a.Operation != admission.Create {
		return nil
	}
	selector, err := x.agreed(a, p)
	if err != nil {
		return err
	}
	if len(selector) > 0 {
		p.Spec.NodeSelector = labels.Merge(selector, p.Spec.NodeSelector)
	}
	return nil
}

// Validate implements admission.Validator.
func (x *PodNodeSelector) Validate(_ context.Context, a *admission.Attributes) error {
	p := podOf(a)
	if p == nil || a.Operation != admission.Create {
		return nil
	}
	if _, err := x.agreed(a, p); err != nil {
		return err
	}
	allowed := x.allowed[a.Namespace]
	for key, value := range p.Spec.NodeSelector {
		if got, ok := allowed[key]; len(allowed) > 0 && (!ok || got != value) {
			return refusal.Forbidden(a, "pod node label selector labels conflict with its namespace whitelist")
		}
	}
	return nil
}

// PodTolerationRestriction gives pods the tolerations of their namespace, and
// refuses those that are not on its list.
type PodTolerationRestriction struct {
	namespaces
	config tolerationConfig
}

type tolerationConfig struct {
	APIVersion string              `json:"apiVersion"`
	Kind       string              `json:"kind"`
	Default    []corev1.Toleration `json:"default"`
	Whitelist  []corev1.Toleration `json:"whitelist"`
}

// The annotations of namespaces.
const (
	defaultTolerations = "scheduler.alpha.kubernetes.io/defaultTolerations"
	allowedTolerations = "scheduler.alpha.kubernetes.io/tolerationsWhitelist"
)

func newPodTolerationRestriction(file []byte, spaces namespaces) (*PodTolerationRestriction, error) {
	p := &PodTolerationRestriction{namespaces: spaces}
	if len(file) == 0 {
		return p, nil
	}
	if err := yaml.UnmarshalStrict(file, &p.config); err != nil {
		return nil, err
	}
	return p, expect(p.config.APIVersion, p.config.Kind, "podtolerationrestriction.admission.k8s.io/v1alpha1")
}

// expect refuses a configuration of another kind.
func expect(version, kind, want string) error {
	if version != want || kind != "Configuration" {
		return fmt.Errorf("it is a %q of %q, want a Configuration of %s", kind, version, want)
	}
	return nil
}

// listed are the tolerations in an annotation of the pod's namespace; nil without
// it.
func (x *PodTolerationRestriction) listed(a *admission.Attributes, key string) ([]corev1.Toleration, error) {
	ns := x.get(a.Namespace)
	if ns == nil {
		return nil, apierrors.NewNotFound(x.resource.GroupResource(), a.Namespace)
	}
	text, ok := ns.Annotations[key]
	if !ok {
		return nil, nil
	}
	list := []corev1.Toleration{}
	if text == "" {
		return list, nil
	}
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, refusal.Unknown("annotation %s of namespace %s: %v", key, ns.Name, err)
	}
	return list, nil
}

// Admit implements admission.Mutator.
func (x *PodTolerationRestriction) Admit(_ context.Context, a *admission.Attributes) error {
	p := podOf(a)
	if p == nil {
		return nil
	}
	var extra []corev1.Toleration
	if a.Operation == admission.Create {
		var err error
		if extra, err = x.listed(a, defaultTolerations); err != nil {
			return err
		}
		if extra == nil {
			extra = slices.Clone(x.config.Default)
		}
	}
	if pod.QOS(p) != corev1.PodQOSBestEffort {
		extra = append(extra, corev1.Toleration{Key: corev1.TaintNodeMemoryPressure, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule})
	}
	if len(extra) > 0 {
		p.Spec.Tolerations = mergeTolerations(append(slices.Clone(p.Spec.Tolerations), extra...))
	}
	return nil
}

// Validate implements admission.Validator.
func (x *PodTolerationRestriction) Validate(_ context.Context, a *admission.Attributes) error {
	p := podOf(a)
	if p == nil || len(p.Spec.Tolerations) == 0 {
		return nil
	}
	allowed, err := x.listed(a, allowedTolerations)
	if err != nil {
		return err
	}
	scope := "namespace"
	if allowed == nil {
		allowed, scope = x.config.Whitelist, "cluster"
	}
	for _, t := range p.Spec.Tolerations {
		if len(allowed) > 0 && !slices.ContainsFunc(allowed, func(o corev1.Toleration) bool { return includes(&o, &t) }) {
			return refusal.Unknown("pod tolerations (possibly merged with namespace default tolerations) conflict with its %s whitelist", scope)
		}
	}
	return nil
}

// mergeTolerations leaves out what another tolerates as well.
func mergeTolerations(all []corev1.Toleration) []corev1.Toleration {
	var merged []corev1.Toleration
	for i := range all {
		t := &all[i]
		covered := slices.ContainsFunc(merged, func(o corev1.Toleration) bool { return includes(&o, t) }) ||
			slices.ContainsFunc(all[i+1:], func(o corev1.Toleration) bool {
				return !equality.Semantic.DeepEqual(*t, o) && includes(&o, t)
			})
		if !covered {
			merged = append(merged, *t)
		}
	}
	return merged
}

// includes says whether one toleration tolerates all that another does.
func includes(o, t *corev1.Toleration) bool {
	if equality.Semantic.DeepEqual(o, t) {
		return true
	}
	exists := o.Operator == corev1.TolerationOpExists
	switch {
	case o.Key != t.Key && !(o.Key == "" && exists):
		return false
	case o.Effect != "" && o.Effect != t.Effect:
		return false
	case o.Effect == corev1.TaintEffectNoExecute && o.TolerationSeconds != nil &&
		(t.TolerationSeconds == nil || *t.TolerationSeconds > *o.TolerationSeconds):
		return false
	}
	return exists || (o.Operator == corev1.TolerationOpEqual || o.Operator == "") && t.Operator == o.Operator && t.Value == o.Value
}
