package controller_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/controller/tokens"
)

func tokenFiller(c client.Interface, _ events.Recorder) controller.Loop {
	return tokens.New(c, []byte("PEM"), func(a *corev1.ServiceAccount, s *corev1.Secret) (string, error) {
		return "token of " + a.Name + " in " + s.Name, nil
	})
}

func bank(t *testing.T) *world {
	w := newWorld(t)
	w.runAs("system:kube-controller-manager", tokenFiller)
	return w
}

func anAccount(name string, secrets ...string) *corev1.ServiceAccount {
	sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	for _, s := range secrets {
		sa.Secrets = append(sa.Secrets, corev1.ObjectReference{Name: s})
	}
	return sa
}

func aToken(name, account string, uid types.UID) *corev1.Secret {
	s := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Annotations: map[string]string{corev1.ServiceAccountNameKey: account}},
		Type:       corev1.SecretTypeServiceAccountToken,
	}
	if uid != "" {
		s.Annotations[corev1.ServiceAccountUIDKey] = string(uid)
	}
	return s
}

func (w *world) secret(name string) *corev1.Secret { return get[*corev1.Secret](w, "default", name) }

// Documentation: "Managing Service Accounts", "Token controller" and "Manual
// Secret management for ServiceAccounts".
func TestTokenSecretIsFilled(t *testing.T) {
	w := bank(t)
	robot := create(w, anAccount("robot"))
	create(w, aToken("t", "robot", ""))
	create(w, aToken("u", "robot", robot.UID))
	own := aToken("own", "robot", "")
	own.Data = map[string][]byte{"token": []byte("mine"), "namespace": []byte("elsewhere"), "ca.crt": []byte("old"), "more": []byte("x")}
	create(w, own)
	fixed := aToken("fixed", "robot", "")
	fixed.Immutable = ptr.To(true)
	create(w, fixed)
	other := create(w, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "other", Annotations: map[string]string{corev1.ServiceAccountNameKey: "robot"}}})
	w.settle()
	for _, c := range []struct{ name, want string }{
		{"t", "token=token of robot in t namespace=default ca.crt=PEM"},
		{"u", "token=token of robot in u namespace=default ca.crt=PEM"},
		{"own", "token=mine namespace=elsewhere ca.crt=PEM more=x"},
	} {
		s := w.secret(c.name)
		var have []string
		for _, k := range []string{"token", "namespace", "ca.crt", "more"} {
			if v, ok := s.Data[k]; ok {
				have = append(have, k+"="+string(v))
			}
		}
		if got := strings.Join(have, " "); got != c.want || s.Annotations[corev1.ServiceAccountUIDKey] != string(robot.UID) {
			t.Errorf("secret %s: %s, annotations %v; want %s", c.name, got, s.Annotations, c.want)
		}
	}
	if len(w.secret("fixed").Data) > 0 || w.secret("other").ResourceVersion != other.ResourceVersion {
		t.Error("an immutable secret or one of another type was written")
	}
	w.rests()

	// What is taken out comes back.
	update(w, w.secret("t"), "", func(s *corev1.Secret) { s.Data = nil })
	w.settle()
	if len(w.secret("t").Data) != 3 {
		t.Errorf("not filled again: %v", w.secret("t").Data)
	}
}

func TestTokenSecretGoesWithItsAccount(t *testing.T) {
	w := bank(t)
	robot := create(w, anAccount("robot"))
	other := create(w, anAccount("other"))
	create(w, aToken("t", "robot", ""))
	create(w, aToken("theirs", "other", ""))
	create(w, aToken("nobody", "nobody", ""))
	create(w, aToken("former", "robot", other.UID))
	held := aToken("held", "robot", "")
	held.Finalizers = []string{"example.com/f"}
	create(w, held)
	w.settle()
	if w.secret("nobody") != nil || w.secret("former") != nil {
		t.Error("a token of no account is still there")
	}
	if w.secret("t") == nil || w.secret("theirs") == nil {
		t.Fatal("a token of a live account is gone")
	}
	remove(w, robot, metav1.DeleteOptions{})
	create(w, anAccount("robot"))
	w.settle()
	if w.secret("t") != nil {
		t.Error("the token of an account that was made anew is still there")
	}
	if w.secret("held").DeletionTimestamp == nil {
		t.Error("a token with a finalizer is not being deleted")
	}
	if w.secret("theirs") == nil {
		t.Error("the token of another account is gone")
	}
	w.rests()
}

// An account that lists its token lists it no more once it is gone.
func TestTokenSecretIsForgotten(t *testing.T) {
	w := bank(t)
	create(w, anAccount("robot", "plain", "t", "u"))
	create(w, aToken("t", "robot", ""))
	create(w, aToken("u", "robot", ""))
	w.settle()
	remove(w, w.secret("t"), metav1.DeleteOptions{})
	remove(w, w.secret("u"), metav1.DeleteOptions{})
	create(w, aToken("u", "robot", ""))
	w.settle()
	if s := get[*corev1.ServiceAccount](w, "default", "robot").Secrets; len(s) != 2 || s[0].Name != "plain" || s[1].Name != "u" {
		t.Errorf("the account lists %v", s)
	}
	w.rests()
}
