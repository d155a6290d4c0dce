// Package migration brings stored objects into the form in which they would be
// written now, for StorageVersionMigrations.
package migration

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	storagemigrationv1 "k8s.io/api/storagemigration/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/controller"
)

// patience is how long a kind may take to be defined.
const patience = time.Minute

// Loop is the migrator. Its keys are the names of migrations.
type Loop struct {
	client      client.Interface
	migrations  *api.Resource
	definitions *api.Resource
}

// New makes the loop; it acts as the client's identity.
func New(c client.Interface) *Loop {
	return &Loop{
		client:      c,
		migrations:  c.Registry().Must("storagemigration.k8s.io", "storageversionmigrations"),
		definitions: c.Registry().Must(apiextensionsv1.GroupName, "customresourcedefinitions"),
	}
}

// Name is the loop's identity.
func (l *Loop) Name() string { return "storage-version-migrator-controller" }

// Sources are the migrations.
func (l *Loop) Sources() []controller.Source { return []controller.Source{{Resource: l.migrations}} }

// Step carries out one migration: every object that there is, is written as it is.
// What is written meanwhile by others is in the form of now already.
func (l *Loop) Step(ctx context.Context, key api.Key, now time.Time) (time.Duration, error) {
	m, ok := l.client.View().Get(l.migrations, key).(*storagemigrationv1.StorageVersionMigration)
	if !ok || ended(m) {
		return 0, nil
	}
	next := m.DeepCopy()
	r := l.resource(m.Spec.Resource)
	switch {
	case r == nil && now.Before(m.CreationTimestamp.Add(patience)):
		return time.Second, nil
	case r == nil:
		return 0, l.end(ctx, next, storagemigrationv1.MigrationFailed, "resource does not exist in discovery", now)
	case !r.Offers("patch"):
		return 0, l.end(ctx, next, storagemigrationv1.MigrationFailed, fmt.Sprintf("resource %q does not support discovery operations: [list patch]", r.GroupResource()), now)
	}
	if !meta.IsStatusConditionTrue(m.Status.Conditions, string(storagemigrationv1.MigrationRunning)) {
		set(next, storagemigrationv1.MigrationRunning, "MigrationRunning", "The migration is running", now)
		next.Status.ResourceVersion = m.ResourceVersion
		return 0, l.update(ctx, next)
	}
	definition, _ := l.client.View().Get(l.definitions, api.Key{Name: r.Plural + "." + r.Group}).(*apiextensionsv1.CustomResourceDefinition)
	if err := l.rewrite(ctx, r); err != nil {
		if apierrors.IsInvalid(err) || apierrors.IsForbidden(err) {
			return 0, l.end(ctx, next, storagemigrationv1.MigrationFailed, err.Error(), now)
		}
		return 0, err
	}
	if definition != nil && r.View != nil {
		if err := l.settle(ctx, definition); err != nil {
			return 0, err
		}
	}
	return 0, l.end(ctx, next, storagemigrationv1.MigrationSucceeded, "Migration completed", now)
}

func ended(m *storagemigrationv1.StorageVersionMigration) bool {
	return meta.IsStatusConditionTrue(m.Status.Conditions, string(storagemigrationv1.MigrationSucceeded)) ||
		meta.IsStatusConditionTrue(m.Status.Conditions, string(storagemigrationv1.MigrationFailed))
}

// resource finds what is to be migrated, or nil.
func (l *Loop) resource(gr metav1.GroupResource) *api.Resource {
	for _, r := range l.client.Registry().Resources() {
		if r.Group == gr.Group && r.Plural == gr.Resource && r.Prefix != "" {
			return r
		}
	}
	return nil
}

// rewrite writes all objects of a resource as they are.
func (l *Loop) rewrite(ctx context.Context, r *api.Resource) error {
	var all []api.Object
	for o := range l.client.View().List(r, "") {
		all = append(all, o)
	}
	return controller.AtOnce(ctx, len(all), func(ctx context.Context, i int) error {
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": all[i].GetUID(), "resourceVersion": all[i].GetResourceVersion()}})
		if err != nil {
			return err
		}
		_, err = l.client.Patch(ctx, api.RefTo(r, all[i]), types.MergePatchType, patch, metav1.PatchOptions{}, "")
		if err == nil || apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
			return nil // or somebody else has written it, or taken it away
		}
		return fmt.Errorf("migrate %s: %w", api.RefTo(r, all[i]), err)
	})
}

// settle notes that a definition's objects are in the one version that is stored
// now, unless the definition has changed since.
func (l *Loop) settle(ctx context.Context, d *apiextensionsv1.CustomResourceDefinition) error {
	var stored []string
	for _, v := range d.Spec.Versions {
		if v.Storage {
			stored = append(stored, v.Name)
		}
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": d.UID, "resourceVersion": d.ResourceVersion},
		"status":   map[string]any{"storedVersions": stored},
	})
	if err != nil {
		return err
	}
	if _, err := l.client.Patch(ctx, api.RefTo(l.definitions, d), types.MergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
		return fmt.Errorf("note the stored version of %s: %w", d.Name, err)
	}
	return nil
}

func set(m *storagemigrationv1.StorageVersionMigration, kind storagemigrationv1.MigrationConditionType, reason, message string, now time.Time) {
	meta.SetStatusCondition(&m.Status.Conditions, metav1.Condition{
		Type: string(kind), Status: metav1.ConditionTrue, Reason: reason, Message: message, LastTransitionTime: metav1.NewTime(now.Truncate(time.Second)),
	})
}

func (l *Loop) end(ctx context.Context, m *storagemigrationv1.StorageVersionMigration, kind storagemigrationv1.MigrationConditionType, message string, now time.Time) error {
	set(m, kind, "StorageVersionMigration"+string(kind), message, now)
	return l.update(ctx, m)
}

func (l *Loop) update(ctx context.Context, m *storagemigrationv1.StorageVersionMigration) error {
	if _, err := l.client.Update(ctx, l.migrations, m, "status"); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("update status of migration %s: %w", m.Name, err)
	}
	return nil
}
