package fairness

import (
	"fmt"
	"sync"
	"sync/atomic"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/util/flowcontrol/fairqueuing"
	"k8s.io/apiserver/pkg/util/flowcontrol/metrics"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"hansa.dev/hansa/api"
)

// exempt lets the members of system:masters through. The mandatory FlowSchema
// "exempt" has the first precedence, which no other may have, and a spec that
// cannot be changed; so they always belong to it, and to the level "exempt",
// which never makes anybody wait. They need not be classified to know that, and
// the library's way is long. What the library would have counted is counted
// here: the level's demand, which the others then cannot borrow, and the metrics
// of BETA stability; the histograms of utilization leave these requests out.
type exempt struct {
	schema, level atomic.Pointer[types.UID]
	dispatched    atomic.Int64
	executing     atomic.Int64
	// demand is set when the library makes the level's queues, which it does
	// once: the level stays when its object goes.
	demand *demand
}

// follow keeps the identities of the two objects.
func (e *exempt) follow(f informers.SharedInformerFactory) error {
	v1 := f.Flowcontrol().V1()
	for _, side := range []struct {
		informer cache.SharedIndexInformer
		uid      *atomic.Pointer[types.UID]
	}{
		{v1.FlowSchemas().Informer(), &e.schema},
		{v1.PriorityLevelConfigurations().Informer(), &e.level},
	} {
		// The library makes up for an object that is missing; that has no identity.
		none := types.UID("")
		side.uid.Store(&none)
		note := func(obj any) {
			if o := obj.(api.Object); o.GetName() == flowcontrolv1.FlowSchemaNameExempt {
				uid := o.GetUID()
				side.uid.Store(&uid)
			}
		}
		_, err := side.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    note,
			UpdateFunc: func(_, obj any) { note(obj) },
			DeleteFunc: func(obj any) {
				if obj.(api.Object).GetName() == flowcontrolv1.FlowSchemaNameExempt {
					side.uid.Store(&none)
				}
			},
		})
		if err != nil {
			return fmt.Errorf("follow what is exempt: %w", err)
		}
	}
	return nil
}

func (e *exempt) enter(r Request) {
	r.Classified(Class{SchemaUID: *e.schema.Load(), LevelUID: *e.level.Load()})
	e.dispatched.Add(1)
	e.executing.Add(1)
	e.demand.add(1)
}

func (e *exempt) leave() {
	e.executing.Add(-1)
	e.demand.add(-1)
}

func (e *exempt) serve(r Request) {
	e.enter(r)
	defer e.leave()
	r.Serve()
}

func (e *exempt) begin(r Request) (started func()) {
	e.enter(r)
	return sync.OnceFunc(e.leave)
}

// queueSets makes the library's queues, and puts a demand in between for the
// level that is exempt.
type queueSets struct {
	fairqueuing.QueueSetFactory
	exempt *exempt
}

func (q queueSets) BeginConstruction(c fairqueuing.QueuingConfig, requests metrics.RatioedGaugePair, seats metrics.RatioedGauge, wanted metrics.Gauge) (fairqueuing.QueueSetCompleter, error) {
	if c.Name == flowcontrolv1.PriorityLevelConfigurationNameExempt {
		q.exempt.demand = &demand{to: wanted}
		wanted = q.exempt.demand
	}
	return q.QueueSetFactory.BeginConstruction(c, requests, seats, wanted)
}

// demand is a gauge of the seats that a level wants: those that the library's
// queues say and those taken beside them.
type demand struct {
	to metrics.Gauge

	mu             sync.Mutex
	queues, beside float64
}

var _ metrics.Gauge = (*demand)(nil)

func (d *demand) add(seats float64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.beside += seats
	d.to.Set(d.queues + d.beside)
}

// Set is called by the queues.
func (d *demand) Set(seats float64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.queues = seats
	d.to.Set(d.queues + d.beside)
}

func (d *demand) change(seats float64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.queues += seats
	d.to.Set(d.queues + d.beside)
}

// Inc is Add(1).
func (d *demand) Inc() { d.change(1) }

// Dec is Add(-1).
func (d *demand) Dec() { d.change(-1) }

// Add is called by the queues.
func (d *demand) Add(seats float64) { d.change(seats) }

// SetToCurrentTime makes no sense for seats; it is in the interface.
func (d *demand) SetToCurrentTime() { d.to.SetToCurrentTime() }
