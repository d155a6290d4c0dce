// Package serviceaccount gives every pod a service account, checks that it
// exists, and mounts its token: a volume of the token, the cluster's root
// certificate and the namespace's name, at the place where client libraries
// look for them.
package serviceaccount

import (
	"context"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/admission/refusal"
	"hansa.dev/hansa/apiserver/auth/podrefs"
)

const (
	defaultAccount = "default"
	// mountPath is where client libraries look (rest.InClusterConfig).
	mountPath    = "/var/run/secrets/kubernetes.io/serviceaccount"
	volumePrefix = "kube-api-access-"
	rootCAConfig = "kube-root-ca.crt"
	// tokenSeconds is the lifetime that mounted tokens ask for; the odd seven
	// seconds mark them as mounted by default (see package token).
	tokenSeconds = 60*60 + 7
)

// The namespace loop makes the default account of a new namespace, which takes
// it a moment; pods wait for it this long.
const (
	accountInterval = 20 * time.Millisecond
	accountPatience = 1500 * time.Millisecond
)

// View is what the plugin needs of the store's view.
type View interface {
	Get(r *api.Resource, key api.Key) api.Object
}

// Plugin is both a mutator and a validator.
type Plugin struct {
	view     View
	clock    clock.Clock
	suffix   func(length int) string
	pods     *api.Resource
	accounts *api.Resource
}

// New is the plugin over a view. clk and suffix, which makes the random ends of
// volume names, are the real ones when nil.
func New(reg *api.Registry, view View, clk clock.Clock, suffix func(length int) string) *Plugin {
	if clk == nil {
		clk = clock.RealClock{}
	}
	if suffix == nil {
		suffix = rand.String
	}
	return &Plugin{view: view, clock: clk, suffix: suffix, pods: reg.Must("", "pods"), accounts: reg.Must("", "serviceaccounts")}
}

// Admit implements admission.Mutator.
func (p *Plugin) Admit(ctx context.Context, a *admission.Attributes) error {
	if a.Resource != p.pods || a.Subresource != "" || a.Operation != admission.Create {
		return nil
	}
	pod, ok := a.Object.(*corev1.Pod)
	if !ok || isMirror(pod) {
		return nil
	}
	if pod.Spec.ServiceAccountName == "" {
		pod.Spec.ServiceAccountName = defaultAccount
	}
	account, err := p.account(ctx, a, pod.Spec.ServiceAccountName)
	if err != nil {
		return err
	}
	if automounts(account, pod) {
		p.mountToken(pod)
	}
	if len(pod.Spec.ImagePullSecrets) == 0 {
		for _, ref := range account.ImagePullSecrets {
			pod.Spec.ImagePullSecrets = append(pod.Spec.ImagePullSecrets, corev1.LocalObjectReference{Name: ref.Name})
		}
	}
	return nil
}

// Validate implements admission.Validator: other mutators may have undone what
// Admit did.
func (p *Plugin) Validate(ctx context.Context, a *admission.Attributes) error {
	if a.Resource != p.pods {
		return nil
	}
	pod, ok := a.Object.(*corev1.Pod)
	if !ok {
		return nil
	}
	switch {
	case a.Operation == admission.Update && a.Subresource == "ephemeralcontainers":
		account, err := p.account(ctx, a, pod.Spec.ServiceAccountName)
		if err != nil {
			return err
		}
		if limitsSecrets(account) {
			return limitEphemeral(a, account, pod)
		}
		return nil
	case a.Operation != admission.Create || a.Subresource != "":
		return nil
	case isMirror(pod):
		return validateMirror(a, pod)
	case pod.Spec.ServiceAccountName == "":
		return refusal.Forbidden(a, "no service account specified for pod %s/%s", a.Namespace, pod.Name)
	}
	account, err := p.account(ctx, a, pod.Spec.ServiceAccountName)
	if err != nil {
		return err
	}
	if limitsSecrets(account) {
		return limitSecrets(a, account, pod)
	}
	return nil
}

