// Package aggregation knows the group-versions that other servers answer for, as
// APIServices say: where their servers are, how they are believed, what they
// serve and how they describe it. Package http passes requests on to them.
//
// Whether a server is available is found out by a loop (controller/apiservice)
// and read here from the status of its APIService.
package aggregation

import (
	"context"
	"crypto/tls"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
)

// View is what a Server needs of the store's view.
type View interface {
	List(r *api.Resource, namespace string) iter.Seq[api.Object]
	Subscribe(r *api.Resource, f func(old, new api.Object)) (cancel func())
}

// Config is what a Server is made of; all of it must be set.
type Config struct {
	Registry *api.Registry
	View     View
	// Resolve finds where a port of a service is answered, HOST:PORT.
	Resolve func(namespace, name string, port int32) (host string, err error)
	// TLS shows this server's certificate as a front proxy; the result belongs to
	// the caller.
	TLS   func() *tls.Config
	Clock clock.WithTicker
	Log   *slog.Logger
}

// Server follows the APIServices that are answered for by other servers:
//
//	APIService written ─▶ remote in the State ─▶ asked for discovery, OpenAPI ─▶ in the State
//	                      (requests pass)        (each minute, and when it changes)
//
// Each has a goroutine that asks it, so that one that hangs keeps nobody waiting.
// Where there is none, nothing runs. A nil Server has no remotes.
type Server struct {
	Config
	services *api.Resource
	state    atomic.Pointer[State]
	wake     chan struct{}

	mu      sync.Mutex // guards what follows, and the making of states
	workers map[string]*worker
	// moved are the local group-versions with priorities that are not the usual.
	moved map[schema.GroupVersion]kinds.Priority
	group sync.WaitGroup
}

// State is what is known at one moment. Immutable. A nil State knows nothing.
type State struct {
	remotes map[schema.GroupVersion]*Remote
	moved   map[schema.GroupVersion]kinds.Priority
	specs   *Specs
	ended   chan struct{}
}

// Specs are the OpenAPI documents of version 2 of remote group-versions, without
// what is not theirs, those of higher priority first. Immutable.
type Specs struct {
	List  []*spec.Swagger
	Ended <-chan struct{} // closed when there are others
	ended chan struct{}
}

// New makes a server that knows nothing yet.
func New(c Config) *Server {
	s := &Server{
		Config: c, services: c.Registry.Must(apiregistrationv1.GroupName, "apiservices"),
		wake: make(chan struct{}, 1), workers: map[string]*worker{},
	}
	none := make(chan struct{})
	s.state.Store(&State{ended: make(chan struct{}), specs: &Specs{Ended: none, ended: none}})
	return s
}

// State is what is known now.
func (s *Server) State() *State {
	if s == nil {
		return nil
	}
	return s.state.Load()
}

// Remote is who answers for a group-version in this server's place, or nil.
func (s *Server) Remote(gv schema.GroupVersion) *Remote {
	if s == nil {
		return nil
	}
	return s.state.Load().remotes[gv]
}

// Ended is closed when there is a newer state; nil for none.
func (st *State) Ended() <-chan struct{} {
	if st == nil {
		return nil
	}
	return st.ended
}

// Remotes are all remote group-versions. Not to be written to.
func (st *State) Remotes() map[schema.GroupVersion]*Remote {
	if st == nil {
		return nil
	}
	return st.remotes
}

// Priority is where a group-version stands among others.
func (st *State) Priority(gv schema.GroupVersion) kinds.Priority {
	if st != nil {
		if r := st.remotes[gv]; r != nil {
			return r.priority()
		}
		if p, ok := st.moved[gv]; ok {
			return p
		}
	}
	return kinds.PriorityOf(gv)
}

// Specs are the OpenAPI documents of now.
func (s *Server) Specs() *Specs { return s.state.Load().specs }

// Run follows the APIServices until the context ends.
func (s *Server) Run(ctx context.Context) error {
	defer s.View.Subscribe(s.services, func(old, new api.Object) {
		if !plain(old) || !plain(new) {
			select {
			case s.wake <- struct{}{}:
			default: // it is awake
			}
		}
	})()
	for {
		s.Sync(ctx)
		select {
		case <-ctx.Done():
			s.group.Wait()
			return ctx.Err()
		case <-s.wake:
		}
	}
}

// plain says whether an APIService says nothing but what goes without it: nearly
// all are such.
func plain(obj api.Object) bool {
	a, ok := obj.(*apiregistrationv1.APIService)
	return !ok || a.Spec.Service == nil && priorityOf(a) == kinds.PriorityOf(versionOf(a))
}

func versionOf(a *apiregistrationv1.APIService) schema.GroupVersion {
	return schema.GroupVersion{Group: a.Spec.Group, Version: a.Spec.Version}
}

func priorityOf(a *apiregistrationv1.APIService) kinds.Priority {
	return kinds.Priority{Group: a.Spec.GroupPriorityMinimum, Version: a.Spec.VersionPriority}
}

