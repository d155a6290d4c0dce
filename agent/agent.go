package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubelet "k8s.io/kubelet/config/v1beta1"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/agent/admit"
	"hansa.dev/hansa/agent/cgroup"
	"hansa.dev/hansa/agent/downward"
	"hansa.dev/hansa/agent/gc"
	"hansa.dev/hansa/agent/image"
	"hansa.dev/hansa/agent/logs"
	"hansa.dev/hansa/agent/metrics"
	"hansa.dev/hansa/agent/node"
	"hansa.dev/hansa/agent/probe"
	"hansa.dev/hansa/agent/server"
	"hansa.dev/hansa/agent/settings"
	"hansa.dev/hansa/agent/status"
	"hansa.dev/hansa/agent/userns"
	"hansa.dev/hansa/agent/volume"
	"hansa.dev/hansa/agent/work"
	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/internal/processmetrics"
	"hansa.dev/hansa/internal/zpages"
	"hansa.dev/hansa/runtime"
)

// Config is all that an agent needs. Fields without a word on zero are
// required.
type Config struct {
	NodeName string
	// NodeIPs are the node's addresses, the primary one first.
	NodeIPs []netip.Addr
	// DataDir holds pods/ and logs/.
	DataDir string
	// Client acts as system:node:NAME.
	Client  client.Interface
	Runtime runtime.Runtime
	Clock   clock.WithTicker
	// Groups is the instance's cgroup tree.
	Groups *cgroup.Tree
	// Ledger notes a thing on the host before it is made. What is noted already
	// costs it nothing.
	Ledger func(kind, name string) error
	DNS    work.DNS

	// Host says what the machine is.
	Host    node.Host
	PodCIDR string
	// Settings are the node's; nil for the defaults. ImageDir is where images
	// are; "" if nobody knows.
	Settings *settings.Settings
	ImageDir string
	// Port of the node API, as the node's status names it.
	Port int
	// Version is the gitVersion that the node's status names.
	Version string
	Labels  map[string]string
	Taints  []v1.Taint
	// Environ is the environment of credential providers, NAME=VALUE.
	Environ []string
	// Bus is the address of the system's D-Bus, for graceful node shutdown.
	Bus string
	// GoneLogs bounds the logs that are kept of pods that are gone; zero is none.
	GoneLogs logs.Limits
	// OnClockJump, when not nil, has jumped called each time that the clock was set,
	// with what it moved, until stop is called. jumped does not block.
	OnClockJump func(jumped func(by time.Duration)) (stop func())
	// Ready, when not nil, is asked beside the runtime whether pods can be run:
	// the network, for one. Its error says what is missing.
	Ready func(ctx context.Context) error
	// Hung, when not nil, is called when the runtime has not answered for a
	// minute, and again each further minute.
	Hung func()

	// SelfConfined says that the program of the runtime's own sandboxes confines
	// itself, so that they need no seccomp profile.
	SelfConfined bool
	// Looked, when not nil, is called after each look at a runtime that was away.
	Looked func()
	// Pages are what the node API tells of the agent itself; nil for nothing.
	Pages *zpages.Component
	// Certificate is what the node API serves now, for its metrics; nil: nobody knows.
	Certificate func() (expires time.Time, err error)
	// Authorize wraps the node API.
	Authorize func(http.Handler) http.Handler
	Log       *slog.Logger
}

// Agent runs the pods of a node. Make one with New, run it once.
type Agent struct {
	Config
	rows    rows
	node    *work.Node
	keeper  *node.Keeper
	pusher  *status.Pusher
	statics *statics
	events  *events.Broadcaster
	volumes *volume.Manager
	objects *objects

	wake chan struct{}
	mu   sync.Mutex
	mail []func(ctx context.Context)

	// workers by UID. The map is written to by the agent's goroutine only,
	// with workersMu held, which others need to read it.
	workersMu sync.RWMutex
	workers   map[types.UID]*entry
	running   sync.WaitGroup
	claims    claims
	// orphans are the pods whose remains are being removed, adopted says that all
	// pods there were have workers, looksSoon that the runtime could not be looked at
	// and will be again; of the agent's goroutine.
	orphans   map[types.UID]bool
	adopted   bool
	looksSoon bool
	// knows is closed once the agent has workers for all pods there were.
	knows chan struct{}
	// answers is how the runtime answers; of the keeper.
	answers answers
	// link is whether there is a connection to the runtime.
	link link
	// unwritable is what was said last of folders that cannot be written to; of
	// the keeper.
	unwritable string
	// weights wakes whoever sets the classes' cpu weights.
	weights chan struct{}
	// pressure is what the machine is short of.
	pressure pressure
	images   gc.Memory
	// pulled wakes whoever looks at images.
	pulled chan struct{}
	// meter is for rates; registry has what the agent counts, metrics that which is
	// counted as it happens, since began.
	meter    *meter
	metrics  *metrics.Metrics
	began    time.Time
	registry *prometheus.Registry
	probes   *prometheus.Registry
	// goingDown says that the machine does.
	goingDown atomic.Bool
}

