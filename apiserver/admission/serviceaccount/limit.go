package serviceaccount

import (
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"

	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/admission/refusal"
)

// enforceAnnotation, on an account, limits its pods to the secrets that it
// lists.
const enforceAnnotation = "kubernetes.io/enforce-mountable-secrets"

func limitsSecrets(account *corev1.ServiceAccount) bool {
	limits, err := strconv.ParseBool(account.Annotations[enforceAnnotation])
	return err == nil && limits
}

func limitSecrets(a *admission.Attributes, account *corev1.ServiceAccount, pod *corev1.Pod) error {
	mountable := mountableSecrets(account)
	for _, volume := range pod.Spec.Volumes {
		if volume.Secret != nil && !mountable.Has(volume.Secret.SecretName) {
			return refusal.Forbidden(a, "volume with secret.secretName=%q is not allowed because service account %s does not reference that secret", volume.Secret.SecretName, account.Name)
		}
	}
	for _, group := range []struct {
		title      string
		containers []corev1.Container
	}{{"init container", pod.Spec.InitContainers}, {"container", pod.Spec.Containers}} {
		for i := range group.containers {
			c := &group.containers[i]
			if err := limitEnv(a, account, mountable, group.title, c.Name, c.Env, c.EnvFrom); err != nil {
				return err
			}
		}
	}
	if err := limitEphemeral(a, account, pod); err != nil {
		return err
	}
	pullable := sets.New[string]()
	for _, ref := range account.ImagePullSecrets {
		pullable.Insert(ref.Name)
	}
	for i, ref := range pod.Spec.ImagePullSecrets {
		if !pullable.Has(ref.Name) {
			return refusal.Forbidden(a, "imagePullSecrets[%d].name=%q is not allowed because service account %s does not reference that imagePullSecret", i, ref.Name, account.Name)
		}
	}
	return nil
}

func limitEphemeral(a *admission.Attributes, account *corev1.ServiceAccount, pod *corev1.Pod) error {
	mountable := mountableSecrets(account)
	for i := range pod.Spec.EphemeralContainers {
		c := &pod.Spec.EphemeralContainers[i]
		if err := limitEnv(a, account, mountable, "ephemeral container", c.Name, c.Env, c.EnvFrom); err != nil {
			return err
		}
	}
	return nil
}

func limitEnv(a *admission.Attributes, account *corev1.ServiceAccount, mountable sets.Set[string], title, container string, env []corev1.EnvVar, envFrom []corev1.EnvFromSource) error {
	for _, e := range env {
		if e.ValueFrom == nil || e.ValueFrom.SecretKeyRef == nil {
			continue
		}
		if secret := e.ValueFrom.SecretKeyRef.Name; !mountable.Has(secret) {
			return refusal.Forbidden(a, "%s %s with envVar %s referencing secret.secretName=%q is not allowed because service account %s does not reference that secret", title, container, e.Name, secret, account.Name)
		}
	}
	for _, from := range envFrom {
		if from.SecretRef != nil && !mountable.Has(from.SecretRef.Name) {
			return refusal.Forbidden(a, "%s %s with envFrom referencing secret.secretName=%q is not allowed because service account %s does not reference that secret", title, container, from.SecretRef.Name, account.Name)
		}
	}
	return nil
}

func mountableSecrets(account *corev1.ServiceAccount) sets.Set[string] {
	names := sets.New[string]()
	for _, ref := range account.Secrets {
		names.Insert(ref.Name)
	}
	return names
}
