package bootstrap

import (
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// generalRoles are those of people and of the parts of the system.
func generalRoles() []*rbacv1.ClusterRole {
	return append(slices.Concat(peopleRoles(), addedRoles()),
		role("system:discovery",
			paths("get", "/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/")),
		role("system:public-info-viewer",
			paths("get", "/healthz /livez /readyz /version /version/")),
		role("system:monitoring",
			paths("get", "/flagz /healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/* /statusz"),
			on("core", "nodes/metrics", "get")),
		role("system:service-account-issuer-discovery",
			paths("get", "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/")),
		role("system:basic-user",
			on("authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews", "create"),
			on("authentication.k8s.io", "selfsubjectreviews", "create")),
		role("system:auth-delegator",
			on("authentication.k8s.io", "tokenreviews", "create"),
			on("authorization.k8s.io", "subjectaccessreviews", "create")),
		role("system:kubelet-api-admin",
			on("core", "nodes", read),
			on("core", "nodes", "proxy"),
			on("core", "nodes/log nodes/metrics nodes/proxy nodes/stats", "*"),
			on("core", "nodes/configz nodes/healthz nodes/pods", "*")),
		role("system:node", NodeRules()...),
		role("system:node-problem-detector",
			on("core", "nodes", "get"),
			on("core", "nodes/status", "patch"),
			events()),
		role("system:node-proxier",
			on("core", "endpoints services", "list watch"),
			on("core", "nodes", read),
			events(),
			on("networking.k8s.io", "servicecidrs", "list watch"),
			on("discovery.k8s.io", "endpointslices", "list watch")),
		role("system:kube-dns",
			on("core", "endpoints services", "list watch")),
		schedulerRole(),
		controllerManagerRole(),
	)
}

// addedRoles are for what is added to a cluster: nodes that join, signers,
// provisioners of volumes.
func addedRoles() []*rbacv1.ClusterRole {
	return []*rbacv1.ClusterRole{
		role("system:certificates.k8s.io:certificatesigningrequests:nodeclient",
			on("certificates.k8s.io", "certificatesigningrequests/nodeclient", "create")),
		role("system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
			on("certificates.k8s.io", "certificatesigningrequests/selfnodeclient", "create")),
		role("system:certificates.k8s.io:kube-apiserver-client-approver",
			named("certificates.k8s.io", "signers", "kubernetes.io/kube-apiserver-client", "approve")),
		role("system:certificates.k8s.io:kube-apiserver-client-kubelet-approver",
			named("certificates.k8s.io", "signers", "kubernetes.io/kube-apiserver-client-kubelet", "approve")),
		role("system:certificates.k8s.io:kubelet-serving-approver",
			named("certificates.k8s.io", "signers", "kubernetes.io/kubelet-serving", "approve")),
		role("system:certificates.k8s.io:legacy-unknown-approver",
			named("certificates.k8s.io", "signers", "kubernetes.io/legacy-unknown", "approve")),
		role("system:cluster-trust-bundle-discovery",
			on("certificates.k8s.io", "clustertrustbundles", read)),
		role("system:heapster",
			on("core", "events namespaces nodes pods", read),
			on("extensions", "deployments", read)),
		role("system:kube-aggregator",
			on("core", "endpoints services", read)),
		role("system:node-bootstrapper",
			on("certificates.k8s.io", "certificatesigningrequests", "create get list watch")),
		role("system:persistent-volume-provisioner",
			on("core", "persistentvolumes", "create delete get list watch"),
			on("core", "persistentvolumeclaims", "get list update watch"),
			on("storage.k8s.io", "storageclasses", read),
			on("core", "events", "watch"),
			events()),
		role("system:volume-scheduler",
			on("core", "persistentvolumes", "get list patch update watch"),
			on("storage.k8s.io", "storageclasses", read),
			on("core", "persistentvolumeclaims", "get list patch update watch")),
	}
}

// NodeRules are those of every node, where the Node authorizer does not divide
// a resource by node.
func NodeRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		on("authentication.k8s.io", "tokenreviews", "create"),
		on("authorization.k8s.io", "localsubjectaccessreviews subjectaccessreviews", "create"),
		on("core", "services", read),
		on("core", "nodes", "create get list watch"),
		on("core", "nodes/status", "patch update"),
		on("core", "nodes", "patch update"),
		events(),
		on("core", "pods", read),
		on("core", "pods", "create delete"),
		on("core", "pods/status", "patch update"),
		on("core", "pods/eviction", "create"),
		on("core", "configmaps secrets", read),
		on("core", "persistentvolumeclaims persistentvolumes", "get"),
		on("core", "endpoints", "get"),
		on("certificates.k8s.io", "certificatesigningrequests", "create get list watch"),
		on("coordination.k8s.io", "leases", "create delete get patch update"),
		on("storage.k8s.io", "volumeattachments", "get"),
		on("core", "serviceaccounts/token", "create"),
		on("core", "persistentvolumeclaims/status", "get patch update"),
		on("storage.k8s.io", "csidrivers", read),
		on("storage.k8s.io", "csinodes", "create delete get patch update"),
		on("node.k8s.io", "runtimeclasses", read),
		on("resource.k8s.io", "resourceclaims", "get"),
		on("resource.k8s.io", "resourceslices", "deletecollection"),
		on("certificates.k8s.io", "clustertrustbundles", read),
		on("core", "serviceaccounts", "get"),
		on("certificates.k8s.io", "podcertificaterequests", "create get list watch"),
	}
}

