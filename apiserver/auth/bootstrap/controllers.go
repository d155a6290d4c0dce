package bootstrap

import (
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// controllerPrefix begins the names of the roles of loops. The rest is the name
// of the service account as which the loop acts.
const controllerPrefix = "system:controller:"

// ownPrefix begins those of loops that Kubernetes does not have.
const ownPrefix = "hansa:controller:"

// loop is a loop and what it may do.
type loop struct {
	name  string
	rules []rbacv1.PolicyRule
}

func rules(rules ...rbacv1.PolicyRule) []rbacv1.PolicyRule { return rules }

func controllers() []loop { return slices.Concat(clusterLoops(), workloadLoops(), storageLoops()) }

func controllerRoles() []*rbacv1.ClusterRole {
	var roles []*rbacv1.ClusterRole
	for _, c := range controllers() {
		roles = append(roles, role(controllerPrefix+c.name, c.rules...))
	}
	for _, c := range ownLoops() {
		roles = append(roles, role(ownPrefix+c.name, c.rules...))
	}
	return roles
}

func controllerBindings() []*rbacv1.ClusterRoleBinding {
	var bindings []*rbacv1.ClusterRoleBinding
	for _, c := range controllers() {
		bindings = append(bindings, bind(controllerPrefix+c.name, controllerPrefix+c.name, account(c.name)))
	}
	for _, c := range ownLoops() {
		bindings = append(bindings, bind(ownPrefix+c.name, ownPrefix+c.name, account(c.name)))
	}
	return bindings
}

// systemRoles are roles within kube-system and kube-public.
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
		system("system:controller:bootstrap-signer",
			on("core", "secrets", read)),
		system("system:controller:cloud-provider",
			on("core", "configmaps", "create get list watch")),
		system("system:controller:token-cleaner",
			on("core", "secrets", "delete get list watch"),
			events()),
		in(metav1.NamespacePublic, system("system:controller:bootstrap-signer",
			on("core", "configmaps", read),
			named("core", "configmaps", "cluster-info", "update"),
			events())),
	}
}

// in moves an object to another namespace.
func in[T metav1.Object](namespace string, obj T) T {
	obj.SetNamespace(namespace)
	return obj
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
	loop := func(name string) *rbacv1.RoleBinding {
		return system(controllerPrefix+name, controllerPrefix+name, account(name))
	}
	return []*rbacv1.RoleBinding{
		system("system::extension-apiserver-authentication-reader", "extension-apiserver-authentication-reader",
			user("system:kube-controller-manager"), user("system:kube-scheduler")),
		system("system::leader-locking-kube-controller-manager", "system::leader-locking-kube-controller-manager",
			user("system:kube-controller-manager"), account("kube-controller-manager"), account("leader-election-controller")),
		system("system::leader-locking-kube-scheduler", "system::leader-locking-kube-scheduler",
			user("system:kube-scheduler"), account("kube-scheduler")),
		loop("bootstrap-signer"),
		loop("cloud-provider"),
		loop("token-cleaner"),
		in(metav1.NamespacePublic, loop("bootstrap-signer")),
	}
}
