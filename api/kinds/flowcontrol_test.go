package kinds_test

import (
	"slices"
	"testing"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
)

// TestFlowBootstrap lets in all that every cluster starts with.
func TestFlowBootstrap(t *testing.T) {
	var objects []api.Object
	for _, f := range slices.Concat(bootstrap.MandatoryFlowSchemas, bootstrap.SuggestedFlowSchemas) {
		objects = append(objects, f.DeepCopy())
	}
	for _, p := range slices.Concat(bootstrap.MandatoryPriorityLevelConfigurations, bootstrap.SuggestedPriorityLevelConfigurations) {
		objects = append(objects, p.DeepCopy())
	}
	for _, obj := range objects {
		row := kinds.Registry().Of(obj)
		row.Default(obj)
		if errs := row.Validate(obj); len(errs) > 0 {
			t.Errorf("%s %s: %v", row.Singular, obj.GetName(), errs)
		}
	}
	if n := len(objects); n < 10 || kinds.Registry().Must(flowcontrolv1.GroupName, "flowschemas") == nil {
		t.Errorf("only %d objects", n)
	}
}
