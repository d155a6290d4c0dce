package http

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/websocket"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/apiserver/request/codec"
	"hansa.dev/hansa/store"
)

const (
	// bookmarkEvery is how often a watch without changes says how far it is.
	bookmarkEvery = time.Minute
	// lastBookmark is how long before its end a watch says once more how far it
	// is, so that the next one can begin there.
	lastBookmark = 2 * time.Second
	// stall is how long a client may read nothing before its watch is dropped.
	// It is put off with each tick.
	stall = 2 * bookmarkEvery
	// A watch whose client names no end lasts between one and two times this.
	minWatch = 30 * time.Minute
)

// watchMedia is what watches can be streamed in.
var watchMedia = []codec.MediaType{codec.JSON, codec.Protobuf, codec.CBOR}

// stream writes the events of one watch. It belongs to one goroutine.
type stream struct {
	*call
	form    codec.Form
	shape   string // names the form of frames among all
	include metav1.IncludeObjectPolicy
	// headed says that a table's columns have been sent.
	headed    bool
	bookmarks bool
	// send passes on one frame; flush makes sure that the client has it.
	send  func([]byte) error
	flush func()
	// until is by when what is written has to be gone; the zero time is never.
	until func(time.Time) error
	buf   []byte
}

// watch serves a watch until the client goes, its time is over or the server
// stops.
func (c *call) watch() error {
	opts, err := c.listOptions()
	if err != nil {
		return err
	}
	opts.Watch = true
	if c.out, err = c.negotiate(c.r, offer{media: watchMedia, transforms: true, stream: true, noProtobuf: c.info.IsTree()}); err != nil {
		return err
	}
	if c.out.as.Kind == "PartialObjectMetadataList" {
		c.out.as.Kind = "PartialObjectMetadata"
	}
	s := &stream{call: c, form: codec.FormOf(c.info.Served), bookmarks: opts.AllowWatchBookmarks}
	s.shape = string(c.out.media) + s.form.GroupVersion().String() + c.out.as.Kind + c.out.as.Version
	if c.info.Served.View != nil {
		// A definition that was changed may show the same object differently.
		s.shape += fmt.Sprintf("%p", c.info.Served.Version)
	}
	if c.out.as.Kind == "Table" {
		if s.include, err = c.tableOptions(); err != nil {
			return err
		}
	}
	watcher, err := c.Watch(c.ctx, c.info, opts)
	serve := func() { s.fault(err) }
	switch {
	case err == nil:
		defer watcher.Stop()
		if opts.SendInitialEvents == nil || !*opts.SendInitialEvents {
			c.started()
		}
		life := time.Duration(float64(minWatch) * (1 + rand.Float64()))
		if opts.TimeoutSeconds != nil && *opts.TimeoutSeconds > 0 {
			life = time.Duration(*opts.TimeoutSeconds) * time.Second
		}
		serve = func() { s.run(watcher, life) }
	case !outOfReach(err):
		return err
	}
	// Of a version out of reach a client hears by an event, as it would of one
	// that becomes too old later: some look nowhere else.
	if isWebSocket(c.r) {
		s.overWebSocket(serve)
	} else {
		s.overHTTP(serve)
	}
	return nil
}

// outOfReach is the error of a version that is too old, or too long in coming.
func outOfReach(err error) bool { return apierrors.IsResourceExpired(err) || apierrors.IsTimeout(err) }

func (s *stream) overHTTP(serve func()) {
	s.w.Header().Set("Content-Type", streamType(s.out.media))
	s.w.WriteHeader(http.StatusOK)
	s.w.Flush()
	s.send = func(b []byte) error {
		_, err := s.w.Write(b)
		return err
	}
	s.flush, s.until = s.w.Flush, http.NewResponseController(s.w.ResponseWriter).SetWriteDeadline
	serve()
}

// streamType is the media type of a stream of events.
func streamType(media codec.MediaType) string {
	switch media {
	case codec.JSON:
		return string(media)
	case codec.CBOR:
		return runtime.ContentTypeCBORSequence
	}
	return string(media) + ";stream=watch"
}

func isWebSocket(r *http.Request) bool {
	return strings.EqualFold(r.Header.Get("Upgrade"), "websocket") && upgrades(r)
}

// upgrades says whether a request asks for another protocol on its connection.
func upgrades(r *http.Request) bool {
	return strings.Contains(strings.ToLower(r.Header.Get("Connection")), "upgrade")
}

func (s *stream) overWebSocket(serve func()) {
	s.w.Header().Set("Content-Type", string(s.out.media))
	handler := func(ws *websocket.Conn) {
		defer ws.Close()
		ctx, cancel := context.WithCancel(s.ctx)
		defer cancel()
		s.ctx = ctx
		go func() {
			awaitClose(ws)
			cancel()
		}()
		s.send = func(b []byte) error {
			if s.out.media == codec.JSON {
				return websocket.Message.Send(ws, string(b))
			}
			return websocket.Message.Send(ws, b)
		}
		s.flush, s.until = func() {}, ws.SetWriteDeadline
		serve()
	}
	websocket.Server{Handler: handler}.ServeHTTP(s.w, s.r)
}

