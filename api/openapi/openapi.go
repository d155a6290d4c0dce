// Package openapi has the OpenAPI documents of everything served, and the
// schemas by which server-side apply merges, as compressed data that
// `make generate` writes from the Go types.
//
// The documents are held compressed, the form in which nearly every client
// takes them.
package openapi

//go:generate go tool openapi-gen --output-dir ../../hack/openapi/definitions --output-pkg hansa.dev/hansa/hack/openapi/definitions --output-file zz_generated.go --report-filename /dev/null --go-header-file /dev/null k8s.io/api/admissionregistration/v1 k8s.io/api/apps/v1 k8s.io/api/authentication/v1 k8s.io/api/authorization/v1 k8s.io/api/autoscaling/v1 k8s.io/api/autoscaling/v2 k8s.io/api/batch/v1 k8s.io/api/certificates/v1 k8s.io/api/coordination/v1 k8s.io/api/core/v1 k8s.io/api/discovery/v1 k8s.io/api/events/v1 k8s.io/api/flowcontrol/v1 k8s.io/api/networking/v1 k8s.io/api/node/v1 k8s.io/api/policy/v1 k8s.io/api/rbac/v1 k8s.io/api/resource/v1 k8s.io/api/scheduling/v1 k8s.io/api/scheduling/v1alpha3 k8s.io/api/storage/v1 k8s.io/api/storagemigration/v1 k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1 k8s.io/apimachinery/pkg/apis/meta/v1 k8s.io/apimachinery/pkg/api/resource k8s.io/apimachinery/pkg/util/intstr k8s.io/apimachinery/pkg/runtime k8s.io/apimachinery/pkg/version k8s.io/kube-aggregator/pkg/apis/apiregistration/v1 k8s.io/metrics/pkg/apis/metrics/v1beta1
//go:generate go run -tags generate hansa.dev/hansa/hack/openapi -out data

import (
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"embed"
	"encoding/gob"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
)

//go:embed all:data
var data embed.FS

// Document is one OpenAPI document.
type Document struct {
	// Hash names its content: upper-case hex, as it stands in ETags and in the
	// v3 index.
	Hash string
	// make gives the document, compressed.
	make func() ([]byte, error)
}

// Gzip is the document, compressed. Not to be written to.
func (d Document) Gzip() ([]byte, error) { return d.make() }

// Open reads the document uncompressed.
func (d Document) Open() (io.ReadCloser, error) {
	data, err := d.make()
	if err != nil {
		return nil, err
	}
	return gzip.NewReader(bytes.NewReader(data))
}

func document(b []byte) Document {
	return Document{Hash: fmt.Sprintf("%X", sha512.Sum512(b)), make: func() ([]byte, error) { return b, nil }}
}

// Text is a document of its text.
func Text(text []byte) (Document, error) {
	data, err := zipped(func(w io.Writer) error { _, err := w.Write(text); return err })
	if err != nil {
		return Document{}, fmt.Errorf("compress a document: %w", err)
	}
	return document(data), nil
}

func mustRead(name string) []byte {
	b, err := data.ReadFile("data/" + name)
	if err != nil {
		panic(fmt.Sprintf("openapi: embedded data is incomplete, run make generate: %v", err))
	}
	return b
}

// V2JSON and V2Proto are the one v2 document in its two encodings.
var (
	V2JSON  = sync.OnceValue(func() Document { return document(mustRead("v2.json.gz")) })
	V2Proto = sync.OnceValue(func() Document { return document(mustRead("v2.pb.gz")) })
)

// V3 are the v3 documents by their path below /openapi/v3, such as "api/v1" or
// "apis/apps/v1". Not to be written to.
var V3 = sync.OnceValue(func() map[string]Document {
	docs := map[string]Document{}
	err := fs.WalkDir(data, "data/v3", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name := strings.TrimSuffix(strings.TrimPrefix(path, "data/v3/"), ".json.gz")
		docs[name] = document(mustRead(strings.TrimPrefix(path, "data/")))
		return nil
	})
	if err != nil {
		panic(fmt.Sprintf("openapi: embedded data is incomplete, run make generate: %v", err))
	}
	return docs
})

// TypeConverter knows how the objects of scheme are merged. Any goroutine may use
// it.
func TypeConverter(scheme *runtime.Scheme) (managedfields.TypeConverter, error) {
	p, err := parser()
	if err != nil {
		return nil, err
	}
	return managedfields.NewSchemeTypeConverter(scheme, p), nil
}

// parser has the merge schemas of all Go types, which are decoded at the first
// call.
var parser = sync.OnceValues(func() (*typed.Parser, error) {
	for _, v := range []any{map[string]any{}, []any{}, map[any]any{}} {
		gob.Register(v) // the types that a field's default may have
	}
	r, err := document(mustRead("schemas.gob.gz")).Open()
	if err != nil {
		return nil, fmt.Errorf("decode merge schemas: %w", err)
	}
	p := &typed.Parser{}
	if err := gob.NewDecoder(r).Decode(&p.Schema.Types); err != nil {
		return nil, fmt.Errorf("decode merge schemas: %w", err)
	}
	return p, nil
})

// metaPackage begins the names of the schemas that metadata is made of.
const metaPackage = "io.k8s.apimachinery.pkg.apis.meta.v1."

// MetaTypes are the merge schemas of metadata, for kinds that have no Go type. Not
// to be written to.
var MetaTypes = sync.OnceValues(func() ([]schema.TypeDef, error) {
	p, err := parser()
	if err != nil {
		return nil, err
	}
	var out []schema.TypeDef
	for _, t := range p.Schema.Types {
		if strings.HasPrefix(t.Name, metaPackage) {
			out = append(out, t)
		}
	}
	return out, nil
})
