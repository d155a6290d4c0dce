package request_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	testingclock "k8s.io/utils/clock/testing"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/apiserver/request/codec"
	"hansa.dev/hansa/apiserver/request/requesttest"
)

type fixture struct {
	*request.Handler
	t *testing.T
}

func newFixture(t *testing.T, change func(*request.Config)) fixture {
	return fixture{requesttest.Handler(t, change), t}
}

func (f fixture) create(obj *corev1.ConfigMap) (*corev1.ConfigMap, error) {
	out, err := f.Create(f.t.Context(), requesttest.Info("create", "v1", "configmaps", "default", ""), request.Body{Object: obj}, &metav1.CreateOptions{})
	cm, _ := out.(*corev1.ConfigMap)
	return cm, err
}

func (f fixture) mustCreate(obj *corev1.ConfigMap) *corev1.ConfigMap {
	f.t.Helper()
	cm, err := f.create(obj)
	if err != nil {
		f.t.Fatal(err)
	}
	return cm
}

func (f fixture) get(name string) *corev1.ConfigMap {
	f.t.Helper()
	obj, err := f.Get(f.t.Context(), requesttest.Info("get", "v1", "configmaps", "default", name), &metav1.GetOptions{})
	if err != nil {
		f.t.Fatal(err)
	}
	return obj.(*corev1.ConfigMap)
}

func (f fixture) update(obj *corev1.ConfigMap) (*corev1.ConfigMap, error) {
	info := requesttest.Info("update", "v1", "configmaps", "default", obj.Name)
	out, _, err := f.Update(f.t.Context(), info, request.Body{Object: obj}, &metav1.UpdateOptions{})
	cm, _ := out.(*corev1.ConfigMap)
	return cm, err
}

func (f fixture) patch(name string, kind types.PatchType, text string, opts metav1.PatchOptions) (*corev1.ConfigMap, error) {
	info := requesttest.Info("patch", "v1", "configmaps", "default", name)
	out, _, err := f.Patch(f.t.Context(), info, kind, func() ([]byte, error) { return []byte(text), nil }, &opts)
	cm, _ := out.(*corev1.ConfigMap)
	return cm, err
}

func (f fixture) delete(name string, opts *metav1.DeleteOptions) (runtime.Object, bool, error) {
	return f.Delete(f.t.Context(), requesttest.Info("delete", "v1", "configmaps", "default", name), opts)
}

// https://kubernetes.io/docs/reference/using-api/api-concepts/ and
// https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md#metadata
func TestCreateFillsSystemFields(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC)
	f := newFixture(t, func(c *request.Config) { c.Clock = testingclock.NewFakePassiveClock(now) })
	obj := requesttest.ConfigMap("a", "k", "v")
	obj.UID, obj.SelfLink = "mine", "/x"
	obj.DeletionTimestamp = &metav1.Time{Time: now}
	cm := f.mustCreate(obj)
	switch {
	case cm.UID == "" || cm.UID == "mine":
		t.Errorf("uid is %q, want one of the server's", cm.UID)
	case !cm.CreationTimestamp.Equal(&metav1.Time{Time: now.Truncate(time.Second)}):
		t.Errorf("created at %v, want %v", cm.CreationTimestamp, now)
	case cm.ResourceVersion == "" || cm.DeletionTimestamp != nil || cm.SelfLink != "":
		t.Errorf("metadata is %+v", cm.ObjectMeta)
	case len(cm.ManagedFields) != 1 || cm.ManagedFields[0].Manager != "test":
		t.Errorf("managers are %+v, want one named after the user agent", cm.ManagedFields)
	}
}

func TestGenerateNameTriesAgain(t *testing.T) {
	suffixes := []string{"aaaaa", "aaaaa", "bbbbb"}
	f := newFixture(t, func(c *request.Config) {
		c.Suffix = func(int) string {
			s := suffixes[0]
			if len(suffixes) > 1 {
				suffixes = suffixes[1:]
			}
			return s
		}
	})
	for _, want := range []string{"x-aaaaa", "x-bbbbb"} {
		obj := requesttest.ConfigMap("")
		obj.GenerateName = "x-"
		if cm := f.mustCreate(obj); cm.Name != want {
			t.Errorf("name is %q, want %q", cm.Name, want)
		}
	}
	obj := requesttest.ConfigMap("")
	obj.GenerateName = "x-"
	if _, err := f.create(obj); !apierrors.IsAlreadyExists(err) || !strings.Contains(err.Error(), "was not able to generate a unique name") {
		t.Errorf("error is %v, want that the generated name is taken", err)
	}
}

