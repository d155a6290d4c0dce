package rbac_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/component-helpers/auth/rbac/validation"

	"hansa.dev/hansa/apiserver/auth/authtest"
	"hansa.dev/hansa/apiserver/auth/rbac"
	"hansa.dev/hansa/internal/rbacrules"
)

func role(namespace, name string, rules ...rbacv1.PolicyRule) *rbacv1.Role {
	return &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Rules: rules}
}

func clusterRole(name string, rules ...rbacv1.PolicyRule) *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}
}

func ref(kind, name string) rbacv1.RoleRef {
	return rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: name}
}

func bind(namespace, name string, to rbacv1.RoleRef, subjects ...rbacv1.Subject) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, RoleRef: to, Subjects: subjects}
}

func bindCluster(name string, to rbacv1.RoleRef, subjects ...rbacv1.Subject) *rbacv1.ClusterRoleBinding {
	return &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: to, Subjects: subjects}
}

func userSubject(name string) rbacv1.Subject {
	return rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: "User", Name: name}
}

func groupSubject(name string) rbacv1.Subject {
	return rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: "Group", Name: name}
}

func accountSubject(namespace, name string) rbacv1.Subject {
	return rbacv1.Subject{Kind: "ServiceAccount", Namespace: namespace, Name: name}
}

// rule is "verbs group resources [names]", lists divided by commas.
func rule(text string) rbacv1.PolicyRule {
	f := strings.Fields(text)
	r := rbacv1.PolicyRule{Verbs: strings.Split(f[0], ",")}
	if strings.HasPrefix(f[1], "/") || f[1] == "url" {
		r.NonResourceURLs = strings.Split(f[len(f)-1], ",")
		return r
	}
	r.APIGroups = strings.Split(strings.ReplaceAll(f[1], "core", ""), ",")
	r.Resources = strings.Split(f[2], ",")
	if len(f) > 3 {
		r.ResourceNames = strings.Split(f[3], ",")
	}
	return r
}

// ask is "verb group resource[/subresource] [namespace/][name]", or "verb /path".
func ask(u user.Info, text string) authorizer.AttributesRecord {
	f := strings.Fields(text)
	a := authorizer.AttributesRecord{User: u, Verb: f[0]}
	if strings.HasPrefix(f[1], "/") {
		a.Path = f[1]
		return a
	}
	a.ResourceRequest = true
	a.APIGroup = strings.ReplaceAll(f[1], "core", "")
	a.Resource, a.Subresource, _ = strings.Cut(f[2], "/")
	if len(f) > 3 {
		namespace, name, ok := strings.Cut(f[3], "/")
		if !ok {
			namespace, name = "", f[3]
		}
		a.Namespace, a.Name = namespace, name
	}
	return a
}

func TestRules(t *testing.T) {
	for _, c := range []struct {
		rule    string
		allowed []string
		refused []string
	}{
		{"get core pods",
			[]string{"get core pods a/b", "get core pods"},
			[]string{"list core pods a/", "get core pods/log a/b", "get apps pods a/b", "get core secrets a/b", "get /pods"}},
		{"* core pods", []string{"get core pods a/b", "frobnicate core pods"}, []string{"get core pods/log a/b"}},
		{"get core *", []string{"get core pods", "get core pods/log a/b"}, []string{"get apps deployments"}},
		{"get * *", []string{"get apps deployments/scale a/b", "get core pods"}, []string{"get /api", "list core pods"}},
		{"get * */scale", []string{"get apps deployments/scale a/b"}, []string{"get apps deployments a/b", "get apps deployments/status a/b"}},
		{"get apps */scale", []string{"get apps deployments/scale a/b"}, []string{"get batch jobs/scale a/b"}},
		{"get core pods/log", []string{"get core pods/log a/b"}, []string{"get core pods a/b", "get core pods/exec a/b"}},
		{"get core secrets mine,ours",
			[]string{"get core secrets a/mine", "get core secrets a/ours"},
			[]string{"get core secrets a/other", "get core secrets a/"}},
		{"impersonate core users bob", []string{"impersonate core users bob"}, []string{"impersonate core users eve", "get core users bob"}},
		{"get url /healthz", []string{"get /healthz"}, []string{"get /healthz/etcd", "get /health", "post /healthz"}},
		{"get url /apis/*", []string{"get /apis/", "get /apis/apps/v1"}, []string{"get /apis", "get /api"}},
		{"get url *", []string{"get /anything"}, []string{"get core pods", "post /anything"}},
		{"put,post url *", []string{"put /x", "post /x"}, []string{"get /x"}},
	} {
		compiled := rbac.Compile([]rbacv1.PolicyRule{rule(c.rule)})
		for _, request := range c.allowed {
			if !compiled.Allow(ask(&user.DefaultInfo{}, request)) {
				t.Errorf("rule %q refuses %q", c.rule, request)
			}
		}
		for _, request := range c.refused {
			if compiled.Allow(ask(&user.DefaultInfo{}, request)) {
				t.Errorf("rule %q allows %q", c.rule, request)
			}
		}
	}
}

