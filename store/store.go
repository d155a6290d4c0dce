// Package store keeps the objects of a cluster: durable in an Engine (etcd, or
// memory for tests and simulation), and once more in this process as a live,
// indexed copy from which everything is read and watched.
//
// # Frozen objects
//
// Every object that leaves the store is shared with all other readers and must
// not be written to. It carries no TypeMeta (the row knows its kind) and its
// metadata.resourceVersion is set. An object given to a write belongs to the
// store afterwards.
//
// # Resource versions
//
// Objects of one etcd transaction share its revision, and clients resume a
// watch strictly after the last version they saw. Hence
//
//	resourceVersion = revision × 128 + slot
//
// where slot is the place of the write in its transaction, kept in the stored
// object's metadata.resourceVersion (empty stands for 0). Lists answer
// revision × 128 + 127: every write of that revision is in them.
//
// # Errors
//
// Errors are API status errors (k8s.io/apimachinery/pkg/api/errors), except for
// those of a context.
package store

import (
	"context"
	"errors"
	"log/slog"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/api"
)

// Store is safe for use by any goroutine.
type Store struct {
	engine Engine
}

// Options of Open. The zero value is good.
type Options struct {
	// Clock is read by Run and for expiring leases; nil is the real one.
	Clock clock.WithTicker
	// Logger is slog.Default when nil.
	Logger *slog.Logger
	// DetectMutations makes the store panic, naming the object, when somebody
	// wrote to one that it shares. It costs an encoding per object; tests
	// always have it on.
	DetectMutations bool
}

// Query selects objects of one resource. Every field that is set must hold.
type Query struct {
	Resource *api.Resource
	// Namespace is empty for all.
	Namespace string
	// Name selects one object.
	Name string
	// Match is asked last; it must be pure and fast, and is called from many
	// goroutines.
	Match func(api.Object) bool
	// Index and Value select by one of the resource's indexes.
	Index, Value string
}

// ListOptions are the options of a list as Kubernetes defines them.
type ListOptions struct {
	ResourceVersion      string
	ResourceVersionMatch metav1.ResourceVersionMatch
	Limit                int64 // 0: all
	Continue             string
}

// List is one page of objects in key order.
type List struct {
	Items           []api.Object
	ResourceVersion string
	Continue        string
	// Remaining is how many objects follow on later pages; nil when unknown,
	// which it is for queries with a Match or an Index.
	Remaining *int64
}

// WatchOptions say where a watch begins.
type WatchOptions struct {
	// ResourceVersion is the one after which to start. With "" and "0" (and
	// with SendInitialEvents) the watch begins with an ADDED for every object
	// there is: as of now for "", as of the copy for "0", as of that version
	// or later for any other.
	ResourceVersion string
	// SendInitialEvents ends the initial ADDED events with a BOOKMARK.
	SendInitialEvents bool
}

// Event is one change as a watcher sees it. Of an object that ceased to match
// the watcher's query the event is a DELETED.
type Event struct {
	Type watch.EventType
	// Object is, for DELETED, the last state with the resource version of the
	// deletion; for BOOKMARK nil: the initial events are over, and
	// Watcher.Progress is the version that they show.
	Object api.Object

	enc *encodings
}

// WriteOptions accompany any write.
type WriteOptions struct {
	// Fence refuses the write unless its key still has that create revision.
	Fence *Fence
	// TTL lets the object disappear by itself after that time, rounded up to
	// seconds; expiries within some seconds are put together. 0: it stays.
	TTL time.Duration
	// With are raw keys written in the same transaction, all or nothing.
	With []Side
}

// Side is a raw key written along with an object.
type Side struct {
	// Key below /registry/; not one at which a resource keeps objects.
	Key string
	// Revision is the modification revision expected; 0 for an absent key.
	Revision int64
	// Value nil deletes the key.
	Value []byte
}

// Fence names a key of an election (whole, not below /registry/) and the
// revision at which the present leader created it.
type Fence struct {
	Key            string
	CreateRevision int64
}