type entry struct {
	*work.Worker
	key api.Key
	// static is the pod if it is the node's own, else nil.
	static *v1.Pod
}

type rows struct {
	pods, configMaps, secrets, services, accounts, nodes, classes, trustBundles, certificates *api.Resource
}

// New makes an agent from what the machine is now.
func New(c Config) (*Agent, error) {
	if len(c.NodeIPs) == 0 {
		return nil, errors.New("agent: the node has no address")
	}
	if c.Settings == nil {
		c.Settings = settings.Default()
	}
	set := c.Settings
	capacity, err := c.Host.Capacity(set.MaxPods, set.PodsPerCore)
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	if !*set.LocalStorageCapacityIsolation {
		delete(capacity, v1.ResourceEphemeralStorage)
	}
	if err := node.Overreserved(capacity, set.Reserved, set.Thresholds); err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	allocatable := node.Allocatable(capacity, set.Reserved, set.Thresholds)
	registry := prometheus.NewRegistry()
	counts := metrics.New(registry)
	c.Runtime = counts.Runtime(c.Runtime, c.Clock)
	r := c.Client.Registry()
	a := &Agent{
		Config: c,
		rows: rows{
			pods: r.Must("", "pods"), configMaps: r.Must("", "configmaps"), secrets: r.Must("", "secrets"),
			services: r.Must("", "services"), accounts: r.Must("", "serviceaccounts"), nodes: r.Must("", "nodes"), classes: r.Must("node.k8s.io", "runtimeclasses"),
			trustBundles: r.Must(certificatesv1.GroupName, "clustertrustbundles"), certificates: r.Must(certificatesv1.GroupName, "podcertificaterequests"),
		},
		wake: make(chan struct{}, 1), weights: make(chan struct{}, 1), pulled: make(chan struct{}, 1), knows: make(chan struct{}),
		workers: map[types.UID]*entry{}, claims: claims{of: map[types.UID]*admit.Claim{}}, orphans: map[types.UID]bool{}, meter: newMeter(), registry: registry, metrics: counts, began: c.Clock.Now(),
	}
	a.registry.MustRegister(append(processmetrics.Collectors(), &kubeletMetrics{a})...)
	a.probes = prometheus.NewRegistry()
	a.objects = &objects{client: c.Client, rows: &a.rows, users: newUsers()}
	a.events = events.New(c.Client, c.Clock, "kubelet", c.NodeName, c.Log)
	a.pusher = status.New(c.Client, c.Clock, c.Log)
	a.pusher.Wrote = counts.Wrote
	a.statics = newStatics(c, a.rows.pods)
	a.volumes = volume.New(volume.Config{
		PodsDir: filepath.Join(c.DataDir, "pods"), Objects: a.objects, Clock: c.Clock,
		Allocatable: func() v1.ResourceList { return allocatable }, Record: c.Ledger, Addresses: a.addresses,
		PullImage: func(ctx context.Context, p *v1.Pod, ref string, policy v1.PullPolicy) (string, error) {
			return a.node.PullVolume(ctx, p, ref, policy)
		},
		Event: func(p *v1.Pod, kind, reason, message string) {
			a.events.Event(events.About(v1.SchemeGroupVersion.WithKind("Pod"), p, ""), kind, reason, message)
		},
	})
	images, err := image.New(image.Config{
		Runtime: c.Runtime, Clock: c.Clock, Dir: filepath.Join(c.DataDir, "agent", "images"), Settings: pulls(set), Log: c.Log,
		Providers: image.ProviderFiles{Config: set.ProviderConfig, Dir: set.ProviderDir, Environ: c.Environ}, Accounts: accounts{a.objects, a.volumes}, Metrics: a.registry, Pulled: a.imagePulled, Measured: counts.Pulled,
	})
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	logsDir := cmp.Or(set.PodLogsDir, filepath.Join(c.DataDir, "logs"))
	keeper, err := logs.NewKeeper(logsDir, c.GoneLogs, c.Clock)
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	a.node = &work.Node{
		Name: c.NodeName, IPs: texts(c.NodeIPs), Runtime: c.Runtime, Clock: c.Clock,
		Client: c.Client, Pods: a.rows.pods,
		Images: images, Volumes: a.volumes, Groups: countedGroups{c.Groups, counts, c.Clock}, Statuses: statuses{a.pusher, a.statics}, Users: userns.New(filepath.Join(c.DataDir, "pods")),
		Events: a.events, Objects: a.objects, DNS: c.DNS,
		LogsDir: logsDir, Logs: keeper, SeccompDir: filepath.Join(c.DataDir, "seccomp"), HostsFile: "/etc/hosts",
		Capacity: func() v1.ResourceList { return capacity }, Allocatable: func() v1.ResourceList { return allocatable },
		Rules: rules(c), Claim: a.claim, PodsChanged: a.podsChanged, Metrics: counts, Probes: probe.NewMetrics(a.probes), Log: c.Log,
		MemoryQoS: set.MemoryQoS, MemoryThrottling: ptr.Deref(set.MemoryThrottlingFactor, 0), OneProcessOOM: ptr.Deref(set.SingleProcessOOMKill, false),
		SeccompDefault: *set.SeccompDefault, SelfConfined: c.SelfConfined, MaxRestartDelay: set.CrashLoopBackOff.MaxContainerRestartPeriod.Duration, Keep: set.Keep,
	}
	a.keeper = node.New(node.Config{
		Name: c.NodeName, IPs: c.NodeIPs, Port: c.Port, PodCIDR: c.PodCIDR, Version: c.Version,
		RuntimeVersion: a.runtimeVersion, Offers: a.offers, Labels: c.Labels, Taints: slices.Concat(c.Taints, set.RegisterWithTaints), Info: c.Host.Info(),
		Capacity: capacity, Allocatable: allocatable, Ready: a.ready, Pressure: a.pressure.conditions, Images: a.imagesShown, MaxImages: int(*set.NodeStatusMaxImages),
		Lease: time.Duration(set.NodeLeaseDurationSeconds) * time.Second, Look: set.NodeStatusUpdateFrequency.Duration,
		Unregistered: !*set.RegisterNode, ProviderID: set.ProviderID,
		Client: c.Client, Clock: c.Clock, Events: a.events, Log: c.Log,
	})
	return a, nil
}

