package http

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
		s.notEncoded(w, r, err)
		return
	}
	if pretty && strings.HasPrefix(contentType, string(codec.JSON)) {
		data = indent(data)
	}
	h := w.Header()
	h["Content-Type"] = []string{contentType}
	if len(data) >= gzipThreshold && takesGzip(r) {
		compressed(h)
		w.WriteHeader(code)
		z := gzips.Get().(*gzip.Writer)
		defer gzips.Put(z)
		z.Reset(w)
		_, _ = z.Write(data)
		_ = z.Close()
		return
	}
	h["Content-Length"] = []string{strconv.Itoa(len(data))}
	w.WriteHeader(code)
	// A failed write means that the client has gone.
	_, _ = w.Write(data)
}

func compressed(h http.Header) {
	h.Set("Content-Encoding", "gzip")
	h.Add("Vary", "Accept-Encoding")
}

// writeList sends a list.
func (s *Server) writeList(w http.ResponseWriter, r *http.Request, list *codec.List, out output) {
	s.noteList(w, list)
	s.writePieces(w, r, http.StatusOK, out, func(to io.Writer) error { return s.Codec.WriteList(to, list, out.media) })
}

// writePieces sends what fill writes. What stays small is sent at once, with its
// length; what is larger as it comes, compressed for clients that take that.
func (s *Server) writePieces(w http.ResponseWriter, r *http.Request, code int, out output, fill func(io.Writer) error) {
	p := &piecewise{w: w, r: r, code: code, contentType: string(out.media), held: answers.Get().(*[]byte)}
	*p.held = (*p.held)[:0]
	defer p.release()
	var to io.Writer = p
	if out.pretty && out.media == codec.JSON {
		to = &indenter{to: p}
	}
	err := fill(to)
	if err == nil && to == io.Writer(p) && out.media == codec.JSON {
		_, err = p.Write([]byte{'\n'})
	}
	switch {
	case err == nil:
		p.finish()
	case p.gone:
	case p.to != nil:
		s.Logger.Error("encode answer", "path", r.URL.Path, "error", err)
		// The client must not take the part for the whole.
		panic(http.ErrAbortHandler)
	default:
		s.notEncoded(w, r, err)
	}
}

// notEncoded answers that there is an answer, but no form for it, or why it could
// not be brought into that.
func (s *Server) notEncoded(w http.ResponseWriter, r *http.Request, err error) {
	if apierrors.ReasonForError(err) != metav1.StatusReasonUnknown {
		s.fail(w, r, err)
		return
	}
	s.Logger.Error("encode answer", "path", r.URL.Path, "error", err)
	http.Error(w, "Internal Server Error: "+err.Error(), http.StatusInternalServerError)
}

// piecewise is an answer that comes in pieces. It holds them back until it is
// known to be large.
type piecewise struct {
	w           http.ResponseWriter
	r           *http.Request
	code        int
	contentType string
	held        *[]byte
	to          io.Writer // where pieces go once the answer has begun
	zip         *gzip.Writer
	gone        bool // the client does not read any more
}

// Write implements io.Writer.
func (p *piecewise) Write(b []byte) (int, error) {
	if p.to == nil {
		if len(*p.held)+len(b) < gzipThreshold {
			*p.held = append(*p.held, b...)
			return len(b), nil
		}
		p.begin()
		if _, err := p.send(*p.held); err != nil {
			return 0, err
		}
	}
	return p.send(b)
}

func (p *piecewise) begin() {
	h := p.w.Header()
	h["Content-Type"] = []string{p.contentType}
	p.to = p.w
	if takesGzip(p.r) {
		compressed(h)
		p.zip = gzips.Get().(*gzip.Writer)
		p.zip.Reset(p.w)
		p.to = p.zip
	}
	p.w.WriteHeader(p.code)
}

func (p *piecewise) send(b []byte) (int, error) {
	n, err := p.to.Write(b)
	p.gone = p.gone || err != nil
	return n, err
}

// finish sends what is left.
func (p *piecewise) finish() {
	switch {
	case p.zip != nil:
		_ = p.zip.Close()
	case p.to == nil:
		h := p.w.Header()
		h["Content-Type"] = []string{p.contentType}
		h["Content-Length"] = []string{strconv.Itoa(len(*p.held))}
		p.w.WriteHeader(p.code)
		_, _ = p.w.Write(*p.held)
	}
}

func (p *piecewise) release() {
	if p.zip != nil {
		gzips.Put(p.zip)
	}
	if cap(*p.held) <= largeBuffer {
		answers.Put(p.held)
	}
}

func indent(data []byte) []byte {
	var out bytes.Buffer
	if err := json.Indent(&out, bytes.TrimSuffix(data, []byte("\n")), "", "  "); err != nil {
		return data
	}
	return out.Bytes()
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
	s.noteValue(w, obj, kind)
	s.write(w, r, code, string(out.media), out.pretty, func(b []byte) ([]byte, error) {
		b, err := s.Codec.AppendValue(b, obj, kind, out.media)
		return newline(b, out.media, err)
	})
}

// writeObject sends a stored object in the request's version.
func (s *Server) writeObject(w http.ResponseWriter, r *http.Request, code int, obj api.Object, form codec.Form, out output) {
	s.noteObject(w, obj, form)
	s.write(w, r, code, string(out.media), out.pretty, func(b []byte) ([]byte, error) {
		b, err := s.Codec.Append(b, obj, form, out.media)
		return newline(b, out.media, err)
	})
}
