package http

import (
	"bytes"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/validate/content"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/request/audit"
	"hansa.dev/hansa/apiserver/request/codec"
)

// note begins the audit record of a request, for which it gives a request with
// the record in its context.
func (s *Server) note(w *response, r *http.Request, a *authorizer.AttributesRecord, refused bool, received time.Time, u user.Info) *http.Request {
	if !refused {
		a.User = u
	}
	ctx, record := s.Audit.Begin(&audit.Request{
		Request: r, ID: w.Header()[auditHeader][0], Received: received, Attributes: a, Long: isLong(a), Refused: refused,
	})
	w.audit = record
	if record == nil {
		return r
	}
	return r.WithContext(ctx)
}

// isLong says whether a request's answer is a stream.
func isLong(a *authorizer.AttributesRecord) bool {
	return a.Verb == "watch" || lasts(a.Subresource) || strings.HasPrefix(a.Path, profiles)
}

// lasts says whether requests for a subresource are ones that last, whatever
// their options: Kubernetes' list.
func lasts(subresource string) bool {
	switch subresource {
	case "attach", "exec", "log", "portforward", "proxy":
		return true
	}
	return false
}

// profiles may last as well.
const profiles = "/debug/pprof/"

// resourceAttributes are what a request's URL says, whether or not it names
// something that is served.
func resourceAttributes(verb string, t target, q url.Values) *authorizer.AttributesRecord {
	a := &authorizer.AttributesRecord{
		Verb: verb, ResourceRequest: true, Namespace: t.namespace, Name: t.name,
		APIGroup: t.group, APIVersion: t.version, Resource: t.plural, Subresource: t.sub,
	}
	if a.Name == "" && (verb == "list" || verb == "watch") {
		a.Name = selectedName(q.Get("fieldSelector"))
	}
	return a
}

// selectedName is the name that a field selector asks for, or "".
func selectedName(text string) string {
	if !strings.Contains(text, "metadata.name") {
		return ""
	}
	selector, err := fields.ParseSelector(text)
	if err != nil {
		return ""
	}
	name, ok := selector.RequiresExactMatch("metadata.name")
	if !ok || len(content.IsPathSegmentName(name)) > 0 {
		return ""
	}
	return name
}

// auditOf is the record of the request that w answers.
func auditOf(w http.ResponseWriter) *audit.Record {
	if own, ok := w.(*response); ok {
		return own.audit
	}
	return nil
}

// noteValue, noteObject and noteList note what is answered, if anybody wants it.

func (s *Server) noteValue(w http.ResponseWriter, obj runtime.Object, kind schema.GroupVersionKind) {
	if a := auditOf(w); a != nil {
		status, _ := obj.(*metav1.Status)
		a.Answer(status, func() ([]byte, error) { return s.Codec.AppendValue(nil, obj, kind, codec.JSON) })
	}
}

func (s *Server) noteObject(w http.ResponseWriter, obj api.Object, form codec.Form) {
	if a := auditOf(w); a != nil {
		a.Answer(nil, func() ([]byte, error) { return s.Codec.Append(nil, obj, form, codec.JSON) })
	}
}

func (s *Server) noteList(w http.ResponseWriter, list *codec.List) {
	if a := auditOf(w); a != nil {
		a.Answer(nil, func() ([]byte, error) {
			var whole bytes.Buffer
			err := s.Codec.WriteList(&whole, list, codec.JSON)
			return slices.Clip(whole.Bytes()), err
		})
	}
}
