package conformance

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// API concepts, "Field validation": unknown and repeated fields are refused,
// warned of or dropped, in every form of write.
func TestFieldValidation(t *testing.T) {
	ns := namespace(t)
	create(t, "deployments", ns, deploymentOf("have", 0))
	jsonBody := `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"%s","nonsense":1},"spec":{"replicas":0,"replicas":0,"what":true,
		"selector":{"matchLabels":{"app":"x"}},"template":{"metadata":{"labels":{"app":"x"}},"spec":{"containers":[{"name":"c","image":"i","imagePullPolicy":"Never","imagePullPolicy":"Always","ports":[{"port":1,"containerPort":80}]}]}}}}`
	jsonProblems := []string{
		`duplicate field "spec.replicas"`, `duplicate field "spec.template.spec.containers[0].imagePullPolicy"`, `unknown field "metadata.nonsense"`,
		`unknown field "spec.template.spec.containers[0].ports[0].port"`, `unknown field "spec.what"`,
	}
	yamlBody := `
apiVersion: apps/v1
kind: Deployment
metadata: {name: "%s", nonsense: 1}
spec:
  replicas: 0
  replicas: 0
  what: true
  selector: {matchLabels: {app: x}}
  template: {metadata: {labels: {app: x}}, spec: {containers: [{name: c, image: i}]}}`
	yamlProblems := []string{`line 7: key "replicas" already set in map`, `unknown field "metadata.nonsense"`, `unknown field "spec.what"`}
	patchBody := `{"spec":{"what":true,"minReadySeconds":1,"minReadySeconds":2,"template":{"spec":{"nope":1}}}}`
	patchProblems := []string{`duplicate field "spec.minReadySeconds"`, `unknown field "spec.template.spec.nope"`, `unknown field "spec.what"`}
	jsonPatchBody := `[{"op":"add","path":"/spec/what","value":1,"foo":"bar"},{"op":"add","path":"/spec/minReadySeconds","value":1,"value":2}]`
	jsonPatchProblems := []string{`json patch duplicate field "[1].value"`, `json patch unknown field "[0].foo"`, `unknown field "spec.what"`}

	for _, c := range []struct {
		what, method, name, contentType, body string
		problems                              []string
		strictCode                            int
	}{
		{"create in JSON", "POST", "", "application/json", jsonBody, jsonProblems, 400},
		{"create in YAML", "POST", "", "application/yaml", yamlBody, yamlProblems, 400},
		{"update in JSON", "PUT", "have", "application/json", strings.ReplaceAll(jsonBody, `"x"`, `"have"`), jsonProblems, 400},
		{"merge patch", "PATCH", "have", mergePatch, patchBody, patchProblems, 422},
		{"strategic patch", "PATCH", "have", strategicPatch, patchBody, patchProblems, 422},
		{"JSON patch", "PATCH", "have", jsonPatch, jsonPatchBody, jsonPatchProblems, 422},
	} {
		t.Run(c.what, func(t *testing.T) {
			send := func(directive, name string) answer {
				path := at("deployments", ns)
				if c.name != "" {
					path, name = path+"/"+c.name, c.name
				}
				body := strings.Replace(c.body, "%s", name, 1)
				return admin.do(t, call{method: c.method, path: path + "?fieldValidation=" + directive, contentType: c.contentType, body: body})
			}
			kind := strings.ToLower(strings.ReplaceAll(c.what, " ", "-"))
			strict := send("Strict", kind+"-strict").status(t)
			if int(strict.Code) != c.strictCode || !strings.Contains(strict.Message, "strict decoding error: ") {
				t.Errorf("strictly: %d %s", strict.Code, strict.Message)
			}
			for _, p := range c.problems {
				if !strings.Contains(strict.Message, p) && !strings.Contains(strict.Message, strings.ReplaceAll(p, `"`, `\"`)) {
					t.Errorf("strictly: no %s in %s", p, strict.Message)
				}
			}
			for _, directive := range []string{"Warn", ""} {
				a := send(directive, kind+"-warn"+strings.ToLower(directive))
				if a.code/100 != 2 {
					t.Fatalf("warned: %d %s", a.code, a.body)
				}
				var got []string
				for _, w := range a.header.Values("Warning") {
					got = append(got, strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(w, `299 - "`), `"`), `\"`, `"`))
				}
				slices.Sort(got)
				if !slices.Equal(got, c.problems) {
					t.Errorf("directive %q: warnings are %q, want %q", directive, got, c.problems)
				}
			}
			if a := send("Ignore", kind+"-ignore"); a.code/100 != 2 || len(a.header.Values("Warning")) != 0 {
				t.Errorf("ignored: %d with warnings %q", a.code, a.header.Values("Warning"))
			}
		})
	}
	admin.do(t, call{method: "POST", path: at("configmaps", ns) + "?fieldValidation=Maybe", body: "metadata: {name: x}"}).
		refused(t, 422, metav1.StatusReasonInvalid, `fieldValidation: Unsupported value: "Maybe"`)
}

