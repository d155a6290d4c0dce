package daemon

import (
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"k8s.io/utils/clock"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apiserver/pkg/authentication/user"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/controller/apiservice"
	"hansa.dev/hansa/controller/authentication"
	"hansa.dev/hansa/controller/bootstraptoken"
	"hansa.dev/hansa/controller/certificates"
	"hansa.dev/hansa/controller/clusterrole"
	"hansa.dev/hansa/controller/cronjob"
	"hansa.dev/hansa/controller/daemonset"
	"hansa.dev/hansa/controller/definition"
	"hansa.dev/hansa/controller/dependencies"
	"hansa.dev/hansa/controller/deployment"
	"hansa.dev/hansa/controller/disruption"
	"hansa.dev/hansa/controller/endpoints"
	"hansa.dev/hansa/controller/endpointslice"
	"hansa.dev/hansa/controller/garbage"
	"hansa.dev/hansa/controller/horizontalpodautoscaler"
	"hansa.dev/hansa/controller/ipaddress"
	"hansa.dev/hansa/controller/job"
	"hansa.dev/hansa/controller/migration"
	"hansa.dev/hansa/controller/mirroring"
	"hansa.dev/hansa/controller/namespace"
	"hansa.dev/hansa/controller/nodelifecycle"
	"hansa.dev/hansa/controller/podgc"
	"hansa.dev/hansa/controller/policystatus"
	"hansa.dev/hansa/controller/replicaset"
	"hansa.dev/hansa/controller/resourceclaim"
	"hansa.dev/hansa/controller/resourcequota"
	"hansa.dev/hansa/controller/rollback"
	"hansa.dev/hansa/controller/rootca"
	"hansa.dev/hansa/controller/serviceaccount"
	"hansa.dev/hansa/controller/servicecidr"
	"hansa.dev/hansa/controller/statefulset"
	"hansa.dev/hansa/controller/tainteviction"
	"hansa.dev/hansa/controller/tokens"
	"hansa.dev/hansa/controller/trustbundle"
	"hansa.dev/hansa/controller/ttl"
	"hansa.dev/hansa/internal/clockjump"
	"hansa.dev/hansa/scheduler"
)

// loopPart begins the names of the parts that are loops of
// kube-controller-manager, serverPart of those that are a part of kube-apiserver.
const (
	loopPart   = "loop "
	serverPart = "API loop "
)

// ofEveryKind are the loops that look at objects of all kinds, of those too that are
// defined meanwhile.
var ofEveryKind = []string{definition.Name, dependencies.Name, disruption.Name, "generic-garbage-collector", "namespace-controller", "resourcequota-controller"}

// eventSources are the names by which loops are known in events, where those are
// not the names of their identities.
var eventSources = map[string]string{
	disruption.Name:                     "controllermanager",
	"daemon-set-controller":             "daemonset-controller",
	"endpointslice-controller":          "endpoint-slice-controller",
	"endpointslicemirroring-controller": "endpoint-slice-mirroring-controller",
	"generic-garbage-collector":         "garbage-collector-controller",
	"resource-claim-controller":         "resource_claim",
	"service-cidrs-controller":          "service-cidr-controller",
}

type (
	door = client.Interface
	told = events.Recorder
	loop = controller.Loop
)

// loops starts the loops of one process.
type loops struct {
	l       *lifecycle
	p       *controlPlane
	metrics *controller.Metrics
	log     *slog.Logger
	part    string // begins the names of their parts
}

func newLoops(l *lifecycle, p *controlPlane, log *slog.Logger) *loops {
	return &loops{l, p, controller.NewMetrics(p.metrics), log, ""}
}

// runAs runs a loop as some client; queue is the name of its queue in upstream's
// metrics.
func (s *loops) runAs(c door, name, queue string, workers int, build func(door, told) loop) {
	clk := clock.RealClock{}
	source := name
	if theirs, differs := eventSources[name]; differs {
		source = theirs
	}
	recorder := events.New(c, clk, source, "", s.log)
	s.l.run(name+" events", recorder.Run)
	runner := &controller.Runner{Loop: build(c, recorder), View: c.View(), Clock: clk, Log: s.log, Workers: workers, Metrics: s.metrics, Queue: queue}
	if slices.Contains(ofEveryKind, name) {
		runner.Registry = s.p.registry
	}
	s.l.run(s.part+name, runner.Run)
}

