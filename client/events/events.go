// Package events tells users what happened to their objects. One recorder for
// all parts: it counts repetitions, folds similar events into one, drops what
// is spam and never blocks its caller.
//
// A pure Correlator decides what to write for what was noted; the Broadcaster
// around it has a bounded queue and one goroutine that writes through a client.
// A write that fails is tried again a few times and then
// dropped: events are help, not truth.
package events

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
)

// The types of events.
const (
	Normal  = v1.EventTypeNormal
	Warning = v1.EventTypeWarning
)

// Recorder notes events. Event may be called from any goroutine and returns at
// once. kind is Normal or Warning; reason is one word in UpperCamelCase that
// programs can switch on; message is a sentence for people.
type Recorder interface {
	Event(about v1.ObjectReference, kind, reason, message string)
}

// Func is a Recorder made of a function, for tests.
type Func func(about v1.ObjectReference, kind, reason, message string)

// Event calls f.
func (f Func) Event(about v1.ObjectReference, kind, reason, message string) {
	f(about, kind, reason, message)
}

// Discard is a Recorder that does nothing.
var Discard Recorder = Func(func(v1.ObjectReference, string, string, string) {})

// About refers to an object of a kind; fieldPath names the part of it that the
// event is about (spec.containers{web}), or is empty.
func About(gvk schema.GroupVersionKind, obj metav1.Object, fieldPath string) v1.ObjectReference {
	return v1.ObjectReference{
		APIVersion:      gvk.GroupVersion().String(),
		Kind:            gvk.Kind,
		Namespace:       obj.GetNamespace(),
		Name:            obj.GetName(),
		UID:             obj.GetUID(),
		ResourceVersion: obj.GetResourceVersion(),
		FieldPath:       fieldPath,
	}
}

// queueLength bounds the events that wait to be written.
const queueLength = 1000

// Broadcaster is the Recorder that writes to the API.
type Broadcaster struct {
	client client.Interface
	row    *api.Resource
	clock  clock.Clock
	log    *slog.Logger
	queue  chan *noted
	lost   atomic.Uint64
	corr   *Correlator
}

type noted struct {
	about                 v1.ObjectReference
	kind, reason, message string
	at                    time.Time
}

// New makes a recorder for a component ("kubelet", "deployment-controller") on
// a host (empty for none). Nothing is written before Run.
func New(c client.Interface, clk clock.Clock, component, host string, log *slog.Logger) *Broadcaster {
	return &Broadcaster{
		client: c,
		row:    c.Registry().Must("", "events"),
		clock:  clk,
		log:    log,
		queue:  make(chan *noted, queueLength),
		corr:   NewCorrelator(v1.EventSource{Component: component, Host: host}),
	}
}

// Event puts an event into the queue, or drops it when the queue is full.
func (b *Broadcaster) Event(about v1.ObjectReference, kind, reason, message string) {
	select {
	case b.queue <- &noted{about, kind, reason, message, b.clock.Now()}:
	default:
		b.lost.Add(1)
	}
}

// Lost is how many events were dropped because the queue was full.
func (b *Broadcaster) Lost() uint64 { return b.lost.Load() }

// Run writes events until the context ends.
func (b *Broadcaster) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case n := <-b.queue:
			b.write(ctx, n)
		}
	}
}

// Attempts of one write, and the pause between them.
const (
	writeAttempts = 4
	writePause    = time.Second
)

func (b *Broadcaster) write(ctx context.Context, n *noted) {
	w, ok := b.corr.Note(n.about, n.kind, n.reason, n.message, n.at)
	if !ok {
		return
	}
	for attempt := 1; ; attempt++ {
		written, err := b.put(ctx, w)
		if err == nil {
			b.corr.Written(w, written)
			return
		}
		if ctx.Err() != nil || refused(err) {
			// The namespace is going away, or we may not write there.
			b.log.Debug("event not written", "object", n.about.Namespace+"/"+n.about.Name, "reason", n.reason, "err", err)
			return
		}
		if attempt == writeAttempts {
			b.log.Warn("event dropped", "object", n.about.Namespace+"/"+n.about.Name, "reason", n.reason, "err", err)
			return
		}
		select {
		case <-ctx.Done():
		case <-b.clock.After(writePause):
		}
	}
}

// put updates the event that is being repeated, or creates a new one when
// there is none or it has expired.
func (b *Broadcaster) put(ctx context.Context, w Write) (*v1.Event, error) {
	if w.Repeats {
		obj, err := b.client.Update(ctx, b.row, w.Event.DeepCopy(), "")
		if err == nil {
			return asEvent(obj)
		}
		if !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return nil, err
		}
		w.Event.Name = eventName(w.Event.InvolvedObject.Name, w.Event.LastTimestamp.Time)
		w.Event.ResourceVersion, w.Event.UID = "", ""
	}
	obj, err := b.client.Create(ctx, b.row, w.Event.DeepCopy(), metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	return asEvent(obj)
}

func asEvent(obj api.Object) (*v1.Event, error) {
	e, ok := obj.(*v1.Event)
	if !ok {
		return nil, fmt.Errorf("write event: the answer is a %T", obj)
	}
	return e, nil
}

// refused says that another attempt would end the same way.
func refused(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) ||
		apierrors.IsNotFound(err) || apierrors.IsAlreadyExists(err) || apierrors.IsUnauthorized(err)
}
