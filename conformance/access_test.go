package conformance

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// grant gives a user a role in a namespace. rules are in YAML.
func grant(t *testing.T, ns, name, user, rules string) {
	t.Helper()
	create(t, "roles", ns, "metadata: {name: "+name+"}\nrules: "+rules)
	create(t, "rolebindings", ns, fmt.Sprintf("metadata: {name: %[1]s}\nroleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: %[1]s}\nsubjects: [{kind: User, name: %[2]s, apiGroup: rbac.authorization.k8s.io}]", name, user))
}

// "Using RBAC Authorization": rules add up, by verb, resource, subresource and
// name, in the namespace of the binding, from the moment of the write.
func TestRBAC(t *testing.T) {
	ns, other := namespace(t), "rbac-other"
	create(t, "namespaces", "", "metadata: {name: "+other+"}")
	create(t, "configmaps", ns, "metadata: {name: mine}")
	create(t, "configmaps", ns, "metadata: {name: theirs}")
	user := "user-" + ns
	u := impersonating(t, user)
	code := func(method, path, body string) int {
		return u.do(t, call{method: method, path: path, body: body, contentType: ""}).code
	}
	if c := code("GET", at("configmaps", ns), ""); c != http.StatusForbidden {
		t.Errorf("without a role: %d", c)
	}
	grant(t, ns, "reader", user, `[{apiGroups: [""], resources: [configmaps], verbs: [get, list, watch]}]`)
	grant(t, ns, "owner", user, `[{apiGroups: [""], resources: [configmaps], resourceNames: [mine], verbs: [update, delete]}, {apiGroups: [""], resources: [secrets], resourceNames: [one], verbs: [list, watch]}, {apiGroups: [""], resources: [pods/log], verbs: [get]}]`)
	for _, c := range []struct {
		method, path, body string
		want               int
	}{
		{"GET", at("configmaps", ns), "", 200},
		{"GET", at("configmaps", ns, "theirs"), "", 200},
		{"GET", at("configmaps", other), "", 403},
		{"GET", at("configmaps", ""), "", 403},
		{"POST", at("configmaps", ns), "metadata: {name: x}", 403},
		{"PUT", at("configmaps", ns, "mine"), "metadata: {name: mine}", 200},
		{"PUT", at("configmaps", ns, "theirs"), "metadata: {name: theirs}", 403},
		{"DELETE", at("configmaps", ns), "", 403},
		{"GET", at("secrets", ns), "", 403},
		{"GET", at("secrets", ns) + "?fieldSelector=metadata.name%3Done", "", 200},
		{"GET", at("secrets", ns) + "?fieldSelector=metadata.name%3Done&watch=1&timeoutSeconds=1", "", 200},
		{"GET", at("secrets", ns) + "?fieldSelector=metadata.name%3Dtwo", "", 403},
		{"GET", at("secrets", ns, "one"), "", 403},
		{"GET", at("pods", ns, "p"), "", 403},
		{"GET", at("pods", ns, "p", "log"), "", 404},
		{"DELETE", at("configmaps", ns, "mine"), "", 200},
	} {
		if got := code(c.method, c.path, c.body); got != c.want {
			t.Errorf("%s %s: %d, want %d", c.method, c.path, got, c.want)
		}
	}
	admin.want(t, http.StatusOK, deleteCall("rolebindings", ns, "reader", ""), nil)
	if c := code("GET", at("configmaps", ns), ""); c != http.StatusForbidden {
		t.Errorf("after the binding went: %d", c)
	}
}

