package revision_test

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"hansa.dev/hansa/internal/onfailure"
	"hansa.dev/hansa/internal/revision"
)

func template(image string) *corev1.PodTemplateSpec {
	return &corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: image}}},
	}
}

func owner(image string) revision.Owner {
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "u", Annotations: map[string]string{"kubernetes.io/change-cause": "because"}}}
	return revision.Owner{
		Object: set, Kind: appsv1.SchemeGroupVersion.WithKind("StatefulSet"), Template: template(image),
		HashLabel: revision.HashLabel, Collisions: ptr.To[int32](0),
	}
}

func plan(t *testing.T, o revision.Owner, history []*appsv1.ControllerRevision) revision.Change {
	t.Helper()
	c, err := revision.Plan(o, history)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The format is that of Kubernetes, byte for byte: kubectl rollout undo compares
// it with its own and applies it as a patch.
func TestData(t *testing.T) {
	in := template("one <&>")
	in.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr.To[int64](math.MaxInt64)}
	data, err := revision.Data(in)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"spec":{"template":{"$patch":"replace","metadata":{"labels":{"app":"web"}},"spec":{"containers":[{"image":"one \u003c\u0026\u003e","name":"c","resources":{}}],"securityContext":{"runAsUser":9223372036854775807}}}}}`
	if string(data) != want {
		t.Errorf("data = %s\nwant %s", data, want)
	}
	out, err := revision.Template(&appsv1.ControllerRevision{Data: runtime.RawExtension{Raw: data}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(in, out); diff != "" {
		t.Errorf("the template is another one: %s", diff)
	}
}

// Whatever the owner looks like, patched with a revision it has its template.
func TestDataPutsTemplateBack(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		draw := func() *corev1.PodTemplateSpec {
			out := template(rapid.String().Draw(r, "image"))
			out.Annotations = rapid.MapOf(rapid.String(), rapid.String()).Draw(r, "annotations")
			for _, name := range rapid.SliceOfDistinct(rapid.StringMatching("[a-z]{1,3}"), rapid.ID[string]).Draw(r, "volumes") {
				out.Spec.Volumes = append(out.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
			}
			return out
		}
		was, is := draw(), draw()
		data, err := revision.Data(was)
		if err != nil {
			r.Fatal(err)
		}
		set, err := json.Marshal(appsv1.StatefulSet{Spec: appsv1.StatefulSetSpec{ServiceName: "s", Template: *is}})
		if err != nil {
			r.Fatal(err)
		}
		patched, err := strategicpatch.StrategicMergePatch(set, data, appsv1.StatefulSet{})
		if err != nil {
			r.Fatal(err)
		}
		var got appsv1.StatefulSet
		if err := json.Unmarshal(patched, &got); err != nil {
			r.Fatal(err)
		}
		again, err := revision.Data(&got.Spec.Template)
		if err != nil {
			r.Fatal(err)
		}
		if string(again) != string(data) || got.Spec.ServiceName != "s" {
			r.Errorf("patched: %s\nwant %s", again, data)
		}
	})
}

func TestTemplateOfSomethingElse(t *testing.T) {
	for _, raw := range []string{"", "{}", `{"spec":{}}`, `{"spec":{"template":3}}`} {
		r := &appsv1.ControllerRevision{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "b"}, Data: runtime.RawExtension{Raw: []byte(raw)}}
		if _, err := revision.Template(r); err == nil || !strings.Contains(err.Error(), "a/b") {
			t.Errorf("%q: %v", raw, err)
		}
		c := plan(t, owner("one"), []*appsv1.ControllerRevision{r})
		if !c.Create {
			t.Errorf("%q: taken for the template's", raw)
		}
	}
}

// Documentation: "StatefulSets", "Rollbacks"; ControllerRevision.
func TestPlan(t *testing.T) {
	o := owner("one")
	c := plan(t, o, nil)
	first := c.Revision
	if !c.Create || c.Renumber || first.Revision != 1 || first.Namespace != "default" {
		t.Fatalf("the first one: %+v", c)
	}
	hash, ok := strings.CutPrefix(first.Name, "web-")
	if !ok || first.Labels[revision.HashLabel] != hash || first.Labels["app"] != "web" || first.Annotations["kubernetes.io/change-cause"] != "because" {
		t.Errorf("%s, labels %v, annotations %v", first.Name, first.Labels, first.Annotations)
	}
	if ref := metav1.GetControllerOf(first); ref == nil || ref.Kind != "StatefulSet" || ref.UID != "u" {
		t.Errorf("the controller is %+v", ref)
	}
	if o.Template.Labels[revision.HashLabel] != "" || o.Object.GetAnnotations() == nil {
		t.Error("the owner was written to")
	}

	history := []*appsv1.ControllerRevision{first}
	if c := plan(t, o, history); c.Create || c.Renumber || c.Revision != first {
		t.Errorf("unchanged: %+v", c)
	}
	c = plan(t, owner("two"), history)
	if !c.Create || c.Revision.Revision != 2 || c.Revision.Name == first.Name {
		t.Errorf("changed: %+v", c)
	}
	history = append(history, c.Revision)
	if c := plan(t, o, history); c.Create || !c.Renumber || c.Revision.Name != first.Name || c.Revision.Revision != 3 || first.Revision != 1 {
		t.Errorf("back again: %+v", c)
	}
}

func TestCollision(t *testing.T) {
	o := owner("one")
	first := plan(t, o, nil).Revision
	o.Collisions = ptr.To[int32](1)
	if second := plan(t, o, nil).Revision; second.Name == first.Name {
		t.Errorf("%s again", second.Name)
	}
	o.Collisions = nil
	if third := plan(t, o, nil).Revision; third.Name == first.Name {
		t.Errorf("%s again", third.Name)
	}
}

func TestLongName(t *testing.T) {
	o := owner("one")
	o.Object.SetName(strings.Repeat("a", 253))
	if name := plan(t, o, nil).Revision.Name; len(name) > 63 {
		t.Errorf("a name of %d characters", len(name))
	}
}

// A revision that another version wrote, with other bytes, or before there was a
// default, is no reason to restart pods.
func TestSameTemplateInOtherBytes(t *testing.T) {
	o := owner("one")
	old := plan(t, o, nil).Revision
	old.Data.Raw = []byte(`{"spec":{"template":{"$patch":"replace","metadata":{"creationTimestamp":null,"labels":{"app":"web"}},"spec":{"containers":[{"name":"c","image":"one"}]}}}}`)
	history := []*appsv1.ControllerRevision{old}
	if c := plan(t, o, history); c.Create || c.Renumber {
		t.Errorf("other bytes: %+v", c)
	}
	o.Template.Spec.RestartPolicy = corev1.RestartPolicyAlways
	if c := plan(t, o, history); !c.Create {
		t.Errorf("another template: %+v", c)
	}
	o.Default = func(t *corev1.PodTemplateSpec) { t.Spec.RestartPolicy = corev1.RestartPolicyAlways }
	if c := plan(t, o, history); c.Create || c.Renumber {
		t.Errorf("a new default: %+v", c)
	}
}

func numbered(numbers ...int64) (out []*appsv1.ControllerRevision) {
	for _, n := range numbers {
		out = append(out, &appsv1.ControllerRevision{Revision: n})
	}
	return out
}

func numbers(revisions []*appsv1.ControllerRevision) (out []int64) {
	for _, r := range revisions {
		out = append(out, r.Revision)
	}
	return out
}

func TestSort(t *testing.T) {
	history := numbered(3, 1, 1, 1, 2)
	history[1].Name, history[2].Name = "b", "a"
	history[3].CreationTimestamp = metav1.Unix(1, 0)
	revision.Sort(history)
	if got := numbers(history); !slices.Equal(got, []int64{1, 1, 1, 2, 3}) {
		t.Errorf("sorted: %v", got)
	}
	if history[0].Name != "a" || history[1].Name != "b" || revision.Next(history) != 4 || revision.Next(nil) != 1 {
		t.Errorf("%s before %s, next %d", history[0].Name, history[1].Name, revision.Next(history))
	}
}

func TestSurplus(t *testing.T) {
	live := func(r *appsv1.ControllerRevision) bool { return r.Revision == 1 || r.Revision == 5 }
	for _, c := range []struct {
		limit int32
		want  []int64
	}{{-1, nil}, {3, nil}, {2, []int64{2}}, {1, []int64{2, 3}}, {0, []int64{2, 3, 4}}} {
		if got := numbers(revision.Surplus(numbered(1, 2, 3, 4, 5), c.limit, live)); !slices.Equal(got, c.want) {
			t.Errorf("limit %d: %v go, want %v", c.limit, got, c.want)
		}
	}
}

// The last good revision stands in for one that failed (design/rollback.md).
func TestStandIn(t *testing.T) {
	made := func(image string, number int64, mark, value string) *appsv1.ControllerRevision {
		r := plan(t, owner(image), nil).Revision
		r.Revision, r.Annotations = number, map[string]string{mark: value}
		return r
	}
	good := made("one", 1, onfailure.GoodMark, "1")
	bad := made("two", 2, onfailure.FailedMark, onfailure.Failure{Revision: 2}.String())
	history := []*appsv1.ControllerRevision{good, bad}
	ask := func(image string) (string, string) {
		o := owner(image)
		o.Object.SetAnnotations(map[string]string{onfailure.ActionAnnotation: "rollback", onfailure.UndoneMark: "x to y"})
		instead, asked, err := revision.StandIn(o, history)
		if err != nil {
			t.Fatal(err)
		}
		if instead == nil {
			return "", asked
		}
		return instead.Spec.Containers[0].Image, asked
	}
	for image, want := range map[string][2]string{"one": {}, "two": {"one", bad.Name}, "three": {}} {
		if instead, asked := ask(image); instead != want[0] || asked != want[1] {
			t.Errorf("%s: %q instead of %q, want %q", image, instead, asked, want)
		}
	}
	if instead, _, err := revision.StandIn(owner("two"), history); instead != nil || err != nil {
		t.Errorf("without a policy %v instead, %v", instead, err)
	}
	for image, want := range map[string]bool{"one": false, "two": true} {
		if r, last, err := revision.Asked(owner(image), history); err != nil || r == nil || last != want {
			t.Errorf("%s: %v is asked for, the last one %t, %v", image, r, last, err)
		}
	}
	o := owner("three")
	o.Object.SetAnnotations(map[string]string{onfailure.ActionAnnotation: "rollback", onfailure.UndoneMark: "x to y"})
	if r := plan(t, o, history).Revision; r.Annotations[onfailure.UndoneMark] != "" || r.Annotations[onfailure.ActionAnnotation] == "" {
		t.Errorf("a new revision has annotations %v", r.Annotations)
	}
}
