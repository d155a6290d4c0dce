package request

import (
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/request/codec"
)

// apply is server-side apply: the present object merged with the fields that
// the applier claims, without those it claimed before and no longer does.
// Fields that somebody else has set to another value are conflicts, unless the
// applier forces them.
func (p *patch) apply(cur api.Object) (api.Object, error) {
	if sub := p.info.sub(); sub != nil && sub.Put != nil {
		return nil, apierrors.NewMethodNotSupported(p.info.resource(), "apply to "+p.info.Subresource)
	}
	applied := &unstructured.Unstructured{Object: map[string]any{}}
	if err := yaml.Unmarshal(p.data, &applied.Object); err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
	}
	m, err := p.h.fieldManager(p.info)
	if err != nil {
		return nil, err
	}
	live := cur
	if live == nil {
		live = p.info.row().New()
	}
	force := p.opts.Force != nil && *p.opts.Force
	merged, err := m.Apply(live, applied, p.manager, force)
	if err != nil {
		return nil, err
	}
	obj := merged.(api.Object)
	if p.info.row().Default != nil {
		p.info.row().Default(obj)
	}
	if !p.strict() {
		return obj, nil
	}
	if err := yaml.UnmarshalStrict(p.data, &map[string]any{}); err != nil {
		if p.opts.FieldValidation == metav1.FieldValidationStrict {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("error strict decoding patch: %v", err))
		}
		for _, w := range codec.Warnings([]error{err}) {
			p.warn(w)
		}
	}
	return obj, nil
}