// refusal is a request and what its error contains.
type refusal struct {
	do   func() error
	want string
}

func checkRefusals(t *testing.T, refusals map[string]refusal) {
	t.Helper()
	for name, r := range refusals {
		t.Run(name, func(t *testing.T) {
			err := r.do()
			if err == nil || !strings.Contains(err.Error(), r.want) {
				t.Errorf("error is\n  %v\nwant\n  %s", err, r.want)
			}
		})
	}
}

func TestRefusedCreates(t *testing.T) {
	f := newFixture(t, nil)
	f.mustCreate(requesttest.ConfigMap("have", "k", "v"))
	checkRefusals(t, map[string]refusal{
		"create what exists": {
			func() error { _, err := f.create(requesttest.ConfigMap("have")); return err },
			`configmaps "have" already exists`,
		},
		"create with version": {
			func() error {
				obj := requesttest.ConfigMap("n")
				obj.ResourceVersion = "1"
				_, err := f.create(obj)
				return err
			},
			"resourceVersion should not be set on objects to be created",
		},
		"create with version, and a flaw": {
			func() error {
				obj := requesttest.ConfigMap("N")
				obj.ResourceVersion = "1"
				_, err := f.create(obj)
				return err
			},
			`ConfigMap "N" is invalid: metadata.name: Invalid value: "N"`,
		},
		"create elsewhere": {
			func() error {
				obj := requesttest.ConfigMap("n")
				obj.Namespace = "other"
				_, err := f.create(obj)
				return err
			},
			"the namespace of the provided object does not match the namespace sent on the request",
		},
		"create without name": {
			func() error { _, err := f.create(requesttest.ConfigMap("")); return err },
			`ConfigMap "" is invalid: metadata.name: Required value: name or generateName is required`,
		},
		"create with bad name": {
			func() error { _, err := f.create(requesttest.ConfigMap("A_")); return err },
			`ConfigMap "A_" is invalid: metadata.name: Invalid value: "A_": a lowercase RFC 1123 subdomain must consist of`,
		},
		"create with a finalizer of nobody's": {
			func() error {
				obj := requesttest.ConfigMap("n")
				obj.Finalizers = []string{"foregroundDeletion", "hold"}
				_, err := f.create(obj)
				return err
			},
			`ConfigMap "n" is invalid: metadata.finalizers[1]: Invalid value: "hold": name is neither a standard finalizer name nor is it fully qualified`,
		},
	})
}

