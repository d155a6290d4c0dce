package conformance

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// kustomization keeps a set of objects as it is declared, the way Flux does (its
// documentation, "Kustomization", and its package ssa): definitions and namespaces
// first, drift found by a dry run of applying, what has left the set pruned by an
// inventory, fields that others declared before taken over.
type kustomization struct {
	t        *testing.T
	name, ns string // of the owner; its inventory is a ConfigMap of that name
}

const (
	fluxManager   = "kustomize-controller"
	fluxName      = "kustomize.toolkit.fluxcd.io/name"
	fluxNamespace = "kustomize.toolkit.fluxcd.io/namespace"
	fluxPrune     = "kustomize.toolkit.fluxcd.io/prune"
	fluxForce     = "kustomize.toolkit.fluxcd.io/force"
	lastApplied   = "kubectl.kubernetes.io/last-applied-configuration"
)

// parse reads a stream of manifests.
func parse(t *testing.T, manifests string) (set []*unstructured.Unstructured) {
	t.Helper()
	for _, doc := range strings.Split(manifests, "\n---\n") {
		u := &unstructured.Unstructured{}
		decode(t, doc, &u.Object)
		set = append(set, u)
	}
	return set
}

// of is where an object of a set is written; it gets the namespace if it has none
// and needs one.
func of(t *testing.T, u *unstructured.Unstructured, ns string) dynamic.ResourceInterface {
	t.Helper()
	var list metav1.APIResourceList // as it is now: definitions come and go
	admin.want(t, 200, call{path: strings.TrimSuffix(under(u.GetAPIVersion(), "", ""), "/")}, &list)
	for _, r := range list.APIResources {
		if r.Kind != u.GetKind() || strings.Contains(r.Name, "/") {
			continue
		}
		client := dyn.Resource(u.GroupVersionKind().GroupVersion().WithResource(r.Name))
		if !r.Namespaced {
			return client
		}
		u.SetNamespace(cmp.Or(u.GetNamespace(), ns))
		return client.Namespace(u.GetNamespace())
	}
	t.Fatalf("discovery has no %s of %s", u.GetKind(), u.GetAPIVersion())
	return nil
}

// first says whether others of a set may need an object to be there.
func first(u *unstructured.Unstructured) bool {
	return slices.Contains([]string{"CustomResourceDefinition", "Namespace"}, u.GetKind())
}

// reconcile brings the set about and answers with what it did to each, in order:
// "created Kind name", or configured, unchanged, recreated, pruned.
func (k *kustomization) reconcile(manifests string) (did []string) {
	k.t.Helper()
	set := parse(k.t, manifests)
	inventory := map[string]any{}
	for _, stage := range []bool{true, false} {
		for _, u := range set {
			if first(u) == stage {
				did = append(did, fmt.Sprintf("%s %s %s", k.keep(u), u.GetKind(), u.GetName()))
				gvk := u.GroupVersionKind()
				inventory[strings.Join([]string{u.GetNamespace(), u.GetName(), gvk.Group, gvk.Kind}, "_")] = gvk.Version
			}
		}
		for _, u := range set {
			if first(u) == stage {
				k.await(u)
			}
		}
	}
	return append(did, k.prune(inventory)...)
}

// changes reconciles and answers with what was not unchanged.
func (k *kustomization) changes(manifests string) []string {
	k.t.Helper()
	return slices.DeleteFunc(k.reconcile(manifests), func(line string) bool { return strings.HasPrefix(line, "unchanged ") })
}

