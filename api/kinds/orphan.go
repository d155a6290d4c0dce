package kinds

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api"
)

// orphanIndex finds the objects of a namespace that a selector may adopt: those
// without a controller.
func orphanIndex() api.Index {
	return api.Index{Name: api.IndexOrphan, Values: func(obj api.Object) []string {
		if metav1.GetControllerOfNoCopy(obj) != nil {
			return nil
		}
		return []string{obj.GetNamespace()}
	}}
}
