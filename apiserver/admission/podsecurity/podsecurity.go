// Package podsecurity holds pods to the Pod Security Standards: to the level that
// the labels of their namespace enforce, with warnings and audit annotations for
// the levels that those ask for, of templates of pods too. The standards
// themselves are the library's.
package podsecurity

import (
	"context"
	"fmt"
	"iter"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/audit"
	library "k8s.io/pod-security-admission/admission"
	"k8s.io/pod-security-admission/admission/api/load"
	psa "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/metrics"
	"k8s.io/pod-security-admission/policy"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/admission"
)

// View is what the plugin needs of the store's view.
type View interface {
	Get(r *api.Resource, key api.Key) api.Object
	List(r *api.Resource, namespace string) iter.Seq[api.Object]
}

// Plugin is a validator.
type Plugin struct {
	library library.Admission
}

// New is the plugin over a view. config is a PodSecurityConfiguration; empty for
// the defaults, by which everything is allowed where labels say nothing.
func New(reg *api.Registry, view View, config []byte, metrics prometheus.Registerer) (*Plugin, error) {
	parsed, err := load.LoadFromData(config)
	if err != nil {
		return nil, fmt.Errorf("configuration of PodSecurity: %w", err)
	}
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return nil, fmt.Errorf("make the checks of PodSecurity: %w", err)
	}
	v := lister{view: view, namespaces: reg.Must("", "namespaces"), pods: reg.Must("", "pods")}
	p := &Plugin{library.Admission{
		Configuration: parsed, Evaluator: evaluator, Metrics: newRecorder(metrics),
		PodSpecExtractor: library.DefaultPodSpecExtractor{}, NamespaceGetter: v, PodLister: v,
	}}
	if err := p.library.CompleteConfiguration(); err != nil {
		return nil, fmt.Errorf("configuration of PodSecurity: %w", err)
	}
	if err := p.library.ValidateConfiguration(); err != nil {
		return nil, fmt.Errorf("configuration of PodSecurity: %w", err)
	}
	return p, nil
}

// lister reads the copy.
type lister struct {
	view             View
	namespaces, pods *api.Resource
}

// GetNamespace implements the library's NamespaceGetter.
func (l lister) GetNamespace(_ context.Context, name string) (*corev1.Namespace, error) {
	ns, ok := l.view.Get(l.namespaces, api.Key{Name: name}).(*corev1.Namespace)
	if !ok {
		return nil, apierrors.NewNotFound(l.namespaces.GroupResource(), name)
	}
	return ns, nil
}

// ListPods implements the library's PodLister.
func (l lister) ListPods(_ context.Context, namespace string) ([]*corev1.Pod, error) {
	var pods []*corev1.Pod
	for obj := range l.view.List(l.pods, namespace) {
		pods = append(pods, obj.(*corev1.Pod))
	}
	return pods, nil
}

var namespaces = schema.GroupResource{Resource: "namespaces"}

// Validate implements admission.Validator.
func (p *Plugin) Validate(ctx context.Context, a *admission.Attributes) error {
	gr := a.Resource.GroupResource()
	if a.Operation != admission.Create && a.Operation != admission.Update || gr != namespaces && !p.library.PodSpecExtractor.HasPodSpec(gr) {
		return nil
	}
	attrs := &psa.AttributesRecord{
		Name: a.Name, Namespace: a.Namespace, Subresource: a.Subresource, Operation: admissionv1.Operation(a.Operation),
		Kind: a.Resource.Storage.WithKind(a.Resource.Kind), Resource: a.Resource.Storage.WithResource(a.Resource.Plural),
		Object: a.Object, Username: a.User.GetName(),
	}
	if gr == namespaces {
		attrs.Namespace = a.Name
	}
	if a.Old != nil {
		attrs.OldObject = a.Old
	}
	response := p.library.Validate(ctx, attrs)
	for _, w := range response.Warnings {
		if a.Warn != nil {
			a.Warn(w)
		}
	}
	for key, value := range response.AuditAnnotations {
		audit.AddAuditAnnotation(ctx, psa.AuditAnnotationPrefix+key, value)
	}
	if response.Allowed {
		return nil
	}
	status := metav1.Status{Status: metav1.StatusFailure}
	if response.Result != nil {
		response.Result.DeepCopyInto(&status)
	}
	return &apierrors.StatusError{ErrStatus: status}
}

// served is the version of this server: policies of later ones are all counted as
// one.
var served = psa.MajorMinorVersion(1, 37)

// recorder counts decisions under upstream's names.
type recorder struct {
	evaluations, exemptions, errors *prometheus.CounterVec
}

func newRecorder(reg prometheus.Registerer) recorder {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append(labels, "request_operation", "resource", "subresource"))
		reg.MustRegister(c)
		return c
	}
	return recorder{
		evaluations: counter("pod_security_evaluations_total", "Policy evaluations that occurred, without those of ignored or exempt requests.", "decision", "policy_level", "policy_version", "mode"),
		exemptions:  counter("pod_security_exemptions_total", "Requests that are exempt, without ignored ones."),
		errors:      counter("pod_security_errors_total", "Errors that prevented normal evaluation; those that are not fatal may have the latest restricted level evaluated.", "fatal"),
	}
}

// of are the labels of a request, after others.
func of(a psa.Attributes, labels ...string) []string {
	resource := "controller"
	switch a.GetResource().Resource {
	case "pods":
		resource = "pod"
	case "namespaces":
		resource = "namespace"
	}
	return append(labels, strings.ToLower(string(a.GetOperation())), resource, a.GetSubresource())
}

// RecordEvaluation implements metrics.Recorder.
func (r recorder) RecordEvaluation(decision metrics.Decision, p psa.LevelVersion, mode metrics.Mode, a psa.Attributes) {
	version := "latest"
	switch {
	case p.Version.Latest(), p.Level == psa.LevelPrivileged:
	case served.Older(p.Version):
		version = "future"
	default:
		version = p.Version.String()
	}
	r.evaluations.WithLabelValues(of(a, string(decision), string(p.Level), version, string(mode))...).Inc()
}

// RecordExemption implements metrics.Recorder.
func (r recorder) RecordExemption(a psa.Attributes) { r.exemptions.WithLabelValues(of(a)...).Inc() }

// RecordError implements metrics.Recorder.
func (r recorder) RecordError(fatal bool, a psa.Attributes) {
	r.errors.WithLabelValues(of(a, strconv.FormatBool(fatal))...).Inc()
}
