package http

import (
	"fmt"
	"net/http"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/apiserver/request/codec"
)

func statusError(code int32, reason metav1.StatusReason, message string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: code, Reason: reason, Message: message,
	}}
}

func notAcceptable(o offer) error {
	suffix := ""
	if o.stream {
		suffix = ";stream=watch"
	}
	return statusError(http.StatusNotAcceptable, metav1.StatusReasonNotAcceptable,
		"only the following media types are accepted: "+joinMedia(o.media, suffix))
}

func unsupportedMedia[T ~string](media []T) error {
	return statusError(http.StatusUnsupportedMediaType, metav1.StatusReasonUnsupportedMediaType,
		"the body of the request was in an unknown format - accepted media types include: "+joinMedia(media, ""))
}

// fail answers with an error, in the media type that the client takes if that
// can be told, else in JSON for people.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	status := request.StatusOf(err)
	if d := status.Details; d != nil && d.RetryAfterSeconds > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(d.RetryAfterSeconds)))
	}
	if status.Code >= http.StatusInternalServerError && status.Code != http.StatusServiceUnavailable && r.Context().Err() == nil {
		s.Logger.Warn("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	out, negotiated := s.negotiate(r, offer{media: codec.MediaTypes})
	if negotiated != nil {
		out = output{media: codec.JSON, pretty: true} // as Kubernetes writes it then
	}
	s.writeStatus(w, r, int(status.Code), status, out)
}

func (s *Server) writeStatus(w http.ResponseWriter, r *http.Request, code int, status *metav1.Status, out output) {
	kind := metav1.SchemeGroupVersion
	kind.Group = ""
	s.writeValue(w, r, code, status, kind.WithKind("Status"), out)
}

// notFound is the answer to a path that names nothing.
func notFound(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(http.StatusNotFound)
	fmt.Fprint(w, "404 page not found\n")
}
