package node_test

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"hansa.dev/hansa/apiserver/auth/authtest"
	"hansa.dev/hansa/apiserver/auth/bootstrap"
	"hansa.dev/hansa/apiserver/auth/node"
)

func nodeUser(name string) user.Info {
	return &user.DefaultInfo{Name: "system:node:" + name, Groups: []string{"system:nodes", "system:authenticated"}}
}

func TestIdentity(t *testing.T) {
	for _, c := range []struct {
		user   user.Info
		name   string
		isNode bool
	}{
		{nodeUser("n1"), "n1", true},
		{nodeUser(""), "", true},
		{&user.DefaultInfo{Name: "system:node:n1"}, "", false},
		{&user.DefaultInfo{Name: "n1", Groups: []string{"system:nodes"}}, "", false},
		{nil, "", false},
	} {
		if name, isNode := node.Identity(c.user); name != c.name || isNode != c.isNode {
			t.Errorf("%v is %q, %v; want %q, %v", c.user, name, isNode, c.name, c.isNode)
		}
	}
}

// pod runs on n1 and refers to secrets and config maps in every way; what they
// are called says how.
func pod() *corev1.Pod {
	local := func(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }
	env := func(sort string) ([]corev1.EnvVar, []corev1.EnvFromSource) {
		return []corev1.EnvVar{
				{Name: "PLAIN", Value: "x"},
				{Name: "S", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: local(sort + "-env")}}},
				{Name: "C", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: local(sort + "-env")}}},
			}, []corev1.EnvFromSource{
				{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: local(sort + "-from")}},
				{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: local(sort + "-from")}},
			}
	}
	container := func(sort string) corev1.Container {
		c := corev1.Container{Name: sort}
		c.Env, c.EnvFrom = env(sort)
		return c
	}
	debug := corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug"}}
	debug.Env, debug.EnvFrom = env("debug")
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "p1"},
		Spec: corev1.PodSpec{
			NodeName:            "n1",
			ServiceAccountName:  "robot",
			ImagePullSecrets:    []corev1.LocalObjectReference{local("pull")},
			InitContainers:      []corev1.Container{container("init")},
			Containers:          []corev1.Container{container("main")},
			EphemeralContainers: []corev1.EphemeralContainer{debug},
			Volumes: []corev1.Volume{
				{Name: "a", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "volume"}}},
				{Name: "b", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: local("volume")}}},
				{Name: "c", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
					{Secret: &corev1.SecretProjection{LocalObjectReference: local("projected")}},
					{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: local("projected")}},
				}}}},
				{Name: "d", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}},
				{Name: "scratch", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}},
				{Name: "e", VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{NodePublishSecretRef: &corev1.LocalObjectReference{Name: "csi"}}}},
			},
		},
	}
}

const (
	core, none = "", ""
	unrelated  = "no relationship found between node 'n1' and this object"
)

// request is one that n1 makes, and what is said to it.
type request struct {
	a       authorizer.AttributesRecord
	allowed bool
	reason  string
}

func ask(group, resource, sub, verb, namespace, name string) authorizer.AttributesRecord {
	return authorizer.AttributesRecord{Verb: verb, APIGroup: group, Resource: resource, Subresource: sub,
		Namespace: namespace, Name: name, ResourceRequest: true}
}

// setup is a cluster with a pod of n1, a mirror pod of n1, and a pod of n2.
func setup(t *testing.T) (*node.Authorizer, *authtest.View) {
	mirror := pod()
	mirror.Name, mirror.Namespace = "mirror", "mirrors"
	mirror.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
	elsewhere := pod()
	elsewhere.Name, elsewhere.Namespace, elsewhere.Spec.NodeName = "other", "shop2", "n2"
	view := authtest.New(t, pod(), mirror, elsewhere)
	return node.New(view.Registry, view, bootstrap.NodeRules()), view
}

func check(t *testing.T, requests []request) {
	t.Helper()
	z, _ := setup(t)
	for _, r := range requests {
		r.a.User = nodeUser("n1")
		decision, reason, err := z.Authorize(t.Context(), r.a)
		want := authorizer.DecisionNoOpinion
		if r.allowed {
			want = authorizer.DecisionAllow
		}
		if decision != want || reason != r.reason || err != nil {
			what := fmt.Sprintf("%s %s/%s/%s %s/%s", r.a.Verb, r.a.APIGroup, r.a.Resource, r.a.Subresource, r.a.Namespace, r.a.Name)
			t.Errorf("%s: %v, %q, %v; want %v, %q", what, decision, reason, err, want, r.reason)
		}
	}
}

