package bootstrap_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/auth/authtest"
	"hansa.dev/hansa/apiserver/auth/bootstrap"
	"hansa.dev/hansa/apiserver/auth/rbac"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// ensure does plans until there is nothing left, and says how many writes that
// took.
func ensure(t *testing.T, view *authtest.View) int {
	t.Helper()
	count := 0
	for range 4 {
		plan, err := bootstrap.Plan(view.Registry, view)
		if err != nil {
			t.Fatal(err)
		}
		if len(plan) == 0 {
			return count
		}
		for _, w := range plan {
			count++
			switch {
			case w.Create != nil:
				view.Put(w.Create)
			case w.Update != nil:
				view.Put(w.Update)
			default:
				view.Remove(w.Delete)
			}
		}
	}
	t.Fatal("the plans do not come to an end")
	return 0
}

// The roles and bindings of a new cluster, as text. Kubernetes' own are in
// plugin/pkg/auth/authorizer/rbac/bootstrappolicy/testdata.
func TestGolden(t *testing.T) {
	view := authtest.New(t)
	ensure(t, view)
	var text strings.Builder
	for _, plural := range []string{"clusterroles", "roles", "clusterrolebindings", "rolebindings"} {
		for obj := range view.List(view.Must(rbacv1.GroupName, plural), "") {
			describe(&text, obj)
		}
	}
	path := filepath.Join("testdata", "rbac.txt")
	if *update {
		if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), text.String()); diff != "" {
		t.Errorf("rbac.txt differs (-want +got); -update rewrites it:\n%s", diff)
	}
}

func describe(text *strings.Builder, obj api.Object) {
	rules := func(rules []rbacv1.PolicyRule) {
		for _, r := range rules {
			if len(r.NonResourceURLs) > 0 {
				fmt.Fprintf(text, "  %s %s\n", strings.Join(r.Verbs, ","), strings.Join(r.NonResourceURLs, " "))
				continue
			}
			fmt.Fprintf(text, "  %s %q %s", strings.Join(r.Verbs, ","), r.APIGroups, strings.Join(r.Resources, " "))
			if len(r.ResourceNames) > 0 {
				fmt.Fprintf(text, " named %s", strings.Join(r.ResourceNames, " "))
			}
			text.WriteByte('\n')
		}
	}
	binding := func(kind string, ref rbacv1.RoleRef, subjects []rbacv1.Subject) {
		fmt.Fprintf(text, "%s %s → %s %s\n", kind, obj.GetName(), ref.Kind, ref.Name)
		for _, s := range subjects {
			fmt.Fprintf(text, "  %s %s\n", s.Kind, strings.TrimPrefix(s.Namespace+"/"+s.Name, "/"))
		}
	}
	switch o := obj.(type) {
	case *rbacv1.ClusterRole:
		fmt.Fprintf(text, "ClusterRole %s", o.Name)
		for _, label := range slices.Sorted(func(yield func(string) bool) {
			for label := range o.Labels {
				if strings.Contains(label, "aggregate") && !yield(label) {
					return
				}
			}
		}) {
			fmt.Fprintf(text, " [%s]", strings.TrimPrefix(label, "rbac.authorization.k8s.io/"))
		}
		text.WriteByte('\n')
		if o.AggregationRule != nil {
			fmt.Fprintf(text, "  gathers %v\n", o.AggregationRule.ClusterRoleSelectors[0].MatchLabels)
		}
		rules(o.Rules)
	case *rbacv1.Role:
		fmt.Fprintf(text, "Role %s/%s\n", o.Namespace, o.Name)
		rules(o.Rules)
	case *rbacv1.ClusterRoleBinding:
		binding("ClusterRoleBinding", o.RoleRef, o.Subjects)
	case *rbacv1.RoleBinding:
		binding("RoleBinding "+o.Namespace, o.RoleRef, o.Subjects)
	}
}

// Every object passes the checks of its own kind.
func TestObjectsAreValid(t *testing.T) {
	view := authtest.New(t)
	for _, obj := range bootstrap.Objects() {
		r := view.Of(obj)
		if r.Default != nil {
			r.Default(obj)
		}
		if r.Validate == nil {
			continue
		}
		if errs := r.Validate(obj); len(errs) > 0 {
			t.Errorf("%s: %v", api.RefTo(r, obj), errs.ToAggregate())
		}
	}
}

