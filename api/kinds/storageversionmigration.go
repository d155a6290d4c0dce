package kinds

import (
	"slices"
	"strings"
	"time"

	storagemigrationv1 "k8s.io/api/storagemigration/v1"
	storagemigrationv1beta1 "k8s.io/api/storagemigration/v1beta1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hansa.dev/hansa/api"
)

func storageVersionMigration() *api.Resource {
	gv := storagemigrationv1.SchemeGroupVersion
	row := stored[storagemigrationv1.StorageVersionMigration, *storagemigrationv1.StorageVersionMigration, storagemigrationv1.StorageVersionMigrationList](gv, &api.Resource{
		Plural:     "storageversionmigrations",
		Singular:   "storageversionmigration",
		Kind:       "StorageVersionMigration",
		Prefix:     "storageversionmigrations",
		ChecksBase: true,
		PrepareCreate: on(func(m *storagemigrationv1.StorageVersionMigration) {
			m.Status = storagemigrationv1.StorageVersionMigrationStatus{}
		}),
		PrepareUpdate: onUpdate(func(m, old *storagemigrationv1.StorageVersionMigration) { m.Status = *old.Status.DeepCopy() }),
		Validate:      validates(validateMigration),
		ValidateUpdate: validatesUpdate(func(m, old *storagemigrationv1.StorageVersionMigration) field.ErrorList {
			return append(validateMigration(m), unchanged(m.Spec, old.Spec, field.NewPath("spec"))...)
		}),
		ResetFields: resets(gv, "status"),
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				column("Name", "string", objectMeta["name"]),
				column("Resource", "string", "GroupResource to migrate"),
				column("Status", "string", "Status of the migration"),
			},
			Row: cells(migrationCells),
		},
		Subresources: map[string]*api.Subresource{
			"status": {
				Verbs: updateVerbs,
				PrepareUpdate: onUpdate(func(m, old *storagemigrationv1.StorageVersionMigration) {
					m.Spec = old.Spec
					keepMeta(m, old)
				}),
				ValidateUpdate: validatesUpdate(validateMigrationStatus),
				ResetFields:    resets(gv, "metadata", "spec"),
			},
		},
	})
	return storedAs[storagemigrationv1beta1.StorageVersionMigration, storagemigrationv1.StorageVersionMigration](storagemigrationv1beta1.SchemeGroupVersion, row)
}

func migrationCells(m *storagemigrationv1.StorageVersionMigration, _ time.Time) []any {
	shown := []string{string(storagemigrationv1.MigrationRunning), string(storagemigrationv1.MigrationSucceeded), string(storagemigrationv1.MigrationFailed)}
	state := "Unknown"
	for _, c := range m.Status.Conditions {
		if c.Status == metav1.ConditionTrue && slices.Contains(shown, c.Type) {
			state = c.Type
		}
	}
	return []any{m.Name, m.Spec.Resource.String(), state}
}

func validateMigration(m *storagemigrationv1.StorageVersionMigration) field.ErrorList {
	var errs field.ErrorList
	path, gr := field.NewPath("spec", "resource"), m.Spec.Resource
	if gr.Resource == "" {
		errs = append(errs, field.Required(path.Child("resource"), "resource is required to be set"))
	} else if msgs := validation.IsDNS1035Label(gr.Resource); len(msgs) > 0 {
		errs = append(errs, field.Invalid(path.Child("resource"), gr.Resource, strings.Join(msgs, ",")))
	}
	if gr.Group != "" {
		if msgs := validation.IsDNS1123Subdomain(gr.Group); len(msgs) > 0 {
			errs = append(errs, field.Invalid(path.Child("group"), gr.Group, strings.Join(msgs, ",")))
		}
	}
	return errs
}

func validateMigrationStatus(m, old *storagemigrationv1.StorageVersionMigration) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("status")
	version, conditions := path.Child("resourceVersion"), path.Child("conditions")
	if v := m.Status.ResourceVersion; v != "" {
		if _, err := resourceversion.CompareResourceVersion(v, v); err != nil {
			errs = append(errs, field.Invalid(version, v, err.Error()))
		}
	}
	errs = append(errs, metav1validation.ValidateConditions(m.Status.Conditions, conditions)...)
	if old.Status.ResourceVersion != "" && old.Status.ResourceVersion != m.Status.ResourceVersion {
		errs = append(errs, field.Invalid(version, m.Status.ResourceVersion, "field is immutable"))
	}
	is := func(m *storagemigrationv1.StorageVersionMigration, kind storagemigrationv1.MigrationConditionType) bool {
		return meta.IsStatusConditionTrue(m.Status.Conditions, string(kind))
	}
	const succeeded, failed = storagemigrationv1.MigrationSucceeded, storagemigrationv1.MigrationFailed
	flaw := func(detail string) { errs = append(errs, field.Invalid(conditions, m.Status.Conditions, detail)) }
	if is(m, succeeded) && is(m, failed) {
		flaw("Both success and failed conditions cannot be true at the same time")
	}
	if is(old, succeeded) && !is(m, succeeded) {
		flaw("Success condition cannot be set to false once it is true")
	}
	if is(old, failed) && !is(m, failed) {
		flaw("Failed condition cannot be set to false once it is true")
	}
	return errs
}
