package modeltest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"pgregory.net/rapid"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"hansa.dev/hansa/api/kinds"
)

// media are the types of bodies and answers.
var media = []string{runtime.ContentTypeJSON, runtime.ContentTypeYAML, runtime.ContentTypeProtobuf, runtime.ContentTypeCBOR}

var drawMedia = rapid.SampledFrom(media)

// call is one request.
type call struct {
	method, path string
	contentType  string
	body         []byte
	accept       string
}

// answer is one answer: an object, a list or a status.
type answer struct {
	code int
	obj  map[string]any
}

func (r *run) do(c call) answer {
	r.Helper()
	req, err := http.NewRequestWithContext(r.ctx, c.method, r.server.URL+c.path, bytes.NewReader(c.body))
	if err != nil {
		r.Fatal(err)
	}
	if c.body != nil {
		req.Header.Set("Content-Type", c.contentType)
	}
	req.Header.Set("Accept", c.accept)
	req.Header.Set("User-Agent", defaultManager+"/1")
	resp, err := r.server.Client.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.Fatal(err)
	}
	if got := resp.Header.Get("Content-Type"); got != c.accept {
		r.Fatalf("%s %s is answered in %s, not %s: %s", c.method, c.path, got, c.accept, body)
	}
	obj, err := decode(c.accept, body)
	if err != nil {
		r.Fatalf("%s %s: %v", c.method, c.path, err)
	}
	return answer{resp.StatusCode, obj}
}

var serializer = protobuf.NewSerializer(kinds.Registry().Scheme(), kinds.Registry().Scheme())

func encode(mediaType string, obj map[string]any) ([]byte, error) {
	switch mediaType {
	case runtime.ContentTypeJSON:
		return json.Marshal(obj)
	case runtime.ContentTypeYAML:
		return yaml.Marshal(obj)
	case runtime.ContentTypeCBOR:
		return direct.Marshal(obj)
	}
	typed, err := typed(obj)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = serializer.Encode(typed, &b)
	return b.Bytes(), err
}

// typed is an object in its Go type.
func typed(obj map[string]any) (runtime.Object, error) {
	var of metav1.TypeMeta
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(obj, &of); err != nil {
		return nil, err
	}
	out, err := kinds.Registry().Scheme().New(schema.FromAPIVersionAndKind(of.APIVersion, of.Kind))
	if err != nil {
		return nil, err
	}
	return out, runtime.DefaultUnstructuredConverter.FromUnstructured(obj, out)
}

func decode(mediaType string, data []byte) (obj map[string]any, err error) {
	switch mediaType {
	case runtime.ContentTypeYAML:
		if data, err = yaml.YAMLToJSON(data); err != nil {
			return nil, err
		}
		fallthrough
	case runtime.ContentTypeJSON:
		err = kjson.UnmarshalCaseSensitivePreserveInts(data, &obj)
	case runtime.ContentTypeCBOR:
		err = direct.Unmarshal(data, &obj)
	default:
		var typed runtime.Object
		if typed, _, err = serializer.Decode(data, nil, nil); err == nil {
			obj, err = runtime.DefaultUnstructuredConverter.ToUnstructured(typed)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("decode %s %q: %w", mediaType, data, err)
	}
	return obj, nil
}
