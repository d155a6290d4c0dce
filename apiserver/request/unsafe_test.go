package request_test

import (
	"context"
	"errors"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/apiserver/request/requesttest"
)

// DeleteOptions, ignoreStoreReadErrorWithClusterBreakingPotential: for objects
// that cannot be read, by who may do that. What can be read stays.
func TestUnsafeDeletionIsRefused(t *testing.T) {
	unsafe := func() *metav1.DeleteOptions {
		return &metav1.DeleteOptions{IgnoreStoreReadErrorWithClusterBreakingPotential: ptr.To(true)}
	}
	safeOnly := func(decision authorizer.Decision, reason string, err error) func(*request.Config) {
		return func(c *request.Config) {
			c.Authorizer = authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
				if a.GetVerb() == "unsafe-delete-ignore-read-errors" && a.GetName() == "a" && a.GetResource() == "configmaps" {
					return decision, reason, err
				}
				return authorizer.DecisionAllow, "", nil
			})
		}
	}
	for name, c := range map[string]struct {
		config func(*request.Config)
		object string
		change func(*metav1.DeleteOptions)
		want   string
	}{
		"readable":  {object: "a", want: `Operation cannot be fulfilled on configmaps "a": StorageError: invalid object, Code: 4, Key: /registry/configmaps/default/a, ResourceVersion: 0, AdditionalErrorMsg: unsafe deletion is not allowed because the object is decodable from storage`},
		"dry run":   {object: "a", change: func(o *metav1.DeleteOptions) { o.DryRun = []string{metav1.DryRunAll} }, want: `Operation cannot be fulfilled on configmaps "a": StorageError: invalid object, Code: 4, Key: /registry/configmaps/default/a, ResourceVersion: 0, AdditionalErrorMsg: unsafe deletion is not allowed because the object is decodable from storage`},
		"not there": {object: "b", want: `configmaps "b" not found`},
		"not allowed": {config: safeOnly(authorizer.DecisionNoOpinion, "no", nil), object: "a",
			want: `configmaps "a" is forbidden: not permitted to do "unsafe-delete-ignore-read-errors", reason: no`},
		"nobody knows": {config: safeOnly(authorizer.DecisionNoOpinion, "", errors.New("lost")), object: "a",
			want: `configmaps "a" is forbidden: error while checking permission for "unsafe-delete-ignore-read-errors", lost`},
		"with a period": {object: "a", change: func(o *metav1.DeleteOptions) { o.GracePeriodSeconds = ptr.To(int64(1)) },
			want: `DeleteOptions.meta.k8s.io "" is invalid: ignoreStoreReadErrorWithClusterBreakingPotential: Invalid value: true: cannot be set together with .gracePeriodSeconds`},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, c.config)
			f.mustCreate(requesttest.ConfigMap("a"))
			opts := unsafe()
			if c.change != nil {
				c.change(opts)
			}
			if _, _, err := f.delete(c.object, opts); err == nil || err.Error() != c.want {
				t.Errorf("error is %v, want %s", err, c.want)
			}
			f.get("a")
		})
	}
	t.Run("of kinds that cannot", func(t *testing.T) {
		f := newFixture(t, safeOnly(authorizer.DecisionNoOpinion, "", nil))
		for resource, version := range map[string]string{"namespaces": "v1", "clusterroles": "rbac.authorization.k8s.io/v1"} {
			_, _, err := f.Delete(t.Context(), requesttest.Info("delete", version, resource, "", "a"), unsafe())
			if want := "Internal error occurred: no unsafe deleter provided, can not honor ignoreStoreReadErrorWithClusterBreakingPotential"; err == nil || err.Error() != want {
				t.Errorf("%s: error is %v, want %s", resource, err, want)
			}
		}
	})
	t.Run("of a collection", func(t *testing.T) {
		f := newFixture(t, nil)
		f.mustCreate(requesttest.ConfigMap("a"))
		_, err := f.DeleteCollection(t.Context(), requesttest.Info("deletecollection", "v1", "configmaps", "default", ""), unsafe(), &metav1.ListOptions{})
		if want := `DeleteOptions.meta.k8s.io "" is invalid: ignoreStoreReadErrorWithClusterBreakingPotential: Invalid value: true: is not allowed with DELETECOLLECTION, try again after removing the option`; err == nil || err.Error() != want {
			t.Errorf("error is %v, want %s", err, want)
		}
		f.get("a")
	})
}
