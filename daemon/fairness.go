package daemon

import (
	"context"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/auth/bootstrap"
	"hansa.dev/hansa/apiserver/fairness"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/informers"
	"hansa.dev/hansa/controller"
)

// fairnessProducer is the manager of the objects of fairness that every cluster
// has.
const fairnessProducer = "api-priority-and-fairness-config-producer-v1"

// startLimiter makes and runs what bounds the requests over the wire. Those of
// this process do not pass it.
func startLimiter(l *lifecycle, c Config, p *controlPlane) (fairness.Limiter, error) {
	if !c.Fairness {
		return fairness.NewLimits(c.MaxRequests, c.MaxMutatingRequests), nil
	}
	view := p.store.View()
	factory := informers.New(p.registry, view)
	filter, err := fairness.New(fairness.Config{
		Registry: p.registry, Informers: factory, Size: view.Size,
		Writer: p.asServer("kube-apiserver"),
		Seats:  c.MaxRequests + c.MaxMutatingRequests,
	})
	if err != nil {
		return nil, err
	}
	if err := p.metrics.Register(filter); err != nil {
		return nil, err
	}
	l.run("fairness", func(ctx context.Context) error {
		factory.StartWithContext(ctx)
		defer factory.Shutdown()
		// The library would look again after a tenth of a second.
		factory.WaitForCacheSyncWithContext(ctx)
		return filter.Run(ctx)
	})
	return filter, nil
}

// ensureFairness makes and corrects the objects of fairness that every cluster
// has.
func ensureFairness(ctx context.Context, c client.Interface) error {
	return carryOut(ctx, c, bootstrap.PlanFairness(c.Registry(), c.View()))
}

// fairnessObjects is the loop that restores them.
type fairnessObjects struct{ client client.Interface }

func (fairnessObjects) Name() string { return fairnessProducer }

func (f fairnessObjects) Sources() []controller.Source {
	all := func(_, _ api.Object) []api.Key { return []api.Key{{Name: "all"}} }
	reg := f.client.Registry()
	return []controller.Source{
		{Resource: reg.Must(flowcontrolv1.GroupName, "flowschemas"), Keys: all},
		{Resource: reg.Must(flowcontrolv1.GroupName, "prioritylevelconfigurations"), Keys: all},
	}
}

func (f fairnessObjects) Step(ctx context.Context, _ api.Key, _ time.Time) (time.Duration, error) {
	return 0, ensureFairness(ctx, f.client)
}
