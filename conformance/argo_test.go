package conformance

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/jsonmergepatch"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/util/csaupgrade"
)

// application syncs a set of objects the way Argo CD does (its documentation,
// "Sync Options", "Sync Phases and Waves", "Diff Strategies"): by default with a
// three-way merge against the annotation of what was applied last, in phases and
// waves, with hooks that go by their policy.
type application struct {
	t   *testing.T
	ns  string
	did []string
}

const (
	argoManager = "argocd-controller"
	argoWave    = "argocd.argoproj.io/sync-wave"
	argoHook    = "argocd.argoproj.io/hook"
	argoDelete  = "argocd.argoproj.io/hook-delete-policy"
	argoOptions = "argocd.argoproj.io/sync-options"
)

var errDegraded = errors.New("degraded")

// sync brings the set about, a phase and a wave after the other, each healthy
// before the next. When one fails, the hooks for that run and the rest does not.
func (a *application) sync(manifests string) error {
	a.t.Helper()
	type step struct {
		phase string
		wave  int
	}
	steps := map[step][]*unstructured.Unstructured{}
	for _, u := range parse(a.t, manifests) {
		phase := cmp.Or(u.GetAnnotations()[argoHook], "Sync")
		wave, err := strconv.Atoi(cmp.Or(u.GetAnnotations()[argoWave], "0"))
		if err != nil {
			a.t.Fatal(err)
		}
		steps[step{phase, wave}] = append(steps[step{phase, wave}], u)
	}
	phases := []string{"PreSync", "Sync", "PostSync", "SyncFail"}
	order := slices.SortedFunc(maps.Keys(steps), func(x, y step) int {
		return cmp.Or(cmp.Compare(slices.Index(phases, x.phase), slices.Index(phases, y.phase)), cmp.Compare(x.wave, y.wave))
	})
	var failed error
	for _, s := range order {
		if (s.phase == "SyncFail") != (failed != nil) {
			continue
		}
		if err := a.step(steps[s]); err != nil {
			failed = err
		}
	}
	return failed
}

// step writes objects, waits until each is healthy or degraded, and deletes the
// hooks whose policy asks for it.
func (a *application) step(set []*unstructured.Unstructured) (failed error) {
	a.t.Helper()
	for _, u := range set {
		if hook := u.GetAnnotations()[argoHook]; hook != "" {
			a.hook(u)
		} else {
			a.write(u)
		}
	}
	for _, u := range set {
		client := of(a.t, u, a.ns)
		var live *unstructured.Unstructured
		eventually(a.t, u.GetName()+" is healthy or not", func() bool {
			var err error
			if live, err = client.Get(a.t.Context(), u.GetName(), metav1.GetOptions{}); err != nil {
				a.t.Fatal(err)
			}
			return current(live) || hasCondition(live, "Failed")
		})
		policy := "HookSucceeded"
		if hasCondition(live, "Failed") {
			policy, failed = "HookFailed", fmt.Errorf("%s: %w", u.GetName(), errDegraded)
		}
		if strings.Contains(u.GetAnnotations()[argoDelete], policy) {
			removeLive(a.t, client, live)
			a.did = append(a.did, "deleted "+u.GetName())
		}
	}
	return failed
}

// hook makes a hook; one of the same name goes first (BeforeHookCreation).
func (a *application) hook(u *unstructured.Unstructured) {
	a.t.Helper()
	client := of(a.t, u, a.ns)
	if live, err := client.Get(a.t.Context(), u.GetName(), metav1.GetOptions{}); err == nil && u.GetName() != "" {
		removeLive(a.t, client, live)
		a.did = append(a.did, "deleted "+u.GetName())
	}
	made, err := client.Create(a.t.Context(), u, metav1.CreateOptions{FieldManager: argoManager})
	if err != nil {
		a.t.Fatal(err)
	}
	u.SetName(made.GetName()) // of generateName
	a.did = append(a.did, "hook "+u.GetName())
}