// ready is a channel that is always so.
var ready = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// run passes events on until there is a reason to end.
func (s *stream) run(watcher *store.Watcher, life time.Duration) {
	clock := s.Config.Clock
	end := clock.NewTimer(life)
	defer end.Stop()
	var last <-chan time.Time
	if life > lastBookmark {
		timer := clock.NewTimer(life - lastBookmark)
		defer timer.Stop()
		last = timer.C()
	}
	tick := clock.NewTicker(bookmarkEvery)
	defer tick.Stop()
	// A watcher that does not read keeps what it has yet to be told of.
	_ = s.until(clock.Now().Add(stall))
	defer s.until(time.Time{}) //nolint:errcheck // where there is no deadline there is none to end
	for {
		events, more, err := watcher.Poll(s.ctx)
		if err != nil {
			s.fault(err)
			return
		}
		if len(events) > 0 {
			if err := s.events(watcher, events); err != nil {
				s.broken(err)
				return
			}
			more = ready
		}
		select {
		case <-more:
		case <-watcher.Done():
		case <-tick.C():
			_ = s.until(clock.Now().Add(stall))
			err = s.progress(watcher)
		case <-last:
			err = s.progress(watcher)
		case <-s.ctx.Done():
			return
		case <-s.ending:
			return
		case <-s.info.Served.Ended:
			return
		case <-end.C():
			return
		}
		if err != nil {
			s.broken(err)
			return
		}
	}
}

// progress tells a client that wants to know how far it has come.
func (s *stream) progress(watcher *store.Watcher) error {
	if !s.bookmarks {
		return nil
	}
	defer s.flush()
	return s.bookmark(watcher.Progress(), false)
}

// broken notes why a watch ends, unless it is that the client went.
func (s *stream) broken(err error) {
	if !errors.Is(err, errGone) {
		s.Logger.Warn("watch ended", "path", s.r.URL.Path, "error", err)
	}
}

// errGone is a client that does not read any more.
var errGone = errors.New("client has gone")

func (s *stream) events(watcher *store.Watcher, events []store.Event) error {
	for i := range events {
		if events[i].Type == watch.Bookmark {
			s.started()
			if !s.bookmarks {
				continue
			}
			if err := s.bookmark(watcher.Progress(), true); err != nil {
				return err
			}
			continue
		}
		frame, err := s.frame(&events[i])
		if err != nil {
			return err
		}
		if s.send(frame) != nil {
			return errGone
		}
	}
	s.metrics.watchEvents(s.info, len(events))
	s.flush()
	return nil
}

// frame is an event as it goes over the wire; all watchers that want the same
// form share one.
func (s *stream) frame(e *store.Event) ([]byte, error) {
	if s.out.as.Kind == "Table" {
		return s.tableFrame(string(e.Type), e.Object)
	}
	return e.Encoded(s.shape, func() ([]byte, error) {
		object, err := s.object(e.Object)
		if err != nil {
			return nil, err
		}
		return appendFrame(nil, string(e.Type), object, s.out.media)
	})
}

func (s *stream) object(obj api.Object) ([]byte, error) {
	s.buf = s.buf[:0]
	var err error
	if s.out.as.Kind == "PartialObjectMetadata" {
		s.buf, err = s.Codec.AppendValue(s.buf, metadataOf(obj), s.out.as, s.out.media)
	} else {
		s.buf, err = s.Codec.Append(s.buf, obj, s.form, s.out.media)
	}
	return s.buf, err
}

// appendFrame wraps an encoded object as a watch event: a line of JSON, a
// length and a protobuf message, or an item of CBOR.
func appendFrame(b []byte, event string, object []byte, media codec.MediaType) ([]byte, error) {
	switch media {
	case codec.CBOR:
		return codec.AppendCBOREvent(b, event, object), nil
	case codec.Protobuf:
		e := &metav1.WatchEvent{Type: event, Object: runtime.RawExtension{Raw: object}}
		data, err := e.Marshal()
		if err != nil {
			return b, err
		}
		b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
		return append(b, data...), nil
	}
	b = append(b, `{"type":`...)
	b = strconv.AppendQuote(b, event)
	b = append(append(b, `,"object":`...), object...)
	return append(b, "}\n"...), nil
}

func (s *stream) tableFrame(event string, obj api.Object) ([]byte, error) {
	t, err := s.table([]api.Object{obj}, metav1.ListMeta{ResourceVersion: obj.GetResourceVersion()}, s.include, !s.headed, false)
	if err != nil {
		return nil, err
	}
	s.headed = true
	object, err := s.Codec.AppendValue(nil, t, s.metaKind("Table"), s.out.media)
	if err != nil {
		return nil, err
	}
	return appendFrame(nil, event, object, s.out.media)
}

// bookmark tells the version up to which the client has seen everything, and
// where asked for that the initial events are over.
func (s *stream) bookmark(version string, initial bool) error {
	if version == "" {
		return nil
	}
	obj := s.info.Served.New()
	obj.SetResourceVersion(version)
	if initial {
		obj.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	var frame []byte
	var err error
	if s.out.as.Kind == "Table" {
		frame, err = s.tableFrame(string(watch.Bookmark), obj)
	} else {
		var object []byte
		if object, err = s.object(obj); err == nil {
			frame, err = appendFrame(nil, string(watch.Bookmark), object, s.out.media)
		}
	}
	if err != nil {
		return err
	}
	if s.send(frame) != nil {
		return errGone
	}
	return nil
}

// fault tells the client why its watch ends.
func (s *stream) fault(err error) {
	if s.ctx.Err() != nil {
		return
	}
	status := request.StatusOf(err)
	if !outOfReach(err) {
		s.Logger.Warn("watch failed", "path", s.r.URL.Path, "error", err)
	}
	object, err := s.Codec.AppendValue(nil, status, metav1.Unversioned.WithKind("Status"), s.out.media)
	if err != nil {
		return
	}
	frame, err := appendFrame(nil, string(watch.Error), object, s.out.media)
	if err == nil && s.send(frame) == nil {
		s.flush()
	}
}
