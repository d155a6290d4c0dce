// Package podrefs says which secrets, config maps and claims a pod refers to
// by name: what its node must be able to read in order to run it.
package podrefs

import (
	"iter"

	corev1 "k8s.io/api/core/v1"
)

// Secrets goes through the names of the secrets that a pod refers to, with
// repetitions. Empty names (references not filled in) are left out.
func Secrets(pod *corev1.Pod) iter.Seq[string] {
	return func(yield func(string) bool) {
		emit := stopping(yield)
		for _, ref := range pod.Spec.ImagePullSecrets {
			emit(ref.Name)
		}
		for c := range containers(&pod.Spec) {
			for _, from := range c.envFrom {
				if from.SecretRef != nil {
					emit(from.SecretRef.Name)
				}
			}
			for _, env := range c.env {
				if env.ValueFrom != nil && env.ValueFrom.SecretKeyRef != nil {
					emit(env.ValueFrom.SecretKeyRef.Name)
				}
			}
		}
		for i := range pod.Spec.Volumes {
			volumeSecrets(&pod.Spec.Volumes[i], emit)
		}
	}
}

// ConfigMaps goes through the names of the config maps that a pod refers to.
func ConfigMaps(pod *corev1.Pod) iter.Seq[string] {
	return func(yield func(string) bool) {
		emit := stopping(yield)
		for c := range containers(&pod.Spec) {
			for _, from := range c.envFrom {
				if from.ConfigMapRef != nil {
					emit(from.ConfigMapRef.Name)
				}
			}
			for _, env := range c.env {
				if env.ValueFrom != nil && env.ValueFrom.ConfigMapKeyRef != nil {
					emit(env.ValueFrom.ConfigMapKeyRef.Name)
				}
			}
		}
		for i := range pod.Spec.Volumes {
			v := &pod.Spec.Volumes[i]
			if v.ConfigMap != nil {
				emit(v.ConfigMap.Name)
			}
			for source := range projections(v) {
				if source.ConfigMap != nil {
					emit(source.ConfigMap.Name)
				}
			}
		}
	}
}

// Claims goes through the names of the persistent volume claims that a pod
// uses. An ephemeral volume's claim is named POD-VOLUME.
func Claims(pod *corev1.Pod) iter.Seq[string] {
	return func(yield func(string) bool) {
		emit := stopping(yield)
		for i := range pod.Spec.Volumes {
			v := &pod.Spec.Volumes[i]
			if v.PersistentVolumeClaim != nil {
				emit(v.PersistentVolumeClaim.ClaimName)
			}
			if v.Ephemeral != nil {
				emit(pod.Name + "-" + v.Name)
			}
		}
	}
}

// ResourceClaims goes through the names of the claims for devices that a pod
// has; of those made for it, its status knows the names.
func ResourceClaims(pod *corev1.Pod) iter.Seq[string] {
	return func(yield func(string) bool) {
		emit := stopping(yield)
		for _, c := range pod.Spec.ResourceClaims {
			if c.ResourceClaimName != nil {
				emit(*c.ResourceClaimName)
			}
			if c.ResourceClaimTemplateName == nil {
				continue
			}
			for _, made := range pod.Status.ResourceClaimStatuses {
				if made.Name == c.Name && made.ResourceClaimName != nil {
					emit(*made.ResourceClaimName)
				}
			}
		}
		if made := pod.Status.ExtendedResourceClaimStatus; made != nil {
			emit(made.ResourceClaimName)
		}
	}
}

// volumeSecrets emits the secrets of a volume; most are credentials of remote
// storage.
func volumeSecrets(v *corev1.Volume, emit func(string)) {
	local := func(ref *corev1.LocalObjectReference) {
		if ref != nil {
			emit(ref.Name)
		}
	}
	switch {
	case v.Secret != nil:
		emit(v.Secret.SecretName)
	case v.Projected != nil:
		for source := range projections(v) {
			if source.Secret != nil {
				emit(source.Secret.Name)
			}
		}
	case v.CSI != nil:
		local(v.CSI.NodePublishSecretRef)
	case v.AzureFile != nil:
		emit(v.AzureFile.SecretName)
	case v.CephFS != nil:
		local(v.CephFS.SecretRef)
	case v.Cinder != nil:
		local(v.Cinder.SecretRef)
	case v.FlexVolume != nil:
		local(v.FlexVolume.SecretRef)
	case v.RBD != nil:
		local(v.RBD.SecretRef)
	case v.ScaleIO != nil:
		local(v.ScaleIO.SecretRef)
	case v.ISCSI != nil:
		local(v.ISCSI.SecretRef)
	case v.StorageOS != nil:
		local(v.StorageOS.SecretRef)
	}
}

func projections(v *corev1.Volume) iter.Seq[*corev1.VolumeProjection] {
	return func(yield func(*corev1.VolumeProjection) bool) {
		if v.Projected == nil {
			return
		}
		for i := range v.Projected.Sources {
			if !yield(&v.Projected.Sources[i]) {
				return
			}
		}
	}
}

type environment struct {
	env     []corev1.EnvVar
	envFrom []corev1.EnvFromSource
}

// containers goes through the environments of containers of all three sorts.
func containers(spec *corev1.PodSpec) iter.Seq[environment] {
	return func(yield func(environment) bool) {
		for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
			for i := range list {
				if !yield(environment{list[i].Env, list[i].EnvFrom}) {
					return
				}
			}
		}
		for i := range spec.EphemeralContainers {
			c := &spec.EphemeralContainers[i].EphemeralContainerCommon
			if !yield(environment{c.Env, c.EnvFrom}) {
				return
			}
		}
	}
}

// stopping yields names that are not empty, and none once the loop is left.
func stopping(yield func(string) bool) func(string) {
	done := false
	return func(name string) {
		if !done && name != "" {
			done = !yield(name)
		}
	}
}
