package gonames_test

import (
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hansa.dev/hansa/internal/gonames"
)

// The texts are those of kube-apiserver 1.37.2; … is what follows.
func TestShow(t *testing.T) {
	one := intstr.FromInt32(1)
	for name, c := range map[string]struct {
		value any
		want  string
	}{
		"text":             {"a", `"a"`},
		"number":           {int64(3), `3`},
		"nothing":          {nil, `null`},
		"texts":            {[]string{"a"}, `["a"]`},
		"left out":         {field.OmitValueType{}, ``},
		"shared type":      {&metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}, `{"matchLabels":{"a":"b"}}`},
		"part":             {corev1.NodeAddress{Type: "InternalIP", Address: "<a>"}, `{"Type":"InternalIP","Address":"\u003ca\u003e"}`},
		"pointer to one":   {&corev1.HostIP{IP: "::1"}, `{"IP":"::1"}`},
		"pointer to none":  {(*corev1.HostIP)(nil), `null`},
		"list":             {[]corev1.HostIP{{IP: "a"}, {}}, `[{"IP":"a"},{"IP":""}]`},
		"empty list":       {[]corev1.HostIP{}, `[]`},
		"no list":          {[]corev1.HostIP(nil), `null`},
		"map":              {map[string]corev1.HostIP{"b": {}, "a": {IP: "1"}}, `{"a":{"IP":"1"},"b":{"IP":""}}`},
		"parts of a part":  {corev1.NodeAffinity{}, `{"RequiredDuringSchedulingIgnoredDuringExecution":null,"PreferredDuringSchedulingIgnoredDuringExecution":null}`},
		"shared in a part": {policyv1.PodDisruptionBudgetSpec{MinAvailable: &one, Selector: &metav1.LabelSelector{}}, `{"MinAvailable":1,"Selector":{},"MaxUnavailable":null,"UnhealthyPodEvictionPolicy":null}`},
		"quantities": {
			corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
			`{"Limits":null,"Requests":{"storage":"1Gi"}}`,
		},
		"as sent":          {gonames.Keep(corev1.HostIP{IP: "a"}), `{"ip":"a"}`},
		"text as sent":     {gonames.Keep("<a>"), `"<a>"`},
		"embedded part":    {corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "e"}}, `{"Name":"e","Image":"","Command":null,…`},
		"embedded nothing": {corev1.PersistentVolumeClaimTemplate{}, `{"Spec":{"AccessModes":null,…`},
		"metadata":         {&corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, `{"name":"a","Spec":{"Volumes":null,…`},
		"fields unserved": {
			certificatesv1.PodCertificateRequestSpec{},
			`{"SignerName":"","PodName":"","PodUID":"","ServiceAccountName":"","ServiceAccountUID":"","NodeName":"","NodeUID":"","MaxExpirationSeconds":null,"PKIXPublicKey":null,"ProofOfPossession":null,"StubPKCS10Request":null,…`,
		},
	} {
		errs := gonames.Show(field.ErrorList{field.Invalid(nil, c.value, "")})
		_, got, _ := strings.Cut(errs[0].ErrorBody(), "Invalid value: ")
		if start, more := strings.CutSuffix(c.want, "…"); got != c.want && !(more && strings.HasPrefix(got, start)) {
			t.Errorf("%s is %s, want %s", name, got, c.want)
		}
	}
}

func TestDiff(t *testing.T) {
	const want = "@@ -1,3 +1,3 @@\n {\n- \"IP\": \"a\"\n+ \"IP\": \"b\"\n }\n"
	if got := gonames.Diff(corev1.HostIP{IP: "a"}, corev1.HostIP{IP: "b"}); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
