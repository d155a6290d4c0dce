package serviceaccount_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/admission/admissiontest"
	"hansa.dev/hansa/apiserver/admission/serviceaccount"
	"hansa.dev/hansa/apiserver/auth/authtest"
)

func account(name string, change ...func(*corev1.ServiceAccount)) *corev1.ServiceAccount {
	sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}}
	for _, f := range change {
		f(sa)
	}
	return sa
}

func pod(change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"},
		Spec: corev1.PodSpec{
			InitContainers: []corev1.Container{{Name: "init"}},
			Containers:     []corev1.Container{{Name: "main"}},
		},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

func plugin(view *authtest.View) *serviceaccount.Plugin {
	return serviceaccount.New(view.Registry, view, clocktesting.NewFakeClock(time.Unix(0, 0)), func(int) string { return "abcde" })
}

const mountPath = "/var/run/secrets/kubernetes.io/serviceaccount"

// The volume is that of "Bound service account token volume mechanism" in
// Kubernetes' documentation.
func TestMount(t *testing.T) {
	const want = `
initContainers:
- name: init
  resources: {}
  volumeMounts:
  - {name: kube-api-access-abcde, readOnly: true, mountPath: /var/run/secrets/kubernetes.io/serviceaccount}
containers:
- name: main
  resources: {}
  volumeMounts:
  - {name: kube-api-access-abcde, readOnly: true, mountPath: /var/run/secrets/kubernetes.io/serviceaccount}
serviceAccountName: default
imagePullSecrets:
- name: registry
volumes:
- name: kube-api-access-abcde
  projected:
    defaultMode: 420
    sources:
    - serviceAccountToken:
        expirationSeconds: 3607
        path: token
    - configMap:
        items:
        - key: ca.crt
          path: ca.crt
        name: kube-root-ca.crt
    - downwardAPI:
        items:
        - fieldRef:
            apiVersion: v1
            fieldPath: metadata.namespace
          path: namespace
`
	view := authtest.New(t, account("default", func(sa *corev1.ServiceAccount) {
		sa.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "registry"}}
	}))
	got := pod()
	admissiontest.Expect(t, "a plain pod", plugin(view), admissiontest.Create(view.Registry, nil, got), 0, "")
	var spec corev1.PodSpec
	if err := yaml.UnmarshalStrict([]byte(want), &spec); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(spec, got.Spec); diff != "" {
		t.Errorf("spec (-want +got):\n%s", diff)
	}
}

// Pods of one controller stay alike, others have names of their own.
func TestVolumeNamesOfAController(t *testing.T) {
	view := authtest.New(t, account("default"))
	n := 0
	p := serviceaccount.New(view.Registry, view, clocktesting.NewFakeClock(time.Unix(0, 0)), func(int) string { n++; return fmt.Sprint("abcd", n) })
	name := func(uid types.UID) string {
		owned := pod(func(p *corev1.Pod) {
			if uid != "" {
				p.OwnerReferences = []metav1.OwnerReference{{UID: uid, Controller: ptr.To(true)}}
			}
		})
		admissiontest.Expect(t, "a pod", p, admissiontest.Create(view.Registry, nil, owned), 0, "")
		return owned.Spec.Volumes[0].Name
	}
	one, again, other := name("u-1"), name("u-1"), name("u-2")
	if one != again || one == other || len(one) != len("kube-api-access-abcde") {
		t.Errorf("volumes are %s, %s for one controller and %s for another", one, again, other)
	}
	if a, b := name(""), name(""); a == b {
		t.Errorf("pods without a controller share %s", a)
	}
}

func TestAutomount(t *testing.T) {
	for _, c := range []struct {
		account, pod *bool
		mounted      bool
	}{
		{nil, nil, true},
		{ptr.To(false), nil, false},
		{ptr.To(true), nil, true},
		{nil, ptr.To(false), false},
		{ptr.To(true), ptr.To(false), false},
		{ptr.To(false), ptr.To(true), true},
	} {
		view := authtest.New(t, account("default", func(sa *corev1.ServiceAccount) { sa.AutomountServiceAccountToken = c.account }))
		p := pod(func(p *corev1.Pod) { p.Spec.AutomountServiceAccountToken = c.pod })
		admissiontest.Expect(t, "a pod", plugin(view), admissiontest.Create(view.Registry, nil, p), 0, "")
		if got := len(p.Spec.Volumes) == 1; got != c.mounted {
			t.Errorf("account %v, pod %v: mounted %v", ptr.Deref(c.account, true), ptr.Deref(c.pod, true), got)
		}
	}
}

func TestMountBesideOthers(t *testing.T) {
	view := authtest.New(t, account("default"), account("own"))
	own := pod(func(p *corev1.Pod) {
		p.Spec.ServiceAccountName = "own"
		p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "mine"}}
		p.Spec.Volumes = []corev1.Volume{{Name: "x"}}
		p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "x", MountPath: mountPath}}
	})
	admissiontest.Expect(t, "own mount", plugin(view), admissiontest.Create(view.Registry, nil, own), 0, "")
	if own.Spec.ServiceAccountName != "own" || len(own.Spec.ImagePullSecrets) != 1 {
		t.Errorf("the pod's own wishes: %v", own.Spec)
	}
	if len(own.Spec.Containers[0].VolumeMounts) != 1 || len(own.Spec.InitContainers[0].VolumeMounts) != 1 || len(own.Spec.Volumes) != 2 {
		t.Errorf("mounts %v, %v, volumes %v", own.Spec.Containers[0].VolumeMounts, own.Spec.InitContainers[0].VolumeMounts, own.Spec.Volumes)
	}

	// A pod copied from a running one brings the volume along.
	copied := pod(func(p *corev1.Pod) { p.Spec.Volumes = []corev1.Volume{{Name: "kube-api-access-zzzzz"}} })
	admissiontest.Expect(t, "a copied pod", plugin(view), admissiontest.Create(view.Registry, nil, copied), 0, "")
	if len(copied.Spec.Volumes) != 1 || copied.Spec.Containers[0].VolumeMounts[0].Name != "kube-api-access-zzzzz" {
		t.Errorf("volumes %v, mounts %v", copied.Spec.Volumes, copied.Spec.Containers[0].VolumeMounts)
	}
}

