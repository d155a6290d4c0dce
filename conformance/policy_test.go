package conformance

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

// The policies of these tests are named after their namespaces, and their bindings
// are for those only: all tests share a cluster.

// dropped deletes an object with the test.
func dropped(t *testing.T, p *peer, resource, name string) {
	t.Cleanup(func() {
		if resp, err := p.open(background, call{method: "DELETE", path: at(resource, "", name)}); err == nil {
			resp.Body.Close()
		}
	})
}

// policy makes a policy of a kind ("validating", "mutating"); spec is YAML.
func policy(t *testing.T, kind, name, spec string) {
	t.Helper()
	dropped(t, admin, kind+"admissionpolicies", name)
	create(t, kind+"admissionpolicies", "", "metadata: {name: "+name+"}\nspec:\n"+spec)
}

// bind binds a policy for one namespace; more is what the binding has beside.
func bind(t *testing.T, kind, name, policy, ns, more string) {
	t.Helper()
	dropped(t, admin, kind+"admissionpolicybindings", name)
	create(t, kind+"admissionpolicybindings", "", fmt.Sprintf(`
metadata: {name: %s}
spec: {policyName: %s, matchResources: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: %s}}}, %s}`, name, policy, ns, more))
}

// forConfigMaps is what a policy for writes of ConfigMaps begins with.
const forConfigMaps = `
  matchConstraints: {resourceRules: [{operations: [CREATE, UPDATE], apiGroups: [""], apiVersions: [v1], resources: [configmaps]}]}
`

const denies = "validationActions: [Deny]"

// postConfigMap creates a ConfigMap with some data.
func postConfigMap(t *testing.T, p *peer, ns, name, data string) answer {
	t.Helper()
	return p.do(t, call{method: "POST", path: at("configmaps", ns), body: "metadata: {name: " + name + "}\ndata: {" + data + "}"})
}

// "Validating Admission Policy": a policy is in effect when its binding is
// written, and not any more when one of the two is deleted; what it says is the
// answer.
func TestValidatingAdmissionPolicy(t *testing.T) {
	ns := namespace(t)
	for i := range 20 {
		name := fmt.Sprintf("%s-%d", ns, i)
		policy(t, "validating", name, forConfigMaps+`  validations: [{expression: "object.data.size != 'huge'", message: too big, reason: Forbidden}]`)
		postConfigMap(t, admin, ns, "before-"+name, "size: huge").status2xx(t)
		bind(t, "validating", name, name, ns, denies)
		postConfigMap(t, admin, ns, "small-"+name, "size: small").status2xx(t)
		s := postConfigMap(t, admin, ns, "a", "size: huge").refused(t, http.StatusForbidden, metav1.StatusReasonForbidden,
			`configmaps "a" is forbidden: ValidatingAdmissionPolicy '`+name+`' with binding '`+name+`' denied request: too big`)
		if s.Details == nil || len(s.Details.Causes) != 1 || !strings.Contains(s.Details.Causes[0].Message, "denied request: too big") {
			t.Errorf("details are %+v", s.Details)
		}
		if i%2 == 0 {
			admin.want(t, http.StatusOK, call{method: "DELETE", path: at("validatingadmissionpolicies", "", name)}, nil)
		} else {
			admin.want(t, http.StatusOK, call{method: "DELETE", path: at("validatingadmissionpolicybindings", "", name)}, nil)
		}
		postConfigMap(t, admin, ns, "after-"+name, "size: huge").status2xx(t)
	}
}

