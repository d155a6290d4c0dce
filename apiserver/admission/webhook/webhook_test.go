package webhook_test

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	registrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	webhookutil "k8s.io/apiserver/pkg/util/webhook"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/admission/webhook"
	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/apiserver/request/audit"
	"hansa.dev/hansa/apiserver/request/requesttest"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/direct"
	"hansa.dev/hansa/store"
)

// config is a plugin's over a store of the process-wide kinds.
func config(s *store.Store) webhook.Config {
	return webhook.Config{
		Registry: kinds.Registry(), View: s.View(), Store: s,
		Services: webhookutil.NewDefaultServiceResolver(), Authorizer: requesttest.AdminOnly,
	}
}

// handler serves a cluster with both plugins.
func handler(t testing.TB, change func(*request.Config)) *request.Handler {
	return requesttest.Handler(t, func(c *request.Config) {
		c.Admission = admission.Chain{{Plugin: webhook.NewMutating(config(c.Store))}, {Plugin: webhook.NewValidating(config(c.Store))}}
		if change != nil {
			change(c)
		}
	})
}

// serve is a webhook server.
func serve(t testing.TB, answer http.HandlerFunc) *httptest.Server {
	s := httptest.NewUnstartedServer(answer)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// mutating has creates of a resource go through a server.
func mutating(s *httptest.Server, name string, resources ...string) *registrationv1.MutatingWebhookConfiguration {
	none, seconds := registrationv1.SideEffectClassNone, int32(10)
	return &registrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Webhooks: []registrationv1.MutatingWebhook{{
			Name: name + ".example.com", SideEffects: &none, AdmissionReviewVersions: []string{"v1"}, TimeoutSeconds: &seconds,
			ClientConfig: registrationv1.WebhookClientConfig{
				URL: &s.URL, CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}),
			},
			Rules: []registrationv1.RuleWithOperations{{
				Operations: []registrationv1.OperationType{registrationv1.Create},
				Rule:       registrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: resources},
			}},
		}},
	}
}

func create(t testing.TB, h *request.Handler, obj api.Object) api.Object {
	t.Helper()
	c := direct.New(h, requesttest.Admin, "test")
	out, err := c.Create(t.Context(), c.Registry().Of(obj), obj, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// patch is a review's answer with a patch.
func patch(r *http.Request, text string) []byte {
	var review admissionv1.AdmissionReview
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
		return nil
	}
	kind := admissionv1.PatchTypeJSONPatch
	review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true, Patch: []byte(text), PatchType: &kind}
	review.Request = nil
	b, _ := json.Marshal(&review) // plain data
	return b
}

// A write that no rule names is not converted or copied for the library.
func TestNobodyToAsk(t *testing.T) {
	s := requesttest.Store(t)
	m, v := webhook.NewMutating(config(s)), webhook.NewValidating(config(s))
	row := kinds.Registry().Must("", "configmaps")
	a := &admission.Attributes{Operation: admission.Create, Resource: row, Object: requesttest.ConfigMap("a")}
	look := func() {
		if m.Admit(t.Context(), a) != nil || v.Validate(t.Context(), a) != nil || m.Asks(row) || v.Asks(row) {
			t.Error("somebody is asked")
		}
	}
	if n := testing.AllocsPerRun(100, look); n > 0 {
		t.Errorf("without configurations a write costs %v allocations", n)
	}
	c := mutating(serve(t, nil), "pods", "pods")
	if _, err := s.Create(t.Context(), kinds.Registry().Of(c), c, store.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	look()
	if n := testing.AllocsPerRun(100, look); n > 0 {
		t.Errorf("a configuration for another kind costs %v allocations", n)
	}
	if !m.Asks(kinds.Registry().Must("", "pods")) {
		t.Error("the configuration does not count")
	}
}

func BenchmarkNobodyToAsk(b *testing.B) {
	s := requesttest.Store(b)
	m, v := webhook.NewMutating(config(s)), webhook.NewValidating(config(s))
	a := &admission.Attributes{Operation: admission.Create, Resource: kinds.Registry().Must("", "configmaps"), Object: requesttest.ConfigMap("a")}
	b.ReportAllocs()
	for b.Loop() {
		if m.Admit(b.Context(), a) != nil || v.Validate(b.Context(), a) != nil {
			b.Fatal("somebody is asked")
		}
	}
}

// Writes of a batch about which somebody is asked wait for each other's answers at
// the same time, not one after the other.
func TestBatchAsksAtOnce(t *testing.T) {
	const writes = 8
	var together sync.WaitGroup
	together.Add(writes)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		together.Done()
		together.Wait() // all of them are here, or the test hangs
		_, _ = w.Write(patch(r, `[{"op":"add","path":"/data/seen","value":"yes"}]`))
	})
	h := handler(t, nil)
	create(t, h, mutating(s, "all", "configmaps"))
	var batch []client.Write
	c := direct.New(h, requesttest.Admin, "test")
	for i := range writes {
		cm := requesttest.ConfigMap(fmt.Sprint("c", i), "k", "v")
		batch = append(batch, client.Write{Resource: c.Registry().Of(cm), Create: cm})
	}
	for i, r := range c.Batch(t.Context(), batch) {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		if cm := r.Object.(*corev1.ConfigMap); cm.Name != fmt.Sprint("c", i) || cm.Data["seen"] != "yes" {
			t.Errorf("write %d gave %v", i, cm)
		}
	}
}

