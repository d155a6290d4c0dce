package volume_test

import (
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func bundle(name, signer, label string, certs ...string) *certificatesv1.ClusterTrustBundle {
	b := &certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"tier": label}}}
	b.Spec.SignerName = signer
	for _, c := range certs {
		b.Spec.TrustBundle += "# a comment\n" + string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Headers: map[string]string{"By": name}, Bytes: []byte(c)}))
	}
	return b
}

// "Projected Volumes", clusterTrustBundle: by name and by signer and labels,
// each certificate once, without anything else; optional; the files' mode.
func TestClusterTrustBundle(t *testing.T) {
	m, w := newManager(t)
	w.bundles = []*certificatesv1.ClusterTrustBundle{
		bundle("one", "", "", "a", "b", "a"),
		bundle("s:1", "example.com/s", "live", "c", "d"), bundle("s:2", "example.com/s", "canary", "d", "e"),
		bundle("o:1", "example.com/o", "live", "f"),
	}
	for name, c := range map[string]struct {
		source v1.ClusterTrustBundleProjection
		want   string // the certificates, sorted, or the error
	}{
		"by name":           {v1.ClusterTrustBundleProjection{Name: ptr.To("one")}, "a b"},
		"by signer":         {v1.ClusterTrustBundleProjection{SignerName: ptr.To("example.com/s"), LabelSelector: &metav1.LabelSelector{}}, "c d e"},
		"by label":          {v1.ClusterTrustBundleProjection{SignerName: ptr.To("example.com/s"), LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"tier": "canary"}}}, "d e"},
		"none by name":      {v1.ClusterTrustBundleProjection{Name: ptr.To("two")}, `while getting ClusterTrustBundle: clustertrustbundle.certificates.k8s.io "two" not found`},
		"none by signer":    {v1.ClusterTrustBundleProjection{SignerName: ptr.To("example.com/x"), LabelSelector: &metav1.LabelSelector{}}, "combination of signerName and labelSelector matched zero ClusterTrustBundles"},
		"no selector":       {v1.ClusterTrustBundleProjection{SignerName: ptr.To("example.com/s")}, "combination of signerName and labelSelector matched zero ClusterTrustBundles"},
		"optional by name":  {v1.ClusterTrustBundleProjection{Name: ptr.To("two"), Optional: ptr.To(true)}, ""},
		"optional selector": {v1.ClusterTrustBundleProjection{SignerName: ptr.To("example.com/x"), Optional: ptr.To(true)}, ""},
	} {
		c.source.Path = "ca.pem"
		p := podWith(v1.Volume{Name: "v", VolumeSource: v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{
			DefaultMode: ptr.To[int32](0o444), Sources: []v1.VolumeProjection{{ClusterTrustBundle: &c.source}},
		}}})
		_, err := m.Mount(t.Context(), p)
		if err != nil {
			if c.want == "" || !strings.HasSuffix(err.Error(), c.want) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		dir, err := m.Path(p, &p.Spec.Volumes[0])
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(dir, "ca.pem"))
		if err != nil || info.Mode() != 0o444 {
			t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
		}
		var got []string
		for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
			got = append(got, string(block.Bytes))
			if len(block.Headers) > 0 {
				t.Errorf("%s: headers %v", name, block.Headers)
			}
		}
		slices.Sort(got)
		if strings.Join(got, " ") != c.want || strings.Contains(string(data), "#") {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
