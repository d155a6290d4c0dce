package bootstrap

import (
	"strconv"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	defaults "k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"

	"hansa.dev/hansa/api"
)

// PlanFairness says what must be written for the FlowSchemas and
// PriorityLevelConfigurations of every cluster to be as they should. All are
// made when they are missing. The mandatory ones then always have the spec that
// the server knows; the suggested ones have it for as long as nobody has said
// otherwise, by the annotation apf.kubernetes.io/autoupdate-spec or, without
// one, by changing the spec. Objects that an earlier version suggested and
// nobody has taken over are deleted.
//
// The writes of a plan do not depend on one another, and a plan that has been
// done leaves none.
func PlanFairness(reg *api.Registry, view View) []Write {
	var writes []Write
	schemas, levels := reg.Must(flowcontrolv1.GroupName, "flowschemas"), reg.Must(flowcontrolv1.GroupName, "prioritylevelconfigurations")
	wanted := map[api.Ref]bool{}
	want := func(obj api.Object, mandatory bool) {
		ref := api.RefTo(reg.Of(obj), obj)
		wanted[ref] = true
		have := view.Get(ref.Resource, ref.Key())
		if have == nil {
			writes = append(writes, Write{Resource: ref.Resource, Create: obj.DeepCopyObject().(api.Object)})
		} else if next := revise(have, obj, mandatory); next != nil {
			writes = append(writes, Write{Resource: ref.Resource, Update: next})
		}
	}
	for _, pl := range defaults.MandatoryPriorityLevelConfigurations {
		want(pl, true)
	}
	for _, pl := range defaults.SuggestedPriorityLevelConfigurations {
		want(pl, false)
	}
	for _, fs := range defaults.MandatoryFlowSchemas {
		want(fs, true)
	}
	for _, fs := range defaults.SuggestedFlowSchemas {
		want(fs, false)
	}
	for _, r := range []*api.Resource{schemas, levels} {
		for obj := range view.List(r, "") {
			ours, err := strconv.ParseBool(obj.GetAnnotations()[flowcontrolv1.AutoUpdateAnnotationKey])
			if err == nil && ours && !wanted[api.RefTo(r, obj)] && obj.GetDeletionTimestamp() == nil {
				writes = append(writes, Write{Resource: r, Delete: obj})
			}
		}
	}
	return writes
}

// revise is a copy of have as it should be, or nil if it is.
func revise(have, want api.Object, mandatory bool) api.Object {
	said, err := strconv.ParseBool(have.GetAnnotations()[flowcontrolv1.AutoUpdateAnnotationKey])
	update := mandatory
	if !mandatory && err == nil {
		update = said
	} else if !mandatory {
		update = have.GetGeneration() == 1
	}
	next := have.DeepCopyObject().(api.Object)
	if update {
		replaceSpec(next, want)
	}
	if err != nil || said != update {
		annotations := next.GetAnnotations()
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[flowcontrolv1.AutoUpdateAnnotationKey] = strconv.FormatBool(update)
		next.SetAnnotations(annotations)
	}
	if equality.Semantic.DeepEqual(next, have) {
		return nil
	}
	return next
}

// replaceSpec gives next the spec of want. What the level "exempt" is promised
// of the seats is for the administrator to say, also in the mandatory object.
func replaceSpec(next, want api.Object) {
	switch want := want.(type) {
	case *flowcontrolv1.FlowSchema:
		want.Spec.DeepCopyInto(&next.(*flowcontrolv1.FlowSchema).Spec)
	case *flowcontrolv1.PriorityLevelConfiguration:
		next := next.(*flowcontrolv1.PriorityLevelConfiguration)
		had := next.Spec.Exempt
		want.Spec.DeepCopyInto(&next.Spec)
		if had != nil && next.Spec.Exempt != nil {
			next.Spec.Exempt = had
		}
	}
}
