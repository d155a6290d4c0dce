package request

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api"
)

// A namespace has, beside its metadata's finalizers, spec.finalizers: it stays,
// terminating, until the namespace loop has emptied it and taken the last one
// away through the subresource finalize. It is the one kind of that sort.

func isNamespace(r *api.Resource) bool { return r.Group == "" && r.Plural == "namespaces" }

// heldBySpec says whether an object may not be removed yet whatever its
// metadata says.
func heldBySpec(obj api.Object) bool {
	ns, ok := obj.(*corev1.Namespace)
	return ok && len(ns.Spec.Finalizers) > 0
}

// terminate marks a held namespace as going; it reports whether that changed
// anything. obj belongs to the caller.
func terminate(obj api.Object, now metav1.Time) bool {
	ns := obj.(*corev1.Namespace)
	if !ns.DeletionTimestamp.IsZero() {
		return false
	}
	ns.DeletionTimestamp = &now
	ns.Status.Phase = corev1.NamespaceTerminating
	return true
}
