package direct_test

import (
	"context"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/apiserver/request/requesttest"
	"hansa.dev/hansa/client/clienttest"
	"hansa.dev/hansa/client/direct"
)

func TestSuite(t *testing.T) {
	clienttest.Run(t, func(t *testing.T) clienttest.Clients {
		h := requesttest.Handler(t, func(c *request.Config) {
			c.Hooks = map[string]request.Hook{"selfsubjectaccessreviews.authorization.k8s.io": allowAdmin}
		})
		admin := direct.New(h, requesttest.Admin, "test")
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}
		if _, err := admin.Create(t.Context(), h.Registry.Must("", "nodes"), node, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		return clienttest.Clients{Admin: admin, Nobody: admin.As(requesttest.Nobody, "test")}
	})
}

// allowAdmin answers access reviews as AdminOnly authorizes.
func allowAdmin(_ context.Context, info *request.Info, _ api.Object, body runtime.Object, _ bool) (runtime.Object, error) {
	review := body.(*authorizationv1.SelfSubjectAccessReview)
	review.Status.Allowed = info.User.GetName() == requesttest.Admin.Name
	return review, nil
}
