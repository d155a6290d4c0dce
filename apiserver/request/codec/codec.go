// Package codec turns the bytes of a client into objects and objects into
// bytes, in the media types of the API. It keeps no state but a bounded cache
// of encodings; it knows nothing of HTTP.
//
// An object of the API has three shapes: what the client sent (one version of
// a kind), the hub object that everything in the server works on, and bytes.
// Decode goes from the first to the second, Encode from the second to the
// third.
package codec

import (
	"fmt"

	internalversionscheme "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"

	"hansa.dev/hansa/api"
)

// MediaType is a form of bytes that objects are written in.
type MediaType string

// The media types of objects.
const (
	JSON     MediaType = MediaType(runtime.ContentTypeJSON)
	YAML     MediaType = MediaType(runtime.ContentTypeYAML)
	Protobuf MediaType = MediaType(runtime.ContentTypeProtobuf)
	CBOR     MediaType = MediaType(runtime.ContentTypeCBOR)
)

// MediaTypes are all of them, the preferred one first, as error texts list them.
var MediaTypes = []MediaType{JSON, YAML, Protobuf, CBOR}

// Codec decodes and encodes the objects of one registry. Its methods may be
// called from any goroutine.
type Codec struct {
	registry *api.Registry
	scheme   *runtime.Scheme
	lenient  map[MediaType]runtime.Serializer
	strict   map[MediaType]runtime.Serializer
	options  map[MediaType]runtime.Serializer // see DecodeOptions
	cache    *cache
}

// New makes a codec whose cache keeps at most cacheBytes of encodings.
func New(registry *api.Registry, cacheBytes int) *Codec {
	s := registry.Scheme()
	return &Codec{
		registry: registry,
		scheme:   s,
		lenient:  serializers(s, false),
		strict:   serializers(s, true),
		options:  serializers(internalversionscheme.Scheme, false),
		cache:    newCache(cacheBytes),
	}
}

// serializers are those of a scheme for every media type.
func serializers(s *runtime.Scheme, strict bool) map[MediaType]runtime.Serializer {
	text := func(yaml bool) runtime.Serializer {
		return json.NewSerializerWithOptions(json.DefaultMetaFactory, s, s, json.SerializerOptions{Yaml: yaml, Strict: strict})
	}
	return map[MediaType]runtime.Serializer{
		JSON: text(false), YAML: text(true), Protobuf: protobuf.NewSerializer(s, s), CBOR: cbor.NewSerializer(s, s, cbor.Strict(strict)),
	}
}

// Form is what a body is supposed to be: a kind in one version, the maker of
// its Go type, and its way to the hub (nil when it is the hub, or has none).
type Form struct {
	schema.GroupVersionKind
	New     func() runtime.Object
	ToHub   func(api.Object) (api.Object, error)
	FromHub func(api.Object) (api.Object, error)
	// Parse is the row's, for a hub.
	Parse func(api.Object) error
	// Tree makes the object of decoded JSON, where New cannot be decoded into.
	Tree func(tree map[string]any, strict bool) (api.Object, []error, error)
	// List is the kind of lists; empty: Kind with "List" behind it.
	List string
	// of tells the forms of one kind apart that differ in nothing else, since its
	// definition was changed.
	of *api.Version
}

// ListKind is the kind of a list of what has the form.
func (f Form) ListKind() schema.GroupVersionKind {
	if f.List != "" {
		return f.GroupVersion().WithKind(f.List)
	}
	return f.GroupVersion().WithKind(f.Kind + "List")
}

// FormOf is the form of a served version of a kind.
func FormOf(s *api.Served) Form {
	return Form{
		GroupVersionKind: s.Version.WithKind(s.Kind),
		New:              func() runtime.Object { return s.Version.New() },
		ToHub:            s.Version.ToHub,
		FromHub:          s.Version.FromHub,
		Parse:            s.Parse,
		Tree:             s.Version.Decode,
		List:             s.ListKind,
		of:               s.Version,
	}
}

// shape is a hub object in the form's version. It may share memory with obj.
func (f Form) shape(obj api.Object) (api.Object, error) {
	if f.FromHub == nil {
		return obj, nil
	}
	versioned, err := f.FromHub(obj)
	if err != nil {
		return nil, fmt.Errorf("convert %s to %s: %w", f.Kind, f.GroupVersion(), err)
	}
	return versioned, nil
}