// "Default roles and role bindings": they are there, with their rules, and
// aggregation gathers what is labelled for it.
func TestDefaultRoles(t *testing.T) {
	var roles rbacv1.ClusterRoleList
	admin.want(t, http.StatusOK, call{path: at("clusterroles", "")}, &roles)
	have := map[string]rbacv1.ClusterRole{}
	for _, r := range roles.Items {
		have[r.Name] = r
	}
	for _, name := range []string{
		"cluster-admin", "admin", "edit", "view", "system:discovery", "system:basic-user", "system:public-info-viewer", "system:monitoring",
		"system:auth-delegator", "system:node", "system:kube-scheduler", "system:kube-controller-manager", "system:kubelet-api-admin", "system:node-proxier",
		"system:aggregate-to-admin", "system:aggregate-to-edit", "system:aggregate-to-view", "system:service-account-issuer-discovery",
		"system:controller:deployment-controller", "system:controller:replicaset-controller", "system:controller:job-controller",
		"system:controller:endpointslice-controller", "system:controller:generic-garbage-collector", "system:controller:namespace-controller",
	} {
		r, ok := have[name]
		if !ok || len(r.Rules) == 0 || r.Labels["kubernetes.io/bootstrapping"] != "rbac-defaults" || r.Annotations["rbac.authorization.kubernetes.io/autoupdate"] != "true" {
			t.Errorf("role %s: there %v, %d rules, labels %v", name, ok, len(r.Rules), r.Labels)
		}
	}
	var bindings rbacv1.ClusterRoleBindingList
	admin.want(t, http.StatusOK, call{path: at("clusterrolebindings", "")}, &bindings)
	subjects := map[string][]rbacv1.Subject{}
	for _, b := range bindings.Items {
		subjects[b.Name] = b.Subjects
	}
	if s := subjects["cluster-admin"]; len(s) != 1 || s[0].Name != "system:masters" {
		t.Errorf("cluster-admin is bound to %v", s)
	}
	if s := subjects["system:node"]; len(s) != 0 {
		t.Errorf("system:node is bound to %v; nodes have an authorizer of their own", s)
	}

	ns := namespace(t)
	user := "viewer-" + ns
	create(t, "rolebindings", ns, "metadata: {name: v}\nroleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}\nsubjects: [{kind: User, name: "+user+", apiGroup: rbac.authorization.k8s.io}]")
	v := impersonating(t, user)
	for path, want := range map[string]int{
		at("configmaps", ns): 200, at("deployments", ns): 200, at("pods", ns): 200, at("jobs", ns): 200,
		at("secrets", ns): 403, at("roles", ns): 403, at("nodes", ""): 403, at("configmaps", "default"): 403,
		"/api/v1": 200, "/openapi/v3": 200, "/version": 200, "/metrics": 403, "/livez/etcd": 403,
	} {
		if got := v.do(t, call{path: path}); got.code != want {
			t.Errorf("a viewer's GET %s: %d, want %d", path, got.code, want)
		}
	}
	create(t, "clusterroles", "", "metadata: {name: gather-"+ns+", labels: {rbac.authorization.k8s.io/aggregate-to-view: 'true'}}\nrules: [{apiGroups: [test.dev], resources: [things], verbs: [get]}]")
	eventually(t, "view gathers the new rule", func() bool {
		var view rbacv1.ClusterRole
		admin.want(t, http.StatusOK, call{path: at("clusterroles", "", "view")}, &view)
		return slices.ContainsFunc(view.Rules, func(r rbacv1.PolicyRule) bool { return slices.Contains(r.APIGroups, "test.dev") })
	})
	admin.want(t, http.StatusOK, deleteCall("clusterroles", "", "gather-"+ns, ""), nil)
}

