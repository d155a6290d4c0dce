// Package store keeps the objects of a cluster: durable in an Engine (etcd, or
// memory for tests), and once more in this process as a live,
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
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/api"
)

// Store is safe for use by any goroutine.
type Store struct {
	engine  Engine
	opts    Options
	layout  atomic.Pointer[layout]
	commits *committer
	leases  *leases

	snap      atomic.Pointer[snapshot] // what is read
	delivered atomic.Int64             // revision up to which the rings are complete
	reached   gate                     // what writers and fresh reads wait for

	applying sync.Mutex // one applier at a time; guards trees, subscribers and the layout

	full atomic.Bool // creates are refused
	lost atomic.Bool // the watch of the engine is down

	life    context.Context // ends with Close
	end     context.CancelFunc
	running sync.WaitGroup
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
	// OnPressure is told every 30 seconds, by Run, how full the database is:
	// for the metric and the event. Nil: nobody.
	OnPressure func(Pressure)
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

// Page is a List that is gone through instead of held.
type Page struct {
	// Objects are in key order. They may be gone through more than once and are
	// the same each time; until that is over they keep the state they are from.
	Objects iter.Seq[api.Object]
	// Err says, after the objects have been gone through, why there are no more.
	// It is nil where nothing can fail.
	Err             func() error
	ResourceVersion string
	Continue        string
	Remaining       *int64 // as in List
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
	// seconds; expiries that lie close together are put together. 0: it stays,
	// also if it was written with a TTL before.
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
	// Unchanged answers the present object and writes nothing, unless it has to
	// be stored anew all the same (KV.Stale).
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

// Open loads the whole key space and starts the one watch that keeps the copy
// up to date. The engine belongs to the store afterwards, also on error.
func Open(ctx context.Context, e Engine, reg *api.Registry, opts Options) (*Store, error) {
	s, err := open(ctx, e, reg, opts)
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return s, nil
}

func open(ctx context.Context, e Engine, reg *api.Registry, opts Options) (*Store, error) {
	if opts.Clock == nil {
		opts.Clock = clock.RealClock{}
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	s := &Store{engine: e, opts: opts}
	first, err := newLayout(reg)
	if err != nil {
		return nil, fmt.Errorf("open the store: %w", err)
	}
	s.layout.Store(first)
	if err := s.checkFormat(ctx); err != nil {
		return nil, fmt.Errorf("open the store: %w", err)
	}
	revision, err := s.load(ctx)
	if err != nil {
		return nil, fmt.Errorf("open the store: %w", err)
	}
	s.delivered.Store(revision)
	s.reached.advance(revision)
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	stream, err := e.Watch(life, revision+1, false)
	if err != nil {
		end()
		return nil, fmt.Errorf("open the store: watch: %w", err)
	}
	s.life, s.end = life, end
	s.commits = newCommitter(s)
	s.leases = newLeases(e, opts.Clock)
	s.running.Add(1)
	go s.follow(life, stream)
	return s, nil
}

// Close ends all watches and closes the engine. Calls that are under way fail.
func (s *Store) Close() error {
	s.fail(apierrors.NewServiceUnavailable("the store is closed"))
	s.running.Wait()
	s.commits.wait()
	s.CheckMutations()
	return s.engine.Close()
}

// fail makes the store refuse to serve, and ends its watches.
func (s *Store) fail(err error) {
	if _, ok := err.(apierrors.APIStatus); !ok {
		s.opts.Logger.Error("the store cannot go on", "error", err)
		err = apierrors.NewInternalError(err)
	}
	s.reached.fail(err)
	s.end()
}

// readyWithin is how long the database may take to say that it is there.
const readyWithin = 2 * time.Second

// Ready says why the store cannot serve, or nil. It asks the database, whose watch
// may be silent although it is out of reach.
func (s *Store) Ready(ctx context.Context) error {
	if err := s.reached.err(); err != nil {
		return err
	}
	if s.lost.Load() {
		return apierrors.NewServiceUnavailable("the database is out of reach, and what is shown may be old")
	}
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	if _, err := s.engine.CurrentRevision(ctx); err != nil {
		return fmt.Errorf("ask the database for its revision: %w", err)
	}
	return nil
}

// Revision is the resource version that the copy has reached.
func (s *Store) Revision() string { return formatVersion(lastOf(s.snap.Load().revision)) }