// The dumb twin of a compiled rule set is the library's Covers, asked whether
// the rules cover one that grants exactly the request.
func TestRulesAgainstCovers(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(from ...string) string { return from[random.IntN(len(from))] }
	some := func(from ...string) []string {
		var list []string
		for range 1 + random.IntN(2) {
			list = append(list, pick(from...))
		}
		return list
	}
	for range 20000 {
		var rules []rbacv1.PolicyRule
		for range random.IntN(4) {
			r := rbacv1.PolicyRule{
				Verbs:     some("get", "list", "bind", "*"),
				APIGroups: some("", "apps", "*"),
				Resources: some("pods", "pods/log", "scale", "*/log", "*"),
			}
			if random.IntN(3) == 0 {
				r.ResourceNames = some("a", "b")
			}
			rules = append(rules, r)
		}
		verb, group := pick("get", "list", "bind", "watch"), pick("", "apps", "batch")
		resource, subresource, name := pick("pods", "scale", "nodes"), pick("", "", "log", "scale"), pick("", "a", "b")
		wanted := rbacv1.PolicyRule{Verbs: []string{verb}, APIGroups: []string{group}, Resources: []string{resource}}
		if subresource != "" {
			wanted.Resources[0] += "/" + subresource
		}
		if name != "" {
			wanted.ResourceNames = []string{name}
		}
		want, _ := validation.Covers(rules, []rbacv1.PolicyRule{wanted})
		got := rbac.Compile(rules).Allow(authorizer.AttributesRecord{
			Verb: verb, APIGroup: group, Resource: resource, Subresource: subresource, Name: name, ResourceRequest: true,
		})
		if got != want {
			t.Fatalf("rules %v, request %v: allowed %v, want %v", rules, wanted, got, want)
		}
	}
}