// Outcome is what an update's function wants done.
type Outcome struct {
	// Object is the new state; the function made it, the store owns it then.
	Object api.Object
	// Delete removes the object. Object may be nil then; if it is not, it is
	// the last state that watchers and the caller see.
	Delete bool
	// With adds to WriteOptions.With.
	With []Side
	// Unchanged answers the present object and writes nothing.
	Unchanged bool
}

// Write is one write of a batch: Create, or Change as in Update.
type Write struct {
	Ref     api.Ref
	Create  api.Object
	Change  func(cur api.Object) (Outcome, error)
	Options WriteOptions
}

// Result answers one Write.
type Result struct {
	Object api.Object
	Err    error
}

// Engine keeps raw keys and values with revisions.
type Engine interface {
	Close() error
}

type encodings struct{}

var errTodo = errors.New("not there yet")

// Open loads the whole key space and starts the one watch that keeps the copy
// up to date. The engine belongs to the store afterwards, also on error.
func Open(ctx context.Context, e Engine, reg *api.Registry, opts Options) (*Store, error) {
	return nil, errTodo
}

// Close ends all watches and closes the engine.
func (s *Store) Close() error { return s.engine.Close() }

// Run compacts the history and watches the quota until the context ends.
func (s *Store) Run(ctx context.Context) error { return errTodo }

// Get reads one object: the newest state for resourceVersion "", the copy as
// it is for "0", and a state not older than any other version.
func (s *Store) Get(ctx context.Context, ref api.Ref, resourceVersion string) (api.Object, error) {
	return nil, errTodo
}

// List reads the objects of a query from one consistent state.
func (s *Store) List(ctx context.Context, q Query, o ListOptions) (List, error) {
	return List{}, errTodo
}

// Watcher delivers the changes of a query. It belongs to one goroutine, but
// for Stop and Progress.
type Watcher struct{}

// Watch starts a watch.
func (s *Store) Watch(ctx context.Context, q Query, o WatchOptions) (*Watcher, error) {
	return nil, errTodo
}

// Next blocks until there is at least one event and gives a batch, in order.
// The slice is the watcher's and valid until the next call. The error is
// 410 Expired when the watcher fell too far behind.
func (w *Watcher) Next(ctx context.Context) ([]Event, error) { return nil, errTodo }

// Progress is the resource version up to which everything was delivered.
func (w *Watcher) Progress() string { return "" }

// Stop ends the watch; a blocked Next returns.
func (w *Watcher) Stop() {}

// Encoded gives what encode gives, computed once for all watchers that see
// this event with this key. It is kept only as long as the event is recent.
// The bytes are shared and must not be written to.
func (e *Event) Encoded(key string, encode func() ([]byte, error)) ([]byte, error) { return encode() }

// Raw reads a raw key (below /registry/), newest state. An absent key has
// modification revision 0.
func (s *Store) Raw(ctx context.Context, key string) (value []byte, modRevision int64, err error) {
	return nil, 0, errTodo
}

// Create stores a new object under its namespace and name, or fails with
// AlreadyExists.
func (s *Store) Create(ctx context.Context, r *api.Resource, obj api.Object, o WriteOptions) (api.Object, error) {
	return nil, errTodo
}

// Update calls change with the newest object (nil if there is none; then an
// Outcome.Object creates it) and writes the outcome, again and again until no
// other write came in between. change must be pure; cur is frozen.
func (s *Store) Update(ctx context.Context, ref api.Ref, o WriteOptions, change func(cur api.Object) (Outcome, error)) (api.Object, error) {
	return nil, errTodo
}

// Delete removes an object if check (which may be nil) has no objection, and
// answers its last state with the resource version of the deletion.
func (s *Store) Delete(ctx context.Context, ref api.Ref, o WriteOptions, check func(cur api.Object) error) (api.Object, error) {
	return nil, errTodo
}

// Batch does many writes in few transactions. Each succeeds or fails alone, and
// their order is not kept. Results are in the order of ws.
func (s *Store) Batch(ctx context.Context, ws []Write) []Result { return nil }

// Revision is the resource version that the copy has reached.
func (s *Store) Revision() string { return "" }

// Ready says why the store cannot serve, or nil.
func (s *Store) Ready() error { return errTodo }
