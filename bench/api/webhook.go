package main

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	registrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/bench/internal/rig"
)

// webhook creates objects on one connection, first without webhooks and then
// through one of this program, which adds a label.
func webhook(ctx context.Context, l *load) error {
	without, err := l.creates(ctx, "webhook_without")
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var own []time.Duration
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		label(w, r)
		mu.Lock()
		defer mu.Unlock()
		own = append(own, time.Since(start))
	}))
	defer server.Close()
	if err := l.clients[0].Call(ctx, http.MethodPost, "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations", configuration(server), nil); err != nil {
		return err
	}
	with, err := l.creates(ctx, "webhook_with")
	if err != nil {
		return err
	}
	mu.Lock()
	defer mu.Unlock()
	slices.Sort(own)
	took := rig.Quantile(own, 0.5)
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	l.Figure("webhook_without_p50", ms(without), "ms")
	l.Figure("webhook_with_p50", ms(with), "ms")
	l.Figure("webhook_own_p50", ms(took), "ms")
	l.Figure("webhook_added", ms(with-without-took), "ms")
	return nil
}

// creates is the median of creates on one connection.
func (l *load) creates(ctx context.Context, name string) (time.Duration, error) {
	path := l.kind.collection("load")
	o, err := l.measure(ctx, name, l.clients[:1], func(ctx context.Context, c *rig.Client) (bool, error) {
		_, err := c.Discard(ctx, http.MethodPost, path, rig.JSON, l.kind.body(l.made.Add(1)))
		return true, err
	})
	if err != nil {
		return 0, err
	}
	return rig.Quantile(o.took, 0.5), nil
}

// label answers a review with a patch.
func label(w http.ResponseWriter, r *http.Request) {
	var review admissionv1.AdmissionReview
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	kind := admissionv1.PatchTypeJSONPatch
	review.Response = &admissionv1.AdmissionResponse{
		UID: review.Request.UID, Allowed: true, PatchType: &kind,
		Patch: []byte(`[{"op":"add","path":"/metadata/labels/hooked","value":"yes"}]`),
	}
	review.Request = nil
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(&review) // a client that has gone does not count
}

// configuration has creates of ConfigMaps go through a server.
func configuration(s *httptest.Server) *registrationv1.MutatingWebhookConfiguration {
	none := registrationv1.SideEffectClassNone
	return &registrationv1.MutatingWebhookConfiguration{
		TypeMeta:   metav1.TypeMeta{APIVersion: registrationv1.SchemeGroupVersion.String(), Kind: "MutatingWebhookConfiguration"},
		ObjectMeta: metav1.ObjectMeta{Name: "label"},
		Webhooks: []registrationv1.MutatingWebhook{{
			Name: "label.hansa.dev", SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
			ClientConfig: registrationv1.WebhookClientConfig{
				URL: &s.URL, CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}),
			},
			Rules: []registrationv1.RuleWithOperations{{
				Operations: []registrationv1.OperationType{registrationv1.Create},
				Rule:       registrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}},
			}},
		}},
	}
}