func TestRefusals(t *testing.T) {
	limited := account("limited", func(sa *corev1.ServiceAccount) {
		sa.Annotations = map[string]string{"kubernetes.io/enforce-mountable-secrets": "true"}
		sa.Secrets = []corev1.ObjectReference{{Name: "ok"}}
		sa.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pull"}}
	})
	view := authtest.New(t, account("default"), limited)
	mirror := func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"} }
	secretVolume := func(name string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: name}}}}
		}
	}
	env := func(secret string) []corev1.EnvVar {
		return []corev1.EnvVar{{Name: "E", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: secret}}}}}
	}
	use := func(p *corev1.Pod) { p.Spec.ServiceAccountName = "limited" }
	const begin = `pods "p" is forbidden: `
	for _, c := range []struct {
		name string
		pod  *corev1.Pod
		want string
	}{
		{"an account that is not there", pod(func(p *corev1.Pod) { p.Spec.ServiceAccountName = "gone" }),
			begin + `error looking up service account ns/gone: serviceaccount "gone" not found`},
		{"a mirror pod", pod(mirror), ""},
		{"a mirror pod with an account", pod(mirror, func(p *corev1.Pod) { p.Spec.ServiceAccountName = "default" }), begin + "a mirror pod may not reference service accounts"},
		{"a mirror pod with a secret", pod(mirror, secretVolume("s")), begin + "a mirror pod may not reference secrets"},
		{"a mirror pod with a token", pod(mirror, func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{}}}}}}}
		}), begin + "a mirror pod may not use ServiceAccountToken volume projections"},
		{"any secret without the limit", pod(secretVolume("s")), ""},
		{"a listed secret", pod(use, secretVolume("ok")), ""},
		{"an unlisted secret", pod(use, secretVolume("s")), begin + `volume with secret.secretName="s" is not allowed because service account limited does not reference that secret`},
		{"in the environment", pod(use, func(p *corev1.Pod) { p.Spec.Containers[0].Env = env("s") }),
			begin + `container main with envVar E referencing secret.secretName="s" is not allowed because service account limited does not reference that secret`},
		{"in the environment at first", pod(use, func(p *corev1.Pod) { p.Spec.InitContainers[0].Env = env("s") }),
			begin + `init container init with envVar E referencing secret.secretName="s" is not allowed because service account limited does not reference that secret`},
		{"as the environment", pod(use, func(p *corev1.Pod) {
			p.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}}}}
		}), begin + `container main with envFrom referencing secret.secretName="s" is not allowed because service account limited does not reference that secret`},
		{"for pulling", pod(use, func(p *corev1.Pod) { p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "ok"}} }),
			begin + `imagePullSecrets[0].name="ok" is not allowed because service account limited does not reference that imagePullSecret`},
	} {
		admissiontest.Expect(t, c.name, plugin(view), admissiontest.Create(view.Registry, nil, c.pod), 403, c.want)
	}

	debug := pod(use)
	debug.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Env: env("s")}}}
	write := admissiontest.Update(view.Registry, nil, debug, pod(use))
	write.Subresource = "ephemeralcontainers"
	admissiontest.Expect(t, "a debugging container", plugin(view), write, 403,
		begin+`ephemeral container debug with envVar E referencing secret.secretName="s" is not allowed because service account limited does not reference that secret`)

	// Another mutator may have taken the account away again.
	if err := plugin(view).Validate(t.Context(), admissiontest.Create(view.Registry, nil, pod())); err == nil || err.Error() != begin+"no service account specified for pod ns/p" {
		t.Errorf("no account: %v", err)
	}
}

// The first pod of a new namespace may be faster than the namespace loop.
func TestWaitsForDefaultAccount(t *testing.T) {
	view := authtest.New(t)
	clk := clocktesting.NewFakeClock(time.Unix(0, 0))
	p := serviceaccount.New(view.Registry, view, clk, nil)
	admit := func(ctx context.Context) <-chan error {
		done := make(chan error, 1)
		go func() {
			done <- p.Admit(ctx, &admission.Attributes{Operation: admission.Create, Resource: view.Must("", "pods"), Namespace: "ns", Name: "p", Object: pod()})
		}()
		return done
	}
	// step moves the clock whenever somebody waits for it.
	step := func(done <-chan error) error {
		for {
			select {
			case err := <-done:
				return err
			default:
				if clk.HasWaiters() {
					clk.Step(20 * time.Millisecond)
				}
				runtime.Gosched()
			}
		}
	}
	const want = `pods "p" is forbidden: error looking up service account ns/default: serviceaccount "default" not found`
	begin := clk.Now()
	if err := step(admit(t.Context())); err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if waited := clk.Since(begin); waited != 1500*time.Millisecond {
		t.Errorf("gave up after %v", waited)
	}

	ctx, cancel := context.WithCancel(t.Context())
	done := admit(ctx)
	for !clk.HasWaiters() {
		runtime.Gosched()
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}

	done = admit(t.Context())
	for !clk.HasWaiters() {
		runtime.Gosched()
	}
	view.Put(account("default"))
	if err := step(done); err != nil {
		t.Errorf("the account came, and still %v", err)
	}
}
