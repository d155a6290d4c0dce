package admission_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hansa.dev/hansa/apiserver/admission"
)

// "How do I turn on an admission controller?" of Kubernetes' page on them.
func TestSelect(t *testing.T) {
	plain, err := admission.Select(nil, nil)
	if err != nil || !slices.Contains(plain, "LimitRanger") || slices.Contains(plain, "AlwaysDeny") {
		t.Errorf("by default %v, %v", plain, err)
	}
	got, err := admission.Select([]string{"AlwaysDeny", "AlwaysPullImages", "LimitRanger"}, []string{"Priority", "AlwaysAdmit"})
	want := slices.DeleteFunc(slices.Clone(plain), func(n string) bool { return n == "Priority" })
	want = slices.Insert(want, slices.Index(want, "TaintNodesByCondition")+1, "AlwaysPullImages")
	if diff := cmp.Diff(append(want, "AlwaysDeny"), got); diff != "" || err != nil {
		t.Errorf("error %v, -want +got\n%s", err, diff)
	}
	for _, tt := range []struct {
		enable, disable []string
		want            string
	}{
		{[]string{"Nope"}, nil, `enable-admission-plugins plugin "Nope" is unknown`},
		{nil, []string{"nope"}, `disable-admission-plugins plugin "nope" is unknown`},
		{[]string{"LimitRanger"}, []string{"LimitRanger"}, `[LimitRanger] in enable-admission-plugins and disable-admission-plugins overlapped`},
		{[]string{"ImagePolicyWebhook"}, nil, `enable-admission-plugins plugin "ImagePolicyWebhook" cannot be used: no service reviews images; let a ValidatingWebhookConfiguration for pods do that`},
		{nil, []string{"ImagePolicyWebhook"}, ""},
	} {
		text := ""
		if _, err := admission.Select(tt.enable, tt.disable); err != nil {
			text = err.Error()
		}
		if text != tt.want {
			t.Errorf("enable %v, disable %v: %q\nwant %q", tt.enable, tt.disable, text, tt.want)
		}
	}
}
