package conformance

import (
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
)

// refusals are requests that a kube-apiserver 1.37.2 was seen to refuse in these
// words. NS stands for the test's namespace; in it are the configmap, the deployment
// and the pod "have".
var refusals = []struct {
	name    string
	in      call
	code    int
	reason  metav1.StatusReason
	message string
	causes  []string
}{
	{
		"flaws are told before a version of what is not there", call{method: "POST", path: "/api/v1/namespaces/NS/configmaps", body: `{metadata: {name: X_, resourceVersion: "1"}}`},
		422, metav1.StatusReasonInvalid, `ConfigMap "X_" is invalid: metadata.name: Invalid value: "X_": a lowercase RFC 1123 subdomain`, []string{"FieldValueInvalid metadata.name"},
	},
	{
		"a version that is none", call{method: "PUT", path: "/api/v1/namespaces/NS/configmaps/have", body: `{metadata: {name: have, resourceVersion: abc}}`},
		500, "", `strconv.ParseUint: parsing "abc": invalid syntax`, nil,
	},
	{
		"a version that is none, in a patch", call{method: "PATCH", path: "/api/v1/namespaces/NS/configmaps/have", contentType: mergePatch, body: `{"metadata":{"resourceVersion":"abc"}}`},
		500, "", `strconv.ParseUint: parsing "abc": invalid syntax`, nil,
	},
	{
		"a version that is none, of a scale", call{method: "PUT", path: "/apis/apps/v1/namespaces/NS/deployments/have/scale", body: `{metadata: {name: have, resourceVersion: abc}, spec: {replicas: 2}}`},
		500, "", `strconv.ParseUint: parsing "abc": invalid syntax`, nil,
	},
	{
		"another identity", call{method: "PUT", path: "/api/v1/namespaces/NS/configmaps/have", body: `{metadata: {name: have, uid: x}}`},
		409, metav1.StatusReasonConflict, `Operation cannot be fulfilled on configmaps "have": StorageError: invalid object, Code: 4, Key: /registry/configmaps/NS/have, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: x, UID in object meta: `, nil,
	},
	{
		"another identity, of a scale", call{method: "PUT", path: "/apis/apps/v1/namespaces/NS/deployments/have/scale", body: `{metadata: {name: have, uid: x}}`},
		409, metav1.StatusReasonConflict, `Operation cannot be fulfilled on deployments.apps "have": StorageError: invalid object, Code: 4, Key: /registry/deployments/NS/have, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: x, UID in object meta: `, nil,
	},
	{
		"an identity of what is not there", call{method: "PUT", path: "/apis/coordination.k8s.io/v1/namespaces/NS/leases/none", body: `{metadata: {name: none, uid: x}}`},
		409, metav1.StatusReasonConflict, `Operation cannot be fulfilled on leases.coordination.k8s.io "none": StorageError: invalid object, Code: 4, Key: /registry/leases/NS/none, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: x, UID in object meta: `, nil,
	},
	{
		"a label is refused once", call{method: "PATCH", path: "/api/v1/namespaces/NS/configmaps/have", contentType: mergePatch, body: `{"metadata":{"labels":{"a":"b c"}}}`},
		422, metav1.StatusReasonInvalid, `ConfigMap "have" is invalid: metadata.labels: Invalid value: "b c": a valid label must be`, []string{"FieldValueInvalid metadata.labels"},
	},
	{
		"owners are refused once", call{method: "PATCH", path: "/apis/apps/v1/namespaces/NS/deployments/have", contentType: mergePatch, body: `{"metadata":{"ownerReferences":[{"apiVersion":"a/b/c","kind":"K","name":"n","uid":"u"}]}}`},
		422, metav1.StatusReasonInvalid, `metadata.ownerReferences[0].apiVersion: Invalid value: "a/b/c": must be <group>/<version> or <version>`, []string{"FieldValueInvalid metadata.ownerReferences[0].apiVersion"},
	},
	{
		"applying what cannot be read", call{method: "PATCH", path: "/api/v1/namespaces/NS/limitranges/l?fieldManager=m", contentType: applyPatch, body: `{apiVersion: v1, kind: LimitRange, metadata: {name: l}, spec: {limits: [{type: Pod, max: {cpu: much}}]}}`},
		500, "", `failed to convert new object (/l; /v1, Kind=LimitRange) to proper version: unable to convert unstructured object to /v1, Kind=LimitRange: quantities must match the regular expression`, nil,
	},
	{
		"applying a scale that another has set", call{method: "PATCH", path: "/apis/apps/v1/namespaces/NS/deployments/have/scale?fieldManager=m", contentType: applyPatch, body: `{apiVersion: autoscaling/v1, kind: Scale, metadata: {name: have}, spec: {replicas: 7}}`},
		409, metav1.StatusReasonConflict, `using autoscaling/v1: .spec.replicas`, []string{"FieldManagerConflict .spec.replicas"},
	},
	{
		"evicting another", call{method: "POST", path: "/api/v1/namespaces/NS/pods/have/eviction?dryRun=All", body: `{apiVersion: policy/v1, kind: Eviction, metadata: {name: other}}`},
		400, metav1.StatusReasonBadRequest, `name in URL does not match name in Eviction object`, nil,
	},
	{
		"evicting by a policy of nobody's", call{method: "POST", path: "/api/v1/namespaces/NS/pods/have/eviction?dryRun=All", body: `{apiVersion: policy/v1, kind: Eviction, metadata: {name: have}, deleteOptions: {propagationPolicy: bogus}}`},
		422, metav1.StatusReasonInvalid, `DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "bogus": supported values: "Foreground", "Background", "Orphan", "nil"`, []string{"FieldValueNotSupported propagationPolicy"},
	},
}

