package paths

import (
	"fmt"
	"strconv"
	"strings"

	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// parameter is one query or path parameter.
type parameter struct {
	name, in, kind, description string
	required                    bool
}

func query(name, kind, description string) parameter {
	return parameter{name: name, in: "query", kind: kind, description: description}
}

func nameParam(kind string) parameter {
	return parameter{name: "name", in: "path", kind: "string", required: true, description: "name of the " + kind}
}

var (
	namespaceParam = parameter{name: "namespace", in: "path", kind: "string", required: true, description: "object name and auth scope, such as for teams and projects"}
	prettyParam    = query("pretty", "string", "If 'true', then the output is pretty printed.")
	forceParam     = query("force", "boolean", "Take over fields that others manage, instead of answering with a conflict. Only for apply.")

	writeParams = []parameter{
		query("dryRun", "string", "With the value All, everything is done but nothing is stored."),
		query("fieldManager", "string", "Name of whoever makes this change, at most 128 printable characters."),
		query("fieldValidation", "string", "What to do about unknown and duplicate fields: Ignore, Warn or Strict."),
	}
	deleteParams = []parameter{
		query("dryRun", "string", "With the value All, everything is done but nothing is stored."),
		query("gracePeriodSeconds", "integer", "Seconds before the object is deleted; zero deletes at once."),
		query("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean", "Delete an object that cannot be read from the store, without finalizers and preconditions. What belongs to it may be left behind, and break the cluster."),
		query("orphanDependents", "boolean", "Deprecated: use propagationPolicy. Whether dependents are orphaned."),
		query("propagationPolicy", "string", "What becomes of dependents: Orphan, Background or Foreground."),
	}
	collectionParams = []parameter{
		query("continue", "string", "Token of the page before, to get the next one."),
		query("fieldSelector", "string", "Restrict the objects by their fields."),
		query("labelSelector", "string", "Restrict the objects by their labels."),
		query("limit", "integer", "The most objects to answer with at once."),
		query("resourceVersion", "string", "The version that the answer is to have, or to be newer than."),
		query("resourceVersionMatch", "string", "How resourceVersion applies to a list: Exact or NotOlderThan."),
		query("sendInitialEvents", "boolean", "Begin a watch with an event for each object there is, and a bookmark."),
		query("timeoutSeconds", "integer", "End the call after this time."),
	}
	listParams = append([]parameter{
		query("allowWatchBookmarks", "boolean", "Ask for bookmark events, by which a watch can be resumed."),
		query("watch", "boolean", "Stream changes instead of answering with a list."),
	}, collectionParams...)

	streamParams = []parameter{
		query("container", "string", "The container; it may be left out where a pod has one alone."),
		query("stderr", "boolean", "Pass on the standard error."),
		query("stdin", "boolean", "Pass on the standard input."),
		query("stdout", "boolean", "Pass on the standard output."),
		query("tty", "boolean", "Give the process a terminal."),
	}
	// optionParams are those of subresources that lead elsewhere, by name.
	optionParams = map[string][]parameter{
		"attach":      streamParams,
		"exec":        append([]parameter{query("command", "string", "The command and its arguments, each a parameter; no shell is involved.")}, streamParams...),
		"portforward": {query("ports", "integer", "The ports to forward. Needed over WebSockets.")},
		"proxy":       {query("path", "string", "The path to ask for behind the proxy.")},
		"log": {
			streamParams[0],
			query("follow", "boolean", "Go on with what is logged from now on."),
			query("insecureSkipTLSVerifyBackend", "boolean", "Do not check the certificate of the node."),
			query("limitBytes", "integer", "End after so many bytes."),
			query("previous", "boolean", "The log of the container's run before this one."),
			query("sinceSeconds", "integer", "Begin so many seconds ago."),
			query("stream", "string", "All, Stdout or Stderr."),
			query("tailLines", "integer", "Begin so many lines before the end."),
			query("timestamps", "boolean", "Begin each line with its time."),
		},
	}
)

// The encodings of answers, CBOR among them, which Kubernetes has behind a gate.
// Bodies are taken in each of them.
var (
	produces       = []string{"application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "application/cbor"}
	watchProduces  = []string{"application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch", "application/cbor-seq"}
	customProduces = []string{"application/json", "application/yaml", "application/cbor"}
	anything       = []string{"*/*"}
)

func (o operation) extensions() spec.VendorExtensible {
	if o.action == "" {
		return spec.VendorExtensible{}
	}
	return spec.VendorExtensible{Extensions: spec.Extensions{
		"x-kubernetes-action":             o.action,
		"x-kubernetes-group-version-kind": map[string]string{"group": o.gvk.Group, "version": o.gvk.Version, "kind": o.gvk.Kind},
	}}
}

func (o operation) consumed() []string {
	if o.consumes != nil {
		return o.consumes
	}
	return anything
}

func statusText(code int) string {
	switch code {
	case 201:
		return "Created"
	case 202:
		return "Accepted"
	}
	return "OK"
}

func (p parameter) v2() spec.Parameter {
	return spec.Parameter{
		SimpleSchema:      spec.SimpleSchema{Type: p.kind},
		CommonValidations: spec.CommonValidations{UniqueItems: true},
		ParamProps:        spec.ParamProps{Name: p.name, In: p.in, Description: p.description, Required: p.required},
	}
}

// V2 is the path in a document of version 2.
func (p Path) V2() spec.PathItem {
	var item spec.PathItem
	for _, q := range p.params {
		item.Parameters = append(item.Parameters, q.v2())
	}
	for _, o := range p.operations {
		op := &spec.Operation{VendorExtensible: o.extensions(), OperationProps: spec.OperationProps{
			ID: o.id, Description: o.description, Tags: []string{o.tag},
			Produces: o.produces, Schemes: []string{"https"},
			Responses: &spec.Responses{ResponsesProps: spec.ResponsesProps{StatusCodeResponses: map[int]spec.Response{
				401: {ResponseProps: spec.ResponseProps{Description: "Unauthorized"}},
			}}},
		}}
		for _, q := range o.params {
			op.Parameters = append(op.Parameters, q.v2())
		}
		if o.body != "" {
			op.Consumes = o.consumed()
			op.Parameters = append(op.Parameters, spec.Parameter{ParamProps: spec.ParamProps{
				Name: "body", In: "body", Required: o.method != "DELETE", Schema: refTo("#/definitions/", o.body),
			}})
		}
		for _, code := range o.status {
			r := spec.Response{ResponseProps: spec.ResponseProps{Description: statusText(code)}}
			if o.answer != "" {
				r.Schema = schemaOf("#/definitions/", o.answer)
			}
			op.Responses.StatusCodeResponses[code] = r
		}
		*place(o.method, &item.Get, &item.Post, &item.Put, &item.Delete, &item.Patch, &item.Head, &item.Options) = op
	}
	return item
}

func (p parameter) v3() *spec3.Parameter {
	return &spec3.Parameter{ParameterProps: spec3.ParameterProps{
		Name: p.name, In: p.in, Description: p.description, Required: p.required,
		Schema: &spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{p.kind}, UniqueItems: true}},
	}}
}

