package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What becomes of requests when their webhooks do not answer, or not as they
// should ("Dynamic Admission Control", "Failure policy", "Timeouts").

// reviewOf is the answer to a review, as JSON, with change applied to it.
func reviewOf(t *testing.T, r *http.Request, change func(*admissionv1.AdmissionReview)) []byte {
	var review admissionv1.AdmissionReview
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
		t.Error(err)
	}
	review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true}
	review.Request = nil
	if change != nil {
		change(&review)
	}
	b, err := json.Marshal(&review)
	if err != nil {
		t.Error(err)
	}
	return b
}

// broken are webhooks that answer something that is no answer, and what clients
// are told then.
func broken(t *testing.T) map[string]struct {
	answer http.HandlerFunc
	told   string
} {
	kind := admissionv1.PatchTypeJSONPatch
	review := func(change func(*admissionv1.AdmissionReview)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(reviewOf(t, r, change)) }
	}
	patch := func(patch string, kind *admissionv1.PatchType) http.HandlerFunc {
		return review(func(r *admissionv1.AdmissionReview) { r.Response.Patch, r.Response.PatchType = []byte(patch), kind })
	}
	merge := admissionv1.PatchType("MergePatch")
	return map[string]struct {
		answer http.HandlerFunc
		told   string
	}{
		"garbage": {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "what?") }, "failed to call webhook: couldn't get version/kind"},
		"nothing": {func(http.ResponseWriter, *http.Request) {}, "failed to call webhook"},
		"error500": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "oops", http.StatusInternalServerError) },
			"failed to call webhook: an error on the server (\"oops\") has prevented the request from succeeding"},
		"redirect":  {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) }, "could not find the requested resource"},
		"broken":    {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "failed to call webhook"},
		"response":  {review(func(r *admissionv1.AdmissionReview) { r.Response = nil }), "webhook response was absent"},
		"uid":       {review(func(r *admissionv1.AdmissionReview) { r.Response.UID = "x" }), `expected response.uid=`},
		"kind":      {review(func(r *admissionv1.AdmissionReview) { r.APIVersion = "admission.k8s.io/v1beta1" }), "failed to call webhook"},
		"patchtype": {patch(`[]`, nil), "webhook returned response.patch but not response.patchType"},
		"nopatch":   {patch(``, &kind), "webhook returned response.patchType but not response.patch"},
		"merge":     {patch(`[{"op":"test","path":"","value":1}]`, &merge), `unsupported patch type "MergePatch"`},
		"notpatch":  {patch(`{"a":1}`, &kind), "received undecodable patch in webhook response"},
		"huge": {func(w http.ResponseWriter, _ *http.Request) {
			chunk := bytes.Repeat([]byte(" "), 1<<20)
			for range 64 {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}, "the answer has more than"},
	}
}

// A webhook that fails refuses, or is passed over if its failurePolicy is Ignore.
func TestFailurePolicy(t *testing.T) {
	ns := namespace(t)
	cases := broken(t)
	s := served(t, func(w http.ResponseWriter, r *http.Request) {
		if c, ok := cases[strings.TrimPrefix(r.URL.Path, "/")]; ok {
			c.answer(w, r)
			return
		}
		http.NotFound(w, r)
	})
	h := &hook{Server: s, namespace: ns}
	for name, c := range cases {
		config := configure(t, mutatingHooks, "", h.webhook("/"+name, "/v1 configmaps CREATE", "timeoutSeconds: 5"))
		post(t, ns, name, "").refused(t, http.StatusInternalServerError, metav1.StatusReasonInternalError,
			fmt.Sprintf(`failed calling webhook "%s.example.com": `, name))
		if a := post(t, ns, name, ""); !strings.Contains(string(a.status(t).Message), c.told) {
			t.Errorf("%s: told %s, want …%s…", name, a.status(t).Message, c.told)
		}
		admin.want(t, http.StatusOK, call{method: "PATCH", path: at(mutatingHooks, "", config), contentType: jsonPatch,
			body: `[{"op":"replace","path":"/webhooks/0/failurePolicy","value":"Ignore"}]`}, nil)
		post(t, ns, name, "").status2xx(t)
		unconfigure(t, mutatingHooks, config)
	}
}

// A patch that does not apply, that makes another kind of the object, or something
// that is none, is an error whatever the failure policy; so is one that moves the
// object, or asks for what validation refuses.
func TestPatchesThatDoNotFit(t *testing.T) {
	ns := namespace(t)
	patch := ""
	h := hooks(t, ns, map[string]opinion{"/m": func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse { return patching(patch) }})
	configure(t, mutatingHooks, "", h.webhook("/m", "/v1 configmaps CREATE", "failurePolicy: Ignore"))
	for _, c := range []struct {
		patch string
		code  int
		told  string
	}{
		{`[{"op":"test","path":"/metadata/name","value":"other"}]`, 500, "testing value /metadata/name failed"},
		{`[{"op":"remove","path":"/nothing"}]`, 500, "nothing"},
		{`[{"op":"nonsense","path":"/data"}]`, 500, "nonsense"},
		{`[{"op":"replace","path":"/kind","value":"Secret"}]`, 500, "was made of an object that is"},
		{`[{"op":"replace","path":"/kind","value":"Nonsense"}]`, 500, "Nonsense"},
		{`[{"op":"replace","path":"","value":[]}]`, 500, ""},
		{`[{"op":"add","path":"/data","value":7}]`, 500, "cannot unmarshal number"},
		{`[{"op":"add","path":"/metadata/namespace","value":"default"}]`, 400, "the namespace of the provided object does not match"},
		{`[{"op":"add","path":"/metadata/resourceVersion","value":"1"}]`, 500, "resourceVersion should not be set on objects to be created"},
		{`[{"op":"add","path":"/metadata/labels","value":{"a b":"c"}}]`, 422, "a b"},
	} {
		patch = c.patch
		a := post(t, ns, "a", "")
		if a.code != c.code || !strings.Contains(string(a.body), c.told) {
			t.Errorf("%s: %d %s\nwant %d …%s…", c.patch, a.code, a.body, c.code, c.told)
		}
	}
	// Fields that nobody knows are dropped; the server's own it keeps for itself.
	patch = `[{"op":"add","path":"/nonsense","value":1},{"op":"add","path":"/metadata/uid","value":"mine"},{"op":"add","path":"/metadata/name","value":"renamed"}]`
	if o := post(t, ns, "a", "").object(t); o.GetName() != "renamed" || o.GetUID() == "mine" || field(o, "nonsense") != "" {
		t.Errorf("stored %s", encode(t, o.Object))
	}
}

