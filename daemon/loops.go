package daemon

import (
	"log/slog"

	"k8s.io/utils/clock"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/controller/clusterrole"
	"hansa.dev/hansa/controller/deployment"
	"hansa.dev/hansa/controller/endpoints"
	"hansa.dev/hansa/controller/endpointslice"
	"hansa.dev/hansa/controller/garbage"
	"hansa.dev/hansa/controller/job"
	"hansa.dev/hansa/controller/mirroring"
	"hansa.dev/hansa/controller/namespace"
	"hansa.dev/hansa/controller/nodelifecycle"
	"hansa.dev/hansa/controller/podgc"
	"hansa.dev/hansa/controller/replicaset"
	"hansa.dev/hansa/controller/rootca"
	"hansa.dev/hansa/controller/serviceaccount"
	"hansa.dev/hansa/controller/tainteviction"
	"hansa.dev/hansa/controller/ttl"
	"hansa.dev/hansa/scheduler"
)

// startLoops runs every control loop as its own identity.
func startLoops(l *lifecycle, p *controlPlane, log *slog.Logger) {
	clk := clock.RealClock{}
	run := func(name string, workers int, build func(client.Interface, events.Recorder) controller.Loop) {
		c := p.asLoop(name)
		recorder := events.New(c, clk, name, "", log)
		l.run(name+" events", recorder.Run)
		l.run(name, (&controller.Runner{Loop: build(c, recorder), View: c.View(), Clock: clk, Log: log, Workers: workers}).Run)
	}
	startScheduler(l, p, log)
	run("clusterrole-aggregation-controller", 1, func(c client.Interface, _ events.Recorder) controller.Loop { return clusterrole.New(c) })
	run("service-account-controller", 1, func(c client.Interface, _ events.Recorder) controller.Loop { return serviceaccount.New(c) })
	run("root-ca-cert-publisher", 1, func(c client.Interface, _ events.Recorder) controller.Loop {
		return rootca.New(c, p.authority.API.PEM())
	})
	run("deployment-controller", 5, func(c client.Interface, r events.Recorder) controller.Loop { return deployment.New(c, r) })
	run("replicaset-controller", 5, func(c client.Interface, r events.Recorder) controller.Loop { return replicaset.New(c, r) })
	run("job-controller", 5, func(c client.Interface, r events.Recorder) controller.Loop { return job.New(c, r) })
	run("ttl-after-finished-controller", 1, func(c client.Interface, _ events.Recorder) controller.Loop { return ttl.New(c) })
	run("endpointslice-controller", 5, func(c client.Interface, _ events.Recorder) controller.Loop { return endpointslice.New(c) })
	run("endpointslicemirroring-controller", 5, func(c client.Interface, r events.Recorder) controller.Loop { return mirroring.New(c, r) })
	run("endpoint-controller", 5, func(c client.Interface, _ events.Recorder) controller.Loop { return endpoints.New(c) })
	run("generic-garbage-collector", 5, func(c client.Interface, r events.Recorder) controller.Loop { return garbage.New(c, r) })
	run("namespace-controller", 5, func(c client.Interface, _ events.Recorder) controller.Loop { return namespace.New(c) })
	run("node-controller", 2, func(c client.Interface, r events.Recorder) controller.Loop { return nodelifecycle.New(c, r) })
	run("taint-eviction-controller", 2, func(c client.Interface, r events.Recorder) controller.Loop { return tainteviction.New(c, r) })
	run("pod-garbage-collector", 1, func(c client.Interface, _ events.Recorder) controller.Loop { return podgc.New(c) })
}

// startScheduler places pods.
func startScheduler(l *lifecycle, p *controlPlane, log *slog.Logger) {
	clk := clock.RealClock{}
	c := p.as("system:kube-scheduler", "kube-scheduler")
	recorder := events.New(c, clk, "default-scheduler", "", log)
	l.run("scheduler events", recorder.Run)
	l.run("scheduler", scheduler.New(scheduler.Config{Client: c, Events: recorder, Clock: clk, Log: log}).Run)
}

func sameEndpoints(have, want api.Object) bool {
	a, b := have.(*discoveryv1.EndpointSlice), want.(*discoveryv1.EndpointSlice)
	return equality.Semantic.DeepEqual(a.Endpoints, b.Endpoints) && equality.Semantic.DeepEqual(a.Ports, b.Ports)
}
