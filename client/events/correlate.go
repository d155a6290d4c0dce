package events

import (
	"fmt"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Limits of what one component says about one object, those of client-go.
const (
	// Each object has a bucket of spamBurst events, refilled by one every
	// spamRefill.
	spamBurst  = 25
	spamRefill = 5 * time.Minute
	// More than foldAfter different messages for one reason within foldWindow
	// are folded into one event.
	foldAfter  = 10
	foldWindow = 10 * time.Minute
	// remembered bounds each of the tables.
	remembered = 4096
)

const foldedPrefix = "(combined from similar events): "

// Correlator decides what is written for what is noted. It belongs to one
// goroutine and reads no clock.
type Correlator struct {
	source  v1.EventSource
	buckets *table[bucket]
	similar *table[similar]
	written *table[*v1.Event]
}

type bucket struct {
	tokens float64
	at     time.Time
}

type similar struct {
	messages map[string]bool
	last     time.Time
}

// Write is one event to be written: created, or updated when it Repeats one
// that was written before. The event belongs to the receiver.
type Write struct {
	Event   *v1.Event
	Repeats bool
	key     string
}

// NewCorrelator remembers nothing yet.
func NewCorrelator(source v1.EventSource) *Correlator {
	return &Correlator{source: source, buckets: newTable[bucket](), similar: newTable[similar](), written: newTable[*v1.Event]()}
}

// Note answers what to write, or false when the event is spam.
func (c *Correlator) Note(about v1.ObjectReference, kind, reason, message string, now time.Time) (Write, bool) {
	object := strings.Join([]string{about.Kind, about.Namespace, about.Name, string(about.UID), about.APIVersion}, "\x00")
	if !c.allow(object, now) {
		return Write{}, false
	}
	group := strings.Join([]string{object, about.FieldPath, kind, reason}, "\x00")
	key := group + "\x00" + message
	if c.fold(group, message, now) {
		key, message = group, foldedPrefix+message
	}
	stamp := metav1.NewTime(now)
	if old, ok := c.written.get(key); ok {
		e := old.DeepCopy()
		e.Count++
		e.LastTimestamp, e.Message = stamp, message
		return Write{Event: e, Repeats: true, key: key}, true
	}
	namespace := about.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	return Write{key: key, Event: &v1.Event{
		ObjectMeta:          metav1.ObjectMeta{Namespace: namespace, Name: eventName(about.Name, now)},
		InvolvedObject:      about,
		Reason:              reason,
		Message:             message,
		Type:                kind,
		Count:               1,
		FirstTimestamp:      stamp,
		LastTimestamp:       stamp,
		Source:              c.source,
		ReportingController: c.source.Component,
		ReportingInstance:   c.source.Host,
	}}, true
}

// Written notes what the API made of a write, so that a repetition updates it.
func (c *Correlator) Written(w Write, e *v1.Event) { c.written.put(w.key, e) }

// allow takes a token from the object's bucket.
func (c *Correlator) allow(object string, now time.Time) bool {
	b, ok := c.buckets.get(object)
	if !ok {
		b = bucket{tokens: spamBurst, at: now}
	}
	// A clock that was set back takes nothing away.
	b.tokens = min(spamBurst, b.tokens+float64(max(now.Sub(b.at), 0))/float64(spamRefill))
	b.at = now
	allowed := b.tokens >= 1
	if allowed {
		b.tokens--
	}
	c.buckets.put(object, b)
	return allowed
}

// fold says whether there have been too many different messages of a group.
func (c *Correlator) fold(group, message string, now time.Time) bool {
	s, ok := c.similar.get(group)
	if !ok || now.Sub(s.last) > foldWindow {
		s = similar{messages: map[string]bool{}}
	}
	s.last = now
	if len(s.messages) <= foldAfter {
		s.messages[message] = true
	}
	c.similar.put(group, s)
	return len(s.messages) > foldAfter
}

func eventName(object string, now time.Time) string {
	return fmt.Sprintf("%s.%x", object, now.UnixNano())
}

// table is a map that forgets: when it is full, everything that was not used
// since it was last half full goes.
type table[V any] struct{ fresh, stale map[string]V }

func newTable[V any]() *table[V] {
	return &table[V]{fresh: map[string]V{}, stale: map[string]V{}}
}

func (t *table[V]) get(key string) (V, bool) {
	if v, ok := t.fresh[key]; ok {
		return v, true
	}
	v, ok := t.stale[key]
	if ok {
		t.put(key, v)
	}
	return v, ok
}

func (t *table[V]) put(key string, v V) {
	if len(t.fresh) >= remembered/2 {
		t.fresh, t.stale = map[string]V{}, t.fresh
	}
	delete(t.stale, key)
	t.fresh[key] = v
}