func TestRefusals(t *testing.T) {
	ns := namespace(t)
	create(t, "configmaps", ns, "metadata: {name: have}")
	create(t, "deployments", ns, "{metadata: {name: have}, spec: {replicas: 0, paused: true, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}}")
	create(t, "pods", ns, podOf("have"))
	for _, r := range refusals {
		t.Run(r.name, func(t *testing.T) {
			r.in.path = strings.Replace(r.in.path, "NS", ns, 1)
			s := admin.do(t, r.in).refused(t, r.code, r.reason, strings.Replace(r.message, "NS", ns, 1))
			if got := causesOf(s); r.causes != nil && !slices.Equal(got, r.causes) {
				t.Errorf("causes are %q, want %q", got, r.causes)
			}
		})
	}
}

// What is no version is none: of a new object it says nothing.
func TestVersionsOfNewObjects(t *testing.T) {
	ns := namespace(t)
	for _, version := range []string{"0", "abc"} {
		create(t, "configmaps", ns, `metadata: {name: v`+version+`, resourceVersion: "`+version+`"}`)
	}
	admin.do(t, call{method: "POST", path: at("configmaps", ns) + "?dryRun=All", body: `metadata: {name: v1, resourceVersion: "1"}`}).status2xx(t)
}

// checksBase are the kinds whose update is validated as a new object is, which asks
// for a generateName again (Validate…Update in pkg/apis/…/validation and the
// strategies' ValidateUpdate of a kube-apiserver 1.37.2).
var checksBase = sets.New(
	"ConfigMap", "Secret", "Namespace", "Node", "Pod", "Endpoints", "EndpointSlice", "ServiceAccount", "LimitRange",
	"PersistentVolume", "PersistentVolumeClaim", "ControllerRevision", "ClusterTrustBundle", "IngressClass", "Ingress",
	"IPAddress", "RuntimeClass", "FlowSchema", "PriorityLevelConfiguration", "ResourceClaim", "ResourceClaimTemplate",
	"CSINode", "CSIStorageCapacity", "StorageClass", "VolumeAttachment", "VolumeAttributesClass", "StorageVersionMigration",
	"ValidatingWebhookConfiguration", "MutatingWebhookConfiguration", "ValidatingAdmissionPolicy",
	"ValidatingAdmissionPolicyBinding", "MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding")

func TestGenerateNamesOfChanges(t *testing.T) {
	ns := namespace(t)
	for _, s := range samples(t, ns) {
		t.Run(s.GetAPIVersion()+"/"+s.GetKind(), func(t *testing.T) {
			s.make(t)
			a := admin.do(t, call{method: "PATCH", path: s.path(s.GetName()), contentType: mergePatch, body: `{"metadata":{"generateName":"A_"}}`})
			if !checksBase.Has(s.GetKind()) {
				a.status2xx(t)
				return
			}
			if got, want := causesOf(a.status(t)), []string{"FieldValueInvalid metadata.generateName"}; !slices.Equal(got, want) {
				t.Errorf("causes are %q, want %q", got, want)
			}
		})
	}
}

// What is wrong with an object is told in Kubernetes' order.
func TestOrderOfCauses(t *testing.T) {
	for i, c := range tables(t, "testdata/order.yaml") {
		t.Run(c.Name, func(t *testing.T) {
			var want []string
			decode(t, encode(t, c.Want), &want)
			a := c.send(t, c.home(t, i))
			if got := causesOf(a.status(t)); !slices.Equal(got, want) {
				t.Errorf("causes are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}