// accounts are what credential providers are told of pods.
type accounts struct {
	*objects
	*volume.Manager
}

// pulls says how images are pulled.
func pulls(set *settings.Settings) image.Settings {
	s := image.Settings{Parallel: 1, Verify: image.Verification(set.ImagePullCredentialsVerificationPolicy), Allowlist: set.PreloadedImagesVerificationAllowlist}
	if !*set.SerializeImagePulls {
		s.Parallel = int(ptr.Deref(set.MaxParallelImagePulls, -1))
	}
	return s
}

// rules are those by which pods are limited.
func rules(c Config) cgroup.Rules {
	set := c.Settings
	return cgroup.Rules{
		CPU:     cgroup.CPU{Unlimited: !*set.CPUCFSQuota, Period: uint64(set.CPUCFSQuotaPeriod.Microseconds())},
		Pids:    max(*set.PodPidsLimit, 0),
		Reserve: set.MemoryQoS && set.MemoryReservationPolicy == kubelet.TieredReservationMemoryReservationPolicy && c.Groups.Name() == "v2",
	}
}

func texts(ips []netip.Addr) []string {
	var out []string
	for _, ip := range ips {
		out = append(out, ip.String())
	}
	return out
}

// Handler is the node API. Until the agent knows its pods, requests wait: a pod
// that runs on from before a restart is not to be told that it is not there.
func (a *Agent) Handler() http.Handler {
	h := server.New(server.Config{
		Node: nodeView{a}, Runtime: a.Runtime, Clock: a.Clock, Authorize: a.Authorize, Log: a.Log,
		Metrics: promhttp.HandlerFor(a.registry, promhttp.HandlerOpts{}), Probes: promhttp.HandlerFor(a.probes, promhttp.HandlerOpts{}),
		Settings: a.Settings, Pages: a.Pages,
	})
	return a.metrics.Requests(a.Clock, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-a.knows:
			h.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	}))
}

