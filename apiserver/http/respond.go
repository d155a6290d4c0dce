package http

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/request/codec"
)

// gzipThreshold is the size from which an answer is compressed for clients
// that take it. Below it the work costs more than the wire.
const gzipThreshold = 128 << 10

// largeBuffer is the size above which a buffer is not kept for reuse.
const largeBuffer = 256 << 10

// answers holds the buffers that answers are put together in.
var answers = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

// gzips compress at the lowest level, which costs a fraction of the default
// and is nearly as small for JSON.
var gzips = sync.Pool{New: func() any {
	z, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	if err != nil {
		panic(err) // the level is a constant
	}
	return z
}}

// write sends an answer whose bytes are put together by fill.
func (s *Server) write(w http.ResponseWriter, r *http.Request, code int, contentType string, pretty bool, fill func([]byte) ([]byte, error)) {
	buf := answers.Get().(*[]byte)
	data, err := fill((*buf)[:0])
	defer func() {
		if cap(data) <= largeBuffer {
			*buf = data
			answers.Put(buf)
		}
	}()
	if err != nil {
		s.Logger.Error("encode answer", "path", r.URL.Path, "error", err)
		http.Error(w, "Internal Server Error: "+err.Error(), http.StatusInternalServerError)
		return
	}
	if pretty && strings.HasPrefix(contentType, string(codec.JSON)) {
		data = indent(data)
	}
	h := w.Header()
	h["Content-Type"] = []string{contentType}
	if len(data) >= gzipThreshold && takesGzip(r) {
		h.Set("Content-Encoding", "gzip")
		h.Add("Vary", "Accept-Encoding")
		w.WriteHeader(code)
		compress(w, data)
		return
	}
	h["Content-Length"] = []string{strconv.Itoa(len(data))}
	w.WriteHeader(code)
	// A failed write means that the client has gone.
	_, _ = w.Write(data)
}

func indent(data []byte) []byte {
	var out bytes.Buffer
	if err := json.Indent(&out, bytes.TrimSuffix(data, []byte("\n")), "", "  "); err != nil {
		return data
	}
	return out.Bytes()
}

func compress(w http.ResponseWriter, data []byte) {
	z := gzips.Get().(*gzip.Writer)
	defer gzips.Put(z)
	z.Reset(w)
	_, _ = z.Write(data)
	_ = z.Close()
}

func takesGzip(r *http.Request) bool {
	for _, encoding := range strings.Split(r.Header.Get("Accept-Encoding"), ",") {
		name, params, _ := strings.Cut(encoding, ";")
		if strings.TrimSpace(name) == "gzip" && strings.TrimSpace(params) != "q=0" {
			return true
		}
	}
	return false
}

// newline ends a JSON answer, as Kubernetes' do.
func newline(data []byte, media codec.MediaType, err error) ([]byte, error) {
	if err == nil && media == codec.JSON {
		data = append(data, '\n')
	}
	return data, err
}

// writeValue sends an object that is not stored.
func (s *Server) writeValue(w http.ResponseWriter, r *http.Request, code int, obj runtime.Object, kind schema.GroupVersionKind, out output) {
	s.write(w, r, code, string(out.media), out.pretty, func(b []byte) ([]byte, error) {
		b, err := s.Codec.AppendValue(b, obj, kind, out.media)
		return newline(b, out.media, err)
	})
}

// writeObject sends a stored object in the request's version.
func (s *Server) writeObject(w http.ResponseWriter, r *http.Request, code int, obj api.Object, form codec.Form, out output) {
	s.write(w, r, code, string(out.media), out.pretty, func(b []byte) ([]byte, error) {
		b, err := s.Codec.Append(b, obj, form, out.media)
		return newline(b, out.media, err)
	})
}