// keep brings one object about.
func (k *kustomization) keep(u *unstructured.Unstructured) string {
	k.t.Helper()
	client := of(k.t, u, k.ns)
	u.SetLabels(merged(u.GetLabels(), map[string]string{fluxName: k.name, fluxNamespace: k.ns}))
	live, err := client.Get(k.t.Context(), u.GetName(), metav1.GetOptions{})
	if err == nil {
		live = k.adopt(client, live)
	} else if !apierrors.IsNotFound(err) {
		k.t.Fatal(err)
	}
	dry, err := client.Apply(k.t.Context(), u.GetName(), u, applyAs(fluxManager, true))
	switch {
	case apierrors.IsInvalid(err) && u.GetAnnotations()[fluxForce] == "enabled":
		removeLive(k.t, client, live)
		k.apply(client, u)
		return "recreated"
	case err != nil:
		k.t.Fatalf("dry run of %s %s: %v", u.GetKind(), u.GetName(), err)
	case live == nil || live.GetUID() == "":
		k.apply(client, u)
		return "created"
	case drifted(live, dry):
		k.apply(client, u)
		return "configured"
	}
	return "unchanged"
}

func (k *kustomization) apply(client dynamic.ResourceInterface, u *unstructured.Unstructured) {
	k.t.Helper()
	if _, err := client.Apply(k.t.Context(), u.GetName(), u, applyAs(fluxManager, false)); err != nil {
		k.t.Fatalf("apply %s %s: %v", u.GetKind(), u.GetName(), err)
	}
}

// applyAs is how controllers apply: conflicts are theirs to win.
func applyAs(manager string, dry bool) metav1.ApplyOptions {
	o := metav1.ApplyOptions{FieldManager: manager, Force: true}
	if dry {
		o.DryRun = []string{metav1.DryRunAll}
	}
	return o
}

// adopt makes what kubectl and Helm declared ours, as if we had always applied it:
// what leaves the set later then leaves the object (Flux's package ssa, "patch
// replace fields managers"). It returns the object as it is now.
func (k *kustomization) adopt(client dynamic.ResourceInterface, live *unstructured.Unstructured) *unstructured.Unstructured {
	k.t.Helper()
	var kept []metav1.ManagedFieldsEntry
	ours := metav1.ManagedFieldsEntry{Manager: fluxManager, Operation: metav1.ManagedFieldsOperationApply, APIVersion: live.GetAPIVersion(), FieldsType: "FieldsV1", Time: new(metav1.Time)}
	all, found := fieldpath.NewSet(), false
	for _, m := range live.GetManagedFields() {
		theirs := slices.Contains([]string{"kubectl", "kubectl-client-side-apply", "kubectl-create", "before-first-apply", "helm"}, m.Manager) && m.Subresource == ""
		if !theirs && (m.Manager != fluxManager || m.Operation != metav1.ManagedFieldsOperationApply) {
			kept = append(kept, m)
			continue
		}
		var fields fieldpath.Set
		if err := fields.FromJSON(bytes.NewReader(m.FieldsV1.Raw)); err != nil {
			k.t.Fatal(err)
		}
		all, found = all.Union(&fields), found || theirs
	}
	var ops []map[string]any
	if found {
		raw, err := all.ToJSON()
		if err != nil {
			k.t.Fatal(err)
		}
		now := metav1.Now()
		ours.FieldsV1, ours.Time = &metav1.FieldsV1{Raw: raw}, &now
		ops = append(ops, map[string]any{"op": "replace", "path": "/metadata/managedFields", "value": append(kept, ours)},
			map[string]any{"op": "replace", "path": "/metadata/resourceVersion", "value": live.GetResourceVersion()})
	}
	if _, ok := live.GetAnnotations()[lastApplied]; ok {
		ops = append(ops, map[string]any{"op": "remove", "path": "/metadata/annotations/" + strings.ReplaceAll(lastApplied, "/", "~1")})
	}
	if ops == nil {
		return live
	}
	now, err := client.Patch(k.t.Context(), live.GetName(), types.JSONPatchType, []byte(encode(k.t, ops)), metav1.PatchOptions{FieldManager: fluxManager})
	if err != nil {
		k.t.Fatalf("take over %s %s: %v", live.GetKind(), live.GetName(), err)
	}
	return now
}

// drifted says whether applying would change an object. What the server counts,
// and status, is no part of what is declared.
func drifted(live, dry *unstructured.Unstructured) bool {
	return !apiequality.Semantic.DeepEqual(declared(live), declared(dry))
}