// Poke asks for a look at the node now: its images or its network changed.
func (a *Agent) Poke() { a.keeper.Poke() }

// Run runs the node's pods until the context ends. Containers are left running.
func (a *Agent) Run(ctx context.Context) error {
	if err := a.Ledger(volume.LedgerKind, a.volumes.PodsDir); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	if err := a.enforceOthers(); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	a.podsChanged() // makes the classes' groups before there is a pod
	if a.OnClockJump != nil {
		defer a.OnClockJump(a.clockJumped)()
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.events.Run(ctx) })
	g.Go(func() error { return a.pusher.Run(ctx) })
	g.Go(func() error { return a.keeper.Run(ctx) })
	g.Go(func() error { return a.keepWeights(ctx) })
	g.Go(func() error { return a.keepHouse(ctx) })
	g.Go(func() error { return a.keepMirrors(ctx) })
	g.Go(func() error {
		return a.Runtime.Events(ctx, a.runtimeEvent, func() { a.reconnected(ctx) }, a.disconnected)
	})
	g.Go(func() error { return a.loop(ctx) })
	err := g.Wait()
	a.running.Wait()
	return err
}

// loop distributes what happens.
func (a *Agent) loop(ctx context.Context) error {
	if err := a.beginStatic(ctx); err != nil {
		return err
	}
	a.running.Go(func() { a.keepStatic(ctx) })
	if err := a.awaitAPI(ctx); err != nil {
		return err
	}
	if err := a.firstLook(ctx); err != nil {
		return err
	}
	view := a.Client.View()
	for _, cancel := range []func(){
		view.Subscribe(a.rows.pods, a.podChanged),
		view.Subscribe(a.rows.configMaps, a.objects.changed(kindConfigMap, a.refresh)),
		view.Subscribe(a.rows.secrets, a.objects.changed(kindSecret, a.refresh)),
		view.Subscribe(a.rows.trustBundles, a.objects.bundleChanged(a.refresh)),
		view.Subscribe(a.rows.certificates, a.objects.certificateChanged(a.refresh)),
	} {
		defer cancel()
	}
	close(a.knows)
	a.running.Go(func() { a.keepShutdown(ctx) })
	for {
		for _, f := range a.take() {
			f(ctx)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.wake:
		}
	}
}

// awaitAPI returns once the API's objects are known. Until then the node's own
// pods are seen to.
func (a *Agent) awaitAPI(ctx context.Context) error {
	synced := make(chan error, 1)
	go func() {
		synced <- a.Client.View().WaitSynced(ctx, a.rows.pods, a.rows.configMaps, a.rows.secrets, a.rows.services, a.rows.nodes, a.rows.classes, a.rows.trustBundles, a.rows.certificates)
	}()
	for {
		for _, f := range a.take() {
			f(ctx)
		}
		select {
		case err := <-synced:
			if err != nil {
				return fmt.Errorf("agent: wait for the API's objects: %w", err)
			}
			return nil
		case <-a.wake:
		}
	}
}

func (a *Agent) post(f func(ctx context.Context)) {
	a.mu.Lock()
	a.mail = append(a.mail, f)
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

func (a *Agent) take() []func(context.Context) {
	a.mu.Lock()
	defer a.mu.Unlock()
	mail := a.mail
	a.mail = nil
	return mail
}

// runtimeEvent hands an event to the pod that it is about. What is made for one
// that has no worker was asked for by an agent before this one.
func (a *Agent) runtimeEvent(e *cri.ContainerEventResponse) {
	a.post(func(ctx context.Context) {
		uid := types.UID(e.GetPodSandboxStatus().GetMetadata().GetUid())
		w := a.workers[uid]
		switch {
		case w != nil:
			w.Event(e)
		case uid != "" && !a.orphans[uid] && e.ContainerEventType == cri.ContainerEventType_CONTAINER_STARTED_EVENT:
			a.lookAgain(ctx)
		}
	})
}

func (a *Agent) addresses(uid types.UID) downward.Addresses {
	a.workersMu.RLock()
	defer a.workersMu.RUnlock()
	if w := a.workers[uid]; w != nil {
		return w.Addresses()
	}
	return downward.Addresses{Host: a.node.IPs}
}
