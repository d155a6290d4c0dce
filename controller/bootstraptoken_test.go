package controller_test

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cluster-bootstrap/token/jws"

	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/controller/bootstraptoken"
)

func tokenCleaner(c client.Interface, _ events.Recorder) controller.Loop {
	return bootstraptoken.NewCleaner(c)
}

func bootstrapSigner(c client.Interface, _ events.Recorder) controller.Loop {
	return bootstraptoken.NewSigner(c)
}

const joinSecret = "0123456789abcdef"

// aJoinToken is a token that signs, until end.
func aJoinToken(id, end string) *corev1.Secret {
	s := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "bootstrap-token-" + id},
		Type:       "bootstrap.kubernetes.io/token",
		Data:       map[string][]byte{"token-id": []byte(id), "token-secret": []byte(joinSecret), "usage-bootstrap-signing": []byte("true")},
	}
	if end != "" {
		s.Data["expiration"] = []byte(end)
	}
	return s
}

func (w *world) signatures() (ids []string) {
	w.Helper()
	cm := get[*corev1.ConfigMap](w, "kube-public", "cluster-info")
	for key, signature := range cm.Data {
		if key == "kubeconfig" {
			continue
		}
		id := key[len("jws-kubeconfig-"):]
		if !jws.DetachedTokenIsValid(signature, cm.Data["kubeconfig"], id, joinSecret) {
			w.Errorf("the signature by %s is wrong", id)
		}
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/:
// tokens that have ended are deleted, and the others sign what joins read.
func TestBootstrapTokens(t *testing.T) {
	w := newWorld(t)
	w.run(tokenCleaner)
	w.run(bootstrapSigner)
	soon := w.clock.Now().Add(time.Minute).Format(time.RFC3339)
	create(w, aJoinToken("aaaaaa", ""))
	create(w, aJoinToken("bbbbbb", soon))
	create(w, aJoinToken("cccccc", "tomorrow")) // which nobody can read
	create(w, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "of-others"}, Data: map[string][]byte{"expiration": []byte("tomorrow")}})
	elsewhere := aJoinToken("dddddd", "tomorrow")
	elsewhere.Namespace = "default"
	create(w, elsewhere)
	create(w, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-public", Name: "cluster-info"}, Data: map[string]string{"kubeconfig": "k"}})
	w.settle()
	tokens := func() (names []string) {
		for _, namespace := range []string{"default", "kube-system"} {
			for _, s := range all[*corev1.Secret](w, namespace) {
				names = append(names, s.Name)
			}
		}
		slices.Sort(names)
		return names
	}
	if got := tokens(); !slices.Equal(got, []string{"bootstrap-token-aaaaaa", "bootstrap-token-bbbbbb", "bootstrap-token-dddddd", "of-others"}) {
		t.Errorf("there are %q", got)
	}
	if got := w.signatures(); !slices.Equal(got, []string{"aaaaaa", "bbbbbb"}) {
		t.Errorf("signed by %q", got)
	}
	w.rests()

	w.pass(59 * time.Second)
	if got := w.signatures(); len(got) != 2 {
		t.Errorf("a second before the end: signed by %q", got)
	}
	w.pass(time.Second)
	if got := tokens(); !slices.Equal(got, []string{"bootstrap-token-aaaaaa", "bootstrap-token-dddddd", "of-others"}) {
		t.Errorf("after the end there are %q", got)
	}
	if got := w.signatures(); !slices.Equal(got, []string{"aaaaaa"}) {
		t.Errorf("after the end: signed by %q", got)
	}

	update(w, get[*corev1.ConfigMap](w, "kube-public", "cluster-info"), "", func(cm *corev1.ConfigMap) { cm.Data["kubeconfig"] = "l" })
	w.settle()
	if got := w.signatures(); !slices.Equal(got, []string{"aaaaaa"}) {
		t.Errorf("another content: signed by %q", got)
	}
	remove(w, get[*corev1.Secret](w, "kube-system", "bootstrap-token-aaaaaa"), metav1.DeleteOptions{})
	w.settle()
	if got := w.signatures(); len(got) != 0 {
		t.Errorf("without tokens: signed by %q", got)
	}
	w.rests()
}
