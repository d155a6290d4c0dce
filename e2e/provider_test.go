package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	exchange "k8s.io/kubelet/pkg/apis/credentialprovider/v1"
)

const (
	registryAudience = "registry.example.com"
	providerAsked    = "/tmp/providers/asked"
)

// credentialProvider makes the program e2e-login, which notes what it is asked
// and knows the login of the registry, and answers with its configuration.
func credentialProvider(t testing.TB) (config string) {
	t.Helper()
	program := writeFile(t, "/tmp/providers/e2e-login", fmt.Sprintf(`#!/bin/sh
{ cat; echo; } >> %s
cat <<END
{"kind": "CredentialProviderResponse", "apiVersion": "credentialprovider.kubelet.k8s.io/v1", "cacheKeyType": "Image", "cacheDuration": "0s",
 "auth": {%q: {"username": %q, "password": %q}}}
END
`, providerAsked, registryAddress, registryUser, registryPassword))
	if err := os.Chmod(program, 0o755); err != nil {
		t.Fatal(err)
	}
	return writeFile(t, "/tmp/providers.d/e2e.yaml", fmt.Sprintf(`
apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
- name: e2e-login
  apiVersion: credentialprovider.kubelet.k8s.io/v1
  matchImages: [%q]
  defaultCacheDuration: 0s
  tokenAttributes:
    serviceAccountTokenAudience: %s
    cacheType: Token
    requireServiceAccount: true
    requiredServiceAccountAnnotationKeys: [example.com/pulls-as]
    optionalServiceAccountAnnotationKeys: [example.com/team]
`, registryAddress+"/private", registryAudience))
}

// "Service Account Token for Image Pulls" (KEP-4412): a program gives the login
// for a pod's image by a token of the pod's service account, for whose audience
// nodes have to be allowed. What it let one account pull another one does not
// get.
func providedCredentials(s *space) {
	image := s.publish("private/provided", "provided")
	s.apply(fmt.Sprintf(`
apiVersion: v1
kind: ServiceAccount
metadata: {name: puller, annotations: {example.com/pulls-as: robot, example.com/team: blue, example.com/secret: never}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: plain}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: registry-audience}
rules: [{verbs: [request-serviceaccounts-token-audience], apiGroups: [""], resources: [%s]}]
`, registryAudience))
	s.create("early", runs(image, "IfNotPresent", "serviceAccountName: puller"))
	s.event("early", "Warning Failed: Failed to pull image")
	if _, err := os.Stat(providerAsked); !errors.Is(err, os.ErrNotExist) {
		s.t.Errorf("the provider was asked without a token: %v", err)
	}
	s.kubectl("delete", "pod", "early", "--now")
	s.kubectl("create", "clusterrolebinding", "registry-audience", "--clusterrole=registry-audience", "--group=system:nodes")
	s.create("p", runs(image, "IfNotPresent", "serviceAccountName: puller"))
	p := s.finished("p")

	data, err := os.ReadFile(providerAsked)
	if err != nil {
		s.t.Fatal(err)
	}
	tokens := map[string]bool{}
	for line := range strings.Lines(string(data)) {
		var r exchange.CredentialProviderRequest
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			s.t.Fatal(err)
		}
		if r.Image != strings.TrimSuffix(image, ":1") || fmt.Sprint(r.ServiceAccountAnnotations) != "map[example.com/pulls-as:robot example.com/team:blue]" {
			s.t.Errorf("request %s", line)
		}
		review, err := s.client.AuthenticationV1().TokenReviews().Create(s.t.Context(), &authenticationv1.TokenReview{
			Spec: authenticationv1.TokenReviewSpec{Token: r.ServiceAccountToken, Audiences: []string{registryAudience}},
		}, metav1.CreateOptions{})
		if err != nil || !review.Status.Authenticated || review.Status.User.Username != "system:serviceaccount:"+s.name+":puller" {
			s.t.Errorf("the token: %+v, %v", review.Status, err)
		}
		tokens[strings.Join(review.Status.User.Extra["authentication.kubernetes.io/pod-uid"], "")] = true
	}
	if !tokens[string(p.UID)] {
		s.t.Errorf("tokens are bound to pods %v, none to %s", tokens, p.UID)
	}

	// Whoever does not have the annotation is not asked for, nor let at the image.
	s.create("plain", runs(image, "IfNotPresent", "serviceAccountName: plain"))
	s.event("plain", "Warning Failed: Failed to pull image")
	s.create("never", runs(image, "Never", "serviceAccountName: plain"))
	s.until("never", "the image is not there for it", func(p *corev1.Pod) bool { return waiting(p).Reason == "ErrImageNeverPull" })
	before := images.asked("private/provided:1")
	s.create("again", runs(image, "Never", "serviceAccountName: puller"))
	s.finished("again")
	if after := images.asked("private/provided:1"); after != before {
		s.t.Errorf("the registry was asked %d times, then %d times", before, after)
	}
	metrics := s.ofNode("/metrics")
	for _, want := range []string{`kubelet_credential_provider_plugin_duration_count{plugin_name="e2e-login"} `, `kubelet_credential_provider_config_info{hash="sha256:`} {
		if !strings.Contains(metrics, want) {
			s.t.Errorf("the metrics lack %s", want)
		}
	}
}

