package bootstrap

// The roles of the loops of Kubernetes, whether they run here or not: manifests
// bind them, and what is here already finds its own.

// workloadLoops make, count and end pods.
func workloadLoops() []loop {
	return []loop{
		{"cronjob-controller", rules(
			on("batch", "cronjobs", "get list update watch"),
			on("batch", "jobs", "create delete get list patch update watch"),
			on("batch", "cronjobs/status", "update"),
			on("batch", "cronjobs/finalizers", "update"),
			on("core", "pods", "delete list watch"),
			events())},
		{"daemon-set-controller", rules(
			on("apps extensions", "daemonsets", read),
			on("apps extensions", "daemonsets/status", "update"),
			on("apps extensions", "daemonsets/finalizers", "update"),
			on("core", "nodes", "list watch"),
			on("core", "pods", "create delete list patch watch"),
			on("core", "pods/binding", "create"),
			on("apps", "controllerrevisions", "create delete get list patch update watch"),
			events())},
		{"deployment-controller", rules(
			on("apps extensions", "deployments", "get list update watch"),
			on("apps extensions", "deployments/status", "update"),
			on("apps extensions", "deployments/finalizers", "update"),
			on("apps extensions", "replicasets", "create delete get list patch update watch"),
			on("core", "pods", "get list update watch"),
			events())},
		{"device-taint-eviction-controller", rules(
			on("core", "pods", "delete get list watch"),
			on("core", "pods/status", "patch update"),
			on("resource.k8s.io", "resourceclaims", read),
			on("resource.k8s.io", "resourceslices", read),
			on("resource.k8s.io", "deviceclasses", read),
			events(),
			on("resource.k8s.io", "devicetaintrules/status", "patch update"),
			on("resource.k8s.io", "devicetaintrules", read))},
		{"disruption-controller", rules(
			on("apps extensions", "deployments", read),
			on("apps extensions", "replicasets", read),
			on("core", "replicationcontrollers", read),
			on("policy", "poddisruptionbudgets", read),
			on("apps", "statefulsets", read),
			on("policy", "poddisruptionbudgets/status", "update"),
			on("core", "pods/status", "patch update"),
			on("*", "*/scale", "get"),
			events())},
		{"horizontal-pod-autoscaler", rules(
			on("autoscaling", "horizontalpodautoscalers", read),
			on("autoscaling", "horizontalpodautoscalers/status", "update"),
			on("*", "*/scale", "get update"),
			on("core", "pods", "list watch"),
			on("metrics.k8s.io", "pods", "list watch"),
			on("custom.metrics.k8s.io", "*", read),
			on("external.metrics.k8s.io", "*", read),
			events())},
		{"job-controller", rules(
			on("batch", "jobs", "get list patch update watch"),
			on("batch", "jobs/status", "update"),
			on("batch", "jobs/finalizers", "update"),
			on("core", "pods", "create delete list patch watch"),
			events())},
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
		{"statefulset-controller", rules(
			on("core", "pods", "list watch"),
			on("apps", "statefulsets", read),
			on("apps", "statefulsets/status", "update"),
			on("apps", "statefulsets/finalizers", "update"),
			on("core", "pods", "create delete get patch update"),
			on("apps", "controllerrevisions", "create delete get list patch update watch"),
			on("core", "persistentvolumeclaims", "create get list watch"),
			on("core", "persistentvolumeclaims", "delete update"),
			on("core", "pods/finalizers", "update"),
			events())},
		{"ttl-after-finished-controller", rules(
			on("batch", "jobs", "delete get list watch"),
			events())},
	}
}

// storageLoops are about volumes and what is stored.
func storageLoops() []loop {
	return []loop{
		{"attachdetach-controller", rules(
			on("core", "persistentvolumeclaims persistentvolumes", "list watch"),
			on("core", "nodes", read),
			on("core", "nodes/status", "patch update"),
			on("core", "pods", "list watch"),
			events(),
			on("storage.k8s.io", "volumeattachments", "create delete get list watch"),
			on("storage.k8s.io", "csidrivers", read),
			on("storage.k8s.io", "csinodes", read))},
		{"ephemeral-volume-controller", rules(
			on("core", "pods", read),
			on("core", "pods/finalizers", "update"),
			on("core", "persistentvolumeclaims", "create get list watch"),
			events())},
		{"expand-controller", rules(
			on("core", "persistentvolumes", "get list patch update watch"),
			on("core", "persistentvolumeclaims/status", "patch update"),
			on("core", "persistentvolumeclaims", read),
			events())},
		{"persistent-volume-binder", rules(
			on("core", "persistentvolumes", "create delete get list update watch"),
			on("core", "persistentvolumes/status", "update"),
			on("core", "persistentvolumeclaims", "get list update watch"),
			on("core", "persistentvolumeclaims/status", "update"),
			on("core", "pods", "create delete get list watch"),
			on("storage.k8s.io", "storageclasses", read),
			on("core", "nodes", "list watch"),
			events(),
			on("core", "events", "watch"))},
		{"pv-protection-controller", rules(
			on("core", "persistentvolumes", "get list update watch"),
			events())},
		{"pvc-protection-controller", rules(
			on("core", "persistentvolumeclaims", "get list update watch"),
			on("core", "persistentvolumeclaims/status", "update"),
			on("core", "pods", read),
			events())},
		{"selinux-warning-controller", rules(
			events(),
			on("core", "persistentvolumes", read),
			on("core", "persistentvolumeclaims", read),
			on("core", "pods", read),
			on("storage.k8s.io", "csidrivers", read))},
		{"storage-version-migrator-controller", rules(
			on("*", "*", "list patch"),
			on("apiextensions.k8s.io", "customresourcedefinitions", "get"),
			on("apiextensions.k8s.io", "customresourcedefinitions/status", "patch"),
			on("storagemigration.k8s.io", "storageversionmigrations/status", "update"))},
		{"volumeattributesclass-protection-controller", rules(
			on("core", "persistentvolumeclaims", read),
			on("core", "persistentvolumes", read),
			on("storage.k8s.io", "volumeattributesclasses", "get list update watch"),
			events())},
	}
}

