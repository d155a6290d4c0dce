package bootstrap

import (
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// controllerPrefix begins the names of the roles of loops. The rest is the name
// of the service account as which the loop acts.
const controllerPrefix = "system:controller:"

// controllers are the loops and what they may do.
func controllers() []struct {
	name  string
	rules []rbacv1.PolicyRule
} {
	type loop = struct {
		name  string
		rules []rbacv1.PolicyRule
	}
	rules := func(rules ...rbacv1.PolicyRule) []rbacv1.PolicyRule { return rules }
	return []loop{
		{"certificate-controller", rules(
			on("certificates.k8s.io", "certificatesigningrequests", "delete get list watch"),
			on("certificates.k8s.io", "certificatesigningrequests/approval certificatesigningrequests/status", "update"),
			named("certificates.k8s.io", "signers", "kubernetes.io/kube-apiserver-client-kubelet", "approve"),
			rbacv1.PolicyRule{
				Verbs: []string{"sign"}, APIGroups: []string{"certificates.k8s.io"}, Resources: []string{"signers"},
				ResourceNames: []string{
					"kubernetes.io/kube-apiserver-client", "kubernetes.io/kube-apiserver-client-kubelet",
					"kubernetes.io/kubelet-serving", "kubernetes.io/legacy-unknown",
				},
			},
			on("authorization.k8s.io", "subjectaccessreviews", "create"),
			events())},
		{"clusterrole-aggregation-controller", rules(
			on("rbac.authorization.k8s.io", "clusterroles", "escalate get list patch update watch"))},
		{"deployment-controller", rules(
			on("apps extensions", "deployments", "get list update watch"),
			on("apps extensions", "deployments/status", "update"),
			on("apps extensions", "deployments/finalizers", "update"),
			on("apps extensions", "replicasets", "create delete get list patch update watch"),
			on("core", "pods", "get list update watch"),
			events())},
		{"endpoint-controller", rules(
			on("core", "pods services", read),
			on("core", "endpoints", "create delete get list update watch"),
			on("core", "endpoints/restricted", "create"),
			events())},
		{"endpointslice-controller", rules(
			on("core", "nodes pods services", read),
			on("core", "services/finalizers", "update"),
			on("discovery.k8s.io", "endpointslices", "create delete get list update watch"),
			events())},
		{"endpointslicemirroring-controller", rules(
			on("core", "endpoints services", read),
			on("core", "services/finalizers", "update"),
			on("core", "endpoints/finalizers", "update"),
			on("discovery.k8s.io", "endpointslices", "create delete get list update watch"),
			events())},
		{"generic-garbage-collector", rules(
			on("*", "*", "delete get list patch update watch"),
			events())},
		{"job-controller", rules(
			on("batch", "jobs", "get list patch update watch"),
			on("batch", "jobs/status", "update"),
			on("batch", "jobs/finalizers", "update"),
			on("core", "pods", "create delete list patch watch"),
			events())},
		{"kube-apiserver-serving-clustertrustbundle-publisher", rules(
			named("certificates.k8s.io", "signers", "kubernetes.io/kube-apiserver-serving", "attest"),
			on("certificates.k8s.io", "clustertrustbundles", "create delete list update watch"),
			events())},
		{"namespace-controller", rules(
			on("core", "namespaces", "delete get list watch"),
			on("core", "namespaces/finalize namespaces/status", "update"),
			on("*", "*", "delete deletecollection get list watch"))},
		{"node-controller", rules(
			on("core", "nodes", "delete get list patch update watch"),
			on("core", "nodes/status", "patch update"),
			on("core", "pods/status", "patch update"),
			on("core", "pods", "delete get list watch"),
			events())},
		{"pod-garbage-collector", rules(
			on("core", "pods", "delete list watch"),
			on("core", "nodes", read),
			on("core", "pods/status", "patch"))},
		{"podcertificaterequestcleaner", rules(
			on("certificates.k8s.io", "podcertificaterequests", "delete get list watch"))},
		{"replicaset-controller", rules(
			on("apps extensions", "replicasets", "get list update watch"),
			on("apps extensions", "replicasets/status", "update"),
			on("apps extensions", "replicasets/finalizers", "update"),
			on("core", "pods", "create delete list patch watch"),
			events())},
		{"replication-controller", rules(
			on("core", "replicationcontrollers", "get list update watch"),
			on("core", "replicationcontrollers/status", "update"),
			on("core", "replicationcontrollers/finalizers", "update"),
			on("core", "pods", "create delete list patch watch"),
			events())},
		{"resource-claim-controller", rules(
			on("core", "pods", read),
			on("core", "pods/finalizers", "update"),
			on("resource.k8s.io", "resourceclaims", "create delete get list watch"),
			on("resource.k8s.io", "resourceclaims resourceclaims/status", "patch update"),
			on("core", "pods/status", "patch update"),
			events(),
			on("resource.k8s.io", "resourceclaims/binding", "patch update"))},
		{"root-ca-cert-publisher", rules(
			on("core", "configmaps", "create update"),
			events())},
		{"service-account-controller", rules(
			on("core", "serviceaccounts", "create"),
			events())},
		{"service-cidrs-controller", rules(
			on("networking.k8s.io", "servicecidrs", "get list patch update watch"),
			on("networking.k8s.io", "servicecidrs/finalizers", "patch update"),
			on("networking.k8s.io", "servicecidrs/status", "patch update"),
			on("networking.k8s.io", "ipaddresses", read),
			events())},
		{"ttl-after-finished-controller", rules(
			on("batch", "jobs", "delete get list watch"),
			events())},
	}
}

func controllerRoles() []*rbacv1.ClusterRole {
	var roles []*rbacv1.ClusterRole
	for _, c := range controllers() {
		roles = append(roles, role(controllerPrefix+c.name, c.rules...))
	}
	return roles
}

func controllerBindings() []*rbacv1.ClusterRoleBinding {
	var bindings []*rbacv1.ClusterRoleBinding
	for _, c := range controllers() {
		b := bind(controllerPrefix+c.name, controllerPrefix+c.name, account(c.name))
		if c.name == "node-controller" {
			// Taint eviction is part of it, in a loop of its own.
			b.Subjects = append(b.Subjects, account("taint-eviction-controller"))
		}
		bindings = append(bindings, b)
	}
	return bindings
}

// systemRoles are roles within kube-system.
func systemRoles() []*rbacv1.Role {
	system := func(name string, rules ...rbacv1.PolicyRule) *rbacv1.Role {
		r := &rbacv1.Role{ObjectMeta: meta(name), Rules: rules}
		r.Namespace = metav1.NamespaceSystem
		return r
	}
	const lease = "create get list update watch"
	return []*rbacv1.Role{
		system("extension-apiserver-authentication-reader",
			named("core", "configmaps", "extension-apiserver-authentication", read)),
		system("system::leader-locking-kube-controller-manager",
			on("coordination.k8s.io", "leases", lease),
			on("coordination.k8s.io", "leasecandidates", lease)),
		system("system::leader-locking-kube-scheduler",
			on("coordination.k8s.io", "leases", lease),
			on("coordination.k8s.io", "leasecandidates", lease)),
	}
}

func systemBindings() []*rbacv1.RoleBinding {
	system := func(name, to string, subjects ...rbacv1.Subject) *rbacv1.RoleBinding {
		b := &rbacv1.RoleBinding{
			ObjectMeta: meta(name),
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: to},
			Subjects:   subjects,
		}
		b.Namespace = metav1.NamespaceSystem
		return b
	}
	return []*rbacv1.RoleBinding{
		system("system::extension-apiserver-authentication-reader", "extension-apiserver-authentication-reader",
			user("system:kube-controller-manager"), user("system:kube-scheduler")),
		system("system::leader-locking-kube-controller-manager", "system::leader-locking-kube-controller-manager",
			user("system:kube-controller-manager"), account("kube-controller-manager"), account("leader-election-controller")),
		system("system::leader-locking-kube-scheduler", "system::leader-locking-kube-scheduler",
			user("system:kube-scheduler"), account("kube-scheduler")),
	}
}
