package pod

import (
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

type warningCase struct {
	Name       string      `json:"name"`
	InProcess  bool        `json:"inProcess,omitempty"` // for tests through a server
	Object     *corev1.Pod `json:"object"`
	Want       []string    `json:"want"`
	InTemplate *[]string   `json:"inTemplate,omitempty"`
}

// The paths of a pod's fields in warnings; messages themselves may name them too.
var warningPath = regexp.MustCompile(`(^|with |use )(spec|metadata)([.\[])`)

func TestWarnings(t *testing.T) {
	for _, c := range loadCases[warningCase](t, "warnings.yaml") {
		t.Run(c.Name, func(t *testing.T) {
			p := c.Object.DeepCopy()
			sent := SentWarnings(p)
			PrepareCreate(p)
			if errs := Validate(p); len(errs) > 0 {
				t.Errorf("warnings are for valid pods: %v", errs.ToAggregate())
			}
			if d := cmp.Diff(c.Want, append(sent, Warnings(p, nil)...), cmpopts.EquateEmpty()); d != "" {
				t.Errorf("create (-want +got):\n%s", d)
			}
			if got := Warnings(p, p); len(got) > 0 {
				t.Errorf("update: %q", got)
			}
			template := &corev1.PodTemplateSpec{ObjectMeta: c.Object.ObjectMeta, Spec: *c.Object.Spec.DeepCopy()}
			PrepareTemplate(template, nil)
			DefaultTemplate(template)
			want := c.Want
			if c.InTemplate != nil {
				want = *c.InTemplate
			}
			var inTemplate []string
			for _, w := range want {
				inTemplate = append(inTemplate, warningPath.ReplaceAllString(w, "${1}spec.template.${2}${3}"))
			}
			if d := cmp.Diff(inTemplate, TemplateWarnings(template, field.NewPath("spec", "template")), cmpopts.EquateEmpty()); d != "" {
				t.Errorf("template (-want +got):\n%s", d)
			}
		})
	}
}

func TestAppArmorAnnotationWarning(t *testing.T) {
	annotated := func(pod, own *corev1.AppArmorProfile) *corev1.PodTemplateSpec {
		t := &corev1.PodTemplateSpec{}
		t.Annotations = map[string]string{appArmorPrefix + "c": "runtime/default"}
		t.Spec.SecurityContext = &corev1.PodSecurityContext{AppArmorProfile: pod}
		t.Spec.Containers = []corev1.Container{{Name: "c", SecurityContext: &corev1.SecurityContext{AppArmorProfile: own}}}
		return t
	}
	profile := &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeRuntimeDefault}
	for _, c := range []struct {
		name     string
		pod, own *corev1.AppArmorProfile
		want     int
	}{
		{"annotation alone", nil, nil, 1},
		{"beside the pod's field", profile, nil, 0},
		{"beside the container's field", nil, profile, 0},
	} {
		if got := TemplateWarnings(annotated(c.pod, c.own), nil); len(got) != c.want {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}

func TestHostIPWithoutPortWarning(t *testing.T) {
	p := stored(t, func(p *corev1.Pod) {
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, HostIP: "10.0.0.1"}}
	})
	want := []string{"spec.containers[0].ports[0]: hostIP set without hostPort: {Name: HostPort:0 ContainerPort:80 Protocol:TCP HostIP:10.0.0.1}"}
	if d := cmp.Diff(want, Warnings(p, nil)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestStatusWarnings(t *testing.T) {
	p := &corev1.Pod{Status: corev1.PodStatus{
		PodIPs:  []corev1.PodIP{{IP: "10.0.0.1"}, {IP: "FD00::1"}},
		HostIPs: []corev1.HostIP{{IP: "010.0.0.1"}, {IP: "no address"}},
	}}
	want := []string{
		`status.podIPs[1].ip: IPv6 address "FD00::1" should be in RFC 5952 canonical format ("fd00::1")`,
		`status.hostIPs[0].ip: non-standard IP address "010.0.0.1" is invalid: use "10.0.0.1"`,
	}
	if d := cmp.Diff(want, StatusWarnings(p)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