func TestEnsureIsIdempotent(t *testing.T) {
	view := authtest.New(t)
	if n := ensure(t, view); n != len(bootstrap.Objects()) {
		t.Errorf("%d writes for %d objects", n, len(bootstrap.Objects()))
	}
	if n := ensure(t, view); n != 0 {
		t.Errorf("%d writes on the second start", n)
	}
}

func get[T api.Object](view *authtest.View, group, plural, namespace, name string) T {
	obj, _ := view.Get(view.Must(group, plural), api.Key{Namespace: namespace, Name: name}).(T)
	return obj
}

// What users changed stays, what is missing comes back.
func TestReconcile(t *testing.T) {
	view := authtest.New(t)
	ensure(t, view)

	extra := rbacv1.PolicyRule{Verbs: []string{"get"}, APIGroups: []string{"example.com"}, Resources: []string{"things"}}
	edited := get[*rbacv1.ClusterRole](view, rbacv1.GroupName, "clusterroles", "", "system:kube-dns").DeepCopy()
	edited.Rules = []rbacv1.PolicyRule{extra}
	edited.Labels = map[string]string{"mine": "yes", "kubernetes.io/bootstrapping": "no"}
	view.Put(edited)

	gathering := get[*rbacv1.ClusterRole](view, rbacv1.GroupName, "clusterroles", "", "system:node-proxier").DeepCopy()
	gathering.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{"a": "b"}}}}
	gathering.Rules = nil
	view.Put(gathering)

	fixed := get[*rbacv1.ClusterRole](view, rbacv1.GroupName, "clusterroles", "", "system:basic-user").DeepCopy()
	fixed.Rules = nil
	fixed.Annotations[rbacv1.AutoUpdateAnnotationKey] = "false"
	view.Put(fixed)

	lost := get[*rbacv1.ClusterRoleBinding](view, rbacv1.GroupName, "clusterrolebindings", "", "system:discovery").DeepCopy()
	lost.Subjects = []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "ann"}}
	view.Put(lost)

	redirected := get[*rbacv1.ClusterRoleBinding](view, rbacv1.GroupName, "clusterrolebindings", "", "system:monitoring").DeepCopy()
	redirected.RoleRef.Name = "cluster-admin"
	view.Put(redirected)

	view.Remove(get[*corev1.Namespace](view, "", "namespaces", "", "kube-public"))
	part := &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "things", Labels: map[string]string{"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
		Rules:      []rbacv1.PolicyRule{extra},
	}
	view.Put(part)
	ensure(t, view)

	edited = get[*rbacv1.ClusterRole](view, rbacv1.GroupName, "clusterroles", "", "system:kube-dns")
	if len(edited.Rules) != 5 || !cmp.Equal(edited.Rules[1], rbacv1.PolicyRule{Verbs: []string{"list"}, APIGroups: []string{""}, Resources: []string{"endpoints"}}) || edited.Labels["mine"] != "yes" || edited.Labels["kubernetes.io/bootstrapping"] != "no" {
		t.Errorf("an edited role became %v %v", edited.Labels, edited.Rules)
	}
	if gathering = get[*rbacv1.ClusterRole](view, rbacv1.GroupName, "clusterroles", "", "system:node-proxier"); gathering.AggregationRule != nil || len(gathering.Rules) == 0 {
		t.Errorf("a role that was made to gather others became %v", gathering)
	}
	if fixed = get[*rbacv1.ClusterRole](view, rbacv1.GroupName, "clusterroles", "", "system:basic-user"); len(fixed.Rules) != 0 {
		t.Errorf("a role with autoupdate=false became %v", fixed.Rules)
	}
	if lost = get[*rbacv1.ClusterRoleBinding](view, rbacv1.GroupName, "clusterrolebindings", "", "system:discovery"); len(lost.Subjects) != 2 {
		t.Errorf("a binding without its subject became %v", lost.Subjects)
	}
	redirected = get[*rbacv1.ClusterRoleBinding](view, rbacv1.GroupName, "clusterrolebindings", "", "system:monitoring")
	if redirected.RoleRef.Name != "system:monitoring" {
		t.Errorf("a binding to another role stayed: %v", redirected.RoleRef)
	}
	if get[*corev1.Namespace](view, "", "namespaces", "", "kube-public") == nil {
		t.Error("a lost namespace did not come back")
	}
	for _, name := range []string{"view", "edit", "admin"} {
		r := get[*rbacv1.ClusterRole](view, rbacv1.GroupName, "clusterroles", "", name)
		if !slices.ContainsFunc(r.Rules, func(r rbacv1.PolicyRule) bool { return cmp.Equal(r, extra) }) {
			t.Errorf("%s did not gather the rule of a new part", name)
		}
	}
}

