package bootstraptoken

import (
	"iter"
	"maps"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	tokens "k8s.io/cluster-bootstrap/token/api"
	"k8s.io/cluster-bootstrap/token/jws"
	"k8s.io/cluster-bootstrap/util/secrets"
)

// sign is what a cluster-info with this data has to have, or nil if it has that:
// for each token that signs, the signature of the kubeconfig by its secret, and
// none else. One without a kubeconfig is left alone. When the first of the tokens
// ends, it has to be looked at again: after left, if that is positive.
func sign(data map[string]string, all iter.Seq[*corev1.Secret], now time.Time) (want map[string]string, left time.Duration, err error) {
	content, ok := data[tokens.KubeConfigKey]
	if !ok {
		return nil, 0, nil
	}
	want = maps.Clone(data)
	maps.DeleteFunc(want, func(key, _ string) bool { return strings.HasPrefix(key, tokens.JWSSignatureKeyPrefix) })
	for s := range all {
		id, secret, ok := signs(s, now)
		if !ok {
			continue
		}
		if want[tokens.JWSSignatureKeyPrefix+id], err = jws.ComputeDetachedSignature(content, id, secret); err != nil {
			return nil, 0, err
		}
		if ends, _ := secrets.GetExpiration(s, now); ends > 0 && (left == 0 || ends < left) {
			left = ends
		}
	}
	if maps.Equal(want, data) {
		want = nil
	}
	return want, left, nil
}

// signs says whether a token signs, and by what. Its name must be that of its ID.
func signs(s *corev1.Secret, now time.Time) (id, secret string, ok bool) {
	named, ok := secrets.ParseName(s.Name)
	id, secret = secrets.GetData(s, tokens.BootstrapTokenIDKey), secrets.GetData(s, tokens.BootstrapTokenSecretKey)
	return id, secret, ok && id == named && secret != "" && !secrets.HasExpired(s, now) &&
		secrets.GetData(s, tokens.BootstrapTokenUsageSigningKey) == "true"
}
