package kinds

import (
	"fmt"
	"slices"
	"strings"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/pod"
)

// What is common to the kinds that make pods from a template.

// validateTemplate checks a template; flaws that old already has are forgiven.
// old is nil on create.
func validateTemplate(t, old *corev1.PodTemplateSpec, path *field.Path) field.ErrorList {
	if old == nil {
		return pod.ValidateTemplate(t, path)
	}
	return pod.ValidateTemplateUpdate(t, old, path)
}

// validateSelected checks the selector and template of a kind that keeps pods
// running; old is nil on create.
func validateSelected(selector *metav1.LabelSelector, template, old *corev1.PodTemplateSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	at := path.Child("selector")
	if selector == nil {
		errs = append(errs, field.Required(at, ""))
	} else {
		errs = append(errs, metav1validation.ValidateLabelSelector(selector, metav1validation.LabelSelectorValidationOptions{}, at)...)
		if len(selector.MatchLabels)+len(selector.MatchExpressions) == 0 {
			errs = append(errs, field.Invalid(at, selector, "empty selector is invalid for deployment"))
		}
	}
	matcher, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return append(errs, field.Invalid(at, selector, "invalid label selector"))
	}

	at = path.Child("template")
	if !matcher.Empty() && !matcher.Matches(labels.Set(template.Labels)) {
		errs = append(errs, field.Invalid(at.Child("metadata", "labels"), template.Labels, "`selector` does not match template `labels`"))
	}
	errs = append(errs, validateTemplate(template, old, at)...)
	return append(errs, validateEndless(&template.Spec, at.Child("spec"), "ReplicaSet")...)
}

// validateEndless demands of pods that a kind keeps running that they do not
// end by themselves.
func validateEndless(spec *corev1.PodSpec, at *field.Path, kind string) field.ErrorList {
	var errs field.ErrorList
	if spec.RestartPolicy != corev1.RestartPolicyAlways {
		errs = append(errs, field.NotSupported(at.Child("restartPolicy"), spec.RestartPolicy, []corev1.RestartPolicy{corev1.RestartPolicyAlways}))
	}
	if spec.ActiveDeadlineSeconds != nil {
		errs = append(errs, field.Forbidden(at.Child("activeDeadlineSeconds"), "activeDeadlineSeconds in "+kind+" is not Supported"))
	}
	return errs
}

// replicaCounts are the counters of a status that keeps pods running.
type replicaCounts struct{ replicas, ready, available int32 }

// consistent demands that parts are not more than the whole.
func (c replicaCounts) consistent(path *field.Path) field.ErrorList {
	const tooMany = "cannot be greater than status.replicas"
	var errs field.ErrorList
	if c.ready > c.replicas {
		errs = append(errs, field.Invalid(path.Child("readyReplicas"), c.ready, tooMany))
	}
	if c.available > c.replicas {
		errs = append(errs, field.Invalid(path.Child("availableReplicas"), c.available, tooMany))
	}
	if c.available > c.ready {
		errs = append(errs, field.Invalid(path.Child("availableReplicas"), c.available, "cannot be greater than readyReplicas"))
	}
	return errs
}

// notDecremented demands of a count that may be missing that it only grows.
func notDecremented(count, old *int32, path *field.Path) field.ErrorList {
	if old == nil || ptr.Deref(count, -1) >= *old {
		return nil
	}
	return field.ErrorList{field.Invalid(path, ptr.Deref(count, 0), "cannot be decremented")}
}

// warnPodName tells of a name that is no DNS label, since pods are named after
// it.
func warnPodName(name string) []string {
	msgs := validation.IsDNS1123Label(name)
	if len(msgs) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: %v", msgs)}
}

// scaled is the part of an object that its scale subresource is about.
type scaled struct {
	desired  **int32
	current  int32
	selector *metav1.LabelSelector
}

// scaleSubresource lets autoscalers change the number of replicas without
// knowing the kind.
func scaleSubresource[T api.Object](part func(T) scaled) *api.Subresource {
	gvk := autoscalingv1.SchemeGroupVersion.WithKind("Scale")
	return &api.Subresource{
		Verbs: updateVerbs,
		Kind:  gvk,
		New:   func() runtime.Object { return &autoscalingv1.Scale{} },
		Table: scaleTable(),
		Get: func(obj api.Object) (runtime.Object, error) {
			p := part(obj.(T))
			selector, err := metav1.LabelSelectorAsSelector(p.selector)
			if err != nil {
				return nil, apierrors.NewBadRequest(err.Error())
			}
			return &autoscalingv1.Scale{
				ObjectMeta: metav1.ObjectMeta{
					Name:              obj.GetName(),
					Namespace:         obj.GetNamespace(),
					UID:               obj.GetUID(),
					ResourceVersion:   obj.GetResourceVersion(),
					CreationTimestamp: obj.GetCreationTimestamp(),
				},
				Spec:   autoscalingv1.ScaleSpec{Replicas: ptr.Deref(*p.desired, 0)},
				Status: autoscalingv1.ScaleStatus{Replicas: p.current, Selector: selector.String()},
			}, nil
		},
		Put: func(obj api.Object, body runtime.Object, _ time.Time) error {
			scale, ok := body.(*autoscalingv1.Scale)
			if !ok {
				return apierrors.NewBadRequest(fmt.Sprintf("wrong object passed to Scale update: %T", body))
			}
			if errs := nonNegative(field.NewPath("spec"), counter{"replicas", int64(scale.Spec.Replicas)}); len(errs) > 0 {
				return apierrors.NewInvalid(gvk.GroupKind(), obj.GetName(), errs)
			}
			*part(obj.(T)).desired = ptr.To(scale.Spec.Replicas)
			if scale.ResourceVersion != "" {
				obj.SetResourceVersion(scale.ResourceVersion)
			}
			if scale.UID != "" {
				obj.SetUID(scale.UID)
			}
			return nil
		},
	}
}

func scaleTable() *api.Table {
	return &api.Table{
		Columns: []metav1.TableColumnDefinition{
			column("Name", "string", objectMeta["name"]),
			column("Desired", "integer", autoscalingv1.ScaleSpec{}.SwaggerDoc()["replicas"]),
			column("Available", "integer", autoscalingv1.ScaleStatus{}.SwaggerDoc()["replicas"]),
			ageColumn(),
		},
		Row: func(obj api.Object, now time.Time) []any {
			s := obj.(*autoscalingv1.Scale)
			return []any{s.Name, int64(s.Spec.Replicas), int64(s.Status.Replicas), age(s.CreationTimestamp, now)}
		},
	}
}

// containerColumns and containerCells show what runs in the pods of a template.
func containerColumns() []metav1.TableColumnDefinition {
	return []metav1.TableColumnDefinition{
		wideColumn("Containers", "string", "Names of each container in the template."),
		wideColumn("Images", "string", "Images referenced by each container in the template."),
	}
}

func containerCells(t *corev1.PodTemplateSpec) (names, images string) {
	var all [2][]string
	for _, c := range t.Spec.Containers {
		all[0] = append(all[0], c.Name)
		all[1] = append(all[1], c.Image)
	}
	return strings.Join(all[0], ","), strings.Join(all[1], ",")
}

// columns joins single columns and groups of them.
func columns(groups ...[]metav1.TableColumnDefinition) []metav1.TableColumnDefinition {
	return slices.Concat(groups...)
}

// warnTemplate passes on what is questionable about the pods to be.
func warnTemplate(t *corev1.PodTemplateSpec) []string {
	return pod.TemplateWarnings(t, field.NewPath("spec", "template"))
}
