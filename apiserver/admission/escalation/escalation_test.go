package escalation_test

import (
	"fmt"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/admission/admissiontest"
	"hansa.dev/hansa/apiserver/admission/escalation"
	"hansa.dev/hansa/apiserver/auth"
	"hansa.dev/hansa/apiserver/auth/authtest"
	"hansa.dev/hansa/apiserver/auth/rbac"
)

func rule(verbs, group, resources string, names ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{Verbs: strings.Split(verbs, ","), APIGroups: []string{group}, Resources: strings.Split(resources, ","), ResourceNames: names}
}

var (
	readPods    = rule("get", "", "pods")
	readSecrets = rule("get", "", "secrets")
	everything  = rule("*", "*", "*")
	anyPath     = rbacv1.PolicyRule{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}}
)

func role(namespace, name string, rules ...rbacv1.PolicyRule) *rbacv1.Role {
	return &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Rules: rules}
}

func clusterRole(name string, rules ...rbacv1.PolicyRule) *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}
}

func gathering(r *rbacv1.ClusterRole) *rbacv1.ClusterRole {
	r.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{}}}
	return r
}

func to(kind, name string) rbacv1.RoleRef {
	return rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: name}
}

func bind(namespace, name string, ref rbacv1.RoleRef, who string) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, RoleRef: ref,
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: who}}}
}

func bindCluster(name string, ref rbacv1.RoleRef, who string) *rbacv1.ClusterRoleBinding {
	return &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: ref,
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: who}}}
}

// The users: what each has in the namespace "ns", if not said otherwise.
const (
	reader    = "reader"    // reads pods
	reader2   = "reader2"   // reads pods and secrets, in all namespaces
	escalator = "escalator" // may escalate the role "mine", and no more
	anything  = "anything"  // may escalate any role
	binder    = "binder"    // may bind the cluster role "secrets"
	admin     = "admin"     // has everything, in all namespaces
	master    = "master"    // is in system:masters
)

