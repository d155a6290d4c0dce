package conformance

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/util/retry"
)

// statusChanges are parts of a status, by kind, that a newly made sample does not
// have and that no loop writes.
var statusChanges = map[string]string{
	"APIService":                 `conditions: [{type: Mine, status: "True"}]`,
	"CertificateSigningRequest":  `conditions: [{type: Failed, status: "True", reason: Mine}]`,
	"CronJob":                    `lastScheduleTime: "2026-01-01T00:00:00Z"`,
	"CustomResourceDefinition":   `conditions: [{type: Mine, status: "True"}]`,
	"DaemonSet":                  `collisionCount: 3`,
	"Deployment":                 `collisionCount: 3`,
	"DeviceTaintRule":            `conditions: [{type: Mine, status: "True", reason: R, message: m, lastTransitionTime: "2026-01-01T00:00:00Z"}]`,
	"FlowSchema":                 `conditions: [{type: Mine, status: "True"}]`,
	"HorizontalPodAutoscaler":    `currentReplicas: 7`,
	"Ingress":                    `loadBalancer: {ingress: [{ip: 203.0.113.8}]}`,
	"Job":                        `terminating: 0`,
	"Namespace":                  `conditions: [{type: Mine, status: "True"}]`,
	"Node":                       `volumesInUse: [mine]`,
	"PersistentVolume":           `message: mine`,
	"PersistentVolumeClaim":      `conditions: [{type: Resizing, status: "True"}]`,
	"Pod":                        `message: mine`,
	"PodCertificateRequest":      `conditions: [{type: Denied, status: "True", reason: Mine, message: m, lastTransitionTime: "2026-01-01T00:00:00Z"}]`,
	"PodDisruptionBudget":        `disruptedPods: {mine: "2026-01-01T00:00:00Z"}`,
	"PriorityLevelConfiguration": `conditions: [{type: Mine, status: "True"}]`,
	"ReplicaSet":                 `conditions: [{type: Mine, status: "True"}]`,
	"ReplicationController":      `conditions: [{type: Mine, status: "True"}]`,
	"ResourceClaim":              `allocation: {devices: {results: [{request: r, driver: example.com, pool: p, device: d}]}}`,
	"ResourceQuota":              `used: {count/gadgets.example.com: "1"}`,
	"Service":                    `conditions: [{type: Mine, status: "True", reason: R, message: m, lastTransitionTime: "2026-01-01T00:00:00Z"}]`,
	"ServiceCIDR":                `conditions: [{type: Mine, status: "True", reason: R, message: m, lastTransitionTime: "2026-01-01T00:00:00Z"}]`,
	"StatefulSet":                `collisionCount: 3`,
	"StorageVersionMigration":    `conditions: [{type: Mine, status: "True", reason: R, message: m, lastTransitionTime: "2026-01-01T00:00:00Z"}]`,
	"ValidatingAdmissionPolicy":  `conditions: [{type: Mine, status: "True", reason: R, message: m, lastTransitionTime: "2026-01-01T00:00:00Z"}]`,
	"VolumeAttachment":           `attached: true`,
}

// includes says whether got has all that want says, in lists at any place.
func includes(got, want any) bool {
	switch want := want.(type) {
	case map[string]any:
		have, _ := got.(map[string]any)
		for name := range want {
			if !includes(have[name], want[name]) {
				return false
			}
		}
		return true
	case []any:
		have, _ := got.([]any)
		for _, item := range want {
			if !slices.ContainsFunc(have, func(h any) bool { return includes(h, item) }) {
				return false
			}
		}
		return true
	}
	return fmt.Sprint(got) == fmt.Sprint(want) // numbers of two types
}

// resetByStatus are the fields that the status' door of the sample's kind leaves
// alone, by the table in api/kinds/testdata, which is Kubernetes'.
func (s sample) resetByStatus(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile("../api/kinds/testdata/resets.golden")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if fields, ok := strings.CutPrefix(line, s.GetAPIVersion()+" "+s.resource+"/status: "); ok {
			return strings.Fields(fields)
		}
	}
	t.Fatalf("resets.golden has no %s/status of %s", s.resource, s.GetAPIVersion())
	return nil
}