// The audit event says which webhooks changed the object, from the level Request
// on how, and what they have to add.
func TestAuditAnnotations(t *testing.T) {
	policy, _, err := audit.ParsePolicy([]byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Request}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	h := handler(t, func(c *request.Config) { c.Audit = audit.New(audit.Options{Policy: policy, Out: &out}) })
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		text := patch(r, `[{"op":"add","path":"/data/seen","value":"yes"}]`)
		_, _ = w.Write(bytes.Replace(text, []byte(`"allowed":true`), []byte(`"allowed":true,"auditAnnotations":{"why":"because"}`), 1))
	})
	create(t, h, mutating(s, "all", "configmaps"))
	c := direct.New(h, requesttest.Admin, "test")
	for how, write := range map[string]func(cm *corev1.ConfigMap){
		"alone": func(cm *corev1.ConfigMap) { create(t, h, cm) },
		"batch": func(cm *corev1.ConfigMap) {
			c.Batch(t.Context(), []client.Write{{Resource: c.Registry().Of(cm), Create: cm}})
		},
	} {
		out.Reset()
		write(requesttest.ConfigMap(how, "k", "v"))
		for _, want := range []string{
			`"mutation.webhook.admission.k8s.io/round_0_index_0":"{\"configuration\":\"all\",\"webhook\":\"all.example.com\",\"mutated\":true}"`,
			`"patch.webhook.admission.k8s.io/round_0_index_0":"{\"configuration\":\"all\",\"webhook\":\"all.example.com\",\"patch\":[{\"op\":\"add\"`,
			`"all.example.com/why":"because"`,
		} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: the events lack %s\n%s", how, want, out.String())
			}
		}
	}
}

// Configurations come and go while writes go through them: every write sees a
// configuration as it was at some moment since the write began.
func TestConfigurationsChangeUnderLoad(t *testing.T) {
	h := handler(t, nil)
	var marks atomic.Int64
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(patch(r, fmt.Sprintf(`[{"op":"add","path":"/data/seen","value":%q}]`, r.URL.Path)))
	})
	c := direct.New(h, requesttest.Admin, "test")
	ctx, cancel := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				floor := marks.Load()
				cm := requesttest.ConfigMap(fmt.Sprintf("w%d-%d", w, i), "k", "v")
				out, err := c.Create(t.Context(), c.Registry().Of(cm), cm, metav1.CreateOptions{})
				if err != nil {
					t.Error(err)
					return
				}
				var seen int64
				_, _ = fmt.Sscanf(out.(*corev1.ConfigMap).Data["seen"], "/%d", &seen)
				if seen < floor {
					t.Errorf("the webhook asked is number %d, although number %d was configured", seen, floor)
					return
				}
			}
		})
	}
	base := s.URL
	row := c.Registry().Must(registrationv1.GroupName, "mutatingwebhookconfigurations")
	s.URL = base + "/0"
	create(t, h, mutating(s, "one", "configmaps"))
	for n := range int64(100) {
		text := fmt.Sprintf(`[{"op":"replace","path":"/webhooks/0/clientConfig/url","value":"%s/%d"}]`, base, n+1)
		if _, err := c.Patch(t.Context(), api.Ref{Resource: row, Name: "one"}, "application/json-patch+json", []byte(text), metav1.PatchOptions{}, ""); err != nil {
			t.Fatal(err)
		}
		marks.Store(n + 1)
	}
	cancel()
	writers.Wait()
	s.URL = base
}