// declared is what somebody may declare of an object. The revision of a Deployment
// is none of it: it is written with the status, at any time.
func declared(u *unstructured.Unstructured) map[string]any {
	c := u.DeepCopy()
	delete(c.Object, "status")
	for _, name := range []string{"managedFields", "resourceVersion", "generation", "creationTimestamp", "uid"} {
		unstructured.RemoveNestedField(c.Object, "metadata", name)
	}
	annotations := c.GetAnnotations()
	if delete(annotations, "deployment.kubernetes.io/revision"); len(annotations) == 0 {
		annotations = nil
	}
	c.SetAnnotations(annotations)
	return c.Object
}

// await waits until an object is what others may rely on (kstatus).
func (k *kustomization) await(u *unstructured.Unstructured) {
	k.t.Helper()
	client := of(k.t, u, k.ns)
	eventually(k.t, u.GetKind()+" "+u.GetName()+" is current", func() bool {
		live, err := client.Get(k.t.Context(), u.GetName(), metav1.GetOptions{})
		if err != nil {
			k.t.Fatal(err)
		}
		return current(live)
	})
}

// current says whether what controls an object has done what it asks for.
func current(u *unstructured.Unstructured) bool {
	if seen := field(u, "status", "observedGeneration"); seen != "" && seen != fmt.Sprint(u.GetGeneration()) {
		return false
	}
	switch u.GetKind() {
	case "CustomResourceDefinition":
		return hasCondition(u, "Established")
	case "Namespace":
		return field(u, "status", "phase") == "Active"
	case "Deployment":
		updated := max(field(u, "status", "updatedReplicas"), "0") // absent for none
		return field(u, "status", "observedGeneration") != "" && updated == field(u, "spec", "replicas")
	case "Job":
		return hasCondition(u, "Complete")
	}
	return true
}

func hasCondition(u *unstructured.Unstructured, kind string) bool {
	conditions, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
	return slices.ContainsFunc(conditions, func(c any) bool {
		m := c.(map[string]any)
		return m["type"] == kind && m["status"] == "True"
	})
}

// prune deletes what the inventory has and the new one has not, the newest kinds
// first, and stores the new one. What is not ours any more, or says so, stays.
func (k *kustomization) prune(inventory map[string]any) (did []string) {
	k.t.Helper()
	stored := dyn.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Namespace(k.ns)
	old := map[string]string{}
	if u, err := stored.Get(k.t.Context(), k.name, metav1.GetOptions{}); err == nil {
		old, _, _ = unstructured.NestedStringMap(u.Object, "data")
	}
	for _, id := range slices.Sorted(maps.Keys(old)) {
		if _, ok := inventory[id]; ok {
			continue
		}
		part := strings.Split(id, "_")
		u := &unstructured.Unstructured{}
		u.SetGroupVersionKind(schema.GroupVersionKind{Group: part[2], Version: old[id], Kind: part[3]})
		client := of(k.t, u, part[0])
		live, err := client.Get(k.t.Context(), part[1], metav1.GetOptions{})
		if apierrors.IsNotFound(err) || err == nil && (live.GetLabels()[fluxName] != k.name || live.GetAnnotations()[fluxPrune] == "disabled") {
			continue
		} else if err != nil {
			k.t.Fatal(err)
		}
		removeLive(k.t, client, live)
		did = append(did, fmt.Sprintf("pruned %s %s", part[3], part[1]))
	}
	u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "data": inventory}}
	u.SetName(k.name)
	k.apply(stored, u)
	return did
}

// removeLive deletes just this object and waits until it has gone.
func removeLive(t *testing.T, client dynamic.ResourceInterface, live *unstructured.Unstructured) {
	t.Helper()
	uid, policy := live.GetUID(), metav1.DeletePropagationBackground
	if err := client.Delete(t.Context(), live.GetName(), metav1.DeleteOptions{PropagationPolicy: &policy, Preconditions: &metav1.Preconditions{UID: &uid}}); err != nil {
		t.Fatalf("delete %s %s: %v", live.GetKind(), live.GetName(), err)
	}
	eventually(t, live.GetKind()+" "+live.GetName()+" goes", func() bool {
		got, err := client.Get(t.Context(), live.GetName(), metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Fatal(err)
		}
		return err != nil || got.GetUID() != uid
	})
}