// subresources tries the subresources that many kinds have.
func (s sample) subresources(t *testing.T) {
	t.Helper()
	for _, r := range resources(t) {
		if r.groupVersion != s.GetAPIVersion() {
			continue
		}
		switch r.Name {
		case s.resource + "/status":
			if s.GetKind() != "CSINode" { // whose status has nothing without the alpha gate CSIVolumeHealth
				s.statusDoors(t)
			}
		case s.resource + "/scale":
			s.scaleDoor(t)
		}
	}
}

// write makes a change by PUT, again when a loop came in between.
func (s sample) write(t *testing.T, change func(u *unstructured.Unstructured), below ...string) *unstructured.Unstructured {
	t.Helper()
	var u *unstructured.Unstructured
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() (err error) {
		client := dyn.Resource(s.gvr()).Namespace(s.ns)
		if u, err = client.Get(t.Context(), s.GetName(), metav1.GetOptions{}, below...); err == nil {
			change(u)
			u, err = client.Update(t.Context(), u, metav1.UpdateOptions{}, below...)
		}
		return err
	})
	if err != nil {
		t.Fatalf("put %v: %v", below, err)
	}
	return u
}

// merge makes a change by a merge patch.
func (s sample) merge(t *testing.T, change map[string]any, below ...string) *unstructured.Unstructured {
	t.Helper()
	u, err := dyn.Resource(s.gvr()).Namespace(s.ns).Patch(t.Context(), s.GetName(), types.MergePatchType, []byte(encode(t, change)), metav1.PatchOptions{}, below...)
	if err != nil {
		t.Fatalf("patch %v: %v", below, err)
	}
	return u
}

// owned applies an object as a manager of its own, and answers with what that
// manager owns then.
func (s sample) owned(t *testing.T, manager string, object map[string]any, below ...string) string {
	t.Helper()
	u := &unstructured.Unstructured{Object: object}
	u.SetName(s.GetName())
	if u.GetKind() == "" {
		u.SetGroupVersionKind(s.GroupVersionKind())
	}
	after, err := dyn.Resource(s.gvr()).Namespace(s.ns).Apply(t.Context(), s.GetName(), u, metav1.ApplyOptions{FieldManager: manager, Force: true}, below...)
	if err != nil {
		t.Fatalf("apply to %v: %v", below, err)
	}
	// What a loop writes next may be the loop's; but a Scale names no owners.
	if after.GroupVersionKind() != s.GroupVersionKind() {
		after = s.read(t)
	}
	for _, m := range after.GetManagedFields() {
		if m.Manager == manager && m.Subresource == strings.Join(below, "/") {
			return string(m.FieldsV1.Raw)
		}
	}
	return ""
}

