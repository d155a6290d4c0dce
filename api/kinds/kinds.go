// Package kinds holds the row of every kind that Hansa serves, a file for each
// or for a pair: defaults, preparation, validation, columns and subresources as
// Kubernetes v1.37 has them with its default feature gates. The rows are pure:
// they read no clock and know nothing of other objects. What needs either
// (allocating cluster addresses, looking at a namespace, answering an access
// review) belongs to the server.
//
// The order of calls for a write is Default, Prepare…, allocation (services),
// Validate…, Warnings, Canonicalize. PrepareCreate expects name, UID and creation
// time; validation expects a defaulted object. Rows without a Prefix have neither
// name nor list: their Validate checks metadata itself.
package kinds

import (
	"fmt"
	"sync"

	"hansa.dev/hansa/api"
)

// All makes a fresh set of rows, in the order of discovery. The caller owns it;
// rows of different calls share nothing that may be written to.
func All() []*api.Resource {
	return []*api.Resource{
		binding(),
		componentStatus(),
		configMap(),
		endpoints(),
		event(),
		limitRange(),
		namespace(),
		node(),
		persistentVolume(),
		persistentVolumeClaim(),
		pods(),
		podTemplate(),
		replicationController(),
		resourceQuota(),
		secret(),
		service(),
		serviceAccount(),
		selfSubjectReview(),
		tokenReview(),
		localSubjectAccessReview(),
		selfSubjectAccessReview(),
		selfSubjectRulesReview(),
		subjectAccessReview(),
		mutatingAdmissionPolicyBinding(),
		mutatingAdmissionPolicy(),
		mutatingWebhookConfiguration(),
		validatingAdmissionPolicyBinding(),
		validatingAdmissionPolicy(),
		validatingWebhookConfiguration(),
		controllerRevision(),
		daemonSet(),
		deployment(),
		replicaSet(),
		statefulSet(),
		horizontalPodAutoscaler(),
		cronJob(),
		job(),
		certificateSigningRequest(),
		clusterTrustBundle(),
		podCertificateRequest(),
		lease(),
		endpointSlice(),
		flowSchema(),
		priorityLevelConfiguration(),
		ingressClass(),
		ingress(),
		ipAddress(),
		networkPolicy(),
		serviceCIDR(),
		runtimeClass(),
		podDisruptionBudget(),
		clusterRole(),
		clusterRoleBinding(),
		role(),
		roleBinding(),
		deviceClass(),
		deviceTaintRule(),
		resourceClaim(),
		resourceClaimTemplate(),
		resourceSlice(),
		priorityClass(),
		csiDriver(),
		csiNode(),
		csiStorageCapacity(),
		storageClass(),
		volumeAttachment(),
		volumeAttributesClass(),
		storageVersionMigration(),
		customResourceDefinition(),
		apiService(),
		nodeMetrics(),
		podMetrics(),
	}
}

// Registry is the process-wide set of all rows. It is built at the first call
// and only read afterwards, from any goroutine.
func Registry() *api.Registry { return registry() }

var registry = sync.OnceValue(New)

// New makes a registry of its own, to which a server adds what is defined.
func New() *api.Registry {
	r, err := api.NewRegistry(Scheme(), All())
	if err != nil {
		panic(fmt.Sprintf("kinds: %v", err)) // the rows are constants of this package
	}
	return r
}