func merged(all ...map[string]string) map[string]string {
	sum := map[string]string{}
	for _, m := range all {
		maps.Copy(sum, m)
	}
	return sum
}

// did compares what a reconciliation did.
func did(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("it did\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// appSet is a set with all that makes order matter: NAMESPACE is another than
// the kustomization's, GROUP has a definition with defaults.
const appSet = `
apiVersion: GROUP/v1
kind: Gadget
metadata: {name: own}
spec: {color: red, parts: [{name: a, count: 1}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: NAMESPACE}
data: {a: "1", b: "2"}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
spec:
  replicas: 0
  selector: {matchLabels: {app: a}}
  template:
    metadata: {labels: {app: a}}
    spec: {containers: [{name: c, image: i, env: [{name: A, value: "1"}], ports: [{containerPort: 80}], resources: {limits: {cpu: 1000m, memory: 1024Mi}}}]}
---
apiVersion: v1
kind: Service
metadata: {name: app}
spec: {selector: {app: a}, ports: [{port: 80}]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: app}
rules: [{apiGroups: [GROUP], resources: [gadgets], verbs: [get]}]
---
apiVersion: v1
kind: Namespace
metadata: {name: NAMESPACE}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.GROUP}
spec:
  group: GROUP
  scope: Namespaced
  names: {plural: gadgets, kind: Gadget}` + gadget

// newKustomization is a kustomization with the set filled in.
func newKustomization(t *testing.T) (*kustomization, string) {
	k := &kustomization{t: t, name: "app", ns: namespace(t)}
	t.Cleanup(func() { undefine(t, group(t)) })
	return k, strings.NewReplacer("GROUP", group(t), "NAMESPACE", k.ns+"-2").Replace(appSet)
}

// without is a set without the objects of a kind.
func without(set, kind string) string {
	return strings.Join(slices.DeleteFunc(strings.Split(set, "\n---\n"), func(doc string) bool {
		return strings.Contains(doc, "\nkind: "+kind+"\n") || strings.HasPrefix(doc, "kind: "+kind+"\n")
	}), "\n---\n")
}

// A set is applied in stages: nothing is refused for what the same set brings,
// and what is applied again is found unchanged, with no write at all.
func TestStagedApply(t *testing.T) {
	k, set := newKustomization(t)
	did(t, k.reconcile(set), "created Namespace "+k.ns+"-2", "created CustomResourceDefinition gadgets."+group(t),
		"created Gadget own", "created ConfigMap settings", "created Deployment app", "created Service app", "created Role app")
	versions := map[string]string{}
	look := func(check func(u *unstructured.Unstructured, id string)) {
		for _, u := range parse(t, set) {
			live, err := of(t, u, k.ns).Get(t.Context(), u.GetName(), metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			check(live, u.GetKind())
		}
	}
	look(func(u *unstructured.Unstructured, id string) {
		versions[id] = u.GetResourceVersion()
		if o := owners(u); !strings.Contains(o, fluxManager+" Apply: ") || strings.Contains(o, fluxManager+" Update") {
			t.Errorf("owners of %s are\n%s", id, o)
		}
	})
	did(t, k.changes(set))
	look(func(u *unstructured.Unstructured, id string) {
		if u.GetResourceVersion() != versions[id] {
			t.Errorf("%s was written again", id)
		}
	})
}

// Drift is what others changed of what is declared; it is found by a dry run, that
// writes nothing, and taken back. What others add beside it is theirs.
func TestDriftDetection(t *testing.T) {
	k, set := newKustomization(t)
	k.reconcile(set)
	gvr := schema.GroupVersionResource{Group: group(t), Version: "v1", Resource: "gadgets"}
	gadgets := under(gvr.GroupVersion().String(), "gadgets", k.ns, "own")
	for _, c := range []struct{ what, path, patch, want string }{
		{"a value of a map", at("configmaps", k.ns+"-2", "settings"), `{"data":{"a":"9"}}`, "configured ConfigMap settings"},
		{"a key that went", at("configmaps", k.ns+"-2", "settings"), `{"data":{"b":null}}`, "configured ConfigMap settings"},
		{"another's key", at("configmaps", k.ns+"-2", "settings"), `{"data":{"z":"9"}}`, ""},
		{"replicas", at("deployments", k.ns, "app"), `{"spec":{"replicas":1}}`, "configured Deployment app"},
		{"a field nobody declared", at("deployments", k.ns, "app"), `{"spec":{"revisionHistoryLimit":3}}`, ""},
		{"another's annotation", at("services", k.ns, "app"), `{"metadata":{"annotations":{"x":"y"}}}`, ""},
		{"the owner's label", at("services", k.ns, "app"), `{"metadata":{"labels":null}}`, "configured Service app"},
		{"a port's target", at("services", k.ns, "app"), `{"spec":{"ports":[{"port":80,"targetPort":8080}]}}`, ""},
		{"a list that is one value", at("roles", k.ns, "app"), `{"rules":[]}`, "configured Role app"},
		{"a declared field of a custom resource", gadgets, `{"spec":{"color":"blue"}}`, "configured Gadget own"},
		{"a default of a custom resource", gadgets, `{"spec":{"size":4}}`, ""},
		{"an item of a list with keys", gadgets, `{"spec":{"parts":[{"name":"a","count":2},{"name":"b"}]}}`, "configured Gadget own"},
		{"another's item", gadgets, `{"spec":{"parts":[{"name":"a","count":1},{"name":"c"}]}}`, ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			admin.do(t, call{method: "PATCH", path: c.path + "?fieldManager=hand", contentType: mergePatch, body: c.patch}).status2xx(t)
			changes := k.changes(set)
			if got := strings.Join(changes, ", "); got != c.want {
				t.Errorf("it did %q, want %q", got, c.want)
			}
			if again := k.changes(set); len(again) != 0 {
				t.Errorf("and again %q", again)
			}
		})
	}
}

// What leaves the set is pruned by the inventory, but for what says otherwise or
// belongs to somebody else by now.
func TestInventoryPruning(t *testing.T) {
	k, set := newKustomization(t)
	k.reconcile(set)
	patch(t, "roles", k.ns, "app", `{"metadata":{"annotations":{"`+fluxPrune+`":"disabled"}}}`)
	patch(t, "services", k.ns, "app", `{"metadata":{"labels":{"`+fluxName+`":"another"}}}`)
	less := set
	for _, kind := range []string{"Deployment", "Service", "Role", "Gadget"} {
		less = without(less, kind)
	}
	changes := k.changes(less)
	did(t, changes, "pruned Deployment app", "pruned Gadget own")
	if gone(t, "roles", k.ns, "app") || gone(t, "services", k.ns, "app") {
		t.Error("it pruned what is not its own")
	}
	// A namespace goes with all in it, a definition with what it defines.
	changes = k.reconcile("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: last}")
	did(t, changes, "created ConfigMap last", "pruned CustomResourceDefinition gadgets."+group(t), "pruned Namespace "+k.ns+"-2")
	if !gone(t, "namespaces", "", k.ns+"-2") {
		t.Error("the namespace is there")
	}
}

// Fields that kubectl declared on the client's side, or another applier did, are
// taken over by a patch of managed fields: what is declared no longer goes.
func TestOwnershipMigration(t *testing.T) {
	const after = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {kept: '1'}"
	for _, from := range []string{"kubectl apply", "kubectl apply --server-side", "kubectl create", "helm"} {
		t.Run(from, func(t *testing.T) {
			k := &kustomization{t: t, name: "app", ns: namespace(t)}
			before := configMap("a", "{kept: '1', dropped: '2'}")
			switch from {
			case "helm":
				admin.want(t, 201, applyCall("configmaps", k.ns, "a", "helm", "", before), nil)
			default:
				cmd := shared.hansa(t.Context(), nil, append(append([]string{"kubectl", "-n", k.ns}, strings.Fields(from)[1:]...), "-f", "-")...)
				cmd.Stdin = strings.NewReader(before)
				if r := shared.finish(t, cmd); r.code != 0 {
					t.Fatal(r.err)
				}
			}
			did(t, k.reconcile(after), "configured ConfigMap a")
			live := get(t, "configmaps", k.ns, "a")
			_, noted := live.GetAnnotations()[lastApplied]
			if field(live, "data") != `{"kept":"1"}` || noted {
				t.Errorf("it has %s, annotations %v, owners\n%s", field(live, "data"), live.GetAnnotations(), owners(live))
			}
			did(t, k.reconcile(after), "unchanged ConfigMap a")
		})
	}
	t.Run("a stale version", func(t *testing.T) {
		ns := namespace(t)
		u := create(t, "configmaps", ns, "{metadata: {name: a}, data: {a: b}}")
		patch(t, "configmaps", ns, "a", `{"data":{"a":"c"}}`)
		client := of(t, u, ns)
		ops := fmt.Sprintf(`[{"op":"replace","path":"/metadata/managedFields","value":[{}]},{"op":"replace","path":"/metadata/resourceVersion","value":%q}]`, u.GetResourceVersion())
		if _, err := client.Patch(t.Context(), "a", types.JSONPatchType, []byte(ops), metav1.PatchOptions{}); !apierrors.IsConflict(err) {
			t.Errorf("fields were taken over from an object that had changed: %v", err)
		}
	})
}

// What cannot be changed is made anew when the object says that it may be.
func TestRecreation(t *testing.T) {
	k := &kustomization{t: t, name: "app", ns: namespace(t)}
	job := func(image, annotations string) string {
		return fmt.Sprintf("apiVersion: batch/v1\nkind: Job\nmetadata: {name: a, annotations: {%s}}\nspec: {completions: 0, template: {spec: {restartPolicy: Never, containers: [{name: c, image: %s}]}}}", annotations, image)
	}
	did(t, k.reconcile(job("one", "")), "created Job a")
	u := parse(t, job("two", ""))[0]
	_, err := of(t, u, k.ns).Apply(t.Context(), "a", u, applyAs(fluxManager, true))
	var status apierrors.APIStatus
	if !errors.As(err, &status) || !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "spec.template: Invalid value") || !strings.Contains(err.Error(), "field is immutable") {
		t.Errorf("the dry run says %v", err)
	}
	did(t, k.reconcile(job("two", fluxForce+": enabled")), "recreated Job a")
	did(t, k.reconcile(job("two", fluxForce+": enabled")), "unchanged Job a")
}

// Every kind that is applied again as it was is found unchanged: no default,
// allocation or rewriting is taken for drift.
func TestNoPhantomDrift(t *testing.T) {
	ns := namespace(t)
	for _, s := range samples(t, ns) {
		t.Run(s.GetKind(), func(t *testing.T) {
			t.Cleanup(func() { s.drop(t) })
			client := dyn.Resource(s.gvr()).Namespace(s.ns)
			made, err := client.Apply(t.Context(), s.GetName(), s.Unstructured, applyAs(fluxManager, false))
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "a dry run finds no drift", func() bool { // loops may write in between
				live := s.read(t)
				dry, err := client.Apply(t.Context(), s.GetName(), s.Unstructured, applyAs(fluxManager, true))
				if err != nil {
					t.Fatal(err)
				}
				return !drifted(live, dry)
			})
			if same, err := client.Apply(t.Context(), s.GetName(), s.Unstructured, applyAs(fluxManager, false)); err != nil || same.GetGeneration() != made.GetGeneration() {
				t.Errorf("applied again: generation %d, was %d: %v", same.GetGeneration(), made.GetGeneration(), err)
			}
		})
	}
}