// Expressions see the object, the old one, the request, the namespace, variables
// and the authorizer; messages are expressions, too.
func TestPolicyExpressions(t *testing.T) {
	ns := namespace(t)
	policy(t, "validating", ns, forConfigMaps+`
  matchConditions: [{name: not-exempt, expression: "!has(object.metadata.labels) || !('exempt' in object.metadata.labels)"}]
  variables:
  - {name: size, expression: "int(object.data.size)"}
  - {name: double, expression: "variables.size * 2"}
  validations:
  - {expression: "variables.double < 10", messageExpression: "'twice ' + string(variables.size) + ' is ' + string(variables.double)"}
  - {expression: "request.operation == 'CREATE' || int(oldObject.data.size) <= variables.size", message: no shrinking, reason: RequestEntityTooLarge}
  - {expression: "namespaceObject.metadata.name == '`+ns+`' && request.namespace == object.metadata.namespace"}
  - {expression: "authorizer.group('').resource('secrets').namespace('`+ns+`').check('get').allowed() || variables.size < 3", message: who may read secrets only}
`)
	bind(t, "validating", ns, ns, ns, denies)
	postConfigMap(t, admin, ns, "a", "size: '4'").status2xx(t)
	postConfigMap(t, admin, ns, "b", "size: '5'").refused(t, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, "denied request: twice 5 is 10")
	admin.do(t, call{method: "PATCH", path: at("configmaps", ns, "a"), contentType: mergePatch, body: `{"data":{"size":"2"}}`}).
		refused(t, http.StatusRequestEntityTooLarge, metav1.StatusReasonRequestEntityTooLarge, "denied request: no shrinking")
	grant(t, ns, "writer", "jane", `[{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["*"]}]`)
	jane := impersonating(t, "jane")
	eventually(t, "jane may write", func() bool { return postConfigMap(t, jane, ns, "c", "size: '1'").code == http.StatusCreated })
	postConfigMap(t, jane, ns, "d", "size: '4'").refused(t, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, "denied request: who may read secrets only")
	// An expression that fails is refused, and a condition spares a write the rest.
	postConfigMap(t, admin, ns, "e", "size: x").refused(t, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, "resulted in error")
	admin.want(t, http.StatusCreated, call{method: "POST", path: at("configmaps", ns), body: "metadata: {name: f, labels: {exempt: 'yes'}}"}, nil)
}

// A policy whose failures are to be ignored refuses only what its expressions say;
// an expression that costs too much is a failure.
func TestPolicyFailures(t *testing.T) {
	ns := namespace(t)
	expensive := "[1,2,3,4,5,6,7,8,9,10]"
	numbers := expensive
	expensive += ".all(v0, true)"
	for i := range 7 {
		expensive = fmt.Sprintf("%s.all(x%d, %s)", numbers, i, expensive)
	}
	for name, c := range map[string]struct {
		failure, expression, want string
	}{
		"fails":       {"Fail", "object.data.none == 'x'", "no such key: none"},
		"ignored":     {"Ignore", "object.data.none == 'x'", ""},
		"false":       {"Ignore", "false", "failed expression: false"},
		"costs":       {"Fail", expensive, "cost limit"},
		"costs-alone": {"Ignore", expensive, ""},
	} {
		t.Run(name, func(t *testing.T) {
			name := ns + "-" + name
			policy(t, "validating", name, forConfigMaps+"  failurePolicy: "+c.failure+"\n  validations: [{expression: \""+c.expression+"\"}]")
			bind(t, "validating", name, name, ns, denies)
			a := postConfigMap(t, admin, ns, name, "k: v")
			if c.want == "" {
				a.status2xx(t)
				return
			}
			a.refused(t, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, c.want)
		})
	}
}

// A policy may look at Deployments, in both operations.
func TestPolicyForDeployments(t *testing.T) {
	ns := namespace(t)
	policy(t, "validating", ns, `
  matchConstraints: {resourceRules: [{operations: [CREATE, UPDATE], apiGroups: [apps], apiVersions: [v1], resources: [deployments]}]}
  validations:
  - {expression: "object.spec.replicas > 1", messageExpression: "'wants replicas > 1, got ' + string(object.spec.replicas)"}
  - {expression: "namespaceObject.metadata.name == '`+ns+`'", message: wrong namespace}`)
	bind(t, "validating", ns, ns, ns, denies)
	admin.do(t, call{method: "POST", path: at("deployments", ns), body: deploymentOf("d", 1)}).
		refused(t, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, `deployments.apps "d" is forbidden: ValidatingAdmissionPolicy '`+ns+`' with binding '`+ns+`' denied request: wants replicas > 1, got 1`)
	create(t, "deployments", ns, deploymentOf("d", 2))
	admin.do(t, call{method: "PATCH", path: at("deployments", ns, "d"), contentType: mergePatch, body: `{"spec":{"replicas":1}}`}).
		refused(t, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, "wants replicas > 1, got 1")
}