// Roles that gather one another in a circle, and never settle, do not keep a
// cluster from starting.
func TestAggregationInCircles(t *testing.T) {
	view := authtest.New(t)
	ensure(t, view)
	circle := func(name, gathers string) *rbacv1.ClusterRole {
		return &rbacv1.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{name: "x"}},
			AggregationRule: &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{
				{MatchLabels: map[string]string{gathers: "x"}}}},
			Rules: []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{name}}},
		}
	}
	view.Put(circle("a", "b"))
	view.Put(circle("b", "c"))
	view.Put(circle("c", "a"))
	if n := ensure(t, view); n != 0 {
		t.Errorf("%d writes", n)
	}
}

// What the default roles mean, for those who have them from the start.
func TestDefaultsAllow(t *testing.T) {
	view := authtest.New(t)
	ensure(t, view)
	view.Put(&rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "view"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "viewer"}},
	})
	x := rbac.New(view.Registry, view)
	defer x.Close()
	loop := func(name string) user.Info { return serviceaccount.UserInfo("kube-system", name, "") }
	anybody := &user.DefaultInfo{Name: user.Anonymous, Groups: []string{user.AllUnauthenticated}}
	known := &user.DefaultInfo{Name: "ann", Groups: []string{user.AllAuthenticated}}
	viewer := &user.DefaultInfo{Name: "viewer", Groups: []string{user.AllAuthenticated}}
	for _, c := range []struct {
		user    user.Info
		verb    string
		what    string // group/resource[/subresource], or a path
		in      string
		allowed bool
	}{
		{anybody, "get", "/healthz", "", true},
		{anybody, "get", "/version", "", true},
		{anybody, "get", "/api", "", false},
		{anybody, "get", "/metrics", "", false},
		{anybody, "list", ":pods", "", false},
		{known, "get", "/openapi/v3", "", true},
		{known, "get", "/metrics", "", false},
		{known, "create", "authorization.k8s.io:selfsubjectaccessreviews", "", true},
		{known, "create", "authorization.k8s.io:subjectaccessreviews", "", false},
		{viewer, "list", ":pods", "shop", true},
		{viewer, "get", ":pods/log", "shop", true},
		{viewer, "get", ":secrets", "shop", false},
		{viewer, "delete", ":pods", "shop", false},
		{viewer, "list", ":pods", "bank", false},
		{loop("deployment-controller"), "create", "apps:replicasets", "shop", true},
		{loop("deployment-controller"), "create", ":pods", "shop", false},
		{loop("replicaset-controller"), "create", ":pods", "shop", true},
		{loop("namespace-controller"), "deletecollection", "apps:deployments", "shop", true},
		{loop("node-controller"), "delete", ":pods", "shop", true},
		{loop("job-controller"), "update", "batch:jobs/status", "shop", true},
		{&user.DefaultInfo{Name: "system:kube-scheduler"}, "create", ":pods/binding", "shop", true},
		{&user.DefaultInfo{Name: "system:kube-scheduler"}, "create", ":pods", "shop", false},
		{&user.DefaultInfo{Name: "kube-apiserver-kubelet-client"}, "create", ":nodes/proxy", "", true},
		{&user.DefaultInfo{Name: "x", Groups: []string{"system:serviceaccounts"}}, "get", "/openid/v1/jwks", "", true},
	} {
		a := authorizer.AttributesRecord{User: c.user, Verb: c.verb, Namespace: c.in, Path: c.what}
		if group, resource, ok := strings.Cut(c.what, ":"); ok {
			a.ResourceRequest, a.APIGroup = true, group
			a.Resource, a.Subresource, _ = strings.Cut(resource, "/")
		}
		decision, _, _ := x.Authorize(t.Context(), a)
		if got := decision == authorizer.DecisionAllow; got != c.allowed {
			t.Errorf("%s %s %s in %q: allowed %v", c.user.GetName(), c.verb, c.what, c.in, got)
		}
	}
}