func schedulerRole() *rbacv1.ClusterRole {
	return role("system:kube-scheduler",
		events(),
		on("coordination.k8s.io", "leases", "create"),
		named("coordination.k8s.io", "leases", "kube-scheduler", "get list update watch"),
		on("coordination.k8s.io", "leasecandidates", readWrite),
		on("core", "nodes", read),
		on("core", "pods", "delete get list watch"),
		on("core", "bindings pods/binding", "create"),
		on("core", "pods/status", "patch update"),
		on("core", "replicationcontrollers services", read),
		on("apps extensions", "replicasets", read),
		on("apps", "statefulsets", read),
		on("policy", "poddisruptionbudgets", read),
		on("core", "persistentvolumeclaims persistentvolumes", read),
		on("authentication.k8s.io", "tokenreviews", "create"),
		on("authorization.k8s.io", "subjectaccessreviews", "create"),
		on("storage.k8s.io", "csinodes", read),
		on("storage.k8s.io", "volumeattachments", read),
		on("core", "namespaces", read),
		on("storage.k8s.io", "csidrivers", read),
		on("storage.k8s.io", "csistoragecapacities", read),
		on("resource.k8s.io", "deviceclasses", read),
		on("resource.k8s.io", "resourceclaims", "get list patch update watch"),
		on("resource.k8s.io", "resourceclaims/status", "get list patch update watch"),
		on("core", "pods/finalizers", "update"),
		on("resource.k8s.io", "resourceslices", read),
		on("resource.k8s.io", "resourceclaims", "create delete"),
		on("resource.k8s.io", "devicetaintrules", read),
		on("resource.k8s.io", "resourceclaims/binding", "patch update"),
	)
}

func controllerManagerRole() *rbacv1.ClusterRole {
	return role("system:kube-controller-manager",
		events(),
		on("coordination.k8s.io", "leases", "create"),
		named("coordination.k8s.io", "leases", "kube-controller-manager", "get update"),
		on("core", "secrets serviceaccounts", "create"),
		on("core", "secrets", "delete"),
		on("core", "configmaps namespaces secrets serviceaccounts", "get"),
		on("core", "secrets serviceaccounts", "update"),
		on("authentication.k8s.io", "tokenreviews", "create"),
		on("authorization.k8s.io", "subjectaccessreviews", "create"),
		on("*", "*", "list watch"),
		on("core", "serviceaccounts/token", "create"),
	)
}

// The labels by which cluster roles are gathered into the three for people.
const (
	toAdmin = "rbac.authorization.k8s.io/aggregate-to-admin"
	toEdit  = "rbac.authorization.k8s.io/aggregate-to-edit"
	toView  = "rbac.authorization.k8s.io/aggregate-to-view"
)