// A webhook that hangs costs its timeout, and nobody else anything: not writers of
// the same resource that it is not asked about, of services neither, whose
// addresses are allocated one after the other.
func TestWebhookThatHangs(t *testing.T) {
	ns, other := namespace(t), namespaceName(t)+"-other"
	create(t, "namespaces", "", fmt.Sprintf("{apiVersion: v1, kind: Namespace, metadata: {name: %s}}", other))
	stop := make(chan struct{})
	arrived := make(chan struct{}, 100)
	s := served(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // so that the end of the connection is seen
		arrived <- struct{}{}
		select {
		case <-stop:
		case <-r.Context().Done():
		}
	})
	t.Cleanup(func() { close(stop) })
	h := &hook{Server: s, namespace: ns}
	slow := configure(t, validatingHooks, "", h.webhook("/hang", "/v1 services,configmaps *", "timeoutSeconds: 30"))
	service := func(name string) string {
		return fmt.Sprintf("{apiVersion: v1, kind: Service, metadata: {name: %s}, spec: {ports: [{port: 80}]}}", name)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	for i := range 3 {
		waiting.Go(func() {
			for path, body := range map[string]string{at("services", ns): service(fmt.Sprint("s", i)), at("configmaps", ns): mapNamed(fmt.Sprint("c", i), "")} {
				waiting.Go(func() {
					if r, err := admin.open(ctx, call{method: "POST", path: path, body: body}); err == nil {
						r.Body.Close()
						t.Errorf("a request whose webhook hangs gave %d", r.StatusCode)
					}
				})
			}
		})
	}
	for range 6 {
		<-arrived
	}
	for i := range 20 {
		admin.want(t, http.StatusCreated, call{method: "POST", path: at("services", other), body: service(fmt.Sprint("s", i))}, nil)
		post(t, other, fmt.Sprint("c", i), "").status2xx(t)
	}
	cancel()
	waiting.Wait()
	unconfigure(t, validatingHooks, slow)
	configure(t, validatingHooks, "-quick", h.webhook("/quick", "/v1 configmaps CREATE", "timeoutSeconds: 1"))
	began := time.Now()
	post(t, ns, "late", "").refused(t, http.StatusInternalServerError, metav1.StatusReasonInternalError,
		`/quick?timeout=1s": context deadline exceeded`)
	if took := time.Since(began); took < time.Second {
		t.Errorf("the timeout of a second took %v", took)
	}
}

// A webhook that deletes what it is asked about has the request find it gone.
func TestWebhookThatDeletesWhatItAdmits(t *testing.T) {
	ns := namespace(t)
	h := hooks(t, ns, map[string]opinion{"/d": func(q *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		if err := kube.CoreV1().ConfigMaps(q.Namespace).Delete(background, q.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
		return nil
	}})
	post(t, ns, "a", "").status2xx(t)
	config := configure(t, validatingHooks, "", h.webhook("/d", "/v1 configmaps UPDATE"))
	update := call{method: "PATCH", path: at("configmaps", ns, "a"), contentType: mergePatch, body: `{"data":{"k":"2"}}`}
	admin.do(t, update).refused(t, http.StatusNotFound, metav1.StatusReasonNotFound, `configmaps "a" not found`)
	post(t, ns, "a", "").status2xx(t)
	unconfigure(t, validatingHooks, config)
	configure(t, mutatingHooks, "", h.webhook("/d", "/v1 configmaps UPDATE"))
	admin.do(t, update).refused(t, http.StatusNotFound, metav1.StatusReasonNotFound, `configmaps "a" not found`)
}

// Without the right authority a webhook is not trusted; without a server it is not
// reached.
func TestWebhookThatIsNotTrusted(t *testing.T) {
	ns := namespace(t)
	h := hooks(t, ns, nil)
	for config, told := range map[string]string{
		fmt.Sprintf("{url: %q}", h.URL+"/x"):                            "x509: certificate signed by unknown authority",
		`{url: "https://127.0.0.1:1/x"}`:                                "connection refused",
		`{service: {namespace: default, name: nothing, path: /x}}`:      `services "nothing" not found`,
		`{service: {namespace: default, name: kubernetes, port: 9999}}`: `no service port 9999 found for service "kubernetes"`,
	} {
		name := configure(t, validatingHooks, "", h.webhook("/x", "/v1 configmaps *", "clientConfig: "+config))
		if a := post(t, ns, "a", ""); a.code != 500 || !strings.Contains(string(a.body), strings.ReplaceAll(told, `"`, `\"`)) {
			t.Errorf("%s: %d %s", config, a.code, a.body)
		}
		unconfigure(t, validatingHooks, name)
	}
}