// startServer runs the loops that are parts of kube-apiserver. services is the
// default range of service addresses.
func (s *loops) startServer(services netip.Prefix) {
	s.part = serverPart
	ours := s.p.asServer(fairnessProducer)
	keeper := &controller.Runner{Loop: fairnessObjects{ours}, View: ours.View(), Clock: clock.RealClock{}, Log: s.log, Metrics: s.metrics, Queue: "priority_and_fairness_config_producer"}
	s.l.run(fairnessProducer, keeper.Run)
	server := s.p.asServer("kube-apiserver")
	s.runAs(server, servicecidr.DefaultName, "default_service_cidr", 1, func(c door, r told) loop { return servicecidr.NewDefault(c, r, services.String()) })
	s.runAs(server, ipaddress.Name, "services", 5, func(c door, r told) loop { return ipaddress.New(c, r) })
	s.runAs(server, definition.Name, "crd_naming_condition_controller", 1, func(c door, _ told) loop { return definition.New(c) })
	s.runAs(server, apiservice.RegistrationName, "autoregister", 1, func(c door, _ told) loop { return apiservice.NewRegistration(c) })
	s.runAs(server, apiservice.AvailabilityName, "RemoteAvailabilityController", 5, func(c door, _ told) loop {
		return apiservice.NewAvailability(c, s.p.metrics, s.p.aggregate.Probe)
	})
	s.runAs(server, authentication.Name, "cluster_authentication_trust_controller", 1, func(c door, _ told) loop {
		return authentication.New(c, s.p.authenticationInfo())
	})
}

// startManager runs the loops that are parts of kube-controller-manager, each as
// its own identity.
func (s *loops) startManager() {
	s.part = loopPart
	p := s.p
	run := func(name, queue string, workers int, build func(door, told) loop) {
		s.runAs(p.asLoop(name), name, queue, workers, build)
	}
	run("service-cidrs-controller", "ipaddresses", 5, func(c door, r told) loop { return servicecidr.New(c, r) })
	run("clusterrole-aggregation-controller", "ClusterRoleAggregator", 1, func(c door, _ told) loop { return clusterrole.New(c) })
	run("service-account-controller", "serviceaccount", 1, func(c door, _ told) loop { return serviceaccount.New(c) })
	s.runAs(p.as(user.KubeControllerManager, "kube-controller-manager"), "tokens-controller", "serviceaccount_tokens_service", 5, func(c door, _ told) loop {
		return tokens.New(c, p.authority.API.PEM(), p.tokens.Legacy)
	})
	run("root-ca-cert-publisher", "root_ca_cert_publisher", 1, func(c door, _ told) loop { return rootca.New(c, p.authority.API.PEM()) })
	run("kube-apiserver-serving-clustertrustbundle-publisher", "ca_cert_publisher_cluster_trust_bundles", 1, func(c door, _ told) loop { return trustbundle.New(c, p.authority.API.PEM()) })
	run("certificate-controller", "certificate", 5, func(c door, _ told) loop { return certificates.New(c, p.authority.API) })
	run("token-cleaner", "token_cleaner", 1, func(c door, _ told) loop { return bootstraptoken.NewCleaner(c) })
	run("bootstrap-signer", "bootstrap_signer_queue", 1, func(c door, _ told) loop { return bootstraptoken.NewSigner(c) })
	run("podcertificaterequestcleaner", "podcertificaterequestcleaner", 1, func(c door, _ told) loop { return certificates.NewPodCleaner(c) })
	run("deployment-controller", "deployment", 5, func(c door, r told) loop { return deployment.New(c, r) })
	run("replicaset-controller", "replicaset", 5, func(c door, r told) loop { return replicaset.New(c, r) })
	run("replication-controller", "replicationmanager", 5, func(c door, r told) loop { return replicaset.NewReplication(c, r) })
	run("statefulset-controller", "statefulset", 5, func(c door, r told) loop { return statefulset.New(c, r) })
	s.startRollbacks()
	run("daemon-set-controller", "daemonset", 2, func(c door, r told) loop { return daemonset.New(c, r) })
	run("job-controller", "job", 5, func(c door, r told) loop { return job.New(c, r) })
	run(disruption.Name, "disruption", 5, func(c door, r told) loop { return disruption.New(c, r) })
	run(horizontalpodautoscaler.Name, "horizontalpodautoscaler", 5, func(c door, r told) loop {
		return horizontalpodautoscaler.New(c, r, p.metricsOf(horizontalpodautoscaler.Name), p.metrics)
	})
	run("cronjob-controller", "cronjob", 5, func(c door, r told) loop { return cronjob.New(c, r, time.Local, onClockJump(s.log)) })
	run("ttl-after-finished-controller", "ttl_jobs_to_delete", 1, func(c door, _ told) loop { return ttl.New(c) })
	run("endpointslice-controller", "endpoint_slice", 5, func(c door, r told) loop { return endpointslice.New(c, r) })
	run("endpointslicemirroring-controller", "endpoint_slice_mirroring", 5, func(c door, r told) loop { return mirroring.New(c, r) })
	run("endpoint-controller", "endpoint", 5, func(c door, r told) loop { return endpoints.New(c, r) })
	run("resource-claim-controller", "resource_claim", 5, func(c door, r told) loop { return resourceclaim.New(c, r) })
	run("generic-garbage-collector", "garbage_collector_attempt_to_delete", 5, func(c door, r told) loop { return garbage.New(c, r) })
	run("namespace-controller", "namespace", 5, func(c door, _ told) loop { return namespace.New(c, p.remoteContents()) })
	run("resourcequota-controller", "resourcequota_primary", 5, func(c door, _ told) loop { return resourcequota.New(c, p.charges) })
	run("storage-version-migrator-controller", "storage-version-migrator-controller", 1, func(c door, _ told) loop { return migration.New(c) })
	run("validatingadmissionpolicy-status-controller", policystatus.Manager, 1, func(c door, _ told) loop { return policystatus.New(c) })
	run("node-controller", "node_lifecycle_controller", 2, func(c door, r told) loop { return nodelifecycle.New(c, r) })
	// Kubernetes has no role for this one: it is a part of the node controller.
	s.runAs(p.asLoop("node-controller"), "taint-eviction-controller", "noexec_taint_node", 2, func(c door, r told) loop { return tainteviction.New(c, r) })
	run(dependencies.Name, "dependencies", 2, func(c door, r told) loop { return dependencies.New(c, r) })
	run("pod-garbage-collector", "orphaned_pods_nodes", 1, func(c door, _ told) loop { return podgc.New(c) })
}

