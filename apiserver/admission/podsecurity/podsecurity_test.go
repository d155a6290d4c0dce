package podsecurity_test

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/admission/admissiontest"
	"hansa.dev/hansa/apiserver/admission/podsecurity"
	"hansa.dev/hansa/apiserver/auth/authtest"
)

func space(name string, labels ...string) *corev1.Namespace {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{}}}
	for i := 0; i < len(labels); i += 2 {
		ns.Labels["pod-security.kubernetes.io/"+labels[i]] = labels[i+1]
	}
	return ns
}

func pod(namespace string, privileged bool) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "p"}}
	p.Spec.Containers = []corev1.Container{{Name: "c", Image: "i"}}
	if privileged {
		p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: ptr.To(true)}
	}
	return p
}

var someone = &user.DefaultInfo{Name: "someone"}

// "Pod Security Admission": levels by label, in their modes, of pods and of what
// makes pods.
func TestLevels(t *testing.T) {
	view := authtest.New(t, space("free"), space("baseline", "enforce", "baseline"),
		space("told", "warn", "baseline", "audit", "restricted"), pod("free", true))
	reg := prometheus.NewRegistry()
	p, err := podsecurity.New(view.Registry, view, nil, reg)
	if err != nil {
		t.Fatal(err)
	}
	const violates = `violates PodSecurity "baseline:latest": privileged (container "c" must not set securityContext.privileged=true)`
	deployment := func(namespace string) *appsv1.Deployment {
		d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "d"}}
		d.Spec.Template.Spec = pod(namespace, true).Spec
		return d
	}
	for _, tt := range []struct {
		name    string
		obj     api.Object
		code    int32
		refusal string
		warning string
	}{
		{"no label", pod("free", true), 0, "", ""},
		{"no label, workload", deployment("free"), 0, "", ""},
		{"enforced", pod("baseline", true), 403, `pods "p" is forbidden: ` + violates, ""},
		{"enforced, good", pod("baseline", false), 0, "", ""},
		{"enforced, workload", deployment("baseline"), 0, "", "would " + strings.Replace(violates, "violates", "violate", 1)},
		{"warned", pod("told", true), 0, "", "would " + strings.Replace(violates, "violates", "violate", 1)},
		{"warned, workload", deployment("told"), 0, "", "would " + strings.Replace(violates, "violates", "violate", 1)},
		{"wrong label", space("new", "enforce", "none"), 422, `Namespace "new" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "none": must be one of privileged, baseline, restricted`, ""},
		{"good label", space("new", "enforce", "baseline", "enforce-version", "v1.30"), 0, "", ""},
	} {
		var warnings []string
		a := admissiontest.Create(view.Registry, someone, tt.obj)
		a.Warn = func(text string) { warnings = append(warnings, text) }
		admissiontest.Expect(t, tt.name, p, a, tt.code, tt.refusal)
		if got := strings.Join(warnings, "; "); got != tt.warning {
			t.Errorf("%s warns %q, want %q", tt.name, got, tt.warning)
		}
	}
	// Who makes a namespace stricter hears of the pods that would not be let in.
	var warnings []string
	a := admissiontest.Update(view.Registry, someone, space("free", "enforce", "baseline"), space("free"))
	a.Warn = func(text string) { warnings = append(warnings, text) }
	admissiontest.Expect(t, "stricter", p, a, 0, "")
	if got := strings.Join(warnings, "; "); got != `existing pods in namespace "free" violate the new PodSecurity enforce level "baseline:latest"; p: privileged` {
		t.Errorf("a stricter namespace warns %q", got)
	}
	if n := testutil.CollectAndCount(reg, "pod_security_evaluations_total"); n < 5 {
		t.Errorf("%d kinds of evaluations are counted", n)
	}
}

// "Configure the Admission Controller": defaults and exemptions.
func TestConfiguration(t *testing.T) {
	view := authtest.New(t, space("any"), space("exempt"))
	p, err := podsecurity.New(view.Registry, view, []byte(`
apiVersion: pod-security.admission.config.k8s.io/v1
kind: PodSecurityConfiguration
defaults: {enforce: baseline}
exemptions: {usernames: [trusted], namespaces: [exempt], runtimeClasses: [sealed]}
`), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	const refusal = `pods "p" is forbidden: violates PodSecurity "baseline:latest": privileged (container "c" must not set securityContext.privileged=true)`
	admissiontest.Expect(t, "default", p, admissiontest.Create(view.Registry, someone, pod("any", true)), 403, refusal)
	admissiontest.Expect(t, "namespace", p, admissiontest.Create(view.Registry, someone, pod("exempt", true)), 0, "")
	admissiontest.Expect(t, "user", p, admissiontest.Create(view.Registry, &user.DefaultInfo{Name: "trusted"}, pod("any", true)), 0, "")
	sealed := pod("any", true)
	sealed.Spec.RuntimeClassName = ptr.To("sealed")
	admissiontest.Expect(t, "runtime class", p, admissiontest.Create(view.Registry, someone, sealed), 0, "")
	for _, bad := range []string{
		"apiVersion: pod-security.admission.config.k8s.io/v1\nkind: PodSecurityConfiguration\ndefaults: {enforce: none}",
		"apiVersion: v1\nkind: X",
	} {
		if _, err := podsecurity.New(view.Registry, view, []byte(bad), prometheus.NewRegistry()); err == nil || !strings.HasPrefix(err.Error(), "configuration of PodSecurity: ") {
			t.Errorf("%q gives %v", bad, err)
		}
	}
}
