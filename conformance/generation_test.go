package conformance

import (
	"net/http"
	"strings"
	"testing"
)

// generationRule is how metadata.generation of a kind counts.
type generationRule struct {
	first   int64  // of a new object; none is 0
	desired string // a change of what is desired: a merge patch or a JSON patch; "" where nothing may change
	adds    int64  // by that change
}

// none never have a generation, counts begin with 1.
func none(desired string) generationRule   { return generationRule{desired: desired} }
func counts(desired string) generationRule { return generationRule{1, desired, 1} }

// generationRules are by kind, as PrepareForCreate and PrepareForUpdate of
// Kubernetes' registries have it.
var generationRules = map[string]generationRule{
	"ConfigMap":             none(`{"data":{"a":"2"}}`),
	"Secret":                none(`{"data":{"a":"eQ=="}}`),
	"Namespace":             none(``),
	"Node":                  none(`{"spec":{"unschedulable":null}}`),
	"Pod":                   counts(`{"spec":{"activeDeadlineSeconds":100}}`),
	"Service":               none(`{"spec":{"sessionAffinity":"ClientIP"}}`),
	"Endpoints":             none(`{"subsets":[{"addresses":[{"ip":"10.42.0.1"}],"ports":[{"port":81}]}]}`),
	"EndpointSlice":         counts(`{"ports":[{"port":82}]}`),
	"ServiceAccount":        none(`{"automountServiceAccountToken":false}`),
	"Event":                 none(``),
	"Lease":                 none(`{"spec":{"leaseDurationSeconds":41}}`),
	"LimitRange":            none(`{"spec":{"limits":[{"type":"Container","max":{"cpu":"3"}}]}}`),
	"ResourceQuota":         none(`{"spec":{"hard":{"count/widgets.example.com":"6"}}}`),
	"PersistentVolume":      none(`{"spec":{"mountOptions":["ro"]}}`),
	"PersistentVolumeClaim": none(``),
	"PodTemplate":           counts(`{"template":{"spec":{"hostname":"h"}}}`),

	"ReplicationController": counts(`{"spec":{"minReadySeconds":1}}`),
	"Deployment":            counts(`{"spec":{"minReadySeconds":1}}`),
	"ReplicaSet":            counts(`{"spec":{"minReadySeconds":1}}`),
	"DaemonSet":             counts(`{"spec":{"template":{"spec":{"hostname":"h"}}}}`),
	"StatefulSet":           counts(`{"spec":{"minReadySeconds":1}}`),
	"ControllerRevision":    none(`{"revision":4}`),
	"Job":                   counts(`{"spec":{"parallelism":2}}`),
	"CronJob":               counts(`{"spec":{"schedule":"0 0 2 1 *"}}`),

	"HorizontalPodAutoscaler": counts(`{"spec":{"maxReplicas":4}}`),
	"PodDisruptionBudget":     counts(`{"spec":{"minAvailable":1}}`),
	"PriorityClass":           {first: 1, desired: `{"description":"d"}`},

	"Role":               none(`{"rules":[]}`),
	"ClusterRole":        none(`{"rules":[]}`),
	"RoleBinding":        none(`{"subjects":[]}`),
	"ClusterRoleBinding": none(`{"subjects":[]}`),

	"CertificateSigningRequest": none(``),
	"ClusterTrustBundle":        none(``),
	"PodCertificateRequest":     none(``),

	"IngressClass":  counts(`{"spec":{"parameters":{"name":"b"}}}`),
	"Ingress":       counts(`{"spec":{"ingressClassName":"other"}}`),
	"IPAddress":     none(``),
	"NetworkPolicy": counts(`{"spec":{"policyTypes":["Ingress"]}}`),
	"ServiceCIDR":   none(``),
	"RuntimeClass":  none(`{"scheduling":{"nodeSelector":{"a":"b"}}}`),

	"FlowSchema":                 counts(`{"spec":{"matchingPrecedence":8998}}`),
	"PriorityLevelConfiguration": counts(`{"spec":{"limited":{"nominalConcurrencyShares":2}}}`),

	"DeviceClass":           counts(`{"spec":{"selectors":[{"cel":{"expression":"true"}}]}}`),
	"DeviceTaintRule":       counts(`{"spec":{"taint":{"value":"no"}}}`),
	"ResourceClaim":         none(``),
	"ResourceClaimTemplate": none(``),
	"ResourceSlice":         counts(`{"spec":{"devices":[{"name":"e"}]}}`),

	"CSIDriver":             {desired: `{"spec":{"requiresRepublish":true}}`, adds: 1},
	"CSINode":               none(`{"spec":{"drivers":[]}}`),
	"CSIStorageCapacity":    none(`{"capacity":"11Gi"}`),
	"StorageClass":          none(`{"allowVolumeExpansion":true}`),
	"VolumeAttachment":      none(``),
	"VolumeAttributesClass": none(``),

	"StorageVersionMigration":  none(``),
	"CustomResourceDefinition": counts(`{"spec":{"names":{"shortNames":["smpl"]}}}`),
	"APIService":               none(`{"spec":{"versionPriority":11}}`),

	"ValidatingWebhookConfiguration":   counts(`[{"op":"add","path":"/webhooks/0/timeoutSeconds","value":5}]`),
	"MutatingWebhookConfiguration":     counts(`[{"op":"add","path":"/webhooks/0/timeoutSeconds","value":5}]`),
	"ValidatingAdmissionPolicy":        counts(`{"spec":{"failurePolicy":"Ignore"}}`),
	"ValidatingAdmissionPolicyBinding": counts(`{"spec":{"policyName":"other"}}`),
	"MutatingAdmissionPolicy":          counts(`{"spec":{"failurePolicy":"Ignore"}}`),
	"MutatingAdmissionPolicyBinding":   counts(`{"spec":{"policyName":"other"}}`),
}