// account finds a service account of the pod's namespace. It waits for the
// default one, which the namespace loop is about to make.
func (p *Plugin) account(ctx context.Context, a *admission.Attributes, name string) (*corev1.ServiceAccount, error) {
	key := api.Key{Namespace: a.Namespace, Name: name}
	give := p.clock.Now().Add(accountPatience)
	for {
		if obj := p.view.Get(p.accounts, key); obj != nil {
			return obj.(*corev1.ServiceAccount), nil
		}
		if name != defaultAccount || !p.clock.Now().Before(give) {
			missing := apierrors.NewNotFound(corev1.Resource("serviceaccount"), name)
			return nil, refusal.Forbidden(a, "error looking up service account %s/%s: %v", a.Namespace, name, missing)
		}
		timer := p.clock.NewTimer(accountInterval)
		select {
		case <-timer.C():
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("look up service account %s/%s: %w", a.Namespace, name, ctx.Err())
		}
	}
}

func isMirror(pod *corev1.Pod) bool {
	_, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]
	return mirror
}

// validateMirror: a mirror pod shows what a node runs on its own account; it
// may not use what is in the cluster.
func validateMirror(a *admission.Attributes, pod *corev1.Pod) error {
	if pod.Spec.ServiceAccountName != "" {
		return refusal.Forbidden(a, "a mirror pod may not reference service accounts")
	}
	for range podrefs.Secrets(pod) {
		return refusal.Forbidden(a, "a mirror pod may not reference secrets")
	}
	for _, volume := range pod.Spec.Volumes {
		if volume.Projected == nil {
			continue
		}
		for _, source := range volume.Projected.Sources {
			if source.ServiceAccountToken != nil {
				return refusal.Forbidden(a, "a mirror pod may not use ServiceAccountToken volume projections")
			}
		}
	}
	return nil
}

// automounts: the pod's wish counts, then the account's; without any the token
// is mounted.
func automounts(account *corev1.ServiceAccount, pod *corev1.Pod) bool {
	if wish := pod.Spec.AutomountServiceAccountToken; wish != nil {
		return *wish
	}
	return ptr.Deref(account.AutomountServiceAccountToken, true)
}

// mountToken mounts the token in every container that has nothing else at its
// place.
func (p *Plugin) mountToken(pod *corev1.Pod) {
	var name string
	for _, volume := range pod.Spec.Volumes {
		if strings.HasPrefix(volume.Name, volumePrefix) {
			name = volume.Name
			break
		}
	}
	have := name != ""
	if !have {
		name = volumePrefix + p.suffixFor(pod)
	}
	used := false
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			c := &containers[i]
			if !mounts(c, mountPath) {
				c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: name, ReadOnly: true, MountPath: mountPath})
				used = true
			}
		}
	}
	if used && !have {
		pod.Spec.Volumes = append(pod.Spec.Volumes, tokenVolume(name))
	}
}

const suffixLength = 5

// suffixFor ends the volume's name in the same way for all pods of a controller:
// pods of one template stay alike, and the store keeps what they share once.
func (p *Plugin) suffixFor(pod *corev1.Pod) string {
	owner := metav1.GetControllerOfNoCopy(pod)
	if owner == nil {
		return p.suffix(suffixLength)
	}
	h := fnv.New64a()
	h.Write([]byte(owner.UID))
	text := rand.SafeEncodeString(strconv.FormatUint(h.Sum64(), 10))
	return text[len(text)-suffixLength:]
}

func mounts(c *corev1.Container, path string) bool {
	for _, mount := range c.VolumeMounts {
		if mount.MountPath == path {
			return true
		}
	}
	return false
}

func tokenVolume(name string) corev1.Volume {
	return corev1.Volume{
		Name: name,
		VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			DefaultMode: ptr.To(int32(0o644)),
			Sources: []corev1.VolumeProjection{
				{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
					Path:              "token",
					ExpirationSeconds: ptr.To(int64(tokenSeconds)),
				}},
				{ConfigMap: &corev1.ConfigMapProjection{
					LocalObjectReference: corev1.LocalObjectReference{Name: rootCAConfig},
					Items:                []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
				}},
				{DownwardAPI: &corev1.DownwardAPIProjection{
					Items: []corev1.DownwardAPIVolumeFile{{
						Path:     "namespace",
						FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"},
					}},
				}},
			},
		}},
	}
}