// gatedPull makes a pod whose pull, once reached, goes on when it is let go.
type gatedPull struct {
	pod           string
	reached, open chan struct{}
	letGo         func()
}

// gate publishes an image and makes a pod of it.
func (s *space) gate(repository string) *gatedPull {
	s.t.Helper()
	g := &gatedPull{pod: filepath.Base(repository), reached: make(chan struct{}), open: make(chan struct{})}
	g.letGo = sync.OnceFunc(func() { close(g.open) })
	first := sync.OnceFunc(func() { close(g.reached) })
	gates.Store(repository, func() { first(); <-g.open })
	s.t.Cleanup(func() { gates.Delete(repository); g.letGo() })
	s.create(g.pod, runs(s.publishLayer(repository, repository), "Always", ""))
	s.event(g.pod, "Normal Pulling: Pulling image")
	return g
}

// await waits until the pull has reached the gate.
func (g *gatedPull) await(s *space) {
	s.t.Helper()
	await(s.t, "the pull of pod "+g.pod, func() error {
		select {
		case <-g.reached:
			return nil
		default:
			return errors.New("it has not begun")
		}
	})
}

// boundedPulls: maxParallelImagePulls is 2.
func boundedPulls(s *space) { s.pullsAtOnce("bounded", 2) }

// pullsAtOnce checks that so many images are pulled at the same time and one
// more waits: its registry is asked only when another pull has ended.
func (s *space) pullsAtOnce(prefix string, most int) {
	s.t.Helper()
	var under []*gatedPull
	for i := range most {
		under = append(under, s.gate(fmt.Sprintf("%s/pull-%d", prefix, i)))
	}
	for _, g := range under {
		g.await(s)
	}
	var early, ended atomic.Bool
	late := prefix + "/late"
	gates.Store(late, func() { early.Store(!ended.Load()) })
	defer gates.Delete(late)
	s.create("late", runs(s.publishLayer(late, late), "Always", ""))
	s.event("late", "Normal Pulling: Pulling image")
	if n := images.asked(late + ":1"); n != 0 {
		s.t.Errorf("the registry was asked %d times for an image too many", n)
	}
	for _, g := range under {
		ended.Store(true)
		g.letGo()
	}
	for _, g := range under {
		s.finished(g.pod)
	}
	s.finished("late")
	if early.Load() {
		s.t.Error("one image more was pulled at once than it may")
	}
}

// serializeImagePulls, which is the default: one image after the other.
func TestSerialPulls(t *testing.T) {
	if !alone(t) {
		return
	}
	newSpace(t, started(t, newCluster("serial"))).pullsAtOnce("serial", 1)
}
