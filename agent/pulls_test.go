package agent

import (
	"slices"
	"testing"

	"hansa.dev/hansa/agent/image"
	"hansa.dev/hansa/agent/settings"
)

// serializeImagePulls, maxParallelImagePulls, imagePullCredentialsVerificationPolicy
// and preloadedImagesVerificationAllowlist reach whoever pulls images.
func TestPullSettings(t *testing.T) {
	for _, c := range []struct {
		tree map[string]any
		want image.Settings
	}{
		{nil, image.Settings{Parallel: 1, Verify: image.NeverVerifyPreloadedImages}},
		{map[string]any{"serializeImagePulls": true}, image.Settings{Parallel: 1, Verify: image.NeverVerifyPreloadedImages}},
		{map[string]any{"serializeImagePulls": false}, image.Settings{Parallel: -1, Verify: image.NeverVerifyPreloadedImages}},
		{map[string]any{"serializeImagePulls": false, "maxParallelImagePulls": 7}, image.Settings{Parallel: 7, Verify: image.NeverVerifyPreloadedImages}},
		{map[string]any{"imagePullCredentialsVerificationPolicy": "AlwaysVerify"}, image.Settings{Parallel: 1, Verify: image.AlwaysVerify}},
		{map[string]any{"imagePullCredentialsVerificationPolicy": "NeverVerifyAllowlistedImages", "preloadedImagesVerificationAllowlist": []any{"registry.example.com/*"}},
			image.Settings{Parallel: 1, Verify: image.NeverVerifyAllowlistedImages, Allowlist: []string{"registry.example.com/*"}}},
	} {
		set, err := settings.Parse(c.tree, nil)
		if err != nil {
			t.Fatal(err)
		}
		got := pulls(set)
		if got.Parallel != c.want.Parallel || got.Verify != c.want.Verify || !slices.Equal(got.Allowlist, c.want.Allowlist) {
			t.Errorf("%v: %+v, want %+v", c.tree, got, c.want)
		}
	}
}