// The rules are those of Kubernetes' reference, "Using Node Authorization".

func TestSecretsAndConfigMaps(t *testing.T) {
	requests := []request{
		{ask(core, "secrets", none, "get", "shop", "unused"), false, unrelated},
		{ask(core, "secrets", none, "get", "shop2", "pull"), false, unrelated},
		{ask(core, "secrets", none, "get", "mirrors", "pull"), false, unrelated},
		{ask(core, "secrets", none, "list", "shop", ""), false, "No Object name found"},
		{ask(core, "secrets", none, "list", "", ""), false, "can only read namespaced object of this type"},
		{ask(core, "secrets", none, "watch", "shop", "volume"), true, ""},
		{ask(core, "secrets", none, "list", "shop", "volume"), true, ""},
		{ask(core, "secrets", none, "update", "shop", "volume"), false, "can only read resources of this type"},
		{ask(core, "secrets", none, "create", "shop", ""), false, "can only read resources of this type"},
		{ask(core, "secrets", none, "delete", "shop", "volume"), false, "can only read resources of this type"},
		{ask(core, "secrets", "status", "get", "shop", "volume"), false, "cannot read subresource"},
		{ask(core, "configmaps", none, "get", "shop", "csi"), false, unrelated},
	}
	for _, name := range []string{"pull", "init-env", "init-from", "main-env", "main-from", "debug-env", "debug-from", "volume", "projected", "csi"} {
		requests = append(requests, request{ask(core, "secrets", none, "get", "shop", name), true, ""})
	}
	for _, name := range []string{"init-env", "init-from", "main-env", "main-from", "debug-env", "debug-from", "volume", "projected"} {
		requests = append(requests, request{ask(core, "configmaps", none, "get", "shop", name), true, ""})
	}
	check(t, requests)
}

func TestClaims(t *testing.T) {
	check(t, []request{
		{ask(core, "persistentvolumeclaims", none, "get", "shop", "data"), true, ""},
		{ask(core, "persistentvolumeclaims", none, "get", "shop", "web-scratch"), true, ""},
		{ask(core, "persistentvolumeclaims", none, "get", "shop", "other"), false, unrelated},
		{ask(core, "persistentvolumeclaims", none, "list", "shop", ""), false, "can only get individual resources of this type"},
		{ask(core, "persistentvolumeclaims", "status", "patch", "shop", "data"), true, ""},
		{ask(core, "persistentvolumeclaims", "status", "get", "shop", "data"), false, "can only get/update/patch this type"},
		{ask(core, "persistentvolumes", none, "get", "", "pv"), false, unrelated},
	})
}

func TestServiceAccounts(t *testing.T) {
	check(t, []request{
		{ask(core, "serviceaccounts", "token", "create", "shop", "robot"), true, ""},
		{ask(core, "serviceaccounts", "token", "create", "shop", "default"), false, unrelated},
		{ask(core, "serviceaccounts", "token", "create", "shop2", "robot"), false, unrelated},
		{ask(core, "serviceaccounts", none, "get", "shop", "robot"), true, ""},
		{ask(core, "serviceaccounts", none, "get", "shop", "default"), false, unrelated},
		{ask(core, "serviceaccounts", none, "list", "shop", ""), false, "can only create tokens for individual service accounts"},
		{ask(core, "serviceaccounts", none, "create", "shop", "x"), false, "can only create token subresource of serviceaccount"},
	})
}

func TestNodes(t *testing.T) {
	check(t, []request{
		{ask(core, "nodes", none, "get", "", "n1"), true, ""},
		{ask(core, "nodes", none, "watch", "", "n1"), true, ""},
		{ask(core, "nodes", none, "get", "", "n2"), false, "node 'n1' cannot read 'n2', only its own Node object"},
		{ask(core, "nodes", none, "list", "", ""), false, "node 'n1' cannot read all nodes, only its own Node object"},
		{ask(core, "nodes", none, "create", "", ""), true, ""},
		{ask(core, "nodes", none, "delete", "", "n1"), false, ""},
		{ask(core, "nodes", "status", "patch", "", "n1"), true, ""},
		{ask(core, "nodes", "proxy", "create", "", "n1"), false, ""},
	})
}

