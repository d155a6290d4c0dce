package volume

import (
	"bytes"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"
)

// addTrust adds the certificates of one ClusterTrustBundle, or of those of a
// signer that labels select, each once ("Projected Volumes",
// clusterTrustBundle).
func (m *Manager) addTrust(out payload, p *v1.Pod, src *v1.ClusterTrustBundleProjection, mode fs.FileMode) error {
	bundles, err := m.bundles(src)
	if err != nil {
		return err
	}
	out[src.Path] = privateFile(p, m.anchors(bundles), mode)
	return nil
}

func (m *Manager) bundles(src *v1.ClusterTrustBundleProjection) ([]*certificatesv1.ClusterTrustBundle, error) {
	optional := ptr.Deref(src.Optional, false)
	switch {
	case src.Name != nil:
		b := m.Objects.TrustBundle(*src.Name)
		if b != nil {
			return []*certificatesv1.ClusterTrustBundle{b}, nil
		}
		if optional {
			return nil, nil
		}
		return nil, fmt.Errorf("while getting ClusterTrustBundle: clustertrustbundle.certificates.k8s.io %q not found", *src.Name)
	case src.SignerName != nil:
		// None selects nothing, an empty one everything.
		selector, err := metav1.LabelSelectorAsSelector(src.LabelSelector)
		if err != nil {
			return nil, fmt.Errorf("while parsing label selector: %w", err)
		}
		var found []*certificatesv1.ClusterTrustBundle
		for b := range m.Objects.TrustBundles {
			if b.Spec.SignerName == *src.SignerName && selector.Matches(labels.Set(b.Labels)) {
				found = append(found, b)
			}
		}
		if len(found) == 0 && !optional {
			return nil, errors.New("combination of signerName and labelSelector matched zero ClusterTrustBundles")
		}
		return found, nil
	}
	return nil, errors.New("ClusterTrustBundle projection requires either name or signerName to be set")
}

// anchors joins certificates. Their order stays while the agent runs, and is
// another one with the next: nobody is to rely on it.
func (m *Manager) anchors(bundles []*certificatesv1.ClusterTrustBundle) []byte {
	type key [sha256.Size]byte
	certs := map[key][]byte{}
	for _, b := range bundles {
		rest := []byte(b.Spec.TrustBundle)
		for {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			certs[sha256.Sum256(append([]byte(m.salt), block.Bytes...))] = block.Bytes
		}
	}
	var out []byte
	for _, k := range slices.SortedFunc(maps.Keys(certs), func(a, b key) int { return bytes.Compare(a[:], b[:]) }) {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certs[k]})...)
	}
	return out
}
