package noderestriction_test

import (
	"context"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/admission/admissiontest"
	"hansa.dev/hansa/apiserver/admission/noderestriction"
	"hansa.dev/hansa/apiserver/auth/authtest"
)

func pod(name, node string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID("uid-" + name)},
		Spec:       corev1.PodSpec{NodeName: node, ServiceAccountName: "robot"},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

func projects(audience string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: audience}}}}}})
	}
}

// mirror is a pod that n1 may create.
func mirror(change ...func(*corev1.Pod)) *corev1.Pod {
	p := pod("mirror", "n1", func(p *corev1.Pod) {
		p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
		p.Spec.ServiceAccountName = ""
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "n1", UID: "uid-n1", Controller: ptr.To(true)}}
	})
	for _, f := range change {
		f(p)
	}
	return p
}

func node(name string, change ...func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid-" + name), Labels: map[string]string{}}}
	for _, f := range change {
		f(n)
	}
	return n
}

func label(pairs ...string) func(*corev1.Node) {
	return func(n *corev1.Node) {
		for i := 0; i < len(pairs); i += 2 {
			n.Labels[pairs[i]] = pairs[i+1]
		}
	}
}

func setup(t *testing.T) (*noderestriction.Plugin, *authtest.View) {
	view := authtest.New(t, node("n1"), node("n2"), pod("mine", "n1", projects(""), projects("vault")), pod("other", "n2"), pod("bare", "n1"))
	mayAsk := authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
		if a.GetVerb() == "request-serviceaccounts-token-audience" && a.GetResource() == "special" && a.GetName() == "robot" && a.GetNamespace() == "ns" {
			return authorizer.DecisionAllow, "", nil
		}
		return authorizer.DecisionNoOpinion, "", nil
	})
	return noderestriction.New(view.Registry, view, mayAsk), view
}

type write struct {
	name  string
	write *admission.Attributes
	want  string
}

func TestPods(t *testing.T) {
	p, view := setup(t)
	reg, n1 := view.Registry, admissiontest.Node("n1")
	status := func(obj, old *corev1.Pod) *admission.Attributes {
		a := admissiontest.Update(reg, n1, obj, old)
		a.Subresource = "status"
		return a
	}
	binding := admissiontest.Post(reg, n1, pod("mine", "n1"), "binding", &corev1.Binding{})
	const create = `pods "mirror" is forbidden: `
	for _, c := range []write{
		{"a mirror pod", admissiontest.Create(reg, n1, mirror()), ""},
		{"a plain pod", admissiontest.Create(reg, n1, pod("new", "n1")), `pods "new" is forbidden: pod does not have "kubernetes.io/config.mirror" annotation, node "n1" can only create mirror pods`},
		{"for another node", admissiontest.Create(reg, n1, mirror(func(p *corev1.Pod) { p.Spec.NodeName = "n2" })), create + `node "n1" can only create pods with spec.nodeName set to itself`},
		{"without owner", admissiontest.Create(reg, n1, mirror(func(p *corev1.Pod) { p.OwnerReferences = nil })), create + `node "n1" can only create pods with an owner reference set to itself`},
		{"of two owners", admissiontest.Create(reg, n1, mirror(func(p *corev1.Pod) { p.OwnerReferences = append(p.OwnerReferences, p.OwnerReferences[0]) })), create + `node "n1" can only create pods with a single owner reference set to itself`},
		{"of another owner", admissiontest.Create(reg, n1, mirror(func(p *corev1.Pod) { p.OwnerReferences[0].Name = "n2" })), create + `node "n1" can only create pods with an owner reference set to itself`},
		{"not controlled", admissiontest.Create(reg, n1, mirror(func(p *corev1.Pod) { p.OwnerReferences[0].Controller = nil })), create + `node "n1" can only create pods with a controller owner reference set to itself`},
		{"blocking", admissiontest.Create(reg, n1, mirror(func(p *corev1.Pod) { p.OwnerReferences[0].BlockOwnerDeletion = ptr.To(true) })), create + `node "n1" must not set blockOwnerDeletion on an owner reference`},
		{"of an old node", admissiontest.Create(reg, n1, mirror(func(p *corev1.Pod) { p.OwnerReferences[0].UID = "x" })), create + `node n1 UID mismatch: expected x got uid-n1`},
		{"with an account", admissiontest.Create(reg, n1, mirror(func(p *corev1.Pod) { p.Spec.ServiceAccountName = "default" })), create + `node "n1" can not create pods that reference a service account`},
		{"with a secret", admissiontest.Create(reg, n1, mirror(func(p *corev1.Pod) { p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "s"}} })), create + `node "n1" can not create pods that reference secrets`},
		{"with a config map", admissiontest.Create(reg, n1, mirror(func(p *corev1.Pod) {
			p.Spec.Containers = []corev1.Container{{EnvFrom: []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "c"}}}}}}
		})), create + `node "n1" can not create pods that reference configmaps`},
		{"with a claim", admissiontest.Create(reg, n1, mirror(func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}}}}
		})), create + `node "n1" can not create pods that reference persistentvolumeclaims`},
		{"with devices", admissiontest.Create(reg, n1, mirror(func(p *corev1.Pod) { p.Spec.ResourceClaims = []corev1.PodResourceClaim{{}} })), create + `node "n1" can not create pods that reference resourceclaims`},
		{"with a trust bundle", admissiontest.Create(reg, n1, mirror(func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{}}}}}}}
		})), create + `node "n1" can not create pods that reference clustertrustbundles`},

		{"update", admissiontest.Update(reg, n1, pod("mine", "n1"), pod("mine", "n1")), `pods "mine" is forbidden: unexpected operation "UPDATE", node "n1" can only create and delete mirror pods`},
		{"delete its own", admissiontest.Delete(reg, n1, pod("mine", "n1")), ""},
		{"delete another's", admissiontest.Delete(reg, n1, pod("other", "n2")), `pods "other" is forbidden: node "n1" can only delete pods with spec.nodeName set to itself`},
		{"status of its own", status(pod("mine", "n1"), pod("mine", "n1")), ""},
		{"status of another's", status(pod("other", "n2"), pod("other", "n2")), `pods "other" is forbidden: node "n1" can only update pod status for pods with spec.nodeName set to itself`},
		{"labels by status", status(pod("mine", "n1", func(p *corev1.Pod) { p.Labels = map[string]string{"a": "b"} }), pod("mine", "n1")), `pods "mine" is forbidden: node "n1" cannot update labels through pod status`},
		{"claims by status", status(pod("mine", "n1", func(p *corev1.Pod) { p.Status.ResourceClaimStatuses = []corev1.PodResourceClaimStatus{{Name: "c"}} }), pod("mine", "n1")), `pods "mine" is forbidden: node "n1" cannot update resource claim statues`},
		{"evict its own", admissiontest.Post(reg, n1, pod("mine", "n1"), "eviction", &policyv1.Eviction{}), ""},
		{"evict another's", admissiontest.Post(reg, n1, pod("other", "n2"), "eviction", &policyv1.Eviction{}), `pods "other" is forbidden: node n1 can only evict pods with spec.nodeName set to itself`},
		{"bind", binding, `pods "mine" is forbidden: unexpected pod subresource "binding", only 'status' and 'eviction' are allowed`},
	} {
		admissiontest.Expect(t, c.name, p, c.write, 403, c.want)
	}
	admissiontest.Expect(t, "evict nothing", p, admissiontest.Post(reg, n1, pod("gone", "n1"), "eviction", &policyv1.Eviction{}), 404, `pods "gone" not found`)
	admissiontest.Expect(t, "a mirror pod of no node", p, admissiontest.Create(reg, admissiontest.Node("n3"), mirror(func(p *corev1.Pod) { p.Spec.NodeName, p.OwnerReferences[0].Name = "n3", "n3" })), 404, `nodes "n3" not found`)
}

