package namespacelifecycle_test

import (
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/admission/admissiontest"
	"hansa.dev/hansa/apiserver/admission/namespacelifecycle"
	"hansa.dev/hansa/apiserver/auth/authtest"
)

func TestPlugin(t *testing.T) {
	namespace := func(name string, phase corev1.NamespacePhase) *corev1.Namespace {
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NamespaceStatus{Phase: phase}}
	}
	config := func(namespace string) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "c"}}
	}
	view := authtest.New(t, namespace("good", corev1.NamespaceActive), namespace("going", corev1.NamespaceTerminating))
	p := namespacelifecycle.New(view.Registry, view)
	reg := view.Registry
	local := &authorizationv1.LocalSubjectAccessReview{ObjectMeta: metav1.ObjectMeta{Namespace: "gone"}}
	const terminating = `configmaps "c" is forbidden: unable to create new content in namespace going because it is being terminated`
	for _, c := range []struct {
		name  string
		write *admission.Attributes
		code  int32
		want  string
	}{
		{"into an active one", admissiontest.Create(reg, nil, config("good")), 0, ""},
		{"into a terminating one", admissiontest.Create(reg, nil, config("going")), 403, terminating},
		{"into none", admissiontest.Create(reg, nil, config("gone")), 404, `namespaces "gone" not found`},
		{"update in a terminating one", admissiontest.Update(reg, nil, config("going"), config("going")), 0, ""},
		{"delete in a terminating one", admissiontest.Delete(reg, nil, config("going")), 0, ""},
		{"a node", admissiontest.Create(reg, nil, &corev1.Node{}), 0, ""},
		{"a new namespace", admissiontest.Create(reg, nil, namespace("new", "")), 0, ""},
		{"a question about none", admissiontest.Create(reg, nil, local), 0, ""},
		{"delete one", admissiontest.Delete(reg, nil, namespace("good", "")), 0, ""},
		{"delete default", admissiontest.Delete(reg, nil, namespace("default", "")), 403, `namespaces "default" is forbidden: this namespace may not be deleted`},
		{"delete kube-system", admissiontest.Delete(reg, nil, namespace("kube-system", "")), 403, `namespaces "kube-system" is forbidden: this namespace may not be deleted`},
		{"delete kube-public", admissiontest.Delete(reg, nil, namespace("kube-public", "")), 403, `namespaces "kube-public" is forbidden: this namespace may not be deleted`},
		{"delete kube-node-lease", admissiontest.Delete(reg, nil, namespace("kube-node-lease", "")), 403, `namespaces "kube-node-lease" is forbidden: this namespace may not be deleted`},
	} {
		admissiontest.Expect(t, c.name, p, c.write, c.code, c.want)
	}
	// Clients look for this cause (apierrors.HasStatusCause).
	err := admissiontest.Run(t.Context(), p, admissiontest.Create(reg, nil, config("going")))
	if !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		t.Errorf("no cause: %#v", err)
	}
}
