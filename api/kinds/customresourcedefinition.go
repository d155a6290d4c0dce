package kinds

import (
	"slices"
	"strings"
	"time"

	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
)

// customResourceDefinition is the row of definitions; the rows that they define
// are made in apiserver/custom. Definitions are validated by a rule of the
// server: the library that does it links too much for a row.
func customResourceDefinition() *api.Resource {
	gv := apiextensionsv1.SchemeGroupVersion
	return stored[apiextensionsv1.CustomResourceDefinition, *apiextensionsv1.CustomResourceDefinition, apiextensionsv1.CustomResourceDefinitionList](gv, &api.Resource{
		Plural:       "customresourcedefinitions",
		Singular:     "customresourcedefinition",
		Kind:         "CustomResourceDefinition",
		ShortNames:   []string{"crd", "crds"},
		Categories:   []string{"api-extensions"},
		Prefix:       "apiextensions.k8s.io/customresourcedefinitions",
		AnyFinalizer: true,
		Default:      on(defaultDefinition),
		PrepareCreate: on(func(d *apiextensionsv1.CustomResourceDefinition) {
			d.Status = apiextensionsv1.CustomResourceDefinitionStatus{}
			d.Generation = 1
			noteStoredVersion(d)
		}),
		PrepareDelete: terminateDefinition,
		PrepareUpdate: onUpdate(func(d, old *apiextensionsv1.CustomResourceDefinition) {
			d.Status = *old.Status.DeepCopy()
			countChange(d, old, d.Spec, old.Spec)
			noteStoredVersion(d)
		}),
		ResetFields: resets(gv, "status"),
		// The schemas, which are much, are the same in all states of a definition.
		Common: &api.Part{
			Number: 2,
			Of: func(obj api.Object) interface{ Unmarshal([]byte) error } {
				return &obj.(*apiextensionsv1.CustomResourceDefinition).Spec
			},
		},
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				column("Scope", "string", "Cluster/Namespaced"),
				column("Versions", "string", "Served versions"),
				column("Created At", "date", objectMeta["creationTimestamp"]),
				wideColumn("Group", "string", "API group"),
				wideColumn("Kind", "string", "CustomResource kind"),
				wideColumn("ShortNames", "string", "Short names"),
				wideColumn("Established", "boolean", "Established status"),
			},
			Row: cells(definitionCells),
		},
		Subresources: map[string]*api.Subresource{
			"status": {
				Verbs: updateVerbs,
				PrepareUpdate: onUpdate(func(d, old *apiextensionsv1.CustomResourceDefinition) {
					d.Spec = *old.Spec.DeepCopy()
					metav1.ResetObjectMetaForStatus(&d.ObjectMeta, &d.ObjectMeta)
				}),
				// It is checked by a rule, as the whole is.
				ValidateUpdate: func(_, _ api.Object) field.ErrorList { return nil },
				ResetFields:    resets(gv, "spec"),
			},
		},
	})
}

func defaultDefinition(d *apiextensionsv1.CustomResourceDefinition) {
	names := &d.Spec.Names
	if names.Singular == "" {
		names.Singular = strings.ToLower(names.Kind)
	}
	if names.ListKind == "" && names.Kind != "" {
		names.ListKind = names.Kind + "List"
	}
	if d.Spec.Conversion == nil {
		d.Spec.Conversion = &apiextensionsv1.CustomResourceConversion{Strategy: apiextensionsv1.NoneConverter}
	}
	if w := d.Spec.Conversion.Webhook; w != nil && w.ClientConfig != nil && w.ClientConfig.Service != nil && w.ClientConfig.Service.Port == nil {
		w.ClientConfig.Service.Port = ptr.To[int32](443)
	}
	if len(d.Status.StoredVersions) == 0 {
		noteStoredVersion(d)
	}
}

// noteStoredVersion keeps status.storedVersions: all versions that objects may
// be stored in. Who has migrated them takes the old ones away.
func noteStoredVersion(d *apiextensionsv1.CustomResourceDefinition) {
	for _, v := range d.Spec.Versions {
		if v.Storage {
			if !slices.Contains(d.Status.StoredVersions, v.Name) {
				d.Status.StoredVersions = append(d.Status.StoredVersions, v.Name)
			}
			return
		}
	}
}

// terminateDefinition has a definition wait until nothing is left of what it
// defines.
func terminateDefinition(obj api.Object, now time.Time) {
	d, at := obj.(*apiextensionsv1.CustomResourceDefinition), metav1.NewTime(now)
	d.DeletionTimestamp = &at
	if !apihelpers.CRDHasFinalizer(d, apiextensionsv1.CustomResourceCleanupFinalizer) {
		d.Finalizers = append(d.Finalizers, apiextensionsv1.CustomResourceCleanupFinalizer)
	}
	SetDefinitionCondition(d, apiextensionsv1.CustomResourceDefinitionCondition{
		Type:    apiextensionsv1.Terminating,
		Status:  apiextensionsv1.ConditionTrue,
		Reason:  "InstanceDeletionPending",
		Message: "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
	}, at)
}

// SetDefinitionCondition sets one condition of a definition that the caller
// owns. The time of a condition is when its status changed.
func SetDefinitionCondition(d *apiextensionsv1.CustomResourceDefinition, c apiextensionsv1.CustomResourceDefinitionCondition, now metav1.Time) {
	c.LastTransitionTime = now
	for i := range d.Status.Conditions {
		had := &d.Status.Conditions[i]
		if had.Type != c.Type {
			continue
		}
		if had.Status == c.Status && !had.LastTransitionTime.IsZero() {
			c.LastTransitionTime = had.LastTransitionTime
		}
		*had = c
		return
	}
	d.Status.Conditions = append(d.Status.Conditions, c)
}

func definitionCells(d *apiextensionsv1.CustomResourceDefinition, _ time.Time) []any {
	var versions []string
	for _, v := range d.Spec.Versions {
		if !v.Served {
			continue
		}
		name := v.Name
		if v.Storage {
			name += "(storage)"
		}
		versions = append(versions, name)
	}
	slices.Sort(versions)
	return []any{
		d.Name, string(d.Spec.Scope), strings.Join(versions, ","), d.CreationTimestamp.UTC().Format(time.RFC3339),
		d.Spec.Group, d.Spec.Names.Kind, strings.Join(d.Spec.Names.ShortNames, ","),
		apihelpers.IsCRDConditionTrue(d, apiextensionsv1.Established),
	}
}