func TestNodes(t *testing.T) {
	p, view := setup(t)
	reg, n1 := view.Registry, admissiontest.Node("n1")
	taint := func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: "k", Effect: "NoSchedule"}} }
	const begin = `nodes "n1" is forbidden: `
	for _, c := range []write{
		{"create itself", admissiontest.Create(reg, n1, node("n1", taint, label("kubernetes.io/hostname", "n1", "topology.kubernetes.io/zone", "z", "node.kubernetes.io/x", "y", "kubelet.kubernetes.io/x", "y", "example.com/x", "y", "plain", "y"))), ""},
		{"create another", admissiontest.Create(reg, n1, node("n2")), `nodes "n2" is forbidden: node "n1" is not allowed to modify node "n2"`},
		{"with labels of others", admissiontest.Create(reg, n1, node("n1", label("node-restriction.kubernetes.io/a", "x", "foo.node-restriction.kubernetes.io/b", "x", "node-role.kubernetes.io/control-plane", "", "k8s.io/c", "x"))),
			begin + `node "n1" is not allowed to set the following labels: foo.node-restriction.kubernetes.io/b, k8s.io/c, node-restriction.kubernetes.io/a, node-role.kubernetes.io/control-plane`},
		{"with a config source", admissiontest.Create(reg, n1, node("n1", func(n *corev1.Node) { n.Spec.ConfigSource = &corev1.NodeConfigSource{} })), begin + `node "n1" is not allowed to create pods with a non-nil configSource`},
		{"update itself", admissiontest.Update(reg, n1, node("n1", label("a", "b")), node("n1")), ""},
		{"update another", admissiontest.Update(reg, n1, node("n2"), node("n2")), `nodes "n2" is forbidden: node "n1" is not allowed to modify node "n2"`},
		{"taint itself", admissiontest.Update(reg, n1, node("n1", taint), node("n1")), begin + `node "n1" is not allowed to modify taints`},
		{"untaint itself", admissiontest.Update(reg, n1, node("n1"), node("n1", taint)), begin + `node "n1" is not allowed to modify taints`},
		{"add a role", admissiontest.Update(reg, n1, node("n1", label("node-role.kubernetes.io/x", "")), node("n1")), begin + `is not allowed to modify labels: node-role.kubernetes.io/x`},
		{"take a role away", admissiontest.Update(reg, n1, node("n1"), node("n1", label("node-role.kubernetes.io/x", ""))), begin + `is not allowed to modify labels: node-role.kubernetes.io/x`},
		{"keep a role", admissiontest.Update(reg, n1, node("n1", label("node-role.kubernetes.io/x", "")), node("n1", label("node-role.kubernetes.io/x", ""))), ""},
		{"be owned", admissiontest.Update(reg, n1, node("n1", func(n *corev1.Node) { n.OwnerReferences = []metav1.OwnerReference{{}} }), node("n1")), begin + `node "n1" is not allowed to modify ownerReferences`},
		{"a config source", admissiontest.Update(reg, n1, node("n1", func(n *corev1.Node) { n.Spec.ConfigSource = &corev1.NodeConfigSource{} }), node("n1")), begin + `node "n1" is not allowed to update configSource to a new non-nil configSource`},
		{"delete itself", admissiontest.Delete(reg, n1, node("n1")), ""},
		{"delete another", admissiontest.Delete(reg, n1, node("n2")), `nodes "n2" is forbidden: node "n1" is not allowed to modify node "n2"`},
		{"nobody in particular", admissiontest.Create(reg, admissiontest.Node(""), node("n1")), begin + `could not determine node from user "system:node:"`},
		{"not a node", admissiontest.Create(reg, &user.DefaultInfo{Name: "ann"}, node("n2", taint)), ""},
	} {
		admissiontest.Expect(t, c.name, p, c.write, 403, c.want)
	}
}