// statusDoors writes everything by the object's own door and by that of its
// status: each takes what is its, and makes its writers owners of that (API
// conventions, "Spec and status").
func (s sample) statusDoors(t *testing.T) {
	t.Helper()
	var status map[string]any
	if decode(t, statusChanges[s.GetKind()], &status); status == nil {
		t.Fatalf("statusChanges has nothing for %s", s.GetKind())
	}
	label := func(door string) map[string]any { return map[string]any{"labels": map[string]any{"door": door}} }
	byObject := func(how string, u *unstructured.Unstructured) {
		if u.GetLabels()["door"] != how || includes(u.Object["status"], status) {
			t.Errorf("%s to the object made labels %v, status %v", how, u.GetLabels(), u.Object["status"])
		}
	}
	byObject("patch", s.merge(t, map[string]any{"metadata": label("patch"), "status": status}))
	byObject("put", s.write(t, func(u *unstructured.Unstructured) {
		u.SetLabels(map[string]string{"by": "update", "door": "put"})
		u.Object["status"] = status
	}))
	before := s.read(t)
	read, err := dyn.Resource(s.gvr()).Namespace(s.ns).Get(t.Context(), s.GetName(), metav1.GetOptions{}, "status")
	if err != nil || read.GetUID() != before.GetUID() || read.GroupVersionKind() != s.GroupVersionKind() {
		t.Errorf("the status reads as %v, %v", read, err)
	}
	resets := s.resetByStatus(t)
	labelsStay := slices.Contains(resets, "metadata") || slices.Contains(resets, "metadata.labels")
	byStatus := func(how string, u *unstructured.Unstructured) {
		if want := map[bool]string{true: "put", false: "status-" + how}[labelsStay]; u.GetLabels()["door"] != want {
			t.Errorf("%s to the status made labels %v, want door %s", how, u.GetLabels(), want)
		}
		if !includes(u.Object["status"], status) {
			t.Errorf("%s to the status made it %v", how, u.Object["status"])
		}
		if got, want := encode(t, u.Object["spec"]), encode(t, before.Object["spec"]); got != want {
			t.Errorf("%s to the status made spec %s of %s", how, got, want)
		}
	}
	byStatus("patch", s.merge(t, map[string]any{"metadata": label("status-patch"), "spec": nil, "status": status}, "status"))
	byStatus("put", s.write(t, func(u *unstructured.Unstructured) {
		u.SetLabels(map[string]string{"by": "update", "door": "status-put"})
		delete(u.Object, "spec")
		if u.Object["status"] == nil {
			u.Object["status"] = map[string]any{}
		}
		for name, value := range status {
			u.Object["status"].(map[string]any)[name] = value
		}
	}, "status"))
	if got := s.owned(t, "object-applier", map[string]any{"metadata": label("applied"), "status": status}); strings.Contains(got, "f:status") || !strings.Contains(got, "f:door") {
		t.Errorf("who applies to the object owns %s", got)
	}
	got := s.owned(t, "status-applier", map[string]any{"metadata": label("applied"), "spec": before.Object["spec"], "status": status}, "status")
	ownsStatus := s.GetKind() != "CertificateSigningRequest" // whose conditions are its other door's
	if strings.Contains(got, "f:spec") || strings.Contains(got, "f:door") == labelsStay || strings.Contains(got, "f:status") != ownsStatus {
		t.Errorf("who applies to the status owns %s", got)
	}
}

// scaleDoor changes the number of replicas and nothing else ("Scale").
func (s sample) scaleDoor(t *testing.T) {
	t.Helper()
	scale := s.write(t, func(u *unstructured.Unstructured) {
		u.SetLabels(map[string]string{"door": "scale"})
		u.Object["spec"], u.Object["status"] = map[string]any{"replicas": int64(1)}, map[string]any{"replicas": int64(9)}
	}, "scale")
	after := s.read(t)
	if scale.GroupVersionKind() != (schema.GroupVersionKind{Group: "autoscaling", Version: "v1", Kind: "Scale"}) || scale.GetUID() != after.GetUID() || field(scale, "spec", "replicas") != "1" {
		t.Errorf("scale is %v", scale)
	}
	if field(after, "spec", "replicas") != "1" || after.GetLabels()["door"] == "scale" || field(after, "status", "replicas") == "9" {
		t.Errorf("a put to the scale made %v", after)
	}
	scale = s.merge(t, map[string]any{"spec": map[string]any{"replicas": 0}, "status": map[string]any{"replicas": 9}}, "scale") // 0 is left out
	if field(scale, "spec", "replicas") != "" || field(scale, "status", "replicas") == "9" {
		t.Errorf("a patch to the scale made it %v", scale)
	}
	got := s.owned(t, "scale-applier", map[string]any{"apiVersion": "autoscaling/v1", "kind": "Scale", "spec": map[string]any{"replicas": 0}}, "scale")
	if got != `{"f:spec":{"f:replicas":{}}}` {
		t.Errorf("who applies to the scale owns %s", got)
	}
}

