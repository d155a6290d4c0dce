package rules

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/apiserver/request"
)

// claims are the rules of ResourceClaims. The status of one is written by the
// scheduler (allocation, reservation) and by drivers (their own devices). Both
// are told apart by resources that exist for the authorizer only:
// resourceclaims/binding for all claims, resourceclaims/driver by driver.
type claims struct {
	view       View
	namespaces *api.Resource
	authorizer authorizer.UnconditionalAuthorizer
}

// adminAccess is for claims and templates.
func (c *claims) adminAccess(_ context.Context, info *request.Info, obj, old api.Object, found field.ErrorList) field.ErrorList {
	if old != nil {
		return found // specs do not change
	}
	return append(c.admin(info, obj, nil), found...)
}

func (c *claims) admin(info *request.Info, obj, old api.Object) field.ErrorList {
	var labels map[string]string
	if ns := c.view.Get(c.namespaces, api.Key{Name: info.Namespace}); ns != nil {
		labels = ns.GetLabels()
	}
	return kinds.ValidateAdminAccess(obj, old, labels)
}

func (c *claims) status(ctx context.Context, info *request.Info, obj, old api.Object, found field.ErrorList) field.ErrorList {
	errs := c.admin(info, obj, old)
	now, was := &obj.(*resourcev1.ResourceClaim).Status, &old.(*resourcev1.ResourceClaim).Status
	errs = append(errs, c.binding(ctx, info, now, was)...)
	// What frees a claim takes the status of its devices away with it.
	if now.Allocation != nil {
		errs = append(errs, c.devices(ctx, info, now, was)...)
	}
	return append(errs, found...)
}

func (c *claims) binding(ctx context.Context, info *request.Info, now, was *resourcev1.ResourceClaimStatus) field.ErrorList {
	if equality.Semantic.DeepEqual(now.Allocation, was.Allocation) && equality.Semantic.DeepEqual(now.ReservedFor, was.ReservedFor) {
		return nil
	}
	a := info.Attributes()
	a.Subresource, a.Namespace, a.Name = resourcev1.SubresourceBinding, "", ""
	if err := request.Ask(ctx, c.authorizer, a); err != nil {
		return field.ErrorList{field.Forbidden(field.NewPath("status", "allocation"),
			fmt.Sprintf("changing status.allocation or status.reservedFor requires resource=\"resourceclaims/binding\", verb=%q permission: %s", a.Verb, err))}
	}
	return nil
}

// devices asks for each driver whose devices' status changes. A driver that runs
// on the node of the claim needs less than one that runs anywhere.
func (c *claims) devices(ctx context.Context, info *request.Info, now, was *resourcev1.ResourceClaimStatus) field.ErrorList {
	verbs := []string{resourcev1.VerbPrefixArbitraryNode + info.Verb}
	if runsOn(info.User, allocatedNode(now.Allocation)) {
		verbs = slices.Insert(verbs, 0, resourcev1.VerbPrefixAssociatedNode+info.Verb)
	}
	var errs field.ErrorList
	for _, driver := range sets.List(changedDrivers(now.Devices, was.Devices)) {
		var first error
		for _, verb := range verbs {
			a := info.Attributes()
			a.Verb, a.Subresource, a.Name = verb, resourcev1.SubresourceDriver, driver
			err := request.Ask(ctx, c.authorizer, a)
			if err == nil {
				first = nil
				break
			}
			if first == nil {
				first = err
			}
		}
		if first != nil {
			errs = append(errs, field.Forbidden(field.NewPath("status", "devices"),
				fmt.Sprintf("changing status.devices requires resource=\"resourceclaims/driver\", verb=\"%s\" permission: %s", verbs, first)))
		}
	}
	return errs
}

// changedDrivers are those of devices that came, went or changed.
func changedDrivers(now, was []resourcev1.AllocatedDeviceStatus) sets.Set[string] {
	type id struct{ driver, pool, device, share string }
	idOf := func(d resourcev1.AllocatedDeviceStatus) id {
		return id{d.Driver, d.Pool, d.Device, ptr.Deref(d.ShareID, "")}
	}
	before := map[id]resourcev1.AllocatedDeviceStatus{}
	for _, d := range was {
		before[idOf(d)] = d
	}
	drivers := sets.New[string]()
	for _, d := range now {
		old, ok := before[idOf(d)]
		delete(before, idOf(d))
		if !ok || !equality.Semantic.DeepEqual(old, d) {
			drivers.Insert(d.Driver)
		}
	}
	for gone := range before {
		drivers.Insert(gone.driver)
	}
	return drivers
}

// allocatedNode is the one node that an allocation can be used on, or "".
func allocatedNode(a *resourcev1.AllocationResult) string {
	if a == nil || a.NodeSelector == nil || len(a.NodeSelector.NodeSelectorTerms) != 1 {
		return ""
	}
	term := a.NodeSelector.NodeSelectorTerms[0]
	if len(term.MatchExpressions) != 0 || len(term.MatchFields) != 1 {
		return ""
	}
	f := term.MatchFields[0]
	if f.Key != "metadata.name" || f.Operator != corev1.NodeSelectorOpIn || len(f.Values) != 1 {
		return ""
	}
	return f.Values[0]
}

// runsOn says whether a user is a service account whose token is bound to a pod
// on that node.
func runsOn(u user.Info, node string) bool {
	if _, _, err := serviceaccount.SplitUsername(u.GetName()); err != nil || node == "" {
		return false
	}
	nodes := u.GetExtra()[serviceaccount.NodeNameKey]
	return len(nodes) == 1 && len(apivalidation.NameIsDNSSubdomain(nodes[0], false)) == 0 && nodes[0] == node
}
