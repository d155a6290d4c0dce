package fairness

import (
	"context"
	"errors"
	"net/http"
	"sync"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/util/flowcontrol"
	"k8s.io/apiserver/pkg/util/flowcontrol/fairqueuing/eventclock"
	"k8s.io/apiserver/pkg/util/flowcontrol/fairqueuing/queueset"
	"k8s.io/apiserver/pkg/util/flowcontrol/metrics"
	estimate "k8s.io/apiserver/pkg/util/flowcontrol/request"
	"k8s.io/client-go/informers"

	"hansa.dev/hansa/api"
)

// Config is what a Filter is made of.
type Config struct {
	Registry *api.Registry
	// Informers show the FlowSchemas and PriorityLevelConfigurations. Whoever
	// made them starts them, after New.
	Informers informers.SharedInformerFactory
	// Writer writes the conditions of FlowSchemas.
	Writer Writer
	// Size is how many objects of a resource there are and how many bytes they
	// have: what lists are estimated by.
	Size func(r *api.Resource) (objects int, bytes int64)
	// Seats is how many requests are served at once, all levels together.
	Seats int
}

// Filter is priority and fairness.
type Filter struct {
	control  flowcontrol.Interface
	estimate estimate.WorkEstimatorFunc
	dropped  flowcontrol.DroppedRequestsTracker
	gauges   gauges
	exempt   *exempt
}

var _ Limiter = (*Filter)(nil)

// gauges count the requests that read and those that write, for the metrics
// that the library leaves to its filter.
type gauges struct{ executing, waiting [2]metrics.RatioedGauge }

// New makes a filter. Until Run has read what is configured it knows the
// mandatory levels only.
func New(c Config) (*Filter, error) {
	if c.Seats <= 0 {
		return nil, errors.New("fairness: there must be seats to share")
	}
	metrics.Register()
	exempt := &exempt{}
	if err := exempt.follow(c.Informers); err != nil {
		return nil, err
	}
	clock := eventclock.Real{}
	f := &Filter{
		exempt: exempt,
		// What the library's New does, but for the queues.
		control: flowcontrol.NewTestable(flowcontrol.TestableConfig{
			Name: "Controller", Clock: clock, AsFieldManager: flowcontrol.ConfigConsumerAsFieldManager,
			FoundToDangling:        func(found bool) bool { return !found },
			InformerFactory:        c.Informers,
			FlowcontrolClient:      typed{writer: c.Writer, schemas: c.Registry.Must(flowcontrolv1.GroupName, "flowschemas")},
			ServerConcurrencyLimit: c.Seats,
			ReqsGaugeVec:           metrics.PriorityLevelConcurrencyGaugeVec,
			ExecSeatsGaugeVec:      metrics.PriorityLevelExecutionSeatsGaugeVec,
			QueueSetFactory:        queueSets{queueset.NewQueueSetFactory(clock), exempt},
		}),
		dropped: flowcontrol.NewDroppedRequestsTracker(),
		gauges: gauges{
			executing: [2]metrics.RatioedGauge{metrics.GetExecutingReadonlyConcurrency(), metrics.GetExecutingMutatingConcurrency()},
			waiting:   [2]metrics.RatioedGauge{metrics.GetWaitingReadonlyConcurrency(), metrics.GetWaitingMutatingConcurrency()},
		},
	}
	f.estimate = estimate.NewWorkEstimator(sizes(c.Registry, c.Size), f.control.GetInterestedWatchCount,
		estimate.DefaultWorkEstimatorConfig(), f.control.GetMaxSeats)
	return f, nil
}

// Run follows the configuration until the context ends.
func (f *Filter) Run(ctx context.Context) error {
	if err := f.control.Run(ctx.Done()); err != nil && ctx.Err() == nil {
		return err
	}
	return ctx.Err()
}

// sizes says by the name of a resource how much of it there is.
func sizes(reg *api.Registry, size func(*api.Resource) (int, int64)) func(string) (storage.Stats, error) {
	rows := map[string]*api.Resource{}
	for _, r := range reg.Resources() {
		if r.Prefix == "" {
			continue
		}
		for _, v := range r.Versions {
			rows[schema.GroupResource{Group: v.Group, Resource: r.Plural}.String()] = r
		}
	}
	return func(name string) (storage.Stats, error) {
		r := rows[name]
		if r == nil {
			return storage.Stats{}, estimate.ObjectCountNotFoundErr
		}
		objects, bytes := size(r)
		stats := storage.Stats{ObjectCount: int64(objects)}
		if objects > 0 {
			stats.EstimatedAverageObjectSizeBytes = max(bytes/int64(objects), 1)
		}
		return stats, nil
	}
}