// patches changes the sample by the two other kinds of patches.
func (s sample) patches(t *testing.T) {
	t.Helper()
	for how, body := range map[types.PatchType]string{
		types.JSONPatchType:           `[{"op": "test", "path": "/metadata/labels/by", "value": "update"}, {"op": "add", "path": "/metadata/labels/patched", "value": "yes"}]`,
		types.StrategicMergePatchType: `{"metadata":{"annotations":{"test.dev/patched":"yes"}}}`,
	} {
		u, err := dyn.Resource(s.gvr()).Namespace(s.ns).Patch(t.Context(), s.GetName(), how, []byte(body), metav1.PatchOptions{})
		if err != nil || u.GetLabels()["patched"] != "yes" && u.GetAnnotations()["test.dev/patched"] != "yes" {
			t.Errorf("%s: %v, %v", how, u, err)
		}
	}
	if u := s.read(t); u.GetLabels()["patched"] != "yes" || u.GetAnnotations()["test.dev/patched"] != "yes" {
		t.Errorf("of the patches stay labels %v, annotations %v", u.GetLabels(), u.GetAnnotations())
	}
}

// dryRuns answer as if they had written ("Dry-run").
func (s sample) dryRuns(t *testing.T) {
	t.Helper()
	client, ctx, dry := dyn.Resource(s.gvr()).Namespace(s.ns), t.Context(), []string{metav1.DryRunAll}
	for how, try := range map[string]func() (*unstructured.Unstructured, error){
		"update": func() (u *unstructured.Unstructured, err error) {
			err = retry.RetryOnConflict(retry.DefaultBackoff, func() error {
				u = s.read(t)
				u.SetLabels(map[string]string{"dry": "run"})
				u, err = client.Update(ctx, u, metav1.UpdateOptions{DryRun: dry})
				return err
			})
			return u, err
		},
		"patch": func() (*unstructured.Unstructured, error) {
			return client.Patch(ctx, s.GetName(), types.MergePatchType, []byte(`{"metadata":{"labels":{"dry":"run"}}}`), metav1.PatchOptions{DryRun: dry})
		},
		"apply": func() (*unstructured.Unstructured, error) {
			u := &unstructured.Unstructured{Object: map[string]any{}}
			u.SetGroupVersionKind(s.GroupVersionKind())
			u.SetName(s.GetName())
			u.SetLabels(map[string]string{"dry": "run"})
			return client.Apply(ctx, s.GetName(), u, metav1.ApplyOptions{FieldManager: "dry", DryRun: dry})
		},
	} {
		if u, err := try(); err != nil || u.GetLabels()["dry"] != "run" {
			t.Errorf("%s as a dry run: %v, %v", how, u, err)
		}
	}
	if err := client.Delete(ctx, s.GetName(), metav1.DeleteOptions{DryRun: dry}); err != nil {
		t.Errorf("delete as a dry run: %v", err)
	}
	if u := s.read(t); u.GetLabels()["dry"] != "" || u.GetDeletionTimestamp() != nil || strings.Contains(owners(u), "dry") {
		t.Errorf("after dry runs the object is %v", u)
	}
}

// deletedAsObjects are the kinds whose deletion answers with the object, as
// Kubernetes' stores with ReturnDeletedObject.
var deletedAsObjects = sets.New("Namespace", "PersistentVolume", "PersistentVolumeClaim", "Pod", "PodTemplate", "ResourceQuota", "Service", "ServiceAccount",
	"DeviceClass", "ResourceClaim", "ResourceClaimTemplate", "ResourceSlice", "CSIDriver", "CSINode", "StorageClass", "VolumeAttachment", "VolumeAttributesClass")

// deleteAlone makes the sample and deletes it by its name.
func (s sample) deleteAlone(t *testing.T) {
	t.Helper()
	made := admin.want(t, http.StatusCreated, call{method: "POST", path: s.path(), body: encode(t, s.Object)}, nil).object(t)
	a := admin.want(t, http.StatusOK, call{method: "DELETE", path: s.path(s.GetName())}, nil)
	if u := a.object(t); u.GetKind() == s.GetKind() {
		if !deletedAsObjects.Has(s.GetKind()) && u.GetDeletionTimestamp() == nil || u.GetUID() != made.GetUID() {
			t.Errorf("deletion answers with %s", a.body)
		}
		return
	}
	status := a.status(t)
	if d := status.Details; deletedAsObjects.Has(s.GetKind()) || status.Status != metav1.StatusSuccess || d == nil || d.Name != s.GetName() || d.Kind != s.resource || d.Group != s.GroupVersionKind().Group || d.UID != made.GetUID() {
		t.Errorf("deletion answers with %s", a.body)
	}
}