func TestAuthorize(t *testing.T) {
	view := authtest.New(t,
		clusterRole("reader", rule("get,list core pods"), rule("get url /metrics")),
		role("a", "writer", rule("create core pods"), rule("get url /secret")),
		bindCluster("all-readers", ref("ClusterRole", "reader"), groupSubject("readers"), userSubject("ann")),
		bind("a", "writers", ref("Role", "writer"), userSubject("bob"), accountSubject("b", "robot"), accountSubject("", "local")),
		bind("a", "readers", ref("ClusterRole", "reader"), userSubject("carl")),
		bind("a", "broken", ref("Role", "gone"), userSubject("dora")),
		bindCluster("broken", ref("ClusterRole", "gone"), userSubject("dora")),
	)
	x := rbac.New(view.Registry, view)
	defer x.Close()
	who := func(name string, groups ...string) user.Info { return &user.DefaultInfo{Name: name, Groups: groups} }
	robot := serviceaccount.UserInfo("b", "robot", "1")
	for _, c := range []struct {
		user    user.Info
		request string
		allowed bool
		reason  string
	}{
		{who("x", "readers"), "get core pods a/p", true, `RBAC: allowed by ClusterRoleBinding "all-readers" of ClusterRole "reader" to Group "readers"`},
		{who("ann"), "list core pods", true, `RBAC: allowed by ClusterRoleBinding "all-readers" of ClusterRole "reader" to User "ann"`},
		{who("ann"), "get /metrics", true, `RBAC: allowed by ClusterRoleBinding "all-readers" of ClusterRole "reader" to User "ann"`},
		{who("ann"), "create core pods a/", false, ""},
		{who("readers"), "get core pods a/p", false, ""},
		{who("x", "ann"), "get core pods a/p", false, ""},
		{who("bob"), "create core pods a/", true, `RBAC: allowed by RoleBinding "writers/a" of Role "writer" to User "bob"`},
		{who("bob"), "create core pods b/", false, ""},
		{who("bob"), "create core pods", false, ""},
		{who("bob"), "get /secret", false, ""},
		{robot, "create core pods a/", true, `RBAC: allowed by RoleBinding "writers/a" of Role "writer" to ServiceAccount "robot/b"`},
		{serviceaccount.UserInfo("a", "local", "1"), "create core pods a/", true, `RBAC: allowed by RoleBinding "writers/a" of Role "writer" to ServiceAccount "local/a"`},
		{serviceaccount.UserInfo("a", "robot", "1"), "create core pods a/", false, ""},
		{who("carl"), "get core pods a/p", true, `RBAC: allowed by RoleBinding "readers/a" of ClusterRole "reader" to User "carl"`},
		{who("carl"), "get core pods b/p", false, ""},
		{who("carl"), "get /metrics", false, ""},
		{who("dora"), "get core pods a/p", false, `RBAC: [clusterrole.rbac.authorization.k8s.io "gone" not found, role.rbac.authorization.k8s.io "gone" not found]`},
		{who("dora"), "get core pods b/p", false, `RBAC: clusterrole.rbac.authorization.k8s.io "gone" not found`},
	} {
		decision, reason, err := x.Authorize(t.Context(), ask(c.user, c.request))
		want := authorizer.DecisionNoOpinion
		if c.allowed {
			want = authorizer.DecisionAllow
		}
		if decision != want || reason != c.reason || err != nil {
			t.Errorf("%s: %s: %v, %q, %v; want %v, %q", c.user.GetName(), c.request, decision, reason, err, want, c.reason)
		}
	}
}

// What the objects say now is what counts, whatever came before.
func TestIndexFollows(t *testing.T) {
	view := authtest.New(t)
	x := rbac.New(view.Registry, view)
	defer x.Close()
	ann := &user.DefaultInfo{Name: "ann"}
	expect := func(step string, want bool) {
		t.Helper()
		decision, _, _ := x.Authorize(context.Background(), ask(ann, "get core pods a/p"))
		if got := decision == authorizer.DecisionAllow; got != want {
			t.Errorf("%s: allowed %v, want %v", step, got, want)
		}
	}
	expect("nothing", false)
	binding := bind("a", "b", ref("Role", "r"), userSubject("ann"), userSubject("ann"))
	view.Put(binding)
	expect("a binding without a role", false)
	view.Put(role("a", "r", rule("get core pods")))
	expect("role and binding", true)
	view.Put(role("a", "r", rule("get core secrets")))
	expect("the role changed", false)
	view.Put(role("a", "r", rule("get core pods")))
	view.Put(bind("a", "b", ref("Role", "r"), userSubject("bob")))
	expect("the binding names somebody else", false)
	view.Put(binding)
	expect("the binding names her again", true)
	view.Put(bind("a", "a", ref("Role", "r"), userSubject("ann")))
	view.Remove(binding)
	expect("one of two bindings removed", true)
	view.Remove(bind("a", "a", ref("Role", "r")))
	expect("both bindings removed", false)
	view.Put(binding)
	view.Remove(role("a", "r"))
	expect("the role removed", false)
	x.Close()
	view.Put(role("a", "r", rule("get core pods")))
	expect("closed before the role came back", false)
}

