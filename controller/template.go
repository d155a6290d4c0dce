package controller

import (
	"cmp"
	"maps"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// SameTemplate compares two templates but for the label that tells sets of a
// Deployment apart.
func SameTemplate(a, b *corev1.PodTemplateSpec) bool {
	x, y := a.ObjectMeta, b.ObjectMeta
	x.Labels, y.Labels = WithoutHash(x.Labels), WithoutHash(y.Labels)
	return equality.Semantic.DeepEqual(x, y) && equality.Semantic.DeepEqual(a.Spec, b.Spec)
}

// WithoutHash is a copy of labels without that one.
func WithoutHash(m map[string]string) map[string]string {
	m = maps.Clone(m)
	delete(m, appsv1.DefaultDeploymentUniqueLabelKey)
	return m
}

// SetWithTemplate is the set that has a template, the oldest of several, or nil.
func SetWithTemplate(sets []*appsv1.ReplicaSet, t *corev1.PodTemplateSpec) *appsv1.ReplicaSet {
	var found *appsv1.ReplicaSet
	for _, rs := range sets {
		if (found == nil || ByAge(rs, found) < 0) && SameTemplate(&rs.Spec.Template, t) {
			found = rs
		}
	}
	return found
}

// ByAge orders sets by their age, the oldest first.
func ByAge(a, b *appsv1.ReplicaSet) int {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Name, b.Name))
}
