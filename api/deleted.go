package api

import (
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
)

// ShowsDeleted says that deletion answers with the object, as few kinds' does;
// that of all others answers with a Status.
func ShowsDeleted(gr schema.GroupResource) bool { return showsDeleted.Has(gr) }

var showsDeleted = sets.New(
	schema.GroupResource{Resource: "namespaces"},
	schema.GroupResource{Resource: "persistentvolumeclaims"},
	schema.GroupResource{Resource: "persistentvolumes"},
	schema.GroupResource{Resource: "pods"},
	schema.GroupResource{Resource: "podtemplates"},
	schema.GroupResource{Resource: "resourcequotas"},
	schema.GroupResource{Resource: "serviceaccounts"},
	schema.GroupResource{Resource: "services"},
	schema.GroupResource{Group: "resource.k8s.io", Resource: "deviceclasses"},
	schema.GroupResource{Group: "resource.k8s.io", Resource: "resourceclaims"},
	schema.GroupResource{Group: "resource.k8s.io", Resource: "resourceclaimtemplates"},
	schema.GroupResource{Group: "resource.k8s.io", Resource: "resourceslices"},
	schema.GroupResource{Group: "storage.k8s.io", Resource: "csidrivers"},
	schema.GroupResource{Group: "storage.k8s.io", Resource: "csinodes"},
	schema.GroupResource{Group: "storage.k8s.io", Resource: "storageclasses"},
	schema.GroupResource{Group: "storage.k8s.io", Resource: "volumeattachments"},
	schema.GroupResource{Group: "storage.k8s.io", Resource: "volumeattributesclasses"},
)
