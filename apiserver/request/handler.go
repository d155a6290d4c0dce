// Package request says what an API request means, free of HTTP: who may do it,
// what is filled in, what is refused and why, and what is written. It is
// generic over kinds; whatever is particular to one is in its row (package api)
// or comes as a Hook, an Allocator or an admission plugin.
//
// A write goes through these steps, in this order:
//
//	authorize → decode → default → mutating admission (defaults again) →
//	stamp → prepare → validate → canonicalize → validating admission → store
//
// For updates and patches everything after decoding happens within the store's
// conflict retry, so that it always speaks of the object that is replaced.
//
// Objects that a Handler returns are frozen: they are shared with all readers.
package request

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/request/audit"
	"hansa.dev/hansa/apiserver/request/codec"
	"hansa.dev/hansa/apiserver/request/fields"
	"hansa.dev/hansa/internal/results"
	"hansa.dev/hansa/store"
)

// Config is what a Handler is made of. Store, Registry, Authorizer and
// Converter must be set.
type Config struct {
	Store      *store.Store
	Registry   *api.Registry
	Codec      *codec.Codec // nil: one of its own
	Authorizer authorizer.Authorizer
	Admission  admission.Chain
	// Converter gives the merge schemas of all kinds. It is called at the first
	// write, since they take time to build.
	Converter func() managedfields.TypeConverter
	// Allocators by resource; they take part in the writes of that resource.
	Allocators map[schema.GroupResource]Allocator
	// Hooks answer creates that store nothing: reviews ("tokenreviews.authentication.k8s.io")
	// and subresources ("serviceaccounts/token"). See HookName.
	Hooks map[string]Hook
	// Rules are what the rows of kinds cannot say, by HookName of a resource or
	// of a subresource that is a view of it.
	Rules map[string]Rule
	// Computed answers reads of kinds that have no storage and yet are read.
	Computed map[schema.GroupResource]Computed
	// Audit is told of every request. Nil: nothing is noted.
	Audit *audit.Log
	// Metrics is where the handler registers its own. Nil: nowhere.
	Metrics prometheus.Registerer
	// Clock is the real one when nil.
	Clock clock.PassiveClock
	// NewUID and Suffix make identities and the random ends of generated names.
	// Nil: random ones.
	NewUID func() types.UID
	Suffix func(length int) string
	Logger *slog.Logger
}

// Hook answers a create that stores nothing. parent is the object whose
// subresource is posted to, nil for a resource without storage. body belongs to
// the hook. Errors are API status errors.
type Hook func(ctx context.Context, info *Info, parent api.Object, body runtime.Object, dryRun bool) (runtime.Object, error)

// HookName is the key of Config.Hooks, and of the connectors of the wire:
// "RESOURCE[.GROUP][/SUBRESOURCE]".
func HookName(gr schema.GroupResource, subresource string) string {
	if subresource == "" {
		return gr.String()
	}
	return gr.String() + "/" + subresource
}

// Rule adds to a row what depends on who asks, on the time or on other objects.
// Any function may be nil; old is nil on create.
type Rule struct {
	// Prepare fills in what only the server can say, after the row's preparation.
	Prepare func(info *Info, obj api.Object)
	// Validate gets what the row has found, and answers with everything.
	Validate func(ctx context.Context, info *Info, obj, old api.Object, found field.ErrorList) field.ErrorList
	// Warnings adds sentences to those of the row.
	Warnings func(obj, old api.Object) []string
}

// Computed makes the objects of a kind at the moment they are asked for, in the
// order of their names: all, those of a namespace, or the one of a name, which is
// said not to be there by an API status error.
type Computed func(ctx context.Context, key api.Key) ([]api.Object, error)

// Allocator gives an object what is unique in the cluster (addresses, ports) and
// claims it in the same transaction.
type Allocator interface {
	// Allocate fills in obj, which is about to replace old (nil on create), and
	// answers with the keys that claim what obj has and free what it no longer
	// has. obj is nil when old is deleted. It is called again on every retry,
	// after the row's preparation and before validation. With dryRun nothing of
	// it will be written. Errors that are not API status errors are the server's.
	Allocate(ctx context.Context, obj, old api.Object, dryRun bool) ([]store.Side, error)
}

// Handler serves requests. Its methods may be called from any goroutine.
type Handler struct {
	Config
	fields  fields.Common
	convert convertor
	// allocating has one lock for each allocator. Writes that allocate contend
	// for the same few keys; taking turns saves them most of their retries.
	allocating    map[schema.GroupResource]*sync.Mutex
	impersonation *impersonation
	// authorizations are those of whole requests.
	authorizations *results.Counts
}

// defaultCache is the size of the cache of encodings, in bytes.
const defaultCache = 8 << 20

// New checks the configuration and fills in what may be left out.
func New(c Config) (*Handler, error) {
	switch {
	case c.Store == nil, c.Registry == nil, c.Authorizer == nil, c.Converter == nil:
		return nil, errors.New("request: Store, Registry, Authorizer and Converter must be set")
	}
	if c.Codec == nil {
		c.Codec = codec.New(c.Registry, defaultCache)
	}
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	if c.NewUID == nil {
		c.NewUID = uuid.NewUUID
	}
	if c.Suffix == nil {
		c.Suffix = rand.String
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	made := c.Converter
	c.Converter = sync.OnceValue(func() managedfields.TypeConverter { return &typeConverter{TypeConverter: made()} })
	h := &Handler{Config: c, convert: convertor{c.Registry}, allocating: map[schema.GroupResource]*sync.Mutex{}, impersonation: newImpersonation(c.Metrics), authorizations: newAuthorizations()}
	if c.Metrics != nil {
		c.Metrics.MustRegister(h.authorizations)
	}
	for gr := range c.Allocators {
		h.allocating[gr] = &sync.Mutex{}
	}
	// The one hook that is the handler's own.
	h.Hooks = maps.Clone(c.Hooks)
	if h.Hooks == nil {
		h.Hooks = map[string]Hook{}
	}
	h.Hooks["pods/eviction"] = h.evict
	return h, nil
}

// rule is what applies beside the row to what a request writes; it may be empty.
func (h *Handler) rule(info *Info) Rule {
	return h.Rules[HookName(info.row().GroupResource(), info.Subresource)]
}

// update is the store's Update. Writes of a resource that allocates take turns,
// and start over when another server has claimed something meanwhile. Where
// somebody else is asked about them they take none, since that may take long:
// they only start over more often.
func (h *Handler) update(ctx context.Context, ref api.Ref, change func(cur api.Object) (store.Outcome, error)) (api.Object, error) {
	if turn := h.allocating[ref.Resource.GroupResource()]; turn != nil && !h.Admission.Asks(ref.Resource) {
		turn.Lock()
		if h.Admission.Asks(ref.Resource) { // since now
			turn.Unlock()
		} else {
			defer turn.Unlock()
		}
	}
	for {
		obj, err := h.Store.Update(ctx, ref, h.writeOptions(ref.Resource), change)
		if !store.IsSideConflict(err) {
			return obj, err
		}
	}
}

// allocates says whether writes of a resource have to go through update.
func (h *Handler) allocates(r *api.Resource) bool { return h.allocating[r.GroupResource()] != nil }

// alone says whether writes of a resource cannot share a transaction: each may
// have to start over, or to wait for somebody else's opinion.
func (h *Handler) alone(r *api.Resource) bool { return h.allocates(r) || h.Admission.Asks(r) }

// writeOptions are those of every write to a resource.
func (h *Handler) writeOptions(r *api.Resource) store.WriteOptions {
	return store.WriteOptions{TTL: r.TTL}
}