// "Privilege escalation prevention and bootstrapping": nobody gives what he has
// not, unless he may escalate or bind.
func TestEscalationIsRefused(t *testing.T) {
	ns := namespace(t)
	user := "climber-" + ns
	u := impersonating(t, user)
	grant(t, ns, "roles", user, `[{apiGroups: [rbac.authorization.k8s.io], resources: [roles, rolebindings], verbs: [create, update, patch]}, {apiGroups: [""], resources: [pods], verbs: [get]}]`)
	role := func(name, resource string) call {
		return call{method: "POST", path: at("roles", ns), body: "metadata: {name: " + name + "}\nrules: [{apiGroups: [''], resources: [" + resource + "], verbs: [get]}]"}
	}
	bind := func(name, kind, to string) call {
		return call{method: "POST", path: at("rolebindings", ns), body: "metadata: {name: " + name + "}\nroleRef: {apiGroup: rbac.authorization.k8s.io, kind: " + kind + ", name: " + to + "}\nsubjects: [{kind: User, name: x, apiGroup: rbac.authorization.k8s.io}]"}
	}
	u.want(t, http.StatusCreated, role("a", "pods"), nil)
	u.do(t, role("b", "secrets")).refused(t, 403, metav1.StatusReasonForbidden, `roles.rbac.authorization.k8s.io "b" is forbidden: user "`+user+`" (groups=["system:authenticated"]) is attempting to grant RBAC permissions not currently held:`+"\n"+`{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}`)
	u.do(t, call{method: "PATCH", path: at("roles", ns, "a"), contentType: mergePatch, body: `{"rules":[{"apiGroups":["*"],"resources":["*"],"verbs":["*"]}]}`}).
		refused(t, 403, metav1.StatusReasonForbidden, "is attempting to grant RBAC permissions not currently held")
	u.want(t, http.StatusCreated, bind("a", "Role", "a"), nil)
	u.do(t, bind("b", "ClusterRole", "cluster-admin")).refused(t, 403, metav1.StatusReasonForbidden, "is attempting to grant RBAC permissions not currently held")
	u.do(t, bind("c", "Role", "none")).refused(t, 404, metav1.StatusReasonNotFound, `roles.rbac.authorization.k8s.io "none" not found`)
	grant(t, ns, "may", user, `[{apiGroups: [rbac.authorization.k8s.io], resources: [roles], verbs: [escalate]}, {apiGroups: [rbac.authorization.k8s.io], resources: [clusterroles], resourceNames: [view], verbs: [bind]}]`)
	u.want(t, http.StatusCreated, role("b", "secrets"), nil)
	u.want(t, http.StatusCreated, bind("d", "ClusterRole", "view"), nil)
	admin.do(t, call{method: "PATCH", path: at("rolebindings", ns, "d"), contentType: mergePatch, body: `{"roleRef":{"name":"edit"}}`}).
		refused(t, 422, metav1.StatusReasonInvalid, "field is immutable")
}