// turn is one request on its way through the library.
type turn struct {
	*Filter
	Request
	kind          int // in gauges
	meaning       *apirequest.RequestInfo
	level, schema string
}

func (f *Filter) turn(r Request) *turn {
	t := &turn{Filter: f, Request: r, meaning: r.Meaning()}
	if r.Mutating() {
		t.kind = 1
	}
	return t
}

// handle runs execute when it is the request's turn, and says whether that
// came.
func (t *turn) handle(ctx context.Context, execute func()) (served bool) {
	waiting, cancel := context.WithTimeout(ctx, t.Patience())
	defer cancel()
	digest := flowcontrol.RequestDigest{RequestInfo: t.meaning, User: t.User()}
	t.control.Handle(waiting, digest, t.note, t.work, t.queued, func() {
		served = true
		executing := t.gauges.executing[t.kind]
		executing.Add(1)
		defer executing.Add(-1)
		execute()
	})
	return served
}

func (t *turn) note(fs *flowcontrolv1.FlowSchema, pl *flowcontrolv1.PriorityLevelConfiguration, _ string) {
	t.schema, t.level = fs.Name, pl.Name
	t.Classified(Class{SchemaUID: fs.UID, LevelUID: pl.UID})
}

func (t *turn) queued(in bool) {
	if in {
		t.gauges.waiting[t.kind].Add(1)
	} else {
		t.gauges.waiting[t.kind].Add(-1)
	}
}

// work estimates the seats that the request takes, and for how long.
func (t *turn) work() estimate.WorkEstimate {
	w := t.estimate(httpRequest(t.meaning, t.Request), t.schema, t.level)
	metrics.ObserveWorkEstimatedSeats(t.level, t.schema, w.MaxSeats())
	return w
}

// httpRequest is the request as far as the library looks at it.
func httpRequest(meaning *apirequest.RequestInfo, r Request) *http.Request {
	ctx := apirequest.WithRequestInfo(context.Background(), meaning)
	return (&http.Request{URL: r.URL()}).WithContext(ctx)
}

func (t *turn) refuse() Verdict {
	t.dropped.RecordDroppedRequest(t.level)
	return Verdict{Refused: true, RetryAfter: t.dropped.GetRetryAfter(t.level)}
}

// Serve implements Limiter.
func (f *Filter) Serve(ctx context.Context, r Request) Verdict {
	if privileged(r.User()) {
		f.exempt.serve(r)
		return Verdict{}
	}
	t := f.turn(r)
	if !t.handle(ctx, r.Serve) {
		return t.refuse()
	}
	return Verdict{}
}

// Begin implements Limiter. The library holds a seat for as long as it is
// inside of a call, so a goroutine waits there until the watch has started.
func (f *Filter) Begin(ctx context.Context, r Request) (started, ended func(), v Verdict) {
	if privileged(r.User()) {
		return f.exempt.begin(r), f.register(r.Meaning(), r), Verdict{}
	}
	t := f.turn(r)
	began, initialized := make(chan struct{}), make(chan struct{})
	over := make(chan any, 1)
	go func() {
		defer func() { over <- recover() }()
		t.handle(apirequest.WithRequestInfo(ctx, t.meaning), func() {
			close(began)
			<-initialized
		})
	}()
	select {
	case <-began:
	case p := <-over:
		if p != nil {
			panic(p)
		}
		return nil, nil, t.refuse()
	}
	ended = f.register(t.meaning, r)
	return sync.OnceFunc(func() { close(initialized) }), ended, Verdict{}
}

// register counts a watch, which costs those seats that write what it watches, and
// nothing of what else has a turn as a watch has.
func (f *Filter) register(meaning *apirequest.RequestInfo, r Request) (ended func()) {
	if ended = f.control.RegisterWatch(httpRequest(meaning, r)); ended == nil {
		return func() {}
	}
	return ended
}
