package pod

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestShapes: what is remembered never changes what is found.
func TestShapes(t *testing.T) {
	valid := func() *corev1.Pod {
		p := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "web-1", Namespace: "a", Labels: map[string]string{"app": "web"}},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "web:1"}}},
		}
		Default(p)
		return p
	}
	changes := map[string]func(*corev1.Pod){
		"nothing":               func(*corev1.Pod) {},
		"another name":          func(p *corev1.Pod) { p.Name = "web-2" },
		"a name with dots":      func(p *corev1.Pod) { p.Name = "web.1" },
		"an image with a space": func(p *corev1.Pod) { p.Spec.Containers[0].Image = "web:1 " },
		"no container":          func(p *corev1.Pod) { p.Spec.Containers = nil },
		"an annotation that is refused": func(p *corev1.Pod) {
			p.Annotations = map[string]string{corev1.PodDeletionCost: "much"}
		},
		"an annotation that is warned of": func(p *corev1.Pod) {
			p.Annotations = map[string]string{corev1.SeccompPodAnnotationKey: "runtime/default"}
		},
		"a variable twice": func(p *corev1.Pod) {
			p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "A", Value: "2"}}
		},
		"a claim by a name that fits": func(p *corev1.Pod) { p.Spec.Volumes = ephemeral() },
		"a claim by a name too long": func(p *corev1.Pod) {
			p.Name, p.Spec.Volumes = strings.Repeat("x", 253), ephemeral()
		},
	}
	s := NewShapes()
	for round := range 3 {
		for what, change := range changes {
			p := valid()
			change(p)
			wantErrs := Validate(p)
			var wantWarnings []string
			if len(wantErrs) == 0 {
				wantWarnings = Warnings(p, nil)
			}
			warnings, errs := s.Review(p)
			if fmt.Sprint(errs) != fmt.Sprint(wantErrs) || fmt.Sprint(warnings) != fmt.Sprint(wantWarnings) {
				t.Errorf("%s, round %d: got %v and %v, want %v and %v", what, round, errs, warnings, wantErrs, wantWarnings)
			}
		}
	}
}

func ephemeral() []corev1.Volume {
	return []corev1.Volume{{Name: "scratch", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{
		VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{},
	}}}}
}

// TestShapesAreForgotten: memory is bounded, and the oldest shape goes first.
func TestShapesAreForgotten(t *testing.T) {
	s := NewShapes()
	for i := range 3 * maxShapes {
		s.keep(shape{byte(i), byte(i >> 8)}, nil)
	}
	if len(s.known) != maxShapes || len(s.order) != maxShapes {
		t.Fatalf("%d shapes known, %d in order; want %d", len(s.known), len(s.order), maxShapes)
	}
	for i := range 3 * maxShapes {
		if _, ok := s.find(shape{byte(i), byte(i >> 8)}); ok != (i >= 2*maxShapes) {
			t.Errorf("shape %d known: %t", i, ok)
		}
	}
}

func BenchmarkReview(b *testing.B) {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web-1", Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "web:1"}, {Name: "side", Image: "side:1"}}},
	}
	for i := range p.Spec.Containers {
		for n := range 12 {
			p.Spec.Containers[i].Env = append(p.Spec.Containers[i].Env, corev1.EnvVar{Name: fmt.Sprintf("SETTING_%d", n), Value: strings.Repeat("x", 40)})
		}
	}
	Default(p)
	b.Run("remembered", func(b *testing.B) {
		s := NewShapes()
		b.ReportAllocs()
		for b.Loop() {
			s.Review(p)
		}
	})
	b.Run("looked at", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			Validate(p)
			Warnings(p, nil)
		}
	})
}