func TestRefusedChanges(t *testing.T) {
	f := newFixture(t, nil)
	have := f.mustCreate(requesttest.ConfigMap("have", "k", "v"))
	change := func(edit func(*corev1.ConfigMap)) *corev1.ConfigMap {
		cm := have.DeepCopy()
		edit(cm)
		return cm
	}
	checkRefusals(t, map[string]refusal{
		"update what is not there": {
			func() error { _, err := f.update(requesttest.ConfigMap("gone")); return err },
			`configmaps "gone" not found`,
		},
		"update an old version": {
			func() error {
				_, err := f.update(change(func(cm *corev1.ConfigMap) { cm.ResourceVersion = "1" }))
				return err
			},
			`Operation cannot be fulfilled on configmaps "have": the object has been modified; please apply your changes to the latest version and try again`,
		},
		"update no version at all": {
			func() error {
				_, err := f.update(change(func(cm *corev1.ConfigMap) { cm.ResourceVersion = "abc" }))
				return err
			},
			`strconv.ParseUint: parsing "abc": invalid syntax`,
		},
		"update another identity": {
			func() error {
				_, err := f.update(change(func(cm *corev1.ConfigMap) { cm.UID = "other" }))
				return err
			},
			`Operation cannot be fulfilled on configmaps "have": StorageError: invalid object, Code: 4, Key: /registry/configmaps/default/have, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: other, UID in object meta: ` + string(have.UID),
		},
		"patch what is not there": {
			func() error {
				_, err := f.patch("gone", types.MergePatchType, `{}`, metav1.PatchOptions{})
				return err
			},
			`configmaps "gone" not found`,
		},
		"patch the name": {
			func() error {
				_, err := f.patch("have", types.MergePatchType, `{"metadata":{"name":"x"}}`, metav1.PatchOptions{})
				return err
			},
			"the name of the object (x) does not match the name on the URL (have)",
		},
		"patch in a finalizer of nobody's": {
			func() error {
				_, err := f.patch("have", types.MergePatchType, `{"metadata":{"finalizers":["hold"]}}`, metav1.PatchOptions{})
				return err
			},
			`metadata.finalizers[0]: Invalid value: "hold": name is neither a standard finalizer name nor is it fully qualified`,
		},
		"patch with nonsense": {
			func() error {
				_, err := f.patch("have", types.JSONPatchType, `[{"op":"test","path":"/data/k","value":"w"}]`, metav1.PatchOptions{})
				return err
			},
			"the server rejected our request due to an error in our request",
		},
		"delete with another identity": {
			func() error {
				_, _, err := f.delete("have", metav1.NewPreconditionDeleteOptions("other"))
				return err
			},
			`Operation cannot be fulfilled on ConfigMap "have": the UID in the precondition (other) does not match the UID in record (` + string(have.UID) + `). The object might have been deleted and then recreated`,
		},
		"get as nobody": {
			func() error {
				info := requesttest.Info("get", "v1", "configmaps", "default", "x")
				info.User = requesttest.Nobody
				_, err := f.Get(t.Context(), info, &metav1.GetOptions{})
				return err
			},
			`configmaps "x" is forbidden: User "u" cannot get resource "configmaps" in API group "" in the namespace "default"`,
		},
	})
	if now := f.get("have"); now.ResourceVersion != have.ResourceVersion {
		t.Error("a refused write changed the object")
	}
}

func TestUpdateKeepsSystemFields(t *testing.T) {
	f := newFixture(t, nil)
	f.mustCreate(requesttest.ConfigMap("a", "k", "v"))
	// Without a version, identity or time: an unconditional update.
	cm, err := f.update(requesttest.ConfigMap("a", "k", "w"))
	if err != nil {
		t.Fatal(err)
	}
	if cm.UID == "" || cm.CreationTimestamp.IsZero() || cm.Data["k"] != "w" {
		t.Errorf("updated object is %+v", cm)
	}
}