// onClockJump makes a function that has jumped called when the clock was set, with
// what it moved, until stop is called.
func onClockJump(log *slog.Logger) func(jumped func(by time.Duration)) (stop func()) {
	return func(jumped func(time.Duration)) func() {
		stop, err := clockjump.Watch(jumped)
		if err != nil {
			log.Warn("what waits for a time of day may be late after the clock is set", "err", err)
			return func() {}
		}
		return stop
	}
}

// startRollbacks runs one loop, as one identity, for each kind that has revisions.
func (s *loops) startRollbacks() {
	for plural, build := range map[string]func(door, told) *rollback.Loop{
		"deployments": rollback.NewDeployments, "statefulsets": rollback.NewStatefulSets, "daemonsets": rollback.NewDaemonSets,
	} {
		s.runAs(s.p.asLoop(rollback.Name), rollback.Name, "rollback_"+plural, 2, func(c door, r told) loop { return build(c, r) })
	}
}

// startScheduler places pods.
func startScheduler(l *lifecycle, p *controlPlane, log *slog.Logger) {
	clk := clock.RealClock{}
	c := p.as("system:kube-scheduler", "kube-scheduler")
	recorder := events.New(c, clk, "default-scheduler", "", log)
	l.run("scheduler events", recorder.Run)
	l.run("scheduler", scheduler.New(scheduler.Config{Client: c, Events: recorder, Clock: clk, Log: log, Metrics: p.metrics}).Run)
}

func sameEndpoints(have, want api.Object) bool {
	a, b := have.(*discoveryv1.EndpointSlice), want.(*discoveryv1.EndpointSlice)
	return equality.Semantic.DeepEqual(a.Endpoints, b.Endpoints) && equality.Semantic.DeepEqual(a.Ports, b.Ports)
}
