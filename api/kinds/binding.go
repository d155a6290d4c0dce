package kinds

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/pod"
)

// request describes a kind that is only ever posted: it has no storage, and
// the server answers it with the object posted.
func request[T any, PT interface {
	*T
	api.Object
}](gv schema.GroupVersion, r *api.Resource) *api.Resource {
	r.Group = gv.Group
	r.Storage = gv
	r.Verbs = []string{"create"}
	r.New = func() api.Object { return PT(new(T)) }
	r.Versions = []api.Version{{GroupVersion: gv, New: r.New}}
	return r
}

// binding is the old way to bind a pod: the pod has the binding's name. What it
// means is said by the "binding" subresource of pods.
func binding() *api.Resource {
	return request[corev1.Binding](corev1.SchemeGroupVersion, &api.Resource{
		Plural:     "bindings",
		Singular:   "binding",
		Kind:       "Binding",
		Namespaced: true,
		Validate:   validates(pod.ValidateBinding),
	})
}