// Parameters are found by name and by selector, in the namespace of the request
// or in another; a missing one is denied or let pass; a change is in effect at
// once.
func TestPolicyParameters(t *testing.T) {
	ns := namespace(t)
	create(t, "configmaps", ns, "metadata: {name: limits, labels: {limit: 'yes'}}\ndata: {most: '5'}")
	spec := strings.ReplaceAll(forConfigMaps, "configmaps", "services") + `
  paramKind: {apiVersion: v1, kind: ConfigMap}
  validations: [{expression: "size(object.spec.ports) <= int(params.data.most)", messageExpression: "'at most ' + params.data.most + ' ports, by ' + params.kind + ' ' + params.metadata.name"}]
`
	ports := func(n int) answer {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf("{name: p%d, port: %d}", i, 80+i))
		}
		return admin.do(t, call{method: "POST", path: at("services", ns) + "?dryRun=All", body: "metadata: {name: s}\nspec: {ports: [" + strings.Join(list, ", ") + "]}"})
	}
	policy(t, "validating", ns, spec)
	for name, ref := range map[string]string{
		"named":    "{name: limits, parameterNotFoundAction: Deny}",
		"there":    "{name: limits, namespace: " + ns + ", parameterNotFoundAction: Deny}",
		"selected": "{selector: {matchLabels: {limit: 'yes'}}, parameterNotFoundAction: Deny}",
	} {
		t.Run(name, func(t *testing.T) {
			bind(t, "validating", ns+"-"+name, ns, ns, denies+", paramRef: "+ref)
			ports(2).status2xx(t)
			ports(6).refused(t, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, "at most 5 ports, by ConfigMap limits")
			patch(t, "configmaps", ns, "limits", `{"data":{"most":"6"}}`)
			ports(6).status2xx(t)
			patch(t, "configmaps", ns, "limits", `{"data":{"most":"5"}}`)
			ports(6).refused(t, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, "at most 5 ports")
			admin.want(t, http.StatusOK, call{method: "DELETE", path: at("validatingadmissionpolicybindings", "", ns+"-"+name)}, nil)
		})
	}
	t.Run("each of several", func(t *testing.T) {
		create(t, "configmaps", ns, "metadata: {name: more, labels: {limit: 'yes'}}\ndata: {most: '1'}")
		bind(t, "validating", ns+"-each", ns, ns, denies+", paramRef: {selector: {matchLabels: {limit: 'yes'}}, parameterNotFoundAction: Deny}")
		ports(2).refused(t, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, "at most 1 ports, by ConfigMap more")
		admin.want(t, http.StatusOK, call{method: "DELETE", path: at("validatingadmissionpolicybindings", "", ns+"-each")}, nil)
	})
	t.Run("missing", func(t *testing.T) {
		bind(t, "validating", ns+"-allow", ns, ns, denies+", paramRef: {name: none, parameterNotFoundAction: Allow}")
		ports(9).status2xx(t)
		bind(t, "validating", ns+"-deny", ns, ns, denies+", paramRef: {name: none, parameterNotFoundAction: Deny}")
		ports(1).refused(t, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction")
	})
}

