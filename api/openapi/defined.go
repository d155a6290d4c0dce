package openapi

import (
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"strings"
	"sync"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	"google.golang.org/protobuf/proto"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/openapi/paths"
)

// Defined are the documents of everything that a registry serves: those of the Go
// types as they are embedded, and for kinds that are defined what is made of their
// schemas when somebody asks. Its methods may be called from any goroutine.
type Defined struct {
	registry *api.Registry
	others   func() (list []*spec.Swagger, ended <-chan struct{}) // nil: none

	mu    sync.Mutex
	until [2]<-chan struct{} // when what follows is out of date
	v2    [2]*Document       // JSON and protobuf
	v3    map[string]Document
	made  map[string]Document // v3 documents of before that may still be good
}

// NewDefined makes the documents of a registry, and of what other servers
// describe in version 2, until ended: valid documents with nothing in them but
// their own, the most important first. No others: nil.
func NewDefined(reg *api.Registry, others func() (list []*spec.Swagger, ended <-chan struct{})) *Defined {
	d := &Defined{registry: reg, others: others}
	d.renew()
	return d
}

func (d *Defined) renew() {
	d.until[0] = d.registry.Changed()
	if d.others != nil {
		_, d.until[1] = d.others()
	}
}

// refresh forgets what is out of date. The caller holds d.mu.
func (d *Defined) refresh() {
	rows, others := over(d.until[0]), over(d.until[1])
	if rows {
		d.made, d.v3 = d.v3, nil
	}
	if rows || others {
		d.v2 = [2]*Document{}
		d.renew()
	}
}

