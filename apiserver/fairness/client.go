package fairness

import (
	"context"
	"encoding/json"
	"fmt"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	applyv1 "k8s.io/client-go/applyconfigurations/flowcontrol/v1"
	typedv1 "k8s.io/client-go/kubernetes/typed/flowcontrol/v1"

	"hansa.dev/hansa/api"
)

// Writer is what the filter needs of a client with the server's own identity.
type Writer interface {
	Patch(ctx context.Context, ref api.Ref, kind types.PatchType, patch []byte, opts metav1.PatchOptions, subresource string) (api.Object, error)
}

// typed is client-go's client as far as the library uses it: it applies the
// condition Dangling to FlowSchemas. Of the rest nothing is there to be called.
type typed struct {
	typedv1.FlowcontrolV1Interface
	writer  Writer
	schemas *api.Resource
}

func (c typed) FlowSchemas() typedv1.FlowSchemaInterface { return flowSchemas{typed: c} }

type flowSchemas struct {
	typedv1.FlowSchemaInterface
	typed typed
}

// ApplyStatus applies a FlowSchema's status.
func (c flowSchemas) ApplyStatus(ctx context.Context, fs *applyv1.FlowSchemaApplyConfiguration, opts metav1.ApplyOptions) (*flowcontrolv1.FlowSchema, error) {
	patch, err := json.Marshal(fs)
	if err != nil {
		return nil, fmt.Errorf("encode the status of a FlowSchema: %w", err)
	}
	ref := api.Ref{Resource: c.typed.schemas, Name: *fs.GetName()}
	out, err := c.typed.writer.Patch(ctx, ref, types.ApplyYAMLPatchType, patch, opts.ToPatchOptions(), "status")
	if err != nil {
		return nil, err
	}
	return out.(*flowcontrolv1.FlowSchema), nil
}
