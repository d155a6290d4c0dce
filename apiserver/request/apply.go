package request

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/request/codec"
	"hansa.dev/hansa/apiserver/request/fields"
)

// apply is server-side apply: the present object merged with the fields that
// the applier claims, without those it claimed before and no longer does.
// Fields that somebody else has set to another value are conflicts, unless the
// applier forces them.
func (p *patch) apply(cur api.Object) (api.Object, error) {
	applied := &unstructured.Unstructured{Object: map[string]any{}}
	if err := yaml.Unmarshal(p.data, &applied.Object); err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
	}
	if sub := p.info.sub(); sub != nil && sub.Put != nil {
		if cur == nil {
			return nil, apierrors.NewNotFound(p.info.resource(), p.info.Name)
		}
		var err error
		if applied, err = p.scaled(applied, sub); err != nil {
			return nil, err
		}
	}
	m, err := p.h.managerOf(p.info)
	if err != nil {
		return nil, err
	}
	live := cur
	if live == nil {
		live = p.info.row().New()
	}
	force := p.opts.Force != nil && *p.opts.Force
	merged, err := m.library.Apply(live, applied, p.manager, force)
	if err != nil {
		return nil, p.asOfBody(err)
	}
	obj := merged.(api.Object)
	if parse := p.info.row().Parse; parse != nil {
		if err := parse(obj); err != nil {
			return nil, fmt.Errorf("failed to convert to unversioned (%s/%s; %v): %w", applied.GetNamespace(), applied.GetName(), applied.GroupVersionKind(), err)
		}
	}
	p.stamp(obj)
	p.h.fill(p.info.row(), obj)
	return obj, p.checkRepeated()
}

// stamp gives the applier's entry a time where the library leaves it out: when
// the applier now shares fields whose values it has not changed. It then stands
// where the library would put it, so that the next write finds it there.
// https://github.com/kubernetes/kubernetes/issues/127938
func (p *patch) stamp(obj api.Object) {
	managers := obj.GetManagedFields()
	for i := range managers {
		m := &managers[i]
		if m.Operation == metav1.ManagedFieldsOperationApply && m.Manager == p.manager && m.Time == nil {
			now := p.h.now()
			m.Time = &now
			slices.SortStableFunc(managers, fields.ByOperationAndTime)
			return
		}
	}
}

// checkRepeated looks for keys that the applied text has twice.
func (p *patch) checkRepeated() error {
	if !p.strict() {
		return nil
	}
	err := yaml.UnmarshalStrict(p.data, &map[string]any{})
	if err == nil {
		return nil
	}
	if p.opts.FieldValidation == metav1.FieldValidationStrict {
		return apierrors.NewBadRequest(fmt.Sprintf("error strict decoding patch: %v", err))
	}
	for _, w := range codec.Warnings([]error{err}) {
		p.warn(w)
	}
	return nil
}

// asOfBody tells conflicts about a Scale as conflicts of Scales, although it is the
// object itself that is compared.
func (p *patch) asOfBody(err error) error {
	sub, status := p.info.sub(), (*apierrors.StatusError)(nil)
	if sub == nil || sub.Put == nil || !errors.As(err, &status) || status.ErrStatus.Details == nil {
		return err
	}
	own, body := " using "+p.info.Served.Version.String(), " using "+sub.Kind.GroupVersion().String()
	status.ErrStatus.Message = strings.ReplaceAll(status.ErrStatus.Message, own, body)
	for i := range status.ErrStatus.Details.Causes {
		cause := &status.ErrStatus.Details.Causes[i]
		cause.Message = strings.ReplaceAll(cause.Message, own, body)
	}
	return err
}

// scaled is what applying a Scale claims of the object itself: its replicas,
// which most kinds have at the same place as the Scale.
func (p *patch) scaled(applied *unstructured.Unstructured, sub *api.Subresource) (*unstructured.Unstructured, error) {
	kind, place := sub.Kind, sub.Replicas
	if place == nil {
		place = scaleReplicas
	}
	if applied.GroupVersionKind() != kind || kind.Kind != "Scale" {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("invalid object type: %v", applied.GroupVersionKind()))
	}
	own := &unstructured.Unstructured{Object: map[string]any{"metadata": applied.Object["metadata"]}}
	own.SetGroupVersionKind(p.info.Served.Version.WithKind(p.info.Served.Kind))
	if replicas, ok, err := unstructured.NestedFieldNoCopy(applied.Object, scaleReplicas...); err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
	} else if ok {
		if err := unstructured.SetNestedField(own.Object, replicas, place...); err != nil {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
		}
	}
	return own, nil
}

// scaleReplicas is where a Scale has its replicas.
var scaleReplicas = []string{"spec", "replicas"}