// Whatever a webhook answers, the request ends with an object of its kind or with
// a status; what is stored is what was answered.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		`{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","response":{"uid":"UID","allowed":true}}`,
		`{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","response":{"uid":"UID","allowed":false,"status":{"code":200}}}`,
		`{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","response":{"uid":"UID","allowed":false,"status":{"code":-1,"details":{"causes":[{}]}}}}`,
		`{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","response":{"uid":"UID","allowed":true,"patch":"W10=","patchType":"JSONPatch","warnings":["\u0000"],"auditAnnotations":{"":""}}}`,
		`{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1beta1","response":{}}`,
		`{"kind":"Status","apiVersion":"v1","status":"Failure","code":409}`, `[]`, `null`, ``, "\x00",
	} {
		f.Add([]byte(seed))
	}
	var answer atomic.Pointer[[]byte]
	h := asking(f, func(w http.ResponseWriter, r *http.Request) {
		var review admissionv1.AdmissionReview
		if err := json.NewDecoder(r.Body).Decode(&review); err == nil {
			_, _ = w.Write(bytes.ReplaceAll(*answer.Load(), []byte("UID"), []byte(review.Request.UID)))
		}
	})
	f.Fuzz(func(t *testing.T, text []byte) {
		answer.Store(&text)
		attempt(t, h)
	})
}

// The same of patches.
func FuzzPatch(f *testing.F) {
	for _, seed := range []string{
		`[]`, `[{"op":"add","path":"/data/a","value":"b"}]`, `[{"op":"replace","path":"","value":null}]`, `[{"op":"remove","path":"/metadata"}]`,
		`[{"op":"copy","from":"","path":"/data/x"}]`, `[{"op":"move","from":"/data","path":"/metadata/labels"}]`, `[{"op":"test","path":"/kind"}]`,
		`[{"op":"add","path":"/metadata/ownerReferences","value":[{}]}]`, `[{"op":"add","path":"/metadata/managedFields","value":[{}]}]`,
		`[{"op":"add","path":"/spec/containers/-"}]`, `[{"op":"replace","path":"/apiVersion","value":"v2"}]`, `[null]`, `{`, `[{"op":"add","path":"/metadata/generateName","value":"x"},{"op":"remove","path":"/metadata/name"}]`,
	} {
		f.Add([]byte(seed))
	}
	var answer atomic.Pointer[[]byte]
	h := asking(f, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(patch(r, string(*answer.Load()))) })
	f.Fuzz(func(t *testing.T, text []byte) {
		answer.Store(&text)
		attempt(t, h)
	})
}

// asking is a cluster that asks a server about ConfigMaps and pods.
func asking(f *testing.F, answer http.HandlerFunc) *request.Handler {
	h := handler(f, nil)
	create(f, h, mutating(serve(f, answer), "all", "configmaps", "pods"))
	return h
}

// attempt creates, dry.
func attempt(t *testing.T, h *request.Handler) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	for _, obj := range []api.Object{requesttest.ConfigMap("a", "k", "v"), pod} {
		info := requesttest.Info("create", "v1", kinds.Registry().Of(obj).Plural, "default", "")
		out, err := h.Create(t.Context(), info, request.Body{Object: obj}, &metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil {
			if code := request.StatusOf(err).Code; code < 400 || code > 599 {
				t.Errorf("refused by code %d: %v", code, err)
			}
			if apierrors.ReasonForError(err) == metav1.StatusReasonUnknown && request.StatusOf(err).Message == "" {
				t.Errorf("refused without a word: %#v", err)
			}
			continue
		}
		if got, want := fmt.Sprintf("%T", out), fmt.Sprintf("%T", runtime.Object(obj)); got != want {
			t.Errorf("created %s, want %s", got, want)
		}
	}
}