func TestLeases(t *testing.T) {
	p, view := setup(t)
	lease := func(namespace, name string) *coordinationv1.Lease {
		return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	}
	reg, n1 := view.Registry, admissiontest.Node("n1")
	for _, c := range []write{
		{"create its own", admissiontest.Create(reg, n1, lease("kube-node-lease", "n1")), ""},
		{"renew its own", admissiontest.Update(reg, n1, lease("kube-node-lease", "n1"), lease("kube-node-lease", "n1")), ""},
		{"create another's", admissiontest.Create(reg, n1, lease("kube-node-lease", "n2")), `leases.coordination.k8s.io "n2" is forbidden: can only access node lease with the same name as the requesting node`},
		{"renew another's", admissiontest.Update(reg, n1, lease("kube-node-lease", "n2"), lease("kube-node-lease", "n2")), `leases.coordination.k8s.io "n2" is forbidden: can only access node lease with the same name as the requesting node`},
		{"elsewhere", admissiontest.Create(reg, n1, lease("kube-system", "n1")), `leases.coordination.k8s.io "n1" is forbidden: can only access leases in the "kube-node-lease" system namespace`},
	} {
		admissiontest.Expect(t, c.name, p, c.write, 403, c.want)
	}
}

func TestTokens(t *testing.T) {
	p, view := setup(t)
	reg, n1 := view.Registry, admissiontest.Node("n1")
	robot := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "robot"}}
	token := func(bound *authenticationv1.BoundObjectReference, audiences ...string) *admission.Attributes {
		return admissiontest.Post(reg, n1, robot, "token", &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: bound, Audiences: audiences}})
	}
	to := func(name, uid string) *authenticationv1.BoundObjectReference {
		return &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: name, UID: types.UID(uid)}
	}
	const begin = `serviceaccounts "robot" is forbidden: `
	for _, c := range []write{
		{"for its pod", token(to("mine", "uid-mine")), ""},
		{"for its pod, for others", token(to("mine", "uid-mine"), "vault"), ""},
		{"for an audience it may ask for", token(to("mine", "uid-mine"), "special"), ""},
		{"for another audience", token(to("mine", "uid-mine"), "x"), begin + `audience "x" not found in pod spec volume, system:node:n1 is not authorized to request tokens for this audience`},
		{"for two audiences", token(to("mine", "uid-mine"), "vault", "x"), begin + `node may only request 0 or 1 audiences`},
		{"for a pod without a token", token(to("bare", "uid-bare")), begin + `audience "" not found in pod spec volume, system:node:n1 is not authorized to request tokens for this audience`},
		{"not bound", token(nil), begin + `node requested token not bound to a pod`},
		{"bound to a secret", token(&authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Secret", Name: "s"}), begin + `node requested token not bound to a pod`},
		{"without a UID", token(to("mine", "")), begin + `node requested token with a pod binding without a uid`},
		{"for an old pod", token(to("mine", "x")), begin + `the UID in the bound object reference (x) does not match the UID in record. The object might have been deleted and then recreated`},
		{"for another's pod", token(to("other", "uid-other")), begin + `node requested token bound to a pod scheduled on a different node`},
	} {
		admissiontest.Expect(t, c.name, p, c.write, 403, c.want)
	}
	admissiontest.Expect(t, "for no pod", p, token(to("gone", "x")), 404, `pods "gone" not found`)
}