// clusterLoops are about nodes, namespaces, services and all kinds alike.
func clusterLoops() []loop {
	return []loop{
		{"certificate-controller", rules(
			on("certificates.k8s.io", "certificatesigningrequests", "delete get list watch"),
			on("certificates.k8s.io", "certificatesigningrequests/approval certificatesigningrequests/status", "update"),
			named("certificates.k8s.io", "signers", "kubernetes.io/kube-apiserver-client-kubelet", "approve"),
			named("certificates.k8s.io", "signers", "kubernetes.io/kube-apiserver-client kubernetes.io/kube-apiserver-client-kubelet kubernetes.io/kubelet-serving kubernetes.io/legacy-unknown", "sign"),
			on("authorization.k8s.io", "subjectaccessreviews", "create"),
			events())},
		{"clusterrole-aggregation-controller", rules(
			on("rbac.authorization.k8s.io", "clusterroles", "escalate get list patch update watch"))},
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
		{"kube-apiserver-serving-clustertrustbundle-publisher", rules(
			named("certificates.k8s.io", "signers", "kubernetes.io/kube-apiserver-serving", "attest"),
			on("certificates.k8s.io", "clustertrustbundles", "create delete list update watch"),
			events())},
		{"legacy-service-account-token-cleaner", rules(
			named("core", "configmaps", "kube-apiserver-legacy-service-account-token-tracking", "get"),
			on("core", "secrets", "delete patch"))},
		{"namespace-controller", rules(
			on("core", "namespaces", "delete get list watch"),
			on("core", "namespaces/finalize namespaces/status", "update"),
			on("*", "*", "delete deletecollection get list watch"))},
		{"node-controller", rules(
			on("core", "nodes", "delete get list patch update watch"),
			on("core", "nodes/status", "patch update"),
			on("core", "pods/status", "patch update"),
			on("core", "pods", "delete get list watch"),
			on("coordination.k8s.io", "leases", read),
			events())},
		{"pod-garbage-collector", rules(
			on("core", "pods", "delete list watch"),
			on("core", "nodes", read),
			on("core", "pods/status", "patch"))},
		{"podcertificaterequestcleaner", rules(
			on("certificates.k8s.io", "podcertificaterequests", "delete get list watch"))},
		{"resourcequota-controller", rules(
			on("*", "*", "list watch"),
			on("core", "resourcequotas/status", "update"),
			events())},
		{"root-ca-cert-publisher", rules(
			on("core", "configmaps", "create update"),
			events())},
		{"route-controller", rules(
			on("core", "nodes", "list watch"),
			on("core", "nodes/status", "patch"),
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
		{"service-controller", rules(
			on("core", "services", read),
			on("core", "services/status", "patch update"),
			on("core", "nodes", "list watch"),
			events())},
		{"ttl-controller", rules(
			on("core", "nodes", "list patch update watch"),
			events())},
		{"validatingadmissionpolicy-status-controller", rules(
			on("admissionregistration.k8s.io", "validatingadmissionpolicies", read),
			on("admissionregistration.k8s.io", "validatingadmissionpolicies/status", "get patch update"),
			events())},
	}
}

// ownLoops are those that Kubernetes does not have.
func ownLoops() []loop {
	return []loop{
		// Anything may be waited for, and have a part in a stop order: it is read,
		// gets a finalizer, and goes before what it owns.
		{"dependency-controller", rules(
			on("*", "*", "delete get list patch watch"),
			on("core", "pods", "update"),
			on("core", "pods/status", "update"),
			events())},
		{"rollback-controller", rules(
			on("apps", "deployments statefulsets daemonsets", "get list update watch"),
			on("apps", "deployments/status statefulsets/status daemonsets/status", "update"),
			on("apps", "replicasets controllerrevisions", "get list update watch"),
			on("core", "pods", read),
			events())},
	}
}