func TestPods(t *testing.T) {
	requests := []request{
		{ask(core, "pods", none, "get", "shop", "web"), true, ""},
		{ask(core, "pods", none, "get", "mirrors", "mirror"), true, ""},
		{ask(core, "pods", none, "get", "shop2", "other"), false, unrelated},
		{ask(core, "pods", none, "get", "shop", "absent"), false, unrelated},
		{ask(core, "pods", none, "list", "", ""), false, "can only list/watch pods with spec.nodeName field selector"},
		{ask(core, "pods", none, "watch", "shop", "web"), true, ""},
		{ask(core, "pods", none, "delete", "shop", "web"), true, ""},
		{ask(core, "pods", none, "update", "shop", "web"), false, ""},
		{ask(core, "pods", none, "deletecollection", "shop", ""), false, ""},
		{ask(core, "pods", "status", "patch", "shop", "web"), true, ""},
		{ask(core, "pods", "eviction", "create", "shop", "web"), true, ""},
		{ask(core, "pods", "exec", "create", "shop", "web"), false, ""},
		{ask(core, "pods", "binding", "create", "shop", "web"), false, ""},
	}
	selected := func(selector string, allowed bool, reason string) {
		a := ask(core, "pods", none, "list", "", "")
		a.FieldSelectorRequirements = fields.ParseSelectorOrDie(selector).Requirements()
		requests = append(requests, request{a, allowed, reason})
	}
	const unselected = "can only list/watch pods with spec.nodeName field selector"
	selected("spec.nodeName=n1", true, "")
	selected("spec.nodeName=n1,status.phase=Running", true, "")
	selected("spec.nodeName=n2", false, unselected)
	selected("spec.nodeName!=n1", false, unselected)
	selected("metadata.name=n1", false, unselected)
	check(t, requests)
}

func TestLeases(t *testing.T) {
	check(t, []request{
		{ask("coordination.k8s.io", "leases", none, "update", "kube-node-lease", "n1"), true, ""},
		{ask("coordination.k8s.io", "leases", none, "create", "kube-node-lease", ""), true, ""},
		{ask("coordination.k8s.io", "leases", none, "update", "kube-node-lease", "n2"), false, "can only access node lease with the same name as the requesting node"},
		{ask("coordination.k8s.io", "leases", none, "get", "kube-system", "n1"), false, `can only access leases in the "kube-node-lease" system namespace`},
		{ask("coordination.k8s.io", "leases", none, "list", "kube-node-lease", ""), false, "can only get, create, update, patch, or delete a node lease"},
		{ask("storage.k8s.io", "csinodes", none, "get", "", "n1"), true, ""},
		{ask("storage.k8s.io", "csinodes", none, "get", "", "n2"), false, "can only access CSINode with the same name as the requesting node"},
	})
}

func TestOthers(t *testing.T) {
	check(t, []request{
		{ask(core, "services", none, "watch", "", ""), true, ""},
		{ask(core, "events", none, "create", "shop", ""), true, ""},
		{ask(core, "events", none, "list", "shop", ""), false, ""},
		{ask("apps", "deployments", none, "list", "shop", ""), false, ""},
		{ask("rbac.authorization.k8s.io", "clusterroles", none, "get", "", "admin"), false, ""},
		{ask("authentication.k8s.io", "tokenreviews", none, "create", "", ""), true, ""},
		{authorizer.AttributesRecord{Verb: "get", Path: "/metrics"}, false, ""},
	})
}

func TestWhoAsks(t *testing.T) {
	z, view := setup(t)
	secret := ask(core, "secrets", none, "get", "shop", "volume")
	for _, c := range []struct {
		user   user.Info
		reason string
	}{
		{nodeUser("n2"), "no relationship found between node 'n2' and this object"},
		{nodeUser(""), `unknown node for user "system:node:"`},
		{&user.DefaultInfo{Name: "ann"}, ""},
	} {
		secret.User = c.user
		if decision, reason, _ := z.Authorize(t.Context(), secret); decision != authorizer.DecisionNoOpinion || reason != c.reason {
			t.Errorf("%s: %v, %q; want %q", c.user.GetName(), decision, reason, c.reason)
		}
	}

	// With the pod its node's right to the secret is gone.
	secret.User = nodeUser("n1")
	if decision, _, _ := z.Authorize(t.Context(), secret); decision != authorizer.DecisionAllow {
		t.Error("refused while the pod is there")
	}
	view.Remove(pod())
	if decision, _, _ := z.Authorize(t.Context(), secret); decision == authorizer.DecisionAllow {
		t.Error("allowed after the pod is gone")
	}
}
