package bootstrap_test

import (
	"slices"
	"strings"
	"testing"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/auth/authtest"
	"hansa.dev/hansa/apiserver/auth/bootstrap"
)

// theirs is a precedence that somebody has chosen.
const theirs = 100_000

// change gives a schema another precedence, as a user would, and says in its
// annotation whether it is to be kept up to date; "" takes the annotation away.
func change(v *authtest.View, obj api.Object, auto string) {
	fs := obj.DeepCopyObject().(*flowcontrolv1.FlowSchema)
	fs.Spec.MatchingPrecedence = theirs
	fs.Generation++
	fs.Annotations = nil
	if auto != "" {
		fs.Annotations = map[string]string{flowcontrolv1.AutoUpdateAnnotationKey: auto}
	}
	v.Put(fs)
}

// ensureFairness does one plan, says what it was, and fails when it leaves
// another.
func ensureFairness(t *testing.T, view *authtest.View) []string {
	t.Helper()
	var did []string
	for _, w := range bootstrap.PlanFairness(view.Registry, view) {
		switch {
		case w.Create != nil:
			did = append(did, "create "+w.Create.GetName())
			w.Create.SetGeneration(1)
			view.Put(w.Create)
		case w.Update != nil:
			did = append(did, "update "+w.Update.GetName())
			view.Put(w.Update)
		default:
			did = append(did, "delete "+w.Delete.GetName())
			view.Remove(w.Delete)
		}
	}
	if left := bootstrap.PlanFairness(view.Registry, view); len(left) > 0 {
		t.Errorf("the plan leaves %d writes", len(left))
	}
	slices.Sort(did)
	return did
}

// The objects of https://kubernetes.io/docs/concepts/cluster-administration/flow-control/#defaults.
func TestFairnessObjects(t *testing.T) {
	view := authtest.New(t)
	want := strings.Fields(`catch-all catch-all exempt exempt global-default global-default kube-controller-manager kube-scheduler
		kube-system-service-accounts leader-election node-high probes service-accounts system system-leader-election system-node-high
		system-nodes workload-high workload-low`)
	for i := range want {
		want[i] = "create " + want[i]
	}
	if did := ensureFairness(t, view); !slices.Equal(did, want) {
		t.Errorf("a new cluster gets %q, want %q", did, want)
	}
}

// Rules of the same page: "Maintenance of the Mandatory and Suggested
// Configuration Objects".
func TestFairnessObjectsAreKept(t *testing.T) {
	const key = flowcontrolv1.AutoUpdateAnnotationKey
	for _, tt := range []struct {
		what   string
		change func(v *authtest.View, get func(string) api.Object)
		did    []string
		// kept says that the change is still there afterwards.
		kept bool
	}{
		{"a mandatory one is deleted", func(v *authtest.View, get func(string) api.Object) { v.Remove(get("schema catch-all")) }, []string{"create catch-all"}, false},
		{"a suggested one is deleted", func(v *authtest.View, get func(string) api.Object) { v.Remove(get("level system")) }, []string{"create system"}, false},
		{"a mandatory one is changed", func(v *authtest.View, get func(string) api.Object) { change(v, get("schema catch-all"), "") }, []string{"update catch-all"}, false},
		{"a mandatory one is taken over", func(v *authtest.View, get func(string) api.Object) { change(v, get("schema catch-all"), "false") }, []string{"update catch-all"}, false},
		{"a suggested one is changed", func(v *authtest.View, get func(string) api.Object) { change(v, get("schema probes"), "true") }, []string{"update probes"}, false},
		{"a suggested one is taken over", func(v *authtest.View, get func(string) api.Object) { change(v, get("schema probes"), "false") }, nil, true},
		{"a suggested one is changed and says nothing", func(v *authtest.View, get func(string) api.Object) { change(v, get("schema probes"), "") }, []string{"update probes"}, true},
		{"the shares of the exempt", func(v *authtest.View, get func(string) api.Object) {
			pl := get("level exempt").DeepCopyObject().(*flowcontrolv1.PriorityLevelConfiguration)
			pl.Spec.Exempt.NominalConcurrencyShares = ptr.To[int32](7)
			v.Put(pl)
		}, nil, false},
		{"one that is suggested no more", func(v *authtest.View, _ func(string) api.Object) {
			v.Put(&flowcontrolv1.FlowSchema{ObjectMeta: metav1.ObjectMeta{Name: "old", Annotations: map[string]string{key: "true"}}})
			v.Put(&flowcontrolv1.FlowSchema{ObjectMeta: metav1.ObjectMeta{Name: "theirs", Annotations: map[string]string{key: "false"}}})
			v.Put(&flowcontrolv1.FlowSchema{ObjectMeta: metav1.ObjectMeta{Name: "mine"}})
		}, []string{"delete old"}, false},
	} {
		t.Run(tt.what, func(t *testing.T) {
			view := authtest.New(t)
			ensureFairness(t, view)
			get := func(what string) api.Object {
				kind, name, _ := strings.Cut(what, " ")
				plural := map[string]string{"schema": "flowschemas", "level": "prioritylevelconfigurations"}[kind]
				return view.Get(view.Registry.Must(flowcontrolv1.GroupName, plural), api.Key{Name: name})
			}
			tt.change(view, get)
			if did := ensureFairness(t, view); !slices.Equal(did, tt.did) {
				t.Errorf("did %q, want %q", did, tt.did)
			}
			changed := 0
			for _, name := range []string{"catch-all", "probes"} {
				changed += int(get("schema "+name).(*flowcontrolv1.FlowSchema).Spec.MatchingPrecedence) / theirs
			}
			if kept := changed > 0; kept != tt.kept {
				t.Errorf("the change is kept: %v, want %v", kept, tt.kept)
			}
		})
	}
}