// write syncs an object as its options say.
func (a *application) write(u *unstructured.Unstructured) {
	a.t.Helper()
	client := of(a.t, u, a.ns)
	options := u.GetAnnotations()[argoOptions]
	live, err := client.Get(a.t.Context(), u.GetName(), metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		a.t.Fatal(err)
	}
	there := err == nil
	if there && strings.Contains(options, "Force=true") {
		removeLive(a.t, client, live)
		there = false
	}
	what := "configured"
	switch {
	case strings.Contains(options, "ServerSideApply=true"):
		what = "applied"
		_, err = client.Apply(a.t.Context(), u.GetName(), u, applyAs(argoManager, false))
	case !there:
		what = "created"
		_, err = client.Create(a.t.Context(), noted(a.t, u), metav1.CreateOptions{FieldManager: argoManager})
	case strings.Contains(options, "Replace=true"):
		what = "replaced"
		n := noted(a.t, u)
		n.SetResourceVersion(live.GetResourceVersion())
		_, err = client.Update(a.t.Context(), n, metav1.UpdateOptions{FieldManager: argoManager})
	default:
		kind, patch := threeWay(a.t, live, u)
		var dry *unstructured.Unstructured
		o := metav1.PatchOptions{FieldManager: argoManager, DryRun: []string{metav1.DryRunAll}}
		if dry, err = client.Patch(a.t.Context(), u.GetName(), kind, patch, o); err != nil || !drifted(live, dry) {
			what = "unchanged"
			break
		}
		o.DryRun = nil
		_, err = client.Patch(a.t.Context(), u.GetName(), kind, patch, o)
	}
	if err != nil {
		a.t.Fatalf("%s %s: %v", what, u.GetName(), err)
	}
	a.did = append(a.did, what+" "+u.GetName())
}

// noted is an object with the annotation of itself.
func noted(t *testing.T, u *unstructured.Unstructured) *unstructured.Unstructured {
	t.Helper()
	n := u.DeepCopy()
	n.SetAnnotations(merged(u.GetAnnotations(), map[string]string{lastApplied: encode(t, u.Object)}))
	return n
}

// threeWay is the patch that kubectl and Argo would send: from what was applied
// last to what is declared, and whatever of that the live object has not.
func threeWay(t *testing.T, live, declared *unstructured.Unstructured) (types.PatchType, []byte) {
	t.Helper()
	original := []byte(live.GetAnnotations()[lastApplied])
	modified, current := []byte(encode(t, noted(t, declared).Object)), []byte(encode(t, live.Object))
	typed, err := scheme.Scheme.New(declared.GroupVersionKind())
	if err != nil { // a custom resource: lists are one value
		patch, err := jsonmergepatch.CreateThreeWayJSONMergePatch(original, modified, current)
		if err != nil {
			t.Fatal(err)
		}
		return types.MergePatchType, patch
	}
	m, err := strategicpatch.NewPatchMetaFromStruct(typed)
	if err != nil {
		t.Fatal(err)
	}
	patch, err := strategicpatch.CreateThreeWayMergePatch(original, modified, current, m, true)
	if err != nil {
		t.Fatal(err)
	}
	return types.StrategicMergePatchType, patch
}

