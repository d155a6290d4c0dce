package conformance

import (
	"fmt"
	"net/http"
	"testing"

	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func init() {
	groups["resourceclaims"] = "resource.k8s.io/v1"
	groups["resourceclaimtemplates"] = "resource.k8s.io/v1"
}

// claimsOf are the claims of a namespace, by the entry of the pod that they were
// made for, or else by name.
func claimsOf(t *testing.T, ns string) map[string]resourcev1.ResourceClaim {
	t.Helper()
	var list resourcev1.ResourceClaimList
	admin.want(t, http.StatusOK, call{path: at("resourceclaims", ns)}, &list)
	found := map[string]resourcev1.ResourceClaim{}
	for _, c := range list.Items {
		name := c.Name
		if entry := c.Annotations[resourcev1.PodResourceClaimAnnotation]; entry != "" {
			name = entry
		}
		found[name] = c
	}
	return found
}

// allocate does what a scheduler does for a claim.
func allocate(t *testing.T, ns, name string) {
	t.Helper()
	patch(t, "resourceclaims", ns, name, `{"metadata":{"finalizers":["`+resourcev1.Finalizer+`"]}}`)
	admin.want(t, http.StatusOK, call{method: "PATCH", path: at("resourceclaims", ns, name, "status"), contentType: mergePatch, body: `{"status":{"allocation":{}}}`}, nil)
}

// "Dynamic Resource Allocation": a claim is made for a pod by a template, and is
// the pod's own; allocated ones are reserved for a pod that has its node. When the
// pod has ended or is gone, so is its own claim, and that of others is free.
func TestClaimsFollowPods(t *testing.T) {
	node := ghost(t)
	for how, end := range map[string]func(t *testing.T, ns string){
		"succeeded": func(t *testing.T, ns string) {
			admin.want(t, http.StatusOK, call{method: "PATCH", path: at("pods", ns, "p", "status"), contentType: mergePatch, body: `{"status":{"phase":"Succeeded"}}`}, nil)
		},
		"deleted": func(t *testing.T, ns string) {
			admin.want(t, http.StatusOK, call{method: "DELETE", path: at("pods", ns, "p") + "?gracePeriodSeconds=0"}, nil)
		},
	} {
		t.Run(how, func(t *testing.T) {
			ns := namespace(t)
			const spec = `{devices: {requests: [{name: r, exactly: {deviceClassName: none}}]}}`
			create(t, "resourceclaims", ns, `
metadata: {name: shared}
spec: `+spec)
			create(t, "resourceclaimtemplates", ns, `
metadata: {name: t}
spec: {metadata: {labels: {a: b}}, spec: `+spec+`}`)
			pod := create(t, "pods", ns, fmt.Sprintf(`
metadata: {name: p}
spec:
  nodeName: %s
  containers: [{name: c, image: i}]
  resourceClaims: [{name: own, resourceClaimTemplateName: t}, {name: other, resourceClaimName: shared}]`, node))
			eventually(t, "a claim is made", func() bool { return len(claimsOf(t, ns)) == 2 })
			own := claimsOf(t, ns)["own"]
			if !metav1.IsControlledBy(&own, pod) || own.Labels["a"] != "b" || len(own.Spec.Devices.Requests) != 1 || own.Spec.Devices.Requests[0].Exactly.DeviceClassName != "none" {
				t.Fatalf("the claim is %+v", own)
			}
			eventually(t, "the pod tells of its claim", func() bool {
				return field(get(t, "pods", ns, "p"), "status", "resourceClaimStatuses") == `[{"name":"own","resourceClaimName":"`+own.Name+`"}]`
			})
			for _, name := range []string{own.Name, "shared"} {
				allocate(t, ns, name)
			}
			for _, name := range []string{"own", "shared"} {
				eventually(t, name+" is reserved for the pod", func() bool {
					r := claimsOf(t, ns)[name].Status.ReservedFor
					return len(r) == 1 && r[0].Resource == "pods" && r[0].Name == "p" && r[0].UID == pod.GetUID()
				})
			}
			end(t, ns)
			eventually(t, "the pod's own claim is gone", func() bool { return gone(t, "resourceclaims", ns, own.Name) })
			eventually(t, "the other claim is free", func() bool {
				c := claimsOf(t, ns)["shared"]
				return len(c.Status.ReservedFor) == 0 && c.Status.Allocation == nil && len(c.Finalizers) == 0
			})
		})
	}
}
