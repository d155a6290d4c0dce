package bootstraptoken

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cluster-bootstrap/token/jws"
)

// token is a secret of a token that signs, with what is changed; "" takes away.
func token(id string, change map[string]string) *corev1.Secret {
	data := map[string]string{"token-id": id, "token-secret": "0123456789abcdef", "usage-bootstrap-signing": "true"}
	maps.Copy(data, change)
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "bootstrap-token-" + id}, Data: map[string][]byte{}}
	for key, value := range data {
		if value != "" {
			s.Data[key] = []byte(value)
		}
	}
	return s
}

// https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/#configmap-signing
func TestSign(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	in := func(d time.Duration) map[string]string {
		return map[string]string{"expiration": now.Add(d).Format(time.RFC3339)}
	}
	signature := func(content, id string) string {
		s, err := jws.ComputeDetachedSignature(content, id, "0123456789abcdef")
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	signed := map[string]string{"kubeconfig": "k", "jws-kubeconfig-aaaaaa": signature("k", "aaaaaa")}
	for _, tt := range []struct {
		name   string
		data   map[string]string
		tokens []*corev1.Secret
		want   map[string]string
		left   time.Duration
	}{
		{"nothing to sign", map[string]string{"a": "b", "jws-kubeconfig-aaaaaa": "x"}, []*corev1.Secret{token("aaaaaa", nil)}, nil, 0},
		{"a new token", map[string]string{"kubeconfig": "k"}, []*corev1.Secret{token("aaaaaa", nil)}, signed, 0},
		{"all is well", signed, []*corev1.Secret{token("aaaaaa", nil)}, nil, 0},
		{"the first of two ends", signed, []*corev1.Secret{token("aaaaaa", in(time.Hour)), token("bbbbbb", in(time.Minute))},
			map[string]string{"kubeconfig": "k", "jws-kubeconfig-aaaaaa": signed["jws-kubeconfig-aaaaaa"], "jws-kubeconfig-bbbbbb": signature("k", "bbbbbb")}, time.Minute},
		{"another content", map[string]string{"kubeconfig": "l", "jws-kubeconfig-aaaaaa": signed["jws-kubeconfig-aaaaaa"]}, []*corev1.Secret{token("aaaaaa", nil)},
			map[string]string{"kubeconfig": "l", "jws-kubeconfig-aaaaaa": signature("l", "aaaaaa")}, 0},
		{"a token has gone", signed, nil, map[string]string{"kubeconfig": "k"}, 0},
		{"a token has ended", signed, []*corev1.Secret{token("aaaaaa", in(0))}, map[string]string{"kubeconfig": "k"}, 0},
		{"a token that is not for signing", signed, []*corev1.Secret{token("aaaaaa", map[string]string{"usage-bootstrap-signing": "", "usage-bootstrap-authentication": "true"})}, map[string]string{"kubeconfig": "k"}, 0},
		{"a token without a secret", signed, []*corev1.Secret{token("aaaaaa", map[string]string{"token-secret": ""})}, map[string]string{"kubeconfig": "k"}, 0},
		{"a token of another name", signed, []*corev1.Secret{token("aaaaaa", map[string]string{"token-id": "bbbbbb"})}, map[string]string{"kubeconfig": "k"}, 0},
	} {
		before := maps.Clone(tt.data)
		want, left, err := sign(tt.data, slices.Values(tt.tokens), now)
		if diff := cmp.Diff(tt.want, want); diff != "" || left != tt.left || err != nil {
			t.Errorf("%s: again after %s, %v (-want +got):\n%s", tt.name, left, err, diff)
		}
		if !maps.Equal(before, tt.data) {
			t.Errorf("%s: what is there was written to", tt.name)
		}
	}
}