// Sync takes over what APIServices say now. Whoever is asked because of it is
// asked until the context ends. It is not to be called while Run runs.
func (s *Server) Sync(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := map[string]*apiregistrationv1.APIService{}
	s.moved = map[schema.GroupVersion]kinds.Priority{}
	for obj := range s.View.List(s.services, "") {
		a := obj.(*apiregistrationv1.APIService)
		switch {
		case a.Spec.Service != nil:
			now[a.Name] = a
		case !plain(a):
			s.moved[versionOf(a)] = priorityOf(a)
		}
	}
	for name, w := range s.workers {
		if now[name] == nil {
			w.stop()
			delete(s.workers, name)
		}
	}
	for name, a := range now {
		w := s.workers[name]
		if w == nil {
			w = &worker{kick: make(chan struct{}, 1), remote: s.newRemote(a, nil)}
			s.workers[name] = w
			var own context.Context
			own, w.cancel = context.WithCancel(ctx)
			s.group.Go(func() { s.follow(own, w) })
			continue
		}
		if was := w.remote; was.service != a {
			w.remote = s.newRemote(a, was)
			if !equality.Semantic.DeepEqual(was.service.Spec, a.Spec) || was.Available() != w.remote.Available() {
				w.wakeUp()
			}
		}
	}
	s.publish()
}

// publish makes a state of what is known. The caller holds s.mu.
func (s *Server) publish() {
	was := s.state.Load()
	st := &State{remotes: make(map[schema.GroupVersion]*Remote, len(s.workers)), moved: s.moved, ended: make(chan struct{})}
	var remotes []*Remote
	for _, w := range s.workers {
		st.remotes[w.remote.GroupVersion()] = w.remote
		remotes = append(remotes, w.remote)
	}
	slices.SortFunc(remotes, func(a, b *Remote) int {
		if d := int(b.priority().Group) - int(a.priority().Group); d != 0 {
			return d
		}
		return compare(a.service.Name, b.service.Name)
	})
	var specs []*spec.Swagger
	for _, r := range remotes {
		if r.docs != nil && r.docs.v2 != nil {
			specs = append(specs, r.docs.v2)
		}
	}
	if st.specs = was.specs; !slices.Equal(specs, was.specs.List) {
		ended := make(chan struct{})
		st.specs = &Specs{List: specs, Ended: ended, ended: ended}
	}
	if len(was.remotes) == 0 && len(st.remotes) == 0 && maps.Equal(was.moved, st.moved) {
		return
	}
	s.state.Store(st)
	close(was.ended)
	if was.specs != st.specs {
		close(was.specs.ended)
	}
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// worker asks one remote server what it serves. Its remote is guarded by the
// server's lock.
type worker struct {
	remote *Remote
	kick   chan struct{}
	cancel context.CancelFunc
}

func (w *worker) wakeUp() {
	select {
	case w.kick <- struct{}{}:
	default: // it is awake
	}
}

func (w *worker) stop() {
	w.cancel()
	w.remote.close()
}

// A remote server is asked again each minute, and one that failed after half a
// second, doubling to that, as Kubernetes asks.
const (
	refresh      = time.Minute
	firstBackoff = 500 * time.Millisecond
)

// follow asks a remote server what it serves, whenever that may have changed.
func (s *Server) follow(ctx context.Context, w *worker) {
	backoff := firstBackoff
	for {
		s.mu.Lock()
		r := w.remote
		s.mu.Unlock()
		var again <-chan time.Time
		switch {
		case !r.Available():
			s.learn(w, r, &apidiscoveryv2.APIVersionDiscovery{Version: r.service.Spec.Version, Freshness: apidiscoveryv2.DiscoveryFreshnessStale}, nil)
		case s.ask(ctx, w, r):
			backoff = firstBackoff
			again = s.Clock.After(refresh)
		default:
			again = s.Clock.After(backoff)
			backoff = min(2*backoff, refresh)
		}
		select {
		case <-ctx.Done():
			return
		case <-w.kick:
			backoff = firstBackoff
		case <-again:
		}
	}
}

// ask asks for discovery and then, if that came, for OpenAPI; it answers whether
// discovery came.
func (s *Server) ask(ctx context.Context, w *worker, r *Remote) bool {
	entry, err := r.discover(ctx)
	if ctx.Err() != nil {
		return false
	}
	if err != nil {
		s.Log.Debug("discovery failed", "apiservice", r.service.Name, "error", err)
		s.learn(w, r, &apidiscoveryv2.APIVersionDiscovery{Version: r.service.Spec.Version, Freshness: apidiscoveryv2.DiscoveryFreshnessStale}, nil)
		return false
	}
	entry.Freshness = apidiscoveryv2.DiscoveryFreshnessCurrent
	s.learn(w, r, entry, nil)
	docs, err := r.describe(ctx)
	if err != nil {
		s.Log.Debug("no OpenAPI", "apiservice", r.service.Name, "error", err)
	}
	if docs != nil && ctx.Err() == nil {
		s.learn(w, r, nil, docs)
	}
	return true
}

// learn notes what a remote server said, unless its APIService says something
// else by now. What is nil stays as it was.
func (s *Server) learn(w *worker, r *Remote, entry *apidiscoveryv2.APIVersionDiscovery, docs *documents) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := w.remote
	if s.workers[r.service.Name] != w || !equality.Semantic.DeepEqual(now.service.Spec, r.service.Spec) || now.Available() != r.Available() {
		return
	}
	next := *now
	if entry != nil {
		next.entry = entry
	}
	if docs != nil {
		next.docs = docs
	}
	if equality.Semantic.DeepEqual(next.entry, now.entry) && next.docs == now.docs {
		return
	}
	w.remote = &next
	s.publish()
}