func TestConfirmNoEscalation(t *testing.T) {
	view := authtest.New(t,
		clusterRole("view-pods", rule("get,list,watch core pods"), rule("get url /metrics")),
		role("a", "secrets", rule("get core secrets mine")),
		bindCluster("c", ref("ClusterRole", "view-pods"), userSubject("ann")),
		bind("a", "s", ref("Role", "secrets"), userSubject("ann")),
	)
	x := rbac.New(view.Registry, view)
	defer x.Close()
	ann := &user.DefaultInfo{Name: "ann", Groups: []string{"g1", "system:authenticated"}}
	const begin = `user "ann" (groups=["g1" "system:authenticated"]) is attempting to grant RBAC permissions not currently held:` + "\n"
	for _, c := range []struct {
		namespace string
		rules     []string
		missing   string
	}{
		{"a", []string{"get core pods", "list,watch core pods"}, ""},
		{"a", []string{"get core secrets mine"}, ""},
		{"", []string{"get url /metrics"}, ""},
		{"b", []string{"get core secrets mine"}, `{APIGroups:[""], Resources:["secrets"], ResourceNames:["mine"], Verbs:["get"]}`},
		{"a", []string{"get core secrets"}, `{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}`},
		{"a", []string{"get,create,delete core pods,secrets"},
			`{APIGroups:[""], Resources:["pods"], Verbs:["create" "delete"]}` + "\n" +
				`{APIGroups:[""], Resources:["secrets"], Verbs:["get" "create" "delete"]}`},
		{"", []string{"get url /metrics,/logs"}, `{NonResourceURLs:["/logs"], Verbs:["get"]}`},
		{"", []string{"* * *"}, `{APIGroups:["*"], Resources:["*"], Verbs:["*"]}`},
	} {
		var rules []rbacv1.PolicyRule
		for _, text := range c.rules {
			rules = append(rules, rule(text))
		}
		err := x.ConfirmNoEscalation(ann, c.namespace, rules)
		switch {
		case c.missing == "" && err != nil:
			t.Errorf("%q in %q: %v", c.rules, c.namespace, err)
		case c.missing != "" && (err == nil || err.Error() != begin+c.missing):
			t.Errorf("%q in %q: %v\nwant %s", c.rules, c.namespace, err, begin+c.missing)
		}
	}
	gone := ref("ClusterRole", "gone")
	if _, err := x.RulesOfRole(&gone, "a"); !apierrors.IsNotFound(err) || err.Error() != `clusterroles.rbac.authorization.k8s.io "gone" not found` {
		t.Errorf("rules of a missing role: %v", err)
	}
}

func TestAggregate(t *testing.T) {
	part := func(name, label string, rules ...rbacv1.PolicyRule) *rbacv1.ClusterRole {
		r := clusterRole(name, rules...)
		r.Labels = map[string]string{label: "true"}
		return r
	}
	whole := clusterRole("whole")
	whole.Labels = map[string]string{"a": "true"}
	whole.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{
		{MatchLabels: map[string]string{"a": "true"}},
		{MatchLabels: map[string]string{"b": "true"}},
	}}
	whole.Rules = []rbacv1.PolicyRule{rule("* * *")}
	all := []*rbacv1.ClusterRole{
		part("one", "a", rule("get core pods"), rule("get core secrets")),
		part("other", "c", rule("delete core nodes")),
		part("two", "b", rule("get core pods"), rule("list core pods")),
		whole,
	}
	rules, err := rbacrules.Aggregate(whole, func(yield func(*rbacv1.ClusterRole) bool) {
		for _, r := range all {
			if !yield(r) {
				return
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprint([]rbacv1.PolicyRule{rule("get core pods"), rule("get core secrets"), rule("list core pods")})
	if got := fmt.Sprint(rules); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// BenchmarkAuthorize asks as a user with four groups and a dozen bindings.
func BenchmarkAuthorize(b *testing.B) {
	view := authtest.New(b, clusterRole("reader", rule("get,list core pods,services,configmaps"), rule("get apps *")))
	for i := range 10 {
		view.Put(bindCluster(fmt.Sprintf("c%d", i), ref("ClusterRole", "reader"), groupSubject("g")))
	}
	view.Put(bind("a", "mine", ref("ClusterRole", "reader"), userSubject("ann")))
	x := rbac.New(view.Registry, view)
	defer x.Close()
	a := ask(&user.DefaultInfo{Name: "ann", Groups: []string{"g", "h", "i", "system:authenticated"}}, "update core configmaps a/x")
	b.ReportAllocs()
	for b.Loop() {
		x.Authorize(context.Background(), a)
	}
}