// peopleRoles are for binding to people: the administrator of the cluster, and
// within a namespace those who administer, edit and view.
func peopleRoles() []*rbacv1.ClusterRole {
	gathered := func(name, by string, labels ...string) *rbacv1.ClusterRole {
		return &rbacv1.ClusterRole{
			ObjectMeta: meta(name, labels...),
			AggregationRule: &rbacv1.AggregationRule{
				ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{by: "true"}}},
			},
		}
	}
	part := func(name, label string, rules ...rbacv1.PolicyRule) *rbacv1.ClusterRole {
		return &rbacv1.ClusterRole{ObjectMeta: meta(name, label), Rules: rules}
	}
	return []*rbacv1.ClusterRole{
		role("cluster-admin", on("*", "*", "*"), paths("*", "*")),
		gathered("admin", toAdmin),
		gathered("edit", toEdit, toAdmin),
		gathered("view", toView, toEdit),
		part("system:aggregate-to-admin", toAdmin,
			on("authorization.k8s.io", "localsubjectaccessreviews", "create"),
			on("rbac.authorization.k8s.io", "rolebindings roles", readWrite)),
		part("system:aggregate-to-edit", toEdit, editRules()...),
		part("system:aggregate-to-view", toView, viewRules()...),
		// The metrics server's, for the metrics that are served without one.
		{
			ObjectMeta: meta("system:aggregated-metrics-reader", toAdmin, toEdit, toView),
			Rules:      []rbacv1.PolicyRule{on("metrics.k8s.io", "nodes pods", read)},
		},
	}
}

func editRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		on("core", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy", read),
		on("core", "serviceaccounts", "impersonate"),
		on("core", "pods pods/attach pods/exec pods/portforward pods/proxy", write),
		on("core", "pods/eviction", "create"),
		on("core", "configmaps persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets serviceaccounts services services/proxy", write),
		on("core", "serviceaccounts/token", "create"),
		on("core events.k8s.io", "events", write),
		on("apps", "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale statefulsets statefulsets/scale", write),
		on("autoscaling", "horizontalpodautoscalers", write),
		on("batch", "cronjobs jobs", write),
		on("extensions", "daemonsets deployments deployments/rollback deployments/scale ingresses networkpolicies replicasets replicasets/scale replicationcontrollers/scale", write),
		on("policy", "poddisruptionbudgets", write),
		on("networking.k8s.io", "ingresses networkpolicies", write),
		on("coordination.k8s.io", "leases", readWrite),
		on("resource.k8s.io", "resourceclaims resourceclaimtemplates", write),
	}
}

func viewRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		on("core", "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers replicationcontrollers/scale serviceaccounts services services/status", read),
		on("core", "bindings limitranges namespaces/status pods/log pods/status replicationcontrollers/status resourcequotas resourcequotas/status", read),
		on("core", "namespaces", read),
		on("core events.k8s.io", "events", read),
		on("discovery.k8s.io", "endpointslices", read),
		on("apps", "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status replicasets replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status", read),
		on("autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status", read),
		on("batch", "cronjobs cronjobs/status jobs jobs/status", read),
		on("extensions", "daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses ingresses/status networkpolicies replicasets replicasets/scale replicasets/status replicationcontrollers/scale", read),
		on("policy", "poddisruptionbudgets poddisruptionbudgets/status", read),
		on("networking.k8s.io", "ingresses ingresses/status networkpolicies", read),
		on("resource.k8s.io", "resourceclaims resourceclaims/status resourceclaimtemplates", read),
	}
}

func generalBindings() []*rbacv1.ClusterRoleBinding {
	same := func(name string, subjects ...rbacv1.Subject) *rbacv1.ClusterRoleBinding {
		return bind(name, name, subjects...)
	}
	return []*rbacv1.ClusterRoleBinding{
		same("cluster-admin", group("system:masters")),
		same("system:monitoring", group("system:monitoring")),
		same("system:discovery", group("system:authenticated")),
		same("system:basic-user", group("system:authenticated")),
		same("system:public-info-viewer", group("system:authenticated"), group("system:unauthenticated")),
		same("system:service-account-issuer-discovery", group("system:serviceaccounts")),
		same("system:node-proxier", user("system:kube-proxy")),
		same("system:kube-controller-manager", user("system:kube-controller-manager")),
		same("system:kube-dns", account("kube-dns")),
		same("system:kube-scheduler", user("system:kube-scheduler")),
		same("system:volume-scheduler", user("system:kube-scheduler")),
		same("system:cluster-trust-bundle-discovery", group("system:serviceaccounts")),
		// Nodes are authorized by the Node authorizer; the binding is there,
		// without subjects, for those who used to add some.
		same("system:node"),
		// The API server as a client of its nodes (package pki).
		bind("hansa:kubelet-api-admin", "system:kubelet-api-admin", user("kube-apiserver-kubelet-client")),
	}
}