// argoDeployment is one of no replicas; more is further YAML of its container.
func argoDeployment(annotations, more string) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: app, annotations: {%s}}
spec:
  replicas: 0
  selector: {matchLabels: {app: a}}
  template:
    metadata: {labels: {app: a}}
    spec: {containers: [{name: c, image: i, %s}]}`, annotations, more)
}

// By the annotation of what was applied last, what is declared no longer goes,
// what others wrote beside it stays, and what is as declared is no difference.
func TestThreeWayDiff(t *testing.T) {
	a := &application{t: t, ns: namespace(t)}
	sync := func(manifests, want string) *unstructured.Unstructured {
		t.Helper()
		a.did = nil
		if err := a.sync(manifests); err != nil {
			t.Fatal(err)
		}
		did(t, a.did, want)
		return get(t, "deployments", a.ns, "app")
	}
	env := "env: [{name: A, value: '1'}, {name: B, value: '2'}], ports: [{containerPort: 80}], resources: {limits: {cpu: '1', memory: 1Gi}}"
	sync(argoDeployment("", env), "created app")
	sync(argoDeployment("", env), "unchanged app")
	live := patch(t, "deployments", a.ns, "app", `{"spec":{"replicas":1,"revisionHistoryLimit":3}}`)
	declared := parse(t, argoDeployment("", env))[0]
	declared.SetNamespace(a.ns)
	if _, difference := threeWay(t, live, declared); string(difference) != `{"spec":{"replicas":0}}` {
		t.Errorf("the difference is %s", difference)
	}
	admin.do(t, call{method: "PATCH", path: at("deployments", a.ns, "app"), contentType: strategicPatch,
		body: `{"spec":{"template":{"spec":{"containers":[{"name":"c","env":[{"name":"C","value":"3"}]},{"name":"injected","image":"i"}]}}}}`}).status2xx(t)
	kept := sync(argoDeployment("", strings.Replace(env, "{name: B, value: '2'}", "{name: D, value: '4'}", 1)), "configured app")
	containers, _, _ := unstructured.NestedSlice(kept.Object, "spec", "template", "spec", "containers")
	var names []string
	for _, c := range containers {
		for _, e := range c.(map[string]any)["env"].([]any) {
			names = append(names, e.(map[string]any)["name"].(string))
		}
		break
	}
	slices.Sort(names)
	if len(containers) != 2 || strings.Join(names, "") != "ACD" || field(kept, "spec", "replicas") != "0" {
		t.Errorf("it has containers %v, variables %v", containers, names)
	}
	sync(argoDeployment("", strings.Replace(env, "{name: B, value: '2'}", "{name: D, value: '4'}", 1)), "unchanged app")
}

// Replace=true puts the object as it is declared: what others added goes, what
// the server allocated stays, a stale version is refused. With Force=true it is
// made anew.
func TestReplace(t *testing.T) {
	a := &application{t: t, ns: namespace(t)}
	service := func(options string) string {
		return fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: app, annotations: {%s: '%s'}}\nspec: {type: NodePort, ports: [{port: 80}]}", argoOptions, options)
	}
	if err := a.sync(service("Replace=true")); err != nil {
		t.Fatal(err)
	}
	made := patch(t, "services", a.ns, "app", `{"metadata":{"labels":{"x":"y"}},"spec":{"sessionAffinity":"ClientIP"}}`)
	if err := a.sync(service("Replace=true")); err != nil {
		t.Fatal(err)
	}
	live := get(t, "services", a.ns, "app")
	for _, path := range [][]string{{"spec", "clusterIP"}, {"spec", "ports"}, {"metadata", "uid"}} {
		if field(live, path...) != field(made, path...) {
			t.Errorf("%v was %s, is %s", path, field(made, path...), field(live, path...))
		}
	}
	if field(live, "spec", "sessionAffinity") != "None" || len(live.GetLabels()) != 0 {
		t.Errorf("kept %v, %s", live.GetLabels(), field(live, "spec", "sessionAffinity"))
	}
	stale := parse(t, service(""))[0]
	stale.SetResourceVersion(made.GetResourceVersion())
	if _, err := of(t, stale, a.ns).Update(t.Context(), stale, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("a stale version: %v", err)
	}
	if err := a.sync(service("Force=true,Replace=true")); err != nil {
		t.Fatal(err)
	}
	if get(t, "services", a.ns, "app").GetUID() == live.GetUID() {
		t.Error("it was not made anew")
	}
	did(t, a.did, "created app", "replaced app", "created app")
}

// ServerSideApply=true moves what was applied on the client's side to the manager
// of the server's side first, and the difference is what a dry run would change.
func TestServerSideApplySync(t *testing.T) {
	a := &application{t: t, ns: namespace(t)}
	cmd := shared.hansa(t.Context(), nil, "kubectl", "-n", a.ns, "apply", "-f", "-")
	cmd.Stdin = strings.NewReader(argoDeployment("", "env: [{name: A, value: '1'}, {name: B, value: '2'}]"))
	if r := shared.finish(t, cmd); r.code != 0 {
		t.Fatal(r.err)
	}
	declared := argoDeployment(argoOptions+": ServerSideApply=true", "env: [{name: A, value: '1'}]")
	u := parse(t, declared)[0]
	client := of(t, u, a.ns)
	var live *unstructured.Unstructured
	var err error
	eventually(t, "the loop has seen it", func() bool {
		live, err = client.Get(t.Context(), "app", metav1.GetOptions{})
		return err == nil && current(live)
	})
	upgrade, err := csaupgrade.UpgradeManagedFieldsPatch(live, sets.New("kubectl-client-side-apply"), argoManager)
	if err != nil || len(upgrade) == 0 {
		t.Fatalf("no upgrade of %s: %v", owners(live), err)
	}
	if live, err = client.Patch(t.Context(), "app", types.JSONPatchType, upgrade, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	dry, err := client.Apply(t.Context(), "app", u, applyAs(argoManager, true))
	if err != nil || !drifted(live, dry) {
		t.Errorf("the dry run finds no difference: %v", err)
	}
	if err := a.sync(declared); err != nil {
		t.Fatal(err)
	}
	live = get(t, "deployments", a.ns, "app")
	containers, _, _ := unstructured.NestedSlice(live.Object, "spec", "template", "spec", "containers")
	if env := encode(t, containers[0].(map[string]any)["env"]); env != `[{"name":"A","value":"1"}]` {
		t.Errorf("variables are %s, owners\n%s", env, owners(live))
	}
	if dry, err = client.Apply(t.Context(), "app", u, applyAs(argoManager, true)); err != nil || drifted(live, dry) {
		t.Errorf("the dry run still finds a difference: %v", err)
	}
	// A conflict is told when it is not forced, by its field.
	hand := argoDeployment("", "env: [{name: A, value: '9'}]")
	o := applyAs("hand", false)
	o.Force = false
	h := parse(t, hand)[0]
	if _, err = client.Apply(t.Context(), "app", h, o); !apierrors.IsConflict(err) || !strings.Contains(err.Error(), `conflict with "`+argoManager+`": .spec.template.spec.containers[name="c"].env[name="A"].value`) {
		t.Errorf("not forced: %v", err)
	}
}

// job is a hook that completes at once, or fails, by itself.
func hookJob(name, annotations string, fails bool) string {
	spec := "completions: 0"
	if fails {
		spec = "activeDeadlineSeconds: 1"
	}
	return fmt.Sprintf("apiVersion: batch/v1\nkind: Job\nmetadata: {%s, annotations: {%s}}\nspec: {%s, template: {spec: {schedulerName: nobody, restartPolicy: Never, containers: [{name: c, image: i}]}}}", name, annotations, spec)
}

func hookAnnotations(hook, policy string) string {
	return fmt.Sprintf("%s: %s, %s: '%s'", argoHook, hook, argoDelete, policy)
}

// Waves come in order, each healthy before the next; a definition of an earlier
// wave serves the custom resource of a later one.
func TestSyncWaves(t *testing.T) {
	a := &application{t: t, ns: namespace(t)}
	g := group(t)
	t.Cleanup(func() { undefine(t, g) })
	wave := func(n int) string { return fmt.Sprintf("%s: '%d'", argoWave, n) }
	set := strings.Join([]string{
		fmt.Sprintf("apiVersion: %s/v1\nkind: Gadget\nmetadata: {name: gadget, annotations: {%s}}\nspec: {color: red}", g, wave(2)),
		argoDeployment(wave(1), ""),
		fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: first, annotations: {%s}}", wave(-5)),
		fmt.Sprintf("apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: gadgets.%[1]s}\nspec:\n  group: %[1]s\n  scope: Namespaced\n  names: {plural: gadgets, kind: Gadget}%[2]s", g, gadget),
	}, "\n---\n")
	if err := a.sync(set); err != nil {
		t.Fatal(err)
	}
	did(t, a.did, "created first", "created gadgets."+g, "created app", "created gadget")
	a.did = nil
	if err := a.sync(set); err != nil {
		t.Fatal(err)
	}
	did(t, a.did, "unchanged first", "unchanged gadgets."+g, "unchanged app", "unchanged gadget")
}

// Hooks run before and after, go by their policy, and when one fails those for
// failures run instead of the rest.
func TestHookDeletionPolicies(t *testing.T) {
	a := &application{t: t, ns: namespace(t)}
	set := func(fails bool) string {
		return strings.Join([]string{
			hookJob("name: after", hookAnnotations("PostSync", "HookSucceeded"), false),
			hookJob("name: before", hookAnnotations("PreSync", "BeforeHookCreation,HookFailed"), fails),
			hookJob("name: failure", hookAnnotations("SyncFail", "HookSucceeded"), false),
			"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: app}",
		}, "\n---\n")
	}
	if err := a.sync(set(false)); err != nil {
		t.Fatal(err)
	}
	did(t, a.did, "hook before", "created app", "hook after", "deleted after")
	a.did = nil
	if err := a.sync(set(true)); !errors.Is(err, errDegraded) {
		t.Fatalf("a failing hook: %v", err)
	}
	did(t, a.did, "deleted before", "hook before", "deleted before", "hook failure", "deleted failure")
	a.did = nil
	for range 2 {
		if err := a.sync(hookJob("generateName: each-", hookAnnotations("PreSync", ""), false)); err != nil {
			t.Fatal(err)
		}
	}
	if len(a.did) != 2 || a.did[0] == a.did[1] || !strings.HasPrefix(a.did[0], "hook each-") {
		t.Errorf("hooks with generated names: %v", a.did)
	}
	// What a hook made goes with it: its pods.
	eventually(t, "no pods of hooks that are gone are left", func() bool {
		pods, err := kube.CoreV1().Pods(a.ns).List(t.Context(), metav1.ListOptions{LabelSelector: "batch.kubernetes.io/job-name=before"})
		return err == nil && len(pods.Items) == 0
	})
}

// Defaults of a custom resource's schema are no difference, by either way of
// looking for one, and neither is what is declared in another order or unit.
func TestSchemaDefaultsAreNoDrift(t *testing.T) {
	ns, gvr := namespace(t), define(t, gadget)
	declared := fmt.Sprintf("apiVersion: %s/v1\nkind: Gadget\nmetadata: {name: a}\nspec: {color: red, parts: [{name: a, count: 1}, {name: b}]}", gvr.Group)
	a := &application{t: t, ns: ns}
	for _, want := range []string{"created a", "unchanged a"} {
		a.did = nil
		if err := a.sync(declared); err != nil {
			t.Fatal(err)
		}
		did(t, a.did, want)
	}
	u := parse(t, declared)[0]
	client := of(t, u, ns)
	live, err := client.Get(t.Context(), "a", metav1.GetOptions{})
	if err != nil || field(live, "spec", "size") != "3" {
		t.Fatalf("size is %q: %v", field(live, "spec", "size"), err)
	}
	applied, err := client.Apply(t.Context(), "a", u, applyAs(argoManager, false))
	if err != nil {
		t.Fatal(err)
	}
	dry, err := client.Apply(t.Context(), "a", u, applyAs(argoManager, true))
	if err != nil || drifted(applied, dry) || dry.GetResourceVersion() != applied.GetResourceVersion() {
		t.Errorf("a dry run would make %s of %s: %v", encode(t, dry), encode(t, applied), err)
	}
	if strings.Contains(owners(applied), `argocd-controller Apply: {"f:spec":{"f:color":{},"f:size"`) {
		t.Errorf("a default is owned: %s", owners(applied))
	}
}

// A dry run answers as the write would, and writes nothing, whatever it is: a
// watch sees just what is really written afterwards.
func TestDryRunNeverWrites(t *testing.T) {
	ns, gvr := namespace(t), define(t, gadget)
	path := under(gvr.GroupVersion().String(), "gadgets", ns)
	body := func(name, color string) string {
		return fmt.Sprintf("{apiVersion: %s/v1, kind: Gadget, metadata: {name: %s}, spec: {color: %s}}", gvr.Group, name, color)
	}
	made := admin.want(t, 201, call{method: "POST", path: path, body: body("a", "red")}, nil).object(t)
	gadgets, maps := watch(t, path+"?resourceVersion="+made.GetResourceVersion()), watch(t, at("configmaps", ns)+"?resourceVersion="+made.GetResourceVersion()+"&fieldSelector=metadata.name!%3Dkube-root-ca.crt")
	const dry = "?dryRun=All&fieldManager=dry"
	for _, c := range []call{
		{method: "POST", path: path + dry, body: body("b", "red")},
		{method: "PUT", path: path + "/a" + dry, body: encode(t, with(made, "blue", "spec", "color"))},
		{method: "PATCH", path: path + "/a" + dry, contentType: mergePatch, body: `{"spec":{"color":"green"}}`},
		{method: "PATCH", path: path + "/a" + dry, contentType: jsonPatch, body: `[{"op":"remove","path":"/spec/color"}]`},
		{method: "PATCH", path: path + "/a" + dry + "&force=true", contentType: applyPatch, body: body("a", "green")},
		{method: "PATCH", path: path + "/new" + dry, contentType: applyPatch, body: body("new", "green")},
		{method: "PATCH", path: path + "/a/status" + dry, contentType: mergePatch, body: `{"status":{"replicas":4}}`},
		{method: "PATCH", path: path + "/a/scale" + dry, contentType: mergePatch, body: `{"spec":{"replicas":4}}`},
		{method: "DELETE", path: path + "/a" + dry},
		{method: "DELETE", path: path + dry},
		{method: "PATCH", path: at("configmaps", ns, "new") + dry, contentType: applyPatch, body: configMap("new", "{a: b}")},
		{method: "DELETE", path: at("namespaces", "", ns) + dry},
		{method: "DELETE", path: definitions + "/gadgets." + gvr.Group + dry},
		{method: "PATCH", path: definitions + "/gadgets." + gvr.Group + dry, contentType: jsonPatch, body: `[{"op":"add","path":"/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/x","value":{"type":"string","default":"y"}}]`},
	} {
		if a := admin.do(t, c); a.code/100 != 2 {
			t.Errorf("%s %s gave %d: %s", c.method, c.path, a.code, a.body)
		}
	}
	admin.want(t, 201, call{method: "POST", path: path, body: body("real", "red")}, nil)
	create(t, "configmaps", ns, "metadata: {name: real}")
	gadgets.expect(t, "ADDED real")
	maps.expect(t, "ADDED real")
	if real := admin.want(t, 200, call{path: path + "/real"}, nil).object(t); field(real, "spec", "x") != "" {
		t.Error("the dry run changed the schema")
	}
	if phase := field(get(t, "namespaces", "", ns), "status", "phase"); phase != "Active" {
		t.Errorf("the namespace is %s", phase)
	}
	if now := admin.want(t, 200, call{path: path + "/a"}, nil).object(t); now.GetResourceVersion() != made.GetResourceVersion() {
		t.Errorf("it is now %s", encode(t, now))
	}
}

// with is an object with one field set.
func with(u *unstructured.Unstructured, value any, path ...string) *unstructured.Unstructured {
	c := u.DeepCopy()
	_ = unstructured.SetNestedField(c.Object, value, path...) // parents are maps
	return c
}
