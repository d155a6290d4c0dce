package aggregation

import (
	"context"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	"k8s.io/kube-openapi/pkg/aggregator"
	"k8s.io/kube-openapi/pkg/openapiconv"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"hansa.dev/hansa/api/openapi"
)

// describeTimeout is how long a remote may take for each of its documents.
const describeTimeout = time.Minute

// documents are how a remote describes its group-version. Immutable.
type documents struct {
	etag string        // of v2, as the remote gave it or of its bytes
	v2   *spec.Swagger // without what is not of the group-version; nil: none
	// v3 is where the remote has the document of its group-version, as it stands in
	// the index; "": nowhere. converted takes its place then.
	v3        string
	converted *openapi.Document
}

// describe asks for the documents. Nil: as they were.
func (r *Remote) describe(ctx context.Context) (*documents, error) {
	docs := &documents{}
	if r.docs != nil {
		*docs = *r.docs
	}
	index, err := r.index(ctx)
	if err != nil {
		return nil, err
	}
	docs.v3 = index
	changed, err := r.swagger(ctx, docs)
	if err != nil {
		docs.v2, docs.etag = nil, ""
	}
	if docs.v3 != "" {
		docs.converted = nil
	} else if changed || docs.converted == nil {
		docs.converted = convert(docs.v2)
	}
	if r.docs != nil && *docs == *r.docs {
		return nil, err
	}
	return docs, err
}

// index finds the group-version in the index of version 3; "" for a server
// without.
func (r *Remote) index(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, describeTimeout)
	defer cancel()
	got, err := r.get(ctx, describer, "/openapi/v3", "application/json", "")
	switch {
	case err != nil:
		return "", err
	case got.code == http.StatusNotFound:
		return "", nil
	case got.code != http.StatusOK:
		return "", fmt.Errorf("could not get list of group versions for APIService %s: %d", r.service.Name, got.code)
	}
	var list struct {
		Paths map[string]struct {
			ServerRelativeURL string `json:"serverRelativeURL"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(got.body, &list); err != nil {
		return "", fmt.Errorf("decode OpenAPI v3 index: %w", err)
	}
	return list.Paths[strings.TrimPrefix(r.Discovery(), "/")].ServerRelativeURL, nil
}

// swagger reads the document of version 2, and answers whether it is another one.
func (r *Remote) swagger(ctx context.Context, docs *documents) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, describeTimeout)
	defer cancel()
	got, err := r.get(ctx, describer, "/openapi/v2", "application/json", docs.etag)
	switch {
	case err != nil:
		return false, err
	case got.code == http.StatusNotModified && docs.etag != "":
		return false, nil
	case got.code == http.StatusNotFound:
		had := docs.v2 != nil
		docs.v2, docs.etag = nil, ""
		return had, nil
	case got.code != http.StatusOK:
		return false, fmt.Errorf("failed to retrieve openAPI spec, http error: %d", got.code)
	}
	etag := got.header.Get("Etag")
	if etag == "" {
		etag = fmt.Sprintf("%X", sha512.Sum512(got.body))
	}
	if etag == docs.etag {
		return false, nil
	}
	swagger, err := filtered(got.body, r.Discovery()+"/")
	if err != nil {
		return false, err
	}
	docs.v2, docs.etag = swagger, etag
	return true, nil
}

// filtered reads a document of version 2 and leaves in it what is below a path.
// What readers of either encoding would stumble over is refused, so that it does
// not break the document of all.
func filtered(body []byte, below string) (*spec.Swagger, error) {
	whole := &spec.Swagger{}
	if err := whole.UnmarshalJSON(body); err != nil {
		return nil, fmt.Errorf("decode OpenAPI v2: %w", err)
	}
	if whole.Paths == nil || len(whole.Paths.Paths) == 0 {
		return nil, nil
	}
	part := aggregator.FilterSpecByPathsWithoutSideEffects(whole, []string{below})
	if len(part.Paths.Paths) == 0 {
		return nil, nil
	}
	part.SwaggerProps = spec.SwaggerProps{
		Swagger: "2.0", Info: &spec.Info{InfoProps: spec.InfoProps{Title: "Hansa", Version: "v1"}},
		Paths: part.Paths, Definitions: part.Definitions, Parameters: part.Parameters,
	}
	text, err := json.Marshal(part)
	if err != nil {
		return nil, fmt.Errorf("encode OpenAPI v2: %w", err)
	}
	if _, err := openapi_v2.ParseDocument(text); err != nil {
		return nil, fmt.Errorf("read OpenAPI v2: %w", err)
	}
	return part, nil
}

// convert makes a document of version 3 of one of version 2, for servers that
// have only that; nil for none.
func convert(v2 *spec.Swagger) *openapi.Document {
	if v2 == nil {
		return nil
	}
	text, err := json.Marshal(openapiconv.ConvertV2ToV3(v2))
	if err != nil {
		return nil // it was JSON before
	}
	doc, err := openapi.Text(text)
	if err != nil {
		return nil
	}
	return &doc
}

// V3 are the OpenAPI documents of version 3 of remote group-versions, by their
// path below /openapi/v3: what stands in the index.
func (st *State) V3() map[string]string {
	out := map[string]string{}
	for _, r := range st.Remotes() {
		name := strings.TrimPrefix(r.Discovery(), "/")
		switch {
		case r.docs == nil:
		case r.docs.v3 != "":
			out[name] = r.docs.v3
		case r.docs.converted != nil:
			out[name] = "/openapi/v3/" + name + "?hash=" + r.docs.converted.Hash
		}
	}
	return out
}

// Described finds who has the OpenAPI document of version 3 with a name: the
// document itself where it is this server's, converted from version 2. Both are
// nil for names that are not remote.
func (st *State) Described(name string) (*Remote, *openapi.Document) {
	for _, r := range st.Remotes() {
		if r.docs != nil && name == strings.TrimPrefix(r.Discovery(), "/") {
			if r.docs.v3 == "" {
				return nil, r.docs.converted
			}
			return r, nil
		}
	}
	return nil, nil
}
