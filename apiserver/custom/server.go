package custom

import (
	"context"
	"iter"
	"log/slog"
	"reflect"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/api"
)

// Store is what a Server needs of the store.
type Store interface {
	// Extend makes rows those whose objects are kept beside the ones the store was
	// opened with.
	Extend(ctx context.Context, rows []*api.Resource) error
}

// View is what a Server needs of the store's view.
type View interface {
	List(r *api.Resource, namespace string) iter.Seq[api.Object]
	Subscribe(r *api.Resource, f func(old, new api.Object)) (cancel func())
}

// Server has what is defined served by this process:
//
//	definition written → Sync: rows → Store.Extend → Registry.Define
//
// A definition is served once its names are accepted, and until it is gone. One
// that is changed in what it serves has new rows, and the old ones end; the objects
// stay where they are. Definitions that do not change keep their rows.
type Server struct {
	registry    *api.Registry
	store       Store
	view        View
	definitions *api.Resource
	log         *slog.Logger
	clock       clock.Clock
	convert     func(*definition) converter
	rows        map[types.UID]*served
	wake        chan struct{}
}

// served is a definition with the row that was made of it.
type served struct {
	*definition
	row *api.Resource
}

// NewServer makes a server, which serves nothing yet. services finds the addresses
// of conversion webhooks.
func NewServer(reg *api.Registry, store Store, view View, services webhook.ServiceResolver, clk clock.Clock, log *slog.Logger) (*Server, error) {
	convert, err := converters(services)
	if err != nil {
		return nil, err
	}
	return &Server{
		registry: reg, store: store, view: view, clock: clk, log: log, convert: convert,
		definitions: reg.Must(apiextensionsv1.GroupName, "customresourcedefinitions"),
		rows:        map[types.UID]*served{},
		wake:        make(chan struct{}, 1),
	}, nil
}

// retry is when the database is asked again that did not answer.
const retry = time.Second

// Run follows the definitions until the context ends.
func (s *Server) Run(ctx context.Context) error {
	defer s.view.Subscribe(s.definitions, func(_, _ api.Object) {
		select {
		case s.wake <- struct{}{}:
		default: // it is awake
		}
	})()
	for {
		var again <-chan time.Time
		if err := s.Sync(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("definitions are served as they were", "error", err)
			again = s.clock.After(retry)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.wake:
		case <-again:
		}
	}
}

// Sync serves what is defined now. It is not to be called while Run runs.
func (s *Server) Sync(ctx context.Context) error {
	now := map[types.UID]*served{}
	var rows []*api.Resource
	changed := false
	for obj := range s.view.List(s.definitions, "") {
		d := obj.(*apiextensionsv1.CustomResourceDefinition)
		if !accepted(d) {
			continue
		}
		one := s.rows[d.UID]
		if one == nil || one.differs(d) {
			def := define(d, s.convert)
			one = &served{definition: def, row: def.row()}
			changed = true
		}
		now[d.UID] = one
		rows = append(rows, one.row)
	}
	if !changed && len(now) == len(s.rows) {
		return nil
	}
	if err := s.store.Extend(ctx, rows); err != nil {
		return err
	}
	for _, err := range s.registry.Define(rows) {
		s.log.Warn("a definition is not served", "error", err)
	}
	for uid, one := range s.rows {
		if now[uid] != one {
			close(one.ended)
		}
	}
	s.rows = now
	return nil
}

// differs says whether a definition serves something else than it did.
func (one *served) differs(d *apiextensionsv1.CustomResourceDefinition) bool {
	was := one.CustomResourceDefinition
	if was == d {
		return false
	}
	next := &definition{CustomResourceDefinition: d}
	return was.Generation != d.Generation ||
		!reflect.DeepEqual(was.Status.AcceptedNames, d.Status.AcceptedNames) ||
		one.terminating() != next.terminating()
}