// V3 is the path in a document of version 3.
func (p Path) V3() *spec3.Path {
	item := &spec3.Path{}
	for _, q := range p.params {
		item.Parameters = append(item.Parameters, q.v3())
	}
	for _, o := range p.operations {
		op := &spec3.Operation{VendorExtensible: o.extensions(), OperationProps: spec3.OperationProps{
			OperationId: o.id, Description: o.description, Tags: []string{o.tag},
			Responses: &spec3.Responses{ResponsesProps: spec3.ResponsesProps{StatusCodeResponses: map[int]*spec3.Response{
				401: {ResponseProps: spec3.ResponseProps{Description: "Unauthorized"}},
			}}},
		}}
		for _, q := range o.params {
			op.Parameters = append(op.Parameters, q.v3())
		}
		if o.body != "" {
			op.RequestBody = &spec3.RequestBody{RequestBodyProps: spec3.RequestBodyProps{Required: o.method != "DELETE", Content: content(o.consumed(), o.body)}}
		}
		for _, code := range o.status {
			r := &spec3.Response{ResponseProps: spec3.ResponseProps{Description: statusText(code)}}
			if o.answer != "" {
				r.Content = content(o.produces, o.answer)
			}
			op.Responses.StatusCodeResponses[code] = r
		}
		*place(o.method, &item.Get, &item.Post, &item.Put, &item.Delete, &item.Patch, &item.Head, &item.Options) = op
	}
	return item
}

// place is where a path has the operation of a method.
func place[T any](method string, get, post, put, del, patch, head, options *T) *T {
	switch method {
	case "GET":
		return get
	case "POST":
		return post
	case "PUT":
		return put
	case "DELETE":
		return del
	case "PATCH":
		return patch
	case "HEAD":
		return head
	case "OPTIONS":
		return options
	}
	panic("no path has a " + method) // operations are made in this package
}

func content(types []string, model string) map[string]*spec3.MediaType {
	c := map[string]*spec3.MediaType{}
	for _, t := range types {
		c[t] = &spec3.MediaType{MediaTypeProps: spec3.MediaTypeProps{Schema: schemaOf("#/components/schemas/", model)}}
	}
	return c
}

// schemaOf is the schema of a model, or of plainText.
func schemaOf(prefix, model string) *spec.Schema {
	if model == plainText {
		return spec.StringProperty()
	}
	return refTo(prefix, model)
}

func refTo(prefix, model string) *spec.Schema {
	ref, err := spec.NewRef(prefix + model)
	if err != nil {
		panic(fmt.Sprintf("reference to %s: %v", strconv.Quote(strings.TrimSpace(model)), err))
	}
	return &spec.Schema{SchemaProps: spec.SchemaProps{Ref: ref}}
}
