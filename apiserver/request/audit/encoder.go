package audit

import (
	"context"
	"io"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	library "k8s.io/apiserver/pkg/audit"
)

// logRequest lets the library note an object that encode encodes.
func logRequest(ctx context.Context, obj runtime.Object, gvr schema.GroupVersionResource, subresource string, encode func() ([]byte, error)) {
	library.LogRequestObject(ctx, obj, gvr.GroupVersion(), gvr, subresource, encoding(encode))
}

// encoding is the library's serializer for one object, whose encoding is known.
type encoding func() ([]byte, error)

// SupportedMediaTypes implements runtime.NegotiatedSerializer.
func (encoding) SupportedMediaTypes() []runtime.SerializerInfo {
	return []runtime.SerializerInfo{{MediaType: runtime.ContentTypeJSON}}
}

// EncoderForVersion implements runtime.NegotiatedSerializer.
func (e encoding) EncoderForVersion(runtime.Encoder, runtime.GroupVersioner) runtime.Encoder {
	return e
}

// DecoderToVersion implements runtime.NegotiatedSerializer. Nothing is decoded.
func (encoding) DecoderToVersion(runtime.Decoder, runtime.GroupVersioner) runtime.Decoder { return nil }

// Encode implements runtime.Encoder.
func (e encoding) Encode(_ runtime.Object, w io.Writer) error {
	data, err := e()
	if err == nil {
		_, err = w.Write(data)
	}
	return err
}

// Identifier implements runtime.Encoder.
func (encoding) Identifier() runtime.Identifier { return "audit" }