// "Checking API access": four reviews, one answer.
func TestAccessReviews(t *testing.T) {
	ns := namespace(t)
	user := "asked-" + ns
	grant(t, ns, "r", user, `[{apiGroups: [""], resources: [pods], verbs: [get]}]`)
	ask := func(p *peer, resource, in, kind, spec string) authorizationv1.SubjectAccessReviewStatus {
		t.Helper()
		var r struct {
			Status authorizationv1.SubjectAccessReviewStatus
		}
		p.want(t, http.StatusCreated, call{method: "POST", path: at(resource, in), body: "{apiVersion: authorization.k8s.io/v1, kind: " + kind + ", metadata: {namespace: " + in + "}, spec: {" + spec + "}}"}, &r)
		return r.Status
	}
	get := "resourceAttributes: {namespace: " + ns + ", verb: get, resource: pods}"
	del := "resourceAttributes: {namespace: " + ns + ", verb: delete, resource: pods}"
	who := "user: " + user + ", "
	if s := ask(admin, "subjectaccessreviews", "", "SubjectAccessReview", who+get); !s.Allowed || s.Reason == "" {
		t.Errorf("SubjectAccessReview: %+v", s)
	}
	if s := ask(admin, "subjectaccessreviews", "", "SubjectAccessReview", who+del); s.Allowed || s.Denied {
		t.Errorf("SubjectAccessReview of what is not allowed: %+v", s)
	}
	if s := ask(admin, "subjectaccessreviews", "", "SubjectAccessReview", "user: x, groups: [system:masters], "+del); !s.Allowed {
		t.Errorf("SubjectAccessReview by group: %+v", s)
	}
	if s := ask(admin, "subjectaccessreviews", "", "SubjectAccessReview", who+"nonResourceAttributes: {path: /metrics, verb: get}"); s.Allowed {
		t.Errorf("SubjectAccessReview of a path: %+v", s)
	}
	if s := ask(admin, "localsubjectaccessreviews", ns, "LocalSubjectAccessReview", who+get); !s.Allowed {
		t.Errorf("LocalSubjectAccessReview: %+v", s)
	}
	u := impersonating(t, user)
	if s := ask(u, "selfsubjectaccessreviews", "", "SelfSubjectAccessReview", get); !s.Allowed {
		t.Errorf("SelfSubjectAccessReview: %+v", s)
	}
	if s := ask(u, "selfsubjectaccessreviews", "", "SelfSubjectAccessReview", del); s.Allowed {
		t.Errorf("SelfSubjectAccessReview of what is not allowed: %+v", s)
	}
	u.do(t, call{method: "POST", path: at("subjectaccessreviews", ""), body: "{apiVersion: authorization.k8s.io/v1, kind: SubjectAccessReview, spec: {user: x, " + get + "}}"}).
		refused(t, 403, metav1.StatusReasonForbidden, "cannot create resource \"subjectaccessreviews\"")
	var rules authorizationv1.SelfSubjectRulesReview
	u.want(t, http.StatusCreated, call{method: "POST", path: at("selfsubjectrulesreviews", ""), body: "{apiVersion: authorization.k8s.io/v1, kind: SelfSubjectRulesReview, spec: {namespace: " + ns + "}}"}, &rules)
	if !slices.ContainsFunc(rules.Status.ResourceRules, func(r authorizationv1.ResourceRule) bool {
		return slices.Equal(r.Resources, []string{"pods"}) && slices.Equal(r.Verbs, []string{"get"})
	}) || len(rules.Status.NonResourceRules) == 0 || rules.Status.Incomplete {
		t.Errorf("rules are %+v", rules.Status)
	}
	none := "null: exactly one of nonResourceAttributes or resourceAttributes must be specified"
	both := `{"Path":"/x","Verb":"get"}: exactly one of nonResourceAttributes or resourceAttributes must be specified`
	named := `{"name":"me","managedFields":[{"manager":"tester","operation":"Update","apiVersion":"authorization.k8s.io/v1",`
	for _, bad := range []struct{ resource, in, body, message string }{
		{"subjectaccessreviews", "", "{spec: {" + get + "}}", "spec.user: Invalid value: \"\": at least one of user or group must be specified"},
		{"subjectaccessreviews", "", "{spec: {user: x}}", "spec: Invalid value: " + none},
		{"subjectaccessreviews", "", "{spec: {}}", "[spec: Invalid value: " + none + `, spec.user: Invalid value: "": at least one of`},
		{"subjectaccessreviews", "", "{spec: {user: x, nonResourceAttributes: {path: /x, verb: get}, " + get + "}}", "spec: Invalid value: " + both},
		{"selfsubjectaccessreviews", "", "{spec: {}}", "spec: Invalid value: " + none},
		{"selfsubjectaccessreviews", "", "{metadata: {name: me}, spec: {" + get + "}}", "metadata: Invalid value: " + named},
		{"localsubjectaccessreviews", ns, "{spec: {user: x, nonResourceAttributes: {path: /x}}}", `spec.nonResourceAttributes: Invalid value: {"Path":"/x","Verb":""}: disallowed on this kind of request`},
	} {
		s := admin.do(t, call{method: "POST", path: at(bad.resource, bad.in) + "?fieldManager=tester", body: bad.body}).refused(t, 422, metav1.StatusReasonInvalid, bad.message)
		if d := s.Details; d == nil || d.Group != "authorization.k8s.io" || d.Kind != "" || !strings.HasPrefix(s.Message, `.authorization.k8s.io "" is invalid: `) {
			t.Errorf("%s is refused as %+v", bad.body, s)
		}
	}
	// What is answered says who asked, as any object that is written does.
	review := admin.want(t, http.StatusCreated, call{method: "POST", path: at("selfsubjectaccessreviews", "") + "?fieldManager=tester", body: "{spec: {" + get + "}}"}, nil).object(t)
	if m := review.GetManagedFields(); len(m) != 1 || m[0].Manager != "tester" || string(m[0].FieldsV1.Raw) != `{"f:spec":{"f:resourceAttributes":{".":{},"f:namespace":{},"f:resource":{},"f:verb":{}}}}` {
		t.Errorf("managers %+v", m)
	}
}
