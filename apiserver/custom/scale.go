package custom

import (
	"fmt"
	"math"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"hansa.dev/hansa/api"
)

func (v *version) scale() *apiextensionsv1.CustomResourceSubresourceScale {
	if v.Subresources == nil {
		return nil
	}
	return v.Subresources.Scale
}

// scaleSubresource shows and sets the fields that the version calls its replicas.
func (v *version) scaleSubresource() *api.Subresource {
	return &api.Subresource{
		Verbs:    []string{"get", "patch", "update"},
		Kind:     autoscalingv1.SchemeGroupVersion.WithKind("Scale"),
		New:      func() runtime.Object { return &autoscalingv1.Scale{} },
		Table:    scaleTable(),
		Get:      v.getScale,
		Base:     v.baseScale,
		Put:      v.putScale,
		Replicas: steps(v.scale().SpecReplicasPath),
	}
}

// noReplicas stands for a field that is not there, in the scale that a patch
// starts from: a patch may set it for the first time.
const noReplicas = math.MinInt32

func (v *version) getScale(stored api.Object) (runtime.Object, error) {
	scale, err := v.baseScale(stored)
	if err != nil {
		return nil, err
	}
	if scale.(*autoscalingv1.Scale).Spec.Replicas == noReplicas {
		return nil, apierrors.NewInternalError(fmt.Errorf("the spec replicas field %q does not exist", v.scale().SpecReplicasPath))
	}
	return scale, nil
}

func (v *version) baseScale(stored api.Object) (runtime.Object, error) {
	o, err := v.view(stored)
	if err != nil {
		return nil, err
	}
	tree, paths := o.Tree(), v.scale()
	replicas, found, err := unstructured.NestedInt64(tree, steps(paths.SpecReplicasPath)...)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	if !found {
		replicas = noReplicas
	}
	current, _, err := unstructured.NestedInt64(tree, steps(paths.StatusReplicasPath)...)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	selector := ""
	if paths.LabelSelectorPath != nil && *paths.LabelSelectorPath != "" {
		if selector, _, err = unstructured.NestedString(tree, steps(*paths.LabelSelectorPath)...); err != nil {
			return nil, apierrors.NewInternalError(err)
		}
	}
	return &autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{
			Name:              o.Name,
			Namespace:         o.Namespace,
			UID:               o.UID,
			ResourceVersion:   o.ResourceVersion,
			CreationTimestamp: o.CreationTimestamp,
		},
		Spec:   autoscalingv1.ScaleSpec{Replicas: clamp(replicas)},
		Status: autoscalingv1.ScaleStatus{Replicas: clamp(current), Selector: selector},
	}, nil
}

// clamp is for what was stored before there was a scale: see validateScale.
func clamp(n int64) int32 { return int32(min(max(n, math.MinInt32), math.MaxInt32)) }

func (v *version) putScale(obj api.Object, body runtime.Object, _ time.Time) error {
	scale, ok := body.(*autoscalingv1.Scale)
	if !ok {
		return apierrors.NewBadRequest(fmt.Sprintf("wrong object passed to Scale update: %T", body))
	}
	if scale.Spec.Replicas == noReplicas {
		return apierrors.NewBadRequest(fmt.Sprintf("the spec replicas field %q cannot be empty", v.scale().SpecReplicasPath))
	}
	o := obj.(*Object)
	if err := unstructured.SetNestedField(o.open(), int64(scale.Spec.Replicas), steps(v.scale().SpecReplicasPath)...); err != nil {
		return apierrors.NewInternalError(err)
	}
	if scale.ResourceVersion != "" {
		o.SetResourceVersion(scale.ResourceVersion)
	}
	if scale.UID != "" {
		o.SetUID(scale.UID)
	}
	return nil
}
