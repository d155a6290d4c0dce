package main

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	v1 "hansa.dev/hansa/examples/operator/api/v1"
)

// defaultImage is the operator's own: it can greet, too.
const defaultImage = "hansa.local/operator:1"

// maxReplicas is more than anybody needs.
const maxReplicas = 10

// webhooks fills in and checks Greeters. Where they are converted from one version
// to another is in the api packages; the manager serves that as well.
type webhooks struct{}

func addWebhooks(m ctrl.Manager) error {
	return ctrl.NewWebhookManagedBy(m, &v1.Greeter{}).WithDefaulter(webhooks{}).WithValidator(webhooks{}).Complete()
}

// Default implements admission.Defaulter.
func (webhooks) Default(_ context.Context, g *v1.Greeter) error {
	if g.Spec.Replicas == nil {
		g.Spec.Replicas = new(int32(1))
	}
	if g.Spec.Image == "" {
		g.Spec.Image = defaultImage
	}
	return nil
}

// ValidateCreate implements admission.Validator.
func (webhooks) ValidateCreate(_ context.Context, g *v1.Greeter) (admission.Warnings, error) {
	var errs field.ErrorList
	spec := field.NewPath("spec")
	if g.Spec.Text == "" {
		errs = append(errs, field.Required(spec.Child("text"), "a greeter must have something to say"))
	}
	if n := *g.Spec.Replicas; n < 0 || n > maxReplicas {
		errs = append(errs, field.Invalid(spec.Child("replicas"), n, "must be between 0 and 10"))
	}
	if len(errs) > 0 {
		return nil, apierrors.NewInvalid(v1.GroupVersion.WithKind("Greeter").GroupKind(), g.Name, errs)
	}
	if *g.Spec.Replicas == 0 {
		return admission.Warnings{"spec.replicas: nobody will answer"}, nil
	}
	return nil, nil
}

// ValidateUpdate implements admission.Validator.
func (w webhooks) ValidateUpdate(ctx context.Context, _, g *v1.Greeter) (admission.Warnings, error) {
	if g.DeletionTimestamp != nil {
		return nil, nil // it must be able to go
	}
	return w.ValidateCreate(ctx, g)
}

// ValidateDelete implements admission.Validator.
func (webhooks) ValidateDelete(context.Context, *v1.Greeter) (admission.Warnings, error) {
	return nil, nil
}