func TestWritingTheSameWritesNothing(t *testing.T) {
	f := newFixture(t, nil)
	cm := f.mustCreate(requesttest.ConfigMap("a", "k", "v"))
	for name, do := range map[string]func() (*corev1.ConfigMap, error){
		"update": func() (*corev1.ConfigMap, error) { return f.update(requesttest.ConfigMap("a", "k", "v")) },
		"merge": func() (*corev1.ConfigMap, error) {
			return f.patch("a", types.MergePatchType, `{"data":{"k":"v"}}`, metav1.PatchOptions{})
		},
		"strategic": func() (*corev1.ConfigMap, error) {
			return f.patch("a", types.StrategicMergePatchType, `{"data":{"k":"v"}}`, metav1.PatchOptions{})
		},
		"json": func() (*corev1.ConfigMap, error) {
			return f.patch("a", types.JSONPatchType, `[{"op":"replace","path":"/data/k","value":"v"}]`, metav1.PatchOptions{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			now, err := do()
			if err != nil {
				t.Fatal(err)
			}
			if now.ResourceVersion != cm.ResourceVersion {
				t.Errorf("version went from %s to %s", cm.ResourceVersion, now.ResourceVersion)
			}
		})
	}
}

func TestDryRunWritesNothing(t *testing.T) {
	f := newFixture(t, nil)
	all := []string{metav1.DryRunAll}
	info := requesttest.Info("create", "v1", "configmaps", "default", "")
	out, err := f.Create(t.Context(), info, request.Body{Object: requesttest.ConfigMap("new")}, &metav1.CreateOptions{DryRun: all})
	if err != nil || out.(api.Object).GetUID() == "" {
		t.Errorf("dry create gave %v, %v", out, err)
	}
	before := f.mustCreate(requesttest.ConfigMap("a", "k", "v"))
	patched, err := f.patch("a", types.MergePatchType, `{"data":{"k":"w"}}`, metav1.PatchOptions{DryRun: all})
	if err != nil || patched.Data["k"] != "w" {
		t.Errorf("dry patch gave %v, %v", patched, err)
	}
	if _, _, err := f.delete("a", &metav1.DeleteOptions{DryRun: all}); err != nil {
		t.Error(err)
	}
	if now := f.get("a"); now.ResourceVersion != before.ResourceVersion {
		t.Error("a dry run changed the object")
	}
	list, err := f.List(t.Context(), requesttest.Info("list", "v1", "configmaps", "default", ""), &metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(slices.Collect(list.Objects)); n != 1 {
		t.Errorf("after dry runs there are %d objects", n)
	}
}

// https://kubernetes.io/docs/reference/using-api/server-side-apply/
func TestApply(t *testing.T) {
	f := newFixture(t, nil)
	body := func(k string) string {
		return "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  " + k + "\n"
	}
	apply := func(manager, k string, force bool) (*corev1.ConfigMap, error) {
		return f.patch("a", types.ApplyYAMLPatchType, body(k), metav1.PatchOptions{FieldManager: manager, Force: &force})
	}
	if _, err := apply("one", "k: v", false); err != nil {
		t.Fatal(err)
	}
	_, err := apply("two", "k: w", false)
	if !apierrors.IsConflict(err) || err.Error() != `Apply failed with 1 conflict: conflict with "one": .data.k` {
		t.Errorf("error is %v, want a conflict with one", err)
	}
	if cm, err := apply("two", "k: w", true); err != nil || cm.Data["k"] != "w" {
		t.Errorf("forced apply gave %v, %v", cm, err)
	}
	// What an applier no longer says, and nobody else has, goes.
	cm, err := apply("two", "l: x", false)
	if err != nil || len(cm.Data) != 1 || cm.Data["l"] != "x" {
		t.Errorf("apply without k gave %v, %v", cm.Data, err)
	}
	if _, err := f.patch("a", types.ApplyYAMLPatchType, body("l: x"), metav1.PatchOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("apply without a manager gave %v, want Invalid", err)
	}
}

// Whoever comes to share a field by applying the value that it has already is
// noted with the time of that, and applying again writes nothing.
func TestApplyOfWhatIsSoIsTimed(t *testing.T) {
	f := newFixture(t, nil)
	f.mustCreate(requesttest.ConfigMap("a", "k", "v"))
	const body = `{"apiVersion":"v1","kind":"ConfigMap","data":{"k":"v"}}`
	var versions []string
	for _, manager := range []string{"two", "one", "two", "one"} {
		cm, err := f.patch("a", types.ApplyYAMLPatchType, body, metav1.PatchOptions{FieldManager: manager})
		if err != nil {
			t.Fatal(err)
		}
		versions = append(versions, cm.ResourceVersion)
		for _, m := range cm.ManagedFields {
			if m.Time == nil {
				t.Errorf("after %s applied, %s has no time", manager, m.Manager)
			}
		}
	}
	if versions[2] != versions[1] || versions[3] != versions[1] {
		t.Errorf("applying the same again wrote: versions %v", versions)
	}
}

func TestFinalizersHoldAnObject(t *testing.T) {
	f := newFixture(t, nil)
	obj := requesttest.ConfigMap("a")
	obj.Finalizers = []string{"example.com/hold"}
	f.mustCreate(obj)
	out, gone, err := f.delete("a", &metav1.DeleteOptions{})
	if err != nil || gone {
		t.Fatalf("delete gave %v, %v, %v", out, gone, err)
	}
	held := f.get("a")
	if held.DeletionTimestamp == nil || *held.DeletionGracePeriodSeconds != 0 {
		t.Fatalf("metadata is %+v, want it to be deleted", held.ObjectMeta)
	}
	if _, err := f.create(requesttest.ConfigMap("a")); err == nil || err.Error() != `object is being deleted: configmaps "a" already exists` {
		t.Errorf("creating it again gave %v", err)
	}
	more := held.DeepCopy()
	more.Finalizers = append(more.Finalizers, "example.com/more")
	if _, err := f.update(more); !apierrors.IsInvalid(err) {
		t.Errorf("adding a finalizer gave %v, want Invalid", err)
	}
	if _, err := f.patch("a", types.MergePatchType, `{"metadata":{"finalizers":null}}`, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err = f.Get(t.Context(), requesttest.Info("get", "v1", "configmaps", "default", "a"), &metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("after the last finalizer get gave %v", err)
	}
}

func TestPropagationPolicySetsFinalizers(t *testing.T) {
	f := newFixture(t, nil)
	for policy, want := range map[metav1.DeletionPropagation]string{
		metav1.DeletePropagationOrphan:     metav1.FinalizerOrphanDependents,
		metav1.DeletePropagationForeground: metav1.FinalizerDeleteDependents,
	} {
		name := strings.ToLower(string(policy))
		f.mustCreate(requesttest.ConfigMap(name))
		if _, gone, err := f.delete(name, &metav1.DeleteOptions{PropagationPolicy: &policy}); err != nil || gone {
			t.Errorf("%s: gone %v, %v", policy, gone, err)
		}
		if got := f.get(name).Finalizers; len(got) != 1 || got[0] != want {
			t.Errorf("%s: finalizers are %v, want %s", policy, got, want)
		}
	}
	f.mustCreate(requesttest.ConfigMap("plain"))
	out, gone, err := f.delete("plain", &metav1.DeleteOptions{})
	if status, ok := out.(*metav1.Status); err != nil || !gone || !ok || status.Details.Kind != "configmaps" {
		t.Errorf("plain delete gave %v, %v, %v", out, gone, err)
	}
}

func TestNamespaceGoesWhenItsFinalizersAreGone(t *testing.T) {
	f := newFixture(t, nil)
	info := func(verb, sub string) *request.Info {
		i := requesttest.Info(verb, "v1", "namespaces", "default", "default")
		i.Subresource = sub
		return i
	}
	out, gone, err := f.Delete(t.Context(), info("delete", ""), &metav1.DeleteOptions{})
	ns, ok := out.(*corev1.Namespace)
	if err != nil || gone || !ok || ns.Status.Phase != corev1.NamespaceTerminating {
		t.Fatalf("delete gave %v, %v, %v", out, gone, err)
	}
	empty := ns.DeepCopy()
	empty.Spec.Finalizers = nil
	if _, _, err := f.Update(t.Context(), info("update", "finalize"), request.Body{Object: empty}, &metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Get(t.Context(), info("get", ""), &metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("get gave %v, want NotFound", err)
	}
}

// https://kubernetes.io/docs/reference/using-api/api-concepts/#field-validation
func TestFieldValidation(t *testing.T) {
	f := newFixture(t, nil)
	body := `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"NAME"},"data":{"a":"1","a":"2"},"dada":{}}`
	problems := []string{`duplicate field "data.a"`, `unknown field "dada"`}
	for _, mode := range []string{"", metav1.FieldValidationWarn, metav1.FieldValidationIgnore, metav1.FieldValidationStrict} {
		t.Run("mode "+mode, func(t *testing.T) {
			var warnings []string
			info := requesttest.Info("create", "v1", "configmaps", "default", "")
			info.Warn = func(text string) { warnings = append(warnings, text) }
			text := strings.Replace(body, "NAME", "n"+strings.ToLower(mode), 1)
			read := func() ([]byte, codec.MediaType, error) { return []byte(text), codec.JSON, nil }
			_, err := f.Create(t.Context(), info, request.Body{Read: read}, &metav1.CreateOptions{FieldValidation: mode})
			switch mode {
			case metav1.FieldValidationStrict:
				want := `ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: duplicate field "data.a", unknown field "dada"`
				if !apierrors.IsBadRequest(err) || err.Error() != want {
					t.Errorf("error is %v, want %s", err, want)
				}
			case metav1.FieldValidationIgnore:
				if err != nil || len(warnings) > 0 {
					t.Errorf("gave %v and %q", err, warnings)
				}
			default:
				if err != nil || strings.Join(warnings, ";") != strings.Join(problems, ";") {
					t.Errorf("gave %v and %q, want %q", err, warnings, problems)
				}
			}
		})
	}
}