// Parameters may be custom resources: the kind may come after the policy, and go
// before it.
func TestPolicyCustomParameters(t *testing.T) {
	ns := namespace(t)
	g := group(t)
	policy(t, "validating", ns, forConfigMaps+`
  paramKind: {apiVersion: `+g+`/v1, kind: Gadget}
  validations: [{expression: "int(object.data.size) <= params.spec.size", messageExpression: "'more than ' + string(params.spec.size)"}]`)
	bind(t, "validating", ns, ns, ns, denies+", paramRef: {name: limits, parameterNotFoundAction: Deny}")
	postConfigMap(t, admin, ns, "a", "size: '1'").refused(t, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, "failed to configure policy: failed to find resource referenced by paramKind")
	gvr := define(t, gadget)
	if _, err := dyn.Resource(gvr).Namespace(ns).Create(t.Context(), gadgetNamed(gvr, "limits", map[string]any{}), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	postConfigMap(t, admin, ns, "b", "size: '3'").status2xx(t)
	postConfigMap(t, admin, ns, "c", "size: '4'").refused(t, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, "more than 3")
}

// A policy looks at custom resources as at any other, and at what defaulting made
// of them.
func TestPolicyForCustomResources(t *testing.T) {
	ns := namespace(t)
	gvr := define(t, gadget)
	policy(t, "validating", ns, `
  matchConstraints: {resourceRules: [{operations: ["*"], apiGroups: [`+gvr.Group+`], apiVersions: ["*"], resources: [gadgets, gadgets/scale]}]}
  validations:
  - {expression: "request.operation == 'DELETE' || has(request.subResource) || object.spec.size == 3", messageExpression: "'size is ' + string(object.spec.size)"}
  - {expression: "request.operation != 'DELETE' || oldObject.spec.color != 'gold'", message: gold stays}
  - {expression: "!has(request.subResource) || object.spec.replicas < 5", message: too many}`)
	bind(t, "validating", ns, ns, ns, denies)
	client := dyn.Resource(gvr).Namespace(ns)
	made, err := client.Create(t.Context(), gadgetNamed(gvr, "a", map[string]any{"color": "gold", "replicas": int64(1)}), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_ = unstructured.SetNestedField(made.Object, int64(4), "spec", "size")
	if _, err := client.Update(t.Context(), made, metav1.UpdateOptions{}); err == nil || !strings.Contains(err.Error(), "size is 4") {
		t.Errorf("an update gave %v", err)
	}
	path := "/apis/" + gvr.Group + "/v1/namespaces/" + ns + "/gadgets/a"
	admin.do(t, call{method: "PATCH", path: path + "/scale", contentType: mergePatch, body: `{"spec":{"replicas":7}}`}).
		refused(t, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, "too many")
	if err := client.Delete(t.Context(), "a", metav1.DeleteOptions{}); err == nil || !strings.Contains(err.Error(), "gold stays") {
		t.Errorf("a delete gave %v", err)
	}
}

// What a policy is for: names, excluded rules, selectors, the same object in
// another version, operations without an object. Reviews and policies are not
// asked about.
func TestPolicyMatching(t *testing.T) {
	ns := namespace(t)
	write := func(name string) answer { return postConfigMap(t, admin, ns, name, "k: v") }
	t.Run("names and exclusions", func(t *testing.T) {
		policy(t, "validating", ns+"-names", `
  matchConstraints:
    objectSelector: {matchExpressions: [{key: free, operator: DoesNotExist}]}
    resourceRules: [{operations: [CREATE], apiGroups: [""], apiVersions: [v1], resources: [configmaps], resourceNames: [a, b]}]
    excludeResourceRules: [{operations: [CREATE], apiGroups: [""], apiVersions: [v1], resources: [configmaps], resourceNames: [b]}]
  validations: [{expression: "false"}]`)
		bind(t, "validating", ns+"-names", ns+"-names", ns, denies)
		write("a").refused(t, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, "failed expression: false")
		write("b").status2xx(t)
		write("c").status2xx(t)
		admin.want(t, http.StatusCreated, call{method: "POST", path: at("configmaps", ns), body: "metadata: {name: a, labels: {free: 'yes'}}"}, nil)
	})
	t.Run("equivalent", func(t *testing.T) {
		policy(t, "validating", ns+"-version", `
  matchConstraints: {resourceRules: [{operations: [CREATE], apiGroups: [autoscaling], apiVersions: [v2], resources: [horizontalpodautoscalers]}]}
  validations: [{expression: "size(object.spec.metrics) > 1", messageExpression: "string(object.apiVersion)"}]`)
		bind(t, "validating", ns+"-version", ns+"-version", ns, denies)
		hpa := `{"metadata": {"name": "h"}, "spec": {"maxReplicas": 2, "scaleTargetRef": {"kind": "A", "name": "b", "apiVersion": "c/v1"}, "targetCPUUtilizationPercentage": 50}}`
		admin.do(t, call{method: "POST", path: under("autoscaling/v1", "horizontalpodautoscalers", ns), body: hpa}).
			refused(t, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, "denied request: autoscaling/v2")
	})
	t.Run("connect and evict", func(t *testing.T) {
		policy(t, "validating", ns+"-connect", `
  matchConstraints: {resourceRules: [{operations: [CONNECT, CREATE, DELETE], apiGroups: [""], apiVersions: [v1], resources: [pods/exec, pods/eviction, pods]}]}
  validations: [{expression: "!has(request.subResource) && request.operation == 'CREATE'", messageExpression: "request.operation + ' ' + request.requestKind.kind + ' of ' + request.resource.resource + (has(request.subResource) ? '/' + request.subResource : '')"}]`)
		bind(t, "validating", ns+"-connect", ns+"-connect", ns, denies)
		create(t, "pods", ns, podOf("p"))
		const invalid = metav1.StatusReasonInvalid
		admin.do(t, call{method: "POST", path: at("pods", ns, "p", "exec") + "?command=x&stdout=true"}).refused(t, http.StatusUnprocessableEntity, invalid, "CONNECT PodExecOptions of pods/exec")
		admin.do(t, call{method: "POST", path: at("pods", ns, "p", "eviction"), body: `{"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}}`}).
			refused(t, http.StatusUnprocessableEntity, invalid, "CREATE Eviction of pods/eviction")
		admin.do(t, call{method: "DELETE", path: at("pods", ns, "p")}).refused(t, http.StatusUnprocessableEntity, invalid, "DELETE Pod of pods")
		admin.want(t, http.StatusOK, call{method: "DELETE", path: at("validatingadmissionpolicies", "", ns+"-connect")}, nil)
	})
	t.Run("exempt", func(t *testing.T) {
		policy(t, "validating", ns+"-all", `
  matchConstraints: {resourceRules: [{operations: [CREATE], apiGroups: [authentication.k8s.io, authorization.k8s.io, admissionregistration.k8s.io], apiVersions: ["*"], resources: [selfsubjectreviews, selfsubjectaccessreviews, validatingadmissionpolicies]}]}
  validations: [{expression: "false"}]`)
		dropped(t, admin, "validatingadmissionpolicybindings", ns+"-all")
		create(t, "validatingadmissionpolicybindings", "", "metadata: {name: "+ns+"-all}\nspec: {policyName: "+ns+"-all, "+denies+"}")
		admin.want(t, http.StatusCreated, call{method: "POST", path: at("selfsubjectreviews", ""), body: "{}"}, nil)
		admin.want(t, http.StatusCreated, call{method: "POST", path: at("selfsubjectaccessreviews", ""), body: `{"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}}`}, nil)
		policy(t, "validating", ns+"-other", forConfigMaps+`  validations: [{expression: "true"}]`)
	})
}

// What is to be done about a failed validation: warn and audit let the write pass.
// Audit annotations are those of the policy.
func TestPolicyActions(t *testing.T) {
	dir := t.TempDir()
	rules, log := filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "audit.log")
	if err := os.WriteFile(rules, []byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata, resources: [{group: \"\", resources: [configmaps]}]}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, p := started(t, "policies", "--audit-policy-file", rules, "--audit-log-path", log)
	p.want(t, http.StatusCreated, call{method: "POST", path: at("validatingadmissionpolicies", ""), body: `metadata: {name: colors}
spec:` + forConfigMaps + `
  validations: [{expression: "object.data.color != 'mauve'", message: mauve is no color}]
  auditAnnotations: [{key: color, valueExpression: "'it is ' + object.data.color"}, {key: none, valueExpression: "null"}]`}, nil)
	p.want(t, http.StatusCreated, call{method: "POST", path: at("validatingadmissionpolicybindings", ""),
		body: "metadata: {name: colors}\nspec: {policyName: colors, validationActions: [Warn, Audit], matchResources: {objectSelector: {matchLabels: {checked: 'yes'}}}}"}, nil)
	a := p.want(t, http.StatusCreated, call{method: "POST", path: at("configmaps", "default"), body: "metadata: {name: a, labels: {checked: 'yes'}}\ndata: {color: mauve}", header: map[string]string{"Audit-Id": "mauve"}}, nil)
	want := `299 - "Validation failed for ValidatingAdmissionPolicy 'colors' with binding 'colors': mauve is no color"`
	if got := a.header.Values("Warning"); len(got) != 1 || got[0] != want {
		t.Errorf("warnings are %q, want %q", got, want)
	}
	if err := c.signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	var event *auditv1.Event
	for _, e := range events(t, log) {
		if e.AuditID == "mauve" {
			event = &e
		}
	}
	if event == nil {
		t.Fatal("the write has no event")
	}
	const failed = `[{"message":"mauve is no color","policy":"colors","binding":"colors","expressionIndex":0,"validationActions":["Warn","Audit"]}]`
	if got := event.Annotations["validation.policy.admission.k8s.io/validation_failure"]; got != failed {
		t.Errorf("the failure is noted as %s, want %s", got, failed)
	}
	if got := event.Annotations["colors/color"]; got != "it is mauve" {
		t.Errorf("annotations are %v", event.Annotations)
	}
	if _, ok := event.Annotations["colors/none"]; ok {
		t.Errorf("null is noted: %v", event.Annotations)
	}
}

// "Mutating Admission Policy": apply configurations and JSON patches, one after
// the other, in the order of names, with defaults after each.
func TestMutatingAdmissionPolicy(t *testing.T) {
	ns := namespace(t)
	policy(t, "mutating", ns+"-1", `
  reinvocationPolicy: Never
  matchConstraints: {resourceRules: [{operations: [CREATE], apiGroups: [""], apiVersions: [v1], resources: [pods]}]}
  matchConditions: [{name: labelled, expression: "has(object.metadata.labels) && 'side' in object.metadata.labels"}]
  variables: [{name: image, expression: "'example.com/' + object.metadata.labels['side']"}]
  mutations:
  - patchType: ApplyConfiguration
    applyConfiguration: {expression: "Object{metadata: Object.metadata{annotations: {'order': 'one'}}, spec: Object.spec{initContainers: [Object.spec.initContainers{name: 'side', image: variables.image, restartPolicy: 'Always'}]}}"}
  - patchType: JSONPatch
    jsonPatch: {expression: "[JSONPatch{op: 'test', path: '/metadata/annotations/order', value: 'one'}, JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('example.com/side'), value: object.spec.initContainers[0].name}]"}`)
	policy(t, "mutating", ns+"-2", `
  reinvocationPolicy: Never
  matchConstraints: {resourceRules: [{operations: [CREATE], apiGroups: [""], apiVersions: [v1], resources: [pods]}]}
  mutations: [{patchType: ApplyConfiguration, applyConfiguration: {expression: "Object{metadata: Object.metadata{annotations: {'order': object.metadata.?annotations[?'order'].orValue('none') + ' two'}}}"}}]`)
	bind(t, "mutating", ns+"-1", ns+"-1", ns, "paramRef: null")
	bind(t, "mutating", ns+"-2", ns+"-2", ns, "paramRef: null")
	made := create(t, "pods", ns, `{"metadata": {"name": "p", "labels": {"side": "car"}}, "spec": {"schedulerName": "nobody", "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]}}`)
	side, _, _ := unstructured.NestedSlice(made.Object, "spec", "initContainers")
	if len(side) != 1 {
		t.Fatalf("the pod has init containers %v", side)
	}
	if c := side[0].(map[string]any); c["image"] != "example.com/car" || c["imagePullPolicy"] != "Always" || c["terminationMessagePath"] != "/dev/termination-log" {
		t.Errorf("the init container is %v", c)
	}
	if got := made.GetLabels()["example.com/side"]; got != "side" {
		t.Errorf("labels are %v", made.GetLabels())
	}
	if got := made.GetAnnotations()["order"]; got != "one two" {
		t.Errorf("the order is %q", got)
	}
	other := create(t, "pods", ns, podOf("q"))
	if got := other.GetAnnotations()["order"]; got != "none two" {
		t.Errorf("the order is %q", got)
	}
	// A patch that cannot be made is a refusal.
	policy(t, "mutating", ns+"-3", strings.Replace(forConfigMaps, "  match", "  reinvocationPolicy: Never\n  match", 1)+`
  mutations: [{patchType: JSONPatch, jsonPatch: {expression: "[JSONPatch{op: 'remove', path: '/data/none'}]"}}]`)
	bind(t, "mutating", ns+"-3", ns+"-3", ns, "paramRef: null")
	postConfigMap(t, admin, ns, "a", "k: v").refused(t, http.StatusForbidden, metav1.StatusReasonInvalid, "JSON Patch: error in remove for path")
}

// A policy that has seen the object before another changed it is asked again if
// it wants to be.
func TestMutatingPolicyIsInvokedAgain(t *testing.T) {
	ns := namespace(t)
	count := func(name, again, key string) {
		policy(t, "mutating", ns+name, `
  reinvocationPolicy: `+again+forConfigMaps+`
  mutations: [{patchType: ApplyConfiguration, applyConfiguration: {expression: "Object{data: {'`+key+`': string(int(object.?data[?'`+key+`'].orValue('0')) + 1)}}"}}]`)
		bind(t, "mutating", ns+name, ns+name, ns, "paramRef: null")
	}
	count("-1", "IfNeeded", "again")
	count("-2", "Never", "once")
	postConfigMap(t, admin, ns, "a", "k: v").status2xx(t)
	made := get(t, "configmaps", ns, "a")
	if field(made, "data", "again") != "2" || field(made, "data", "once") != "1" {
		t.Errorf("data is %v", made.Object["data"])
	}
}

// Custom resources are merged by their own schema, pruned and defaulted; what a
// policy makes of one is validated.
func TestMutatingPolicyForCustomResources(t *testing.T) {
	ns := namespace(t)
	gvr := define(t, gadget)
	create(t, "configmaps", ns, "metadata: {name: colors}\ndata: {color: teal}")
	policy(t, "mutating", ns, `
  reinvocationPolicy: Never
  paramKind: {apiVersion: v1, kind: ConfigMap}
  matchConstraints: {resourceRules: [{operations: [CREATE], apiGroups: [`+gvr.Group+`], apiVersions: [v1], resources: [gadgets]}]}
  mutations:
  - {patchType: ApplyConfiguration, applyConfiguration: {expression: "Object{spec: Object.spec{color: params.data.color, parts: [Object.spec.parts{name: 'b', count: object.spec.size}]}}"}}
  - {patchType: JSONPatch, jsonPatch: {expression: "[JSONPatch{op: 'add', path: '/spec/unknown', value: 1}, JSONPatch{op: 'remove', path: '/spec/size'}]"}}`)
	bind(t, "mutating", ns, ns, ns, "paramRef: {name: colors, parameterNotFoundAction: Deny}")
	client := dyn.Resource(gvr).Namespace(ns)
	made, err := client.Create(t.Context(), gadgetNamed(gvr, "a", map[string]any{"size": int64(4), "parts": []any{map[string]any{"name": "a"}}}), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"color":"teal","parts":[{"name":"a"},{"count":4,"name":"b"}],"size":3}`
	if got := encode(t, made.Object["spec"]); got != want {
		t.Errorf("spec is %s, want %s", got, want)
	}
	patch(t, "configmaps", ns, "colors", `{"data":{"color":"mauve"}}`)
	if _, err := client.Create(t.Context(), gadgetNamed(gvr, "b", map[string]any{"size": int64(4)}), metav1.CreateOptions{}); err == nil || !strings.Contains(err.Error(), "mauve is no color") {
		t.Errorf("what is not valid gave %v", err)
	}
}

// Expressions are checked against the types of what a policy is for; what is found
// stands in the status, and stops nothing.
func TestPolicyTypeChecking(t *testing.T) {
	ns := namespace(t)
	gvr := define(t, gadget)
	for name, c := range map[string]struct{ rule, expression, want string }{
		"types":   {`apiGroups: [apps], apiVersions: [v1], resources: [deployments]`, "object.spec.replicas > 'a'", "found no matching overload for '_>_' applied to '(int, string)'"},
		"fields":  {`apiGroups: [apps], apiVersions: [v1], resources: [deployments]`, "object.spec.replica > 1", "undefined field 'replica'"},
		"customs": {`apiGroups: [` + gvr.Group + `], apiVersions: [v1], resources: [gadgets]`, "object.spec.weight > 1", "undefined field 'weight'"},
		"right":   {`apiGroups: [apps], apiVersions: [v1], resources: [deployments]`, "object.spec.replicas > 1", ""},
	} {
		t.Run(name, func(t *testing.T) {
			policy(t, "validating", ns+"-"+name, `
  matchConstraints: {resourceRules: [{operations: [CREATE], `+c.rule+`}]}
  validations: [{expression: "`+c.expression+`"}]`)
			var p *unstructured.Unstructured
			eventually(t, "the policy has been checked", func() bool {
				p = get(t, "validatingadmissionpolicies", "", ns+"-"+name)
				return field(p, "status", "observedGeneration") == "1"
			})
			warnings, _, _ := unstructured.NestedSlice(p.Object, "status", "typeChecking", "expressionWarnings")
			if c.want == "" {
				if len(warnings) > 0 {
					t.Errorf("warnings are %v", warnings)
				}
				return
			}
			if len(warnings) != 1 || warnings[0].(map[string]any)["fieldRef"] != "spec.validations[0].expression" || !strings.Contains(fmt.Sprint(warnings[0].(map[string]any)["warning"]), c.want) {
				t.Errorf("warnings are %v, want %s", warnings, c.want)
			}
		})
	}
}

// Who gives a policy parameters must be allowed to read them.
func TestPolicyAuthorization(t *testing.T) {
	ns := namespace(t)
	p := impersonating(t, "polly")
	role := under("rbac.authorization.k8s.io/v1", "clusterroles", "")
	bindings := under("rbac.authorization.k8s.io/v1", "clusterrolebindings", "")
	admin.want(t, http.StatusCreated, call{method: "POST", path: role, body: `{"metadata": {"name": "` + ns + `"}, "rules": [{"apiGroups": ["admissionregistration.k8s.io"], "resources": ["*"], "verbs": ["*"]}]}`}, nil)
	admin.want(t, http.StatusCreated, call{method: "POST", path: bindings, body: `{"metadata": {"name": "` + ns + `"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "` + ns + `"}, "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "polly"}]}`}, nil)
	spec := "metadata: {name: " + ns + "}\nspec:" + forConfigMaps + "  paramKind: {apiVersion: v1, kind: Secret}\n  validations: [{expression: \"true\"}]"
	var s metav1.Status
	eventually(t, "polly may write policies", func() bool {
		a := p.do(t, call{method: "POST", path: at("validatingadmissionpolicies", ""), body: spec})
		s = a.status(t)
		return a.code == http.StatusUnprocessableEntity
	})
	if got := causesOf(s); len(got) != 1 || got[0] != "FieldValueForbidden spec.paramKind" || !strings.Contains(s.Message, `must have "get" permission on all objects of the referenced paramKind (kind=Secret, apiVersion=v1)`) {
		t.Errorf("refused with %v: %s", got, s.Message)
	}
	policy(t, "validating", ns, strings.SplitN(spec, "spec:", 2)[1])
	for verb, ref := range map[string]string{"get": "{name: a, namespace: x, parameterNotFoundAction: Deny}", "list": "{selector: {}, parameterNotFoundAction: Deny}"} {
		p.do(t, call{method: "POST", path: at("validatingadmissionpolicybindings", ""), body: "metadata: {name: " + ns + "}\nspec: {policyName: " + ns + ", " + denies + ", paramRef: " + ref + "}"}).
			refused(t, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, `does not have "`+verb+`" permission on the object referenced by paramRef`)
	}
}
