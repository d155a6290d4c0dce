// Package refusal makes the status errors with which admission plugins refuse.
package refusal

import (
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/apiserver/admission"
)

// Forbidden is a 403 about the object of a write, "Unknown" when nothing names
// it. It wraps nothing: its text is for the client.
func Forbidden(a *admission.Attributes, format string, args ...any) *apierrors.StatusError {
	return apierrors.NewForbidden(a.Resource.GroupResource(), name(a), fmt.Errorf(format, args...))
}

// Unknown is an error of no particular reason, status 500: Kubernetes has it where
// a plugin refuses in plain words.
func Unknown(format string, args ...any) *apierrors.StatusError {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Reason: metav1.StatusReasonUnknown, Message: fmt.Sprintf(format, args...),
	}}
}

func name(a *admission.Attributes) string {
	if a.Name != "" {
		return a.Name
	}
	if obj, err := meta.Accessor(a.Object); err == nil {
		switch {
		case obj.GetName() != "":
			return obj.GetName()
		case obj.GetGenerateName() != "":
			return obj.GetGenerateName()
		}
	}
	return "Unknown"
}
