package pod

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	seccompPrefix  = corev1.SeccompContainerAnnotationKeyPrefix
	appArmorPrefix = corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix
)

// podAnnotations checks the annotations that mean something for a pod.
func (c *checker) podAnnotations(at *field.Path, annotations map[string]string, spec *corev1.PodSpec) {
	if v, ok := annotations[corev1.MirrorPodAnnotationKey]; ok && spec.NodeName == "" {
		c.invalid(at.Key(corev1.MirrorPodAnnotationKey), v, "must set spec.nodeName if mirror pod annotation is set")
	}
	if v := annotations[corev1.TolerationsAnnotationKey]; v != "" {
		c.tolerationsAnnotation(at, v)
	}
	if v, flawed := deletionCostFlaw(annotations); flawed && !c.deletionCost {
		c.invalid(at.Key(corev1.PodDeletionCost), v, "must be a 32bit integer")
	}
	if v, ok := annotations[corev1.SeccompPodAnnotationKey]; ok {
		c.seccompAnnotation(at.Child(corev1.SeccompPodAnnotationKey), v)
	}
	for _, key := range sortedKeys(annotations) {
		v := annotations[key]
		if strings.HasPrefix(key, seccompPrefix) {
			c.seccompAnnotation(at.Child(key), v)
		}
		if name, ok := strings.CutPrefix(key, appArmorPrefix); ok {
			if !hasContainer(spec, name) {
				c.invalid(at.Key(key), name, "container not found")
			}
			if v != "" && !knownProfile(v) {
				c.invalid(at.Key(key), v, fmt.Sprintf("invalid AppArmor profile name: %q", v))
			}
		}
	}
}

// deletionCostFlaw answers with the annotation's value and whether it is no
// number as Kubernetes writes them.
func deletionCostFlaw(annotations map[string]string) (value string, flawed bool) {
	value, ok := annotations[corev1.PodDeletionCost]
	if !ok {
		return "", false
	}
	_, err := strconv.ParseInt(value, 10, 32)
	canonical := value == "0" || value != "" && (value[0] == '-' || value[0] >= '1' && value[0] <= '9')
	return value, err != nil || !canonical
}

func (c *checker) tolerationsAnnotation(at *field.Path, value string) {
	var list []corev1.Toleration
	if err := json.Unmarshal([]byte(value), &list); err != nil {
		c.invalid(at, corev1.TolerationsAnnotationKey, err.Error())
		return
	}
	c.tolerations(at.Child(corev1.TolerationsAnnotationKey), list)
}

func (c *checker) seccompAnnotation(at *field.Path, value string) {
	if file, ok := strings.CutPrefix(value, corev1.SeccompLocalhostProfileNamePrefix); ok {
		c.relativePath(at, file)
		return
	}
	switch value {
	case corev1.SeccompProfileRuntimeDefault, corev1.DeprecatedSeccompProfileDockerDefault, corev1.SeccompProfileNameUnconfined:
	default:
		c.invalid(at, value, "must be a valid seccomp profile")
	}
}

// knownProfile says whether an AppArmor annotation has a value of one of the
// three forms.
func knownProfile(v string) bool {
	return v == corev1.DeprecatedAppArmorBetaProfileRuntimeDefault || v == corev1.DeprecatedAppArmorBetaProfileNameUnconfined ||
		strings.HasPrefix(v, corev1.DeprecatedAppArmorBetaProfileNamePrefix)
}

func hasContainer(spec *corev1.PodSpec, name string) bool {
	found := false
	eachContainer(spec, nil, func(ctr *corev1.Container, _ *field.Path) { found = found || ctr.Name == name })
	return found
}

// profileAnnotationsMatch: where a profile is named by an annotation and by a
// field, both must name the same.
func (c *checker) profileAnnotationsMatch(annotations map[string]string, spec *corev1.PodSpec, at *field.Path) {
	pod := deref(spec.SecurityContext)
	if v, ok := annotations[corev1.SeccompPodAnnotationKey]; ok && pod.SeccompProfile != nil {
		c.seccompMatches(at.Child("securityContext", "seccompProfile"), v, pod.SeccompProfile)
	}
	windows := spec.OS != nil && spec.OS.Name == corev1.Windows
	eachContainer(spec, at, func(ctr *corev1.Container, p *field.Path) {
		own := deref(ctr.SecurityContext)
		if v, ok := annotations[seccompPrefix+ctr.Name]; ok && own.SeccompProfile != nil {
			c.seccompMatches(p.Child("securityContext", "seccompProfile"), v, own.SeccompProfile)
		}
		armor := own.AppArmorProfile
		if armor == nil {
			armor = pod.AppArmorProfile
		}
		if v, ok := annotations[appArmorPrefix+ctr.Name]; ok && armor != nil && !windows {
			c.appArmorMatches(p.Child("securityContext", "appArmorProfile"), v, armor)
		}
	})
}

func (c *checker) seccompMatches(at *field.Path, annotation string, p *corev1.SeccompProfile) {
	m := profileMatch{c: c, at: at, system: "seccomp", annotation: annotation}
	switch p.Type {
	case corev1.SeccompProfileTypeUnconfined:
		m.is(corev1.SeccompProfileNameUnconfined)
	case corev1.SeccompProfileTypeRuntimeDefault:
		m.is(corev1.SeccompProfileRuntimeDefault, corev1.DeprecatedSeccompProfileDockerDefault)
	case corev1.SeccompProfileTypeLocalhost:
		m.local(p.LocalhostProfile)
	}
}

func (c *checker) appArmorMatches(at *field.Path, annotation string, p *corev1.AppArmorProfile) {
	m := profileMatch{c: c, at: at, system: "apparmor", annotation: annotation}
	switch p.Type {
	case corev1.AppArmorProfileTypeUnconfined:
		m.is(corev1.DeprecatedAppArmorBetaProfileNameUnconfined)
	case corev1.AppArmorProfileTypeRuntimeDefault:
		m.is(corev1.DeprecatedAppArmorBetaProfileRuntimeDefault)
	case corev1.AppArmorProfileTypeLocalhost:
		m.local(p.LocalhostProfile)
	}
}

// profileMatch compares an annotation with a field. Both systems write a
// profile of the node's as localhost/NAME.
type profileMatch struct {
	c                  *checker
	at                 *field.Path
	system, annotation string
}

func (m profileMatch) is(values ...string) {
	for _, v := range values {
		if m.annotation == v {
			return
		}
	}
	m.c.forbidden(m.at.Child("type"), m.system+" type in annotation and field must match")
}

func (m profileMatch) local(profile *string) {
	name, ok := strings.CutPrefix(m.annotation, corev1.SeccompLocalhostProfileNamePrefix)
	switch {
	case !ok:
		m.is()
	case profile == nil || name != *profile:
		m.c.forbidden(m.at.Child("localhostProfile"), m.system+" profile in annotation and field must match")
	}
}