func over(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// defined are the versions that are served of kinds without a Go type.
func (d *Defined) defined() (out []*api.Served) {
	for _, s := range d.registry.Served() {
		if s.Version.OpenAPI != nil {
			out = append(out, s)
		}
	}
	return out
}

// V3 are the v3 documents by their path below /openapi/v3. Not to be written to.
func (d *Defined) V3() map[string]Document {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refresh(); d.v3 != nil {
		return d.v3
	}
	groups := map[string][]*api.Served{}
	for _, s := range d.defined() {
		root := paths.Root(s.Version.GroupVersion)
		groups[root] = append(groups[root], s)
		groups["apis/"+s.Version.Group] = append(groups["apis/"+s.Version.Group], s)
	}
	base := V3()
	all := make(map[string]Document, len(base)+len(groups))
	maps.Copy(all, base)
	for root, served := range groups {
		built, ours := base[root]
		if ours && strings.Count(root, "/") < 2 {
			continue // the group is described already, as such
		}
		h := sha512.New()
		io.WriteString(h, built.Hash)
		for _, s := range served {
			io.WriteString(h, s.Version.Revision)
		}
		hash := fmt.Sprintf("%X", h.Sum(nil))
		if had, ok := d.made[root]; ok && had.Hash == hash {
			all[root] = had
			continue
		}
		all[root] = Document{Hash: hash, make: sync.OnceValues(func() ([]byte, error) {
			if !ours {
				return buildV3(root, served, nil)
			}
			return buildV3(root, served, &built)
		})}
	}
	d.v3, d.made = all, nil
	return all
}

// buildV3 makes one document. built is what there is of kinds of the same version
// that have Go types, or nil.
func buildV3(root string, served []*api.Served, built *Document) ([]byte, error) {
	doc := &spec3.OpenAPI{Version: "3.0.0", Info: info, Components: &spec3.Components{}, Paths: &spec3.Paths{Paths: map[string]*spec3.Path{}}}
	var mine []paths.Path
	for _, p := range paths.Of(served, func(string) bool { return false }) {
		if p.Group == root {
			mine = append(mine, p)
			doc.Paths.Paths[p.URL] = p.V3()
		}
	}
	common, err := commonV3()
	if err != nil {
		return nil, err
	}
	doc.Components.Schemas = map[string]*spec.Schema{}
	wanted := paths.Models(mine)
	for _, s := range served {
		kinds, err := schemas(s, "#/components/schemas/")
		if err != nil {
			return nil, err
		}
		for name, schema := range kinds {
			if wanted[name] {
				doc.Components.Schemas[name] = schema
			}
		}
	}
	text, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	var whole map[string]json.RawMessage
	if err := json.Unmarshal(text, &whole); err != nil {
		return nil, err
	}
	if whole["components"], err = with(whole["components"], common, text); err != nil {
		return nil, err
	}
	if built != nil {
		if err := join(whole, *built); err != nil {
			return nil, err
		}
	}
	if text, err = json.Marshal(whole); err != nil {
		return nil, err
	}
	return zipped(func(w io.Writer) error { _, err := w.Write(text); return err })
}

// join adds the paths and components of a document to another one's; where both
// have something the added one counts.
func join(into map[string]json.RawMessage, doc Document) error {
	r, err := doc.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	more := map[string]json.RawMessage{}
	if err := json.NewDecoder(r).Decode(&more); err != nil {
		return err
	}
	for part, depth := range map[string]int{"paths": 1, "components": 2} {
		if into[part], err = joinMembers(into[part], more[part], depth); err != nil {
			return fmt.Errorf("join the %s of two documents: %w", part, err)
		}
	}
	return nil
}

// joinMembers joins two objects of JSON, and those that are members of both down
// to a depth.
func joinMembers(into, more json.RawMessage, depth int) (json.RawMessage, error) {
	if depth == 0 || len(into) == 0 {
		return more, nil
	}
	a, b := map[string]json.RawMessage{}, map[string]json.RawMessage{}
	if err := json.Unmarshal(into, &a); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(more, &b); err != nil {
		return nil, err
	}
	for name := range b {
		joined, err := joinMembers(a[name], b[name], depth-1)
		if err != nil {
			return nil, err
		}
		a[name] = joined
	}
	return json.Marshal(a)
}

var info = &spec.Info{InfoProps: spec.InfoProps{Title: "Hansa", Version: "v1.37.2"}}

// with adds those of the common schemas to components that anything mentions,
// directly or through another.
func with(components json.RawMessage, common map[string]json.RawMessage, text []byte) (json.RawMessage, error) {
	var c struct {
		Schemas map[string]json.RawMessage `json:"schemas"`
	}
	if err := json.Unmarshal(components, &c); err != nil {
		return nil, err
	}
	if c.Schemas == nil {
		c.Schemas = map[string]json.RawMessage{}
	}
	for todo := [][]byte{text}; len(todo) > 0; todo = todo[1:] {
		for name, schema := range common {
			if c.Schemas[name] == nil && bytes.Contains(todo[0], []byte(`/`+name+`"`)) {
				c.Schemas[name] = schema
				todo = append(todo, schema)
			}
		}
	}
	return json.Marshal(c)
}

// commonV3 are the schemas that all kinds share, from a document that has them.
var commonV3 = sync.OnceValues(func() (map[string]json.RawMessage, error) {
	r, err := V3()["apis/apps/v1"].Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var doc struct {
		Components struct{ Schemas map[string]json.RawMessage }
	}
	if err := json.NewDecoder(r).Decode(&doc); err != nil {
		return nil, err
	}
	common := map[string]json.RawMessage{}
	for name, s := range doc.Components.Schemas {
		if strings.HasPrefix(name, "io.k8s.apimachinery.") || strings.HasPrefix(name, "io.k8s.api.autoscaling.") {
			common[name] = s
		}
	}
	return common, nil
})

// schemas are those of a kind and of its list.
func schemas(s *api.Served, prefix string) (map[string]*spec.Schema, error) {
	own, err := s.Version.OpenAPI(prefix)
	if err != nil {
		return nil, err
	}
	own.AddExtension("x-kubernetes-group-version-kind", gvks(s, s.Kind))
	list := &spec.Schema{SchemaProps: spec.SchemaProps{
		Type: []string{"object"}, Required: []string{"items"},
		Description: s.ListKind + " is a list of " + s.Kind,
		Properties: map[string]spec.Schema{
			"apiVersion": *spec.StringProperty().WithDescription("The version of the list, GROUP/VERSION."),
			"kind":       *spec.StringProperty().WithDescription("The kind of the list."),
			"metadata":   *spec.RefSchema(prefix + metaPackage + "ListMeta").WithDescription("Metadata of the list."),
			"items":      *spec.ArrayProperty(spec.RefSchema(prefix + paths.Model(s.Resource, s.Version, s.Kind))).WithDescription("The objects."),
		},
	}}
	list.AddExtension("x-kubernetes-group-version-kind", gvks(s, s.ListKind))
	return map[string]*spec.Schema{
		paths.Model(s.Resource, s.Version, s.Kind):     own,
		paths.Model(s.Resource, s.Version, s.ListKind): list,
	}, nil
}

func gvks(s *api.Served, kind string) []any {
	gv := s.Version.GroupVersion
	return []any{map[string]any{"group": gv.Group, "version": gv.Version, "kind": kind}}
}

// V2JSON and V2Proto are the one v2 document in its two encodings.
func (d *Defined) V2JSON() Document  { return d.documentV2(0, V2JSON, spliceJSON) }
func (d *Defined) V2Proto() Document { return d.documentV2(1, V2Proto, appendProto) }

func (d *Defined) documentV2(form int, base func() Document, add func(io.Writer, io.Reader, *spec.Swagger) error) Document {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refresh()
	if d.v2[form] != nil {
		return *d.v2[form]
	}
	served := d.defined()
	var others []*spec.Swagger
	if d.others != nil {
		others, d.until[1] = d.others()
	}
	if len(served) == 0 && len(others) == 0 {
		return base()
	}
	data, err := mergeV2(base(), served, others, add)
	if err != nil && len(others) > 0 {
		data, err = mergeV2(base(), served, nil, add)
	}
	if err != nil {
		return base() // better than none; schemas were valid when they were written
	}
	doc := document(data)
	d.v2[form] = &doc
	return doc
}

func mergeV2(base Document, served []*api.Served, others []*spec.Swagger, add func(io.Writer, io.Reader, *spec.Swagger) error) ([]byte, error) {
	more := &spec.Swagger{SwaggerProps: spec.SwaggerProps{
		Swagger: "2.0", Info: info, Definitions: spec.Definitions{}, Paths: &spec.Paths{Paths: map[string]spec.PathItem{}},
	}}
	builtin := V3()
	known := func(url string) bool {
		_, ok := builtin[strings.Trim(url, "/")]
		return ok
	}
	for _, p := range paths.Of(served, known) {
		more.Paths.Paths[p.URL] = p.V2()
	}
	for _, s := range served {
		kinds, err := schemas(s, "#/definitions/")
		if err != nil {
			return nil, err
		}
		for name, schema := range kinds {
			more.Definitions[name] = *schema
		}
	}
	for _, other := range others {
		if err := addOther(more, other); err != nil {
			return nil, err
		}
	}
	r, err := base.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return zipped(func(w io.Writer) error { return add(w, r, more) })
}

// spliceJSON puts more paths and definitions before those that a document has.
func spliceJSON(w io.Writer, base io.Reader, more *spec.Swagger) error {
	text, err := io.ReadAll(base)
	if err != nil {
		return err
	}
	if len(more.Parameters) > 0 { // of which the document has none
		added, err := json.Marshal(more.Parameters)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, `{"parameters":%s,`, added); err != nil {
			return err
		}
		text = text[1:]
	}
	for _, part := range []struct {
		head string
		more any
	}{{`"paths":{`, more.Paths}, {`"definitions":{`, more.Definitions}} {
		added, err := json.Marshal(part.more)
		if err != nil {
			return err
		}
		if len(added) <= len("{}") {
			continue
		}
		before, after, ok := bytes.Cut(text, []byte(part.head))
		if !ok {
			return fmt.Errorf("the embedded document has no %s", part.head)
		}
		for _, b := range [][]byte{before, []byte(part.head), added[1 : len(added)-1], []byte(",")} {
			if _, err := w.Write(b); err != nil {
				return err
			}
		}
		text = after
	}
	_, err = w.Write(text)
	return err
}

// appendProto relies on messages that stand behind each other being merged.
func appendProto(w io.Writer, base io.Reader, more *spec.Swagger) error {
	text, err := json.Marshal(more)
	if err != nil {
		return err
	}
	doc, err := openapi_v2.ParseDocument(text)
	if err != nil {
		return err
	}
	doc.Swagger, doc.Info = "", nil
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(doc)
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, base); err != nil {
		return err
	}
	_, err = w.Write(data)
	return err
}

// zipped compresses what fill writes.
func zipped(fill func(io.Writer) error) ([]byte, error) {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	if err := fill(z); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
