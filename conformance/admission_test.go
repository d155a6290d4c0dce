package conformance

import (
	"net/http"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// "Runtime Class": a pod that names one that is not there, or no more, is refused,
// and one that is there gives the pod what it says.
func TestRuntimeClasses(t *testing.T) {
	ns := namespace(t)
	const pod = `{"metadata": {"name": "p"}, "spec": {"runtimeClassName": "heavy", "schedulerName": "nobody", "containers": [{"name": "c", "image": "i"}]}}`
	const unknown = `pods "p" is forbidden: pod rejected: RuntimeClass "heavy" not found`
	admin.do(t, call{method: "POST", path: at("pods", ns), body: pod}).refused(t, http.StatusForbidden, metav1.StatusReasonForbidden, unknown)
	classes := under("node.k8s.io/v1", "runtimeclasses", "")
	admin.want(t, http.StatusCreated, call{method: "POST", path: classes, body: `{"metadata": {"name": "heavy"}, "handler": "h",
		"overhead": {"podFixed": {"cpu": "100m"}}, "scheduling": {"nodeSelector": {"heavy": "yes"}}}`}, nil)
	try := func() answer {
		return admin.do(t, call{method: "POST", path: at("pods", ns) + "?dryRun=All", body: pod})
	}
	eventually(t, "the class is known", func() bool {
		a := try()
		if a.code != http.StatusCreated {
			return false
		}
		made := a.object(t)
		if field(made, "spec", "overhead", "cpu") != "100m" || field(made, "spec", "nodeSelector", "heavy") != "yes" {
			t.Errorf("the pod is %s", a.body)
		}
		return true
	})
	admin.want(t, http.StatusOK, call{method: "DELETE", path: classes + "/heavy"}, nil)
	eventually(t, "the class is known no more", func() bool { return try().code != http.StatusCreated })
	try().refused(t, http.StatusForbidden, metav1.StatusReasonForbidden, unknown)
}

// "Certificate Signing Requests", authorization: who approves must be allowed to
// for the signer; the requester is whoever asked.
func TestApprovals(t *testing.T) {
	request := ""
	for _, s := range samples(t, "") {
		if s.GetKind() == "CertificateSigningRequest" {
			s.SetName("to-approve")
			s.Object["spec"].(map[string]any)["username"] = "somebody"
			request = s.path("to-approve")
			_, me := admin.whoami(t)
			if made := s.make(t); field(made, "spec", "username") != me.Username {
				t.Errorf("the requester is %s, want %s", field(made, "spec", "username"), me.Username)
			}
		}
	}
	const approved = `{"status":{"conditions":[{"type":"Approved","status":"True","reason":"R","message":"m"}]}}`
	role := under("rbac.authorization.k8s.io/v1", "clusterroles", "")
	bindings := under("rbac.authorization.k8s.io/v1", "clusterrolebindings", "")
	install := func(path, name, body string) {
		admin.want(t, http.StatusCreated, call{method: "POST", path: path, body: body}, nil)
		t.Cleanup(func() {
			if resp, err := admin.open(background, call{method: "DELETE", path: path + "/" + name}); err == nil {
				resp.Body.Close()
			}
		})
	}
	install(role, "may-patch-approvals", `{"metadata": {"name": "may-patch-approvals"}, "rules": [{"apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests/approval"], "verbs": ["patch"]}]}`)
	install(bindings, "may-patch-approvals", `{"metadata": {"name": "may-patch-approvals"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "may-patch-approvals"}, "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "patcher"}]}`)
	patcher := impersonating(t, "patcher")
	patch := call{method: "PATCH", path: request + "/approval", contentType: mergePatch, body: approved}
	eventually(t, "the role is known", func() bool {
		a := patcher.do(t, patch)
		s := a.status(t)
		return a.code == http.StatusForbidden && s.Message == `certificatesigningrequests.certificates.k8s.io "to-approve" is forbidden: user not permitted to approve requests with signerName "example.com/signer"`
	})
	done := admin.want(t, http.StatusOK, patch, nil).object(t)
	if conditions, _, _ := nested[[]any](done.Object, "status", "conditions"); len(conditions) != 1 || conditions[0].(map[string]any)["lastTransitionTime"] == nil || conditions[0].(map[string]any)["lastUpdateTime"] == nil {
		t.Errorf("the conditions are %v, want the server's times", conditions)
	}
}

// "Limit Ranges": containers get their defaults and are held to the limits.
func TestLimitRanges(t *testing.T) {
	ns := namespace(t)
	create(t, "limitranges", ns, `{"metadata": {"name": "l"}, "spec": {"limits": [{"type": "Container", "default": {"cpu": "1"}, "max": {"cpu": "2"}}]}}`)
	pod := func(limit string) string {
		return `{"metadata": {"name": "p"}, "spec": {"schedulerName": "nobody", "containers": [{"name": "c", "image": "i", "resources": {` + limit + `}}]}}`
	}
	eventually(t, "the range is known", func() bool {
		a := admin.want(t, http.StatusCreated, call{method: "POST", path: at("pods", ns) + "?dryRun=All", body: pod("")}, nil)
		return field(a.object(t), "metadata", "annotations", "kubernetes.io/limit-ranger") == "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
	})
	admin.do(t, call{method: "POST", path: at("pods", ns), body: pod(`"limits": {"cpu": "3"}`)}).refused(t, http.StatusForbidden, metav1.StatusReasonForbidden,
		`pods "p" is forbidden: maximum cpu usage per Container is 2, but limit is 3`)
}