// API concepts, "Dry-run": all that a write does, but nothing is kept.
func TestDryRun(t *testing.T) {
	ns := namespace(t)
	have := create(t, "configmaps", ns, "metadata: {name: have}\ndata: {k: v}")
	version := get(t, "configmaps", ns, "have").GetResourceVersion()
	dry := func(method, path, contentType, body string) answer {
		separator := "?"
		if strings.Contains(path, "?") {
			separator = "&"
		}
		return admin.do(t, call{method: method, path: path + separator + "dryRun=All", contentType: contentType, body: body})
	}
	made := dry("POST", at("configmaps", ns), "", "metadata: {generateName: new-}").object(t)
	if made.GetUID() == "" || made.GetName() == "" || made.GetResourceVersion() != "" || !gone(t, "configmaps", ns, made.GetName()) {
		t.Errorf("dry create gave metadata %s", field(made, "metadata"))
	}
	updated := dry("PUT", at("configmaps", ns, "have"), "", "metadata: {name: have}\ndata: {k: w}").object(t)
	if field(updated, "data", "k") != "w" || updated.GetResourceVersion() != version {
		t.Errorf("dry update gave %v", updated)
	}
	for kind, body := range map[string]string{
		mergePatch: `{"data":{"k":"w"}}`, jsonPatch: `[{"op":"add","path":"/data/k","value":"w"}]`, strategicPatch: `{"data":{"k":"w"}}`,
	} {
		if got := dry("PATCH", at("configmaps", ns, "have"), kind, body).object(t); field(got, "data", "k") != "w" {
			t.Errorf("dry %s gave %v", kind, got)
		}
	}
	apply := applyCall("configmaps", ns, "have", "m", "&force=true&dryRun=All", configMap("have", "{k: w}"))
	if got := admin.want(t, http.StatusOK, apply, nil).object(t); field(got, "data", "k") != "w" {
		t.Errorf("dry apply gave %v", got)
	}
	dry("DELETE", at("configmaps", ns, "have"), "", "").status2xx(t)
	dry("DELETE", at("configmaps", ns), "", "").status2xx(t)
	dry("POST", at("configmaps", ns), "", "metadata: {name: have}").refused(t, 409, metav1.StatusReasonAlreadyExists, "")
	dry("POST", at("configmaps", ns), "", "metadata: {name: Bad}").refused(t, 422, metav1.StatusReasonInvalid, "")
	dry("PUT", at("configmaps", ns, "have"), "", "metadata: {name: have, resourceVersion: '1'}").refused(t, 409, metav1.StatusReasonConflict, "")
	if now := get(t, "configmaps", ns, "have"); now.GetResourceVersion() != version || now.GetUID() != have.GetUID() || field(now, "data", "k") != "v" {
		t.Errorf("after dry runs the object is %v", now)
	}
	service := "metadata: {name: s}\nspec: {type: NodePort, clusterIP: 10.43.7.7, ports: [{port: 80, nodePort: 31777}]}"
	for range 2 {
		dry("POST", at("services", ns), "", service).status2xx(t)
	}
	create(t, "services", ns, service)
	// Kubernetes looks for no address in a dry run; what is there already is known all the same.
	dry("POST", at("services", ns), "", "metadata: {name: s}\nspec: {clusterIP: 10.43.7.7, ports: [{port: 80}]}").refused(t, 409, metav1.StatusReasonAlreadyExists, "")
	if got := dry("POST", at("services", ns), "", "metadata: {name: s2}\nspec: {clusterIP: 10.43.7.7, ports: [{port: 80}]}"); got.code != 422 {
		t.Errorf("a dry run took an address that is used: %d %s", got.code, got.body)
	}
	dry("POST", at("pods", ns, "none", "eviction"), "", "{apiVersion: policy/v1, kind: Eviction, metadata: {name: none}}").refused(t, 404, metav1.StatusReasonNotFound, "")
}