// The matrix of "Privilege escalation prevention and bootstrapping" in
// Kubernetes' documentation: who may write what.
func TestMatrix(t *testing.T) {
	view := authtest.New(t,
		clusterRole("pods", readPods), clusterRole("secrets", readSecrets), clusterRole("both", readPods, readSecrets), clusterRole("all", everything, anyPath),
		role("ns", "pods", readPods), role("ns", "secrets", readSecrets),
		role("ns", "escalate-mine", rule("escalate", rbacv1.GroupName, "roles", "mine")),
		role("ns", "escalate", rule("escalate", rbacv1.GroupName, "roles")),
		role("ns", "bind-secrets", rule("bind", rbacv1.GroupName, "clusterroles", "secrets")),
		bind("ns", "a", to("Role", "pods"), reader),
		bindCluster("b", to("ClusterRole", "both"), reader2),
		bind("ns", "c", to("Role", "escalate-mine"), escalator),
		bind("ns", "d", to("Role", "escalate"), anything),
		bind("ns", "e", to("Role", "bind-secrets"), binder),
		bindCluster("f", to("ClusterRole", "all"), admin),
	)
	index := rbac.New(view.Registry, view)
	defer index.Close()
	p := escalation.New(index, auth.Chain{index})
	all := []string{reader, reader2, escalator, anything, binder, admin, master}

	create := func(obj api.Object) func(user.Info) *admission.Attributes {
		return func(u user.Info) *admission.Attributes { return admissiontest.Create(view.Registry, u, obj) }
	}
	update := func(obj, old api.Object) func(user.Info) *admission.Attributes {
		return func(u user.Info) *admission.Attributes { return admissiontest.Update(view.Registry, u, obj, old) }
	}
	released := role("ns", "mine", everything)
	released.Finalizers, released.ResourceVersion = []string{"x"}, "5"
	for _, c := range []struct {
		name  string
		write func(user.Info) *admission.Attributes
		may   string // names, divided by spaces
	}{
		{"a role with nothing", create(role("ns", "mine")), strings.Join(all, " ")},
		{"a role that reads pods", create(role("ns", "mine", readPods)), "reader reader2 anything admin master"},
		{"a role that reads secrets", create(role("ns", "mine", readSecrets)), "reader2 anything admin master"},
		{"the same elsewhere", create(role("other", "mine", readPods)), "reader2 admin master"},
		{"a role that gets secrets as well", update(role("ns", "mine", readPods, readSecrets), role("ns", "mine", readPods)), "reader2 escalator anything admin master"},
		{"another that gets secrets", update(role("ns", "other", readSecrets), role("ns", "other")), "reader2 anything admin master"},
		{"a role that is released", update(role("ns", "mine", everything), released), strings.Join(all, " ")},
		{"a cluster role that reads pods", create(clusterRole("mine", readPods)), "reader2 admin master"},
		{"a cluster role with everything", create(clusterRole("mine", everything)), "admin master"},
		{"a cluster role that gathers", create(gathering(clusterRole("mine"))), "admin master"},
		{"a cluster role that gathered", update(clusterRole("mine"), gathering(clusterRole("mine"))), "admin master"},
		{"a binding to a role", create(bind("ns", "x", to("Role", "pods"), "eve")), "reader reader2 admin master"},
		{"a binding to more", create(bind("ns", "x", to("ClusterRole", "both"), "eve")), "reader2 admin master"},
		{"a binding to secrets", create(bind("ns", "x", to("ClusterRole", "secrets"), "eve")), "reader2 binder admin master"},
		{"a binding to a role of that name", create(bind("ns", "x", to("Role", "secrets"), "eve")), "reader2 admin master"},
		{"the same elsewhere", create(bind("other", "x", to("ClusterRole", "secrets"), "eve")), "reader2 admin master"},
		{"a new subject", update(bind("ns", "x", to("ClusterRole", "all"), "eve"), bind("ns", "x", to("ClusterRole", "all"), "ann")), "admin master"},
		{"a cluster binding to pods", create(bindCluster("x", to("ClusterRole", "pods"), "eve")), "reader2 admin master"},
		{"a cluster binding to secrets", create(bindCluster("x", to("ClusterRole", "secrets"), "eve")), "reader2 admin master"},
		{"deleting", func(u user.Info) *admission.Attributes {
			return admissiontest.Delete(view.Registry, u, bindCluster("x", to("ClusterRole", "all"), "eve"))
		}, strings.Join(all, " ")},
	} {
		var may []string
		for _, name := range all {
			u := &user.DefaultInfo{Name: name}
			if name == master {
				u.Groups = []string{user.SystemPrivilegedGroup}
			}
			if err := admissiontest.Run(t.Context(), p, c.write(u)); err == nil {
				may = append(may, name)
			}
		}
		if got := strings.Join(may, " "); got != c.may {
			t.Errorf("%s: %s\nwant %s", c.name, got, c.may)
		}
	}
}

func TestTexts(t *testing.T) {
	view := authtest.New(t, clusterRole("pods", readPods), bind("ns", "a", to("ClusterRole", "pods"), reader))
	index := rbac.New(view.Registry, view)
	defer index.Close()
	p := escalation.New(index, auth.Chain{index})
	u := &user.DefaultInfo{Name: reader, Groups: []string{"system:authenticated"}}
	const attempt = `user "reader" (groups=["system:authenticated"]) is attempting to grant RBAC permissions not currently held:` + "\n"
	for _, c := range []struct {
		obj  api.Object
		code int32
		want string
	}{
		{role("ns", "r", readPods, readSecrets), 403, fmt.Sprintf(`roles.%s "r" is forbidden: %s{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}`, rbacv1.GroupName, attempt)},
		{bindCluster("b", to("ClusterRole", "pods"), "eve"), 403, fmt.Sprintf(`clusterrolebindings.%s "b" is forbidden: %s{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`, rbacv1.GroupName, attempt)},
		{bind("ns", "b", to("Role", "gone"), "eve"), 404, `roles.rbac.authorization.k8s.io "gone" not found`},
		{bind("ns", "b", to("ClusterRole", "gone"), "eve"), 404, `clusterroles.rbac.authorization.k8s.io "gone" not found`},
		{gathering(clusterRole("c")), 403, `clusterroles.rbac.authorization.k8s.io "c" is forbidden: must have cluster-admin privileges to use the aggregationRule`},
	} {
		admissiontest.Expect(t, c.obj.GetName(), p, admissiontest.Create(view.Registry, u, c.obj), c.code, c.want)
	}
}