// ObjectMeta.generation: "a sequence number representing a specific generation of
// the desired state". It begins with 1 where it counts, goes up by one with each
// change of that, and by none with a change of the rest; clients cannot set it later.
func TestGenerations(t *testing.T) {
	ns := namespace(t)
	for _, s := range samples(t, ns) {
		t.Run(s.GetAPIVersion()+"/"+s.GetKind(), func(t *testing.T) {
			rule, ok := generationRules[s.GetKind()]
			if !ok {
				t.Fatal("generationRules does not have it")
			}
			s.generations(t, rule)
		})
	}
}

func (s sample) generations(t *testing.T, rule generationRule) {
	t.Helper()
	made := admin.want(t, http.StatusCreated, call{method: "POST", path: s.path(), body: encode(t, s.Object)}, nil).object(t)
	t.Cleanup(func() { s.drop(t) })
	want := rule.first
	check := func(what string, generation int64) {
		t.Helper()
		if generation != want {
			t.Fatalf("%s the generation is %d, want %d", what, generation, want)
		}
	}
	change := func(what, body string, adds int64, below ...string) {
		t.Helper()
		kind := mergePatch
		if strings.HasPrefix(body, "[") {
			kind = jsonPatch
		}
		want += adds
		check("after a change of "+what, admin.want(t, http.StatusOK, call{method: "PATCH", path: s.path(append([]string{s.GetName()}, below...)...), contentType: kind, body: body}, nil).object(t).GetGeneration())
	}
	adds := func(kind string) int64 { // for what others do not count
		if s.GetKind() == kind {
			return 1
		}
		return 0
	}
	check("at first", made.GetGeneration())
	// Labels of slices tell of the service that they belong to.
	change("labels", `{"metadata":{"labels":{"counts":"no"}}}`, adds("EndpointSlice"))
	// A Deployment's annotations are also those of its ReplicaSets.
	change("annotations", `{"metadata":{"annotations":{"test.dev/counts":"no"}}}`, adds("Deployment"))
	change("the generation", `{"metadata":{"generation":77}}`, 0)
	if status := statusChanges[s.GetKind()]; status != "" {
		var tree map[string]any
		decode(t, status, &tree)
		change("the status", encode(t, map[string]any{"status": tree}), 0, "status")
	}
	if rule.desired != "" {
		change("what is desired", rule.desired, rule.adds)
		change("nothing", rule.desired, 0)
	}
	check("at last", s.read(t).GetGeneration())
}
