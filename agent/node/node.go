// Package node keeps the node's own object: registered once, its status written
// when it changes, its lease renewed every ten
// seconds. The lease is the heartbeat; the status is not.
package node

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	container "hansa.dev/hansa/runtime"
)

// Config is what a Keeper needs.
type Config struct {
	Name    string
	IPs     []netip.Addr
	Port    int // of the node API
	PodCIDR string
	// Version is the gitVersion of the agent, RuntimeVersion "containerd://2.4".
	Version        string
	RuntimeVersion func(ctx context.Context) (string, error)
	// Offers is what the runtime can do.
	Offers func(ctx context.Context) (container.Offers, error)
	Labels map[string]string
	Taints []v1.Taint
	Info   v1.NodeSystemInfo
	// Capacity and Allocatable of the machine.
	Capacity, Allocatable v1.ResourceList
	// Ready is nil when pods can be run here; its text says why not.
	Ready func(ctx context.Context) error
	// Pressure lists the conditions of what the machine is short of.
	Pressure func() []v1.NodeConditionType
	// MaxImages is how many images a status names; -1 for all.
	MaxImages int
	// Lease is how long the node counts as alive after a renewal, which is due
	// every quarter of it; Look is how often the machine is looked at.
	Lease, Look time.Duration
	// Unregistered says that somebody else makes the node's object.
	Unregistered bool
	// ProviderID names the machine at its provider; may be empty.
	ProviderID string
	// Images lists what is on the node.
	Images func(ctx context.Context) ([]v1.ContainerImage, error)

	Client client.Interface
	Clock  clock.WithTicker
	Events events.Recorder
	Log    *slog.Logger
}

// firstPause is how soon a node that is not ready is looked at again; it
// doubles up to Look.
const firstPause = 50 * time.Millisecond

// renewParts is how many renewals a lease is good for.
const renewParts = 4

// Keeper keeps the object. Poke and Renew may be called from any goroutine.
type Keeper struct {
	Config
	nodes, leases *api.Resource
	poke          chan struct{}
	lease         api.Object
	due           atomic.Bool // the lease's renewal, whenever the last one was: the clock was set, or it failed
	reported      time.Time
	ready         bool

	mu      sync.Mutex
	startup Startup
}

// Startup is how a node came into the cluster; what has not been yet is zero. Of a
// node that was there before only Asked is known.
type Startup struct{ Asked, Registered, Ready time.Time }

// Startup is known from when the keeper runs. It may be asked from any goroutine.
func (k *Keeper) Startup() Startup {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.startup
}

// noteStartup sets one of the times, unless it is set.
func (k *Keeper) noteStartup(which func(s *Startup) *time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if at := which(&k.startup); at.IsZero() {
		*at = k.Clock.Now()
	}
}

// New makes a keeper.
func New(c Config) *Keeper {
	r := c.Client.Registry()
	return &Keeper{
		Config: c, poke: make(chan struct{}, 1),
		nodes: r.Must("", "nodes"), leases: r.Must("coordination.k8s.io", "leases"),
	}
}

// Poke asks for a look at the node now: images or readiness may have changed.
func (k *Keeper) Poke() {
	select {
	case k.poke <- struct{}{}:
	default:
	}
}

// Renew asks for a renewal of the lease now: the clock was set, and others would
// take the time in it for one long ago, or for one to come.
func (k *Keeper) Renew() {
	k.due.Store(true)
	k.Poke()
}

// Run registers the node and keeps it until the context ends.
func (k *Keeper) Run(ctx context.Context) error {
	pause := firstPause
	for k.register(ctx) != nil {
		if !k.sleep(ctx, pause) {
			return ctx.Err()
		}
		pause = min(2*pause, k.Look)
	}
	k.event(events.Normal, "Starting", "Starting kubelet.")
	pause = firstPause
	var renewed time.Time
	for {
		if err := k.report(ctx); err != nil && ctx.Err() == nil && !apierrors.IsConflict(err) {
			k.Log.Warn("node status not written yet", "node", k.Name, "err", err)
		}
		renewal := k.Lease / renewParts
		if now := k.Clock.Now(); k.due.Swap(false) || now.Sub(renewed) >= renewal {
			if err := k.renew(ctx); err == nil {
				renewed = now
			} else {
				k.due.Store(true)
				if ctx.Err() == nil {
					k.Log.Warn("node lease not renewed", "node", k.Name, "err", err)
				}
			}
		}
		wait := pause
		if !k.ready || k.due.Load() {
			pause = min(2*pause, k.Look)
		} else {
			pause = firstPause
			wait = max(min(renewed.Add(renewal).Sub(k.Clock.Now()), k.Look), firstPause)
		}
		if !k.sleep(ctx, wait) {
			return ctx.Err()
		}
	}
}

func (k *Keeper) sleep(ctx context.Context, d time.Duration) bool {
	t := k.Clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-k.poke:
	case <-t.C():
	}
	return ctx.Err() == nil
}

func (k *Keeper) event(kind, reason, message string) {
	about := v1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: k.Name, UID: ""}
	if n := k.object(); n != nil {
		about.UID = n.UID
	}
	k.Events.Event(about, kind, reason, message)
}

// object is the node as the view shows it, or nil.
func (k *Keeper) object() *v1.Node {
	n, _ := k.Client.View().Get(k.nodes, api.Key{Name: k.Name}).(*v1.Node)
	return n
}

// wanted are the labels that the agent sees to.
func (k *Keeper) wanted() map[string]string {
	out := map[string]string{
		v1.LabelHostname:          k.Name,
		v1.LabelOSStable:          runtime.GOOS,
		v1.LabelArchStable:        runtime.GOARCH,
		"beta.kubernetes.io/os":   runtime.GOOS,
		"beta.kubernetes.io/arch": runtime.GOARCH,
	}
	maps.Copy(out, k.Labels)
	return out
}

// register makes the object, or brings its labels up to date.
func (k *Keeper) register(ctx context.Context) error {
	err := k.tryRegister(ctx)
	if err != nil && ctx.Err() == nil {
		k.Log.Warn("node not registered yet", "node", k.Name, "err", err)
	}
	return err
}

func (k *Keeper) tryRegister(ctx context.Context) error {
	k.noteStartup(func(s *Startup) *time.Time { return &s.Asked })
	ref := api.Ref{Resource: k.nodes, Name: k.Name}
	found, err := k.Client.Get(ctx, ref)
	if apierrors.IsNotFound(err) {
		if k.Unregistered {
			return err
		}
		n := &v1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: k.Name, Labels: k.wanted()},
			Spec:       v1.NodeSpec{PodCIDR: k.PodCIDR, Taints: k.Taints, ProviderID: k.ProviderID},
		}
		if k.PodCIDR != "" {
			n.Spec.PodCIDRs = []string{k.PodCIDR}
		}
		if _, err = k.Client.Create(ctx, k.nodes, n, metav1.CreateOptions{}); err == nil {
			k.noteStartup(func(s *Startup) *time.Time { return &s.Registered })
		}
		return err
	}
	if err != nil {
		return err
	}
	old, ok := found.(*v1.Node)
	if !ok {
		return fmt.Errorf("read node %s: the answer is a %T", k.Name, found)
	}
	n := old.DeepCopy()
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	maps.Copy(n.Labels, k.wanted())
	if n.Spec.PodCIDR == "" && k.PodCIDR != "" {
		n.Spec.PodCIDR, n.Spec.PodCIDRs = k.PodCIDR, []string{k.PodCIDR}
	}
	if n.Spec.ProviderID == "" {
		n.Spec.ProviderID = k.ProviderID
	}
	if equality.Semantic.DeepEqual(old, n) {
		return nil
	}
	_, err = k.Client.Update(ctx, k.nodes, n, "")
	return err
}

// report writes the status when it has changed or is due.
func (k *Keeper) report(ctx context.Context) error {
	old := k.object()
	if old == nil {
		// Somebody deleted it: the node is still here.
		return k.tryRegister(ctx)
	}
	now := k.Clock.Now()
	st, err := k.status(ctx, old, now)
	if err != nil {
		return err
	}
	// The lease says that the node lives; its status is written when the agent
	// begins and when something changes, so that a cluster at rest is at rest.
	if !k.reported.IsZero() && equality.Semantic.DeepEqual(stripHeartbeats(&old.Status), stripHeartbeats(st)) {
		return nil
	}
	patch, err := statusPatch(old, st)
	if err != nil {
		return err
	}
	ref := api.Ref{Resource: k.nodes, Name: k.Name}
	if _, err := k.Client.Patch(ctx, ref, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
		return err
	}
	k.reported = now
	if k.ready {
		k.noteStartup(func(s *Startup) *time.Time { return &s.Ready })
	}
	return nil
}

// statusPatch changes the status to st. A patch says what this agent wants to
// change and nothing else: others write to the object, too. The addresses are
// replaced as a whole, for a merge by type cannot take one away.
func statusPatch(old *v1.Node, st *v1.NodeStatus) ([]byte, error) {
	before, err := json.Marshal(&v1.Node{Status: old.Status})
	if err != nil {
		return nil, fmt.Errorf("encode node: %w", err)
	}
	after, err := json.Marshal(&v1.Node{Status: *st})
	if err != nil {
		return nil, fmt.Errorf("encode node: %w", err)
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(before, after, v1.Node{})
	if err != nil {
		return nil, fmt.Errorf("make patch of node status: %w", err)
	}
	if equality.Semantic.DeepEqual(old.Status.Addresses, st.Addresses) {
		return patch, nil
	}
	var tree map[string]any
	if err := json.Unmarshal(patch, &tree); err != nil {
		return nil, fmt.Errorf("make patch of node status: %w", err)
	}
	addresses := []any{map[string]any{"$patch": "replace"}}
	for _, a := range st.Addresses {
		addresses = append(addresses, a)
	}
	status := tree["status"].(map[string]any)
	status["addresses"] = addresses
	delete(status, "$setElementOrder/addresses")
	if patch, err = json.Marshal(tree); err != nil {
		return nil, fmt.Errorf("make patch of node status: %w", err)
	}
	return patch, nil
}

func stripHeartbeats(st *v1.NodeStatus) *v1.NodeStatus {
	out := st.DeepCopy()
	for i := range out.Conditions {
		out.Conditions[i].LastHeartbeatTime = metav1.Time{}
	}
	return out
}

// status is the node's status now. What others put into it stays: conditions
// that are not ours, resources that the machine does not have.
func (k *Keeper) status(ctx context.Context, old *v1.Node, now time.Time) (*v1.NodeStatus, error) {
	st := old.Status.DeepCopy()
	st.Capacity = overlay(st.Capacity, k.Capacity)
	st.Allocatable = overlay(st.Allocatable, k.Allocatable)
	st.Addresses = nil
	for _, ip := range k.IPs {
		st.Addresses = append(st.Addresses, v1.NodeAddress{Type: v1.NodeInternalIP, Address: ip.String()})
	}
	st.Addresses = append(st.Addresses, v1.NodeAddress{Type: v1.NodeHostName, Address: k.Name})
	st.DaemonEndpoints.KubeletEndpoint.Port = int32(k.Port)
	st.NodeInfo = k.Info
	st.NodeInfo.KubeletVersion = k.Version
	readyErr := k.Ready(ctx)
	version, err := k.RuntimeVersion(ctx)
	if err != nil {
		version = old.Status.NodeInfo.ContainerRuntimeVersion
	}
	st.NodeInfo.ContainerRuntimeVersion = version
	if offers, err := k.Offers(ctx); err == nil {
		st.RuntimeHandlers, st.Features = handlers(offers), features(offers)
	}
	if images, err := k.Images(ctx); err == nil {
		st.Images = topImages(images, k.MaxImages)
	}
	k.conditions(st, readyErr, k.Pressure(), now)
	return st, nil
}

// handlers are the runtime's ways to run a container, with what each can do.
func handlers(o container.Offers) []v1.NodeRuntimeHandler {
	var out []v1.NodeRuntimeHandler
	for _, h := range o.Handlers {
		own := v1.NodeRuntimeHandler{Name: h.GetName()}
		if f := h.GetFeatures(); f != nil {
			own.Features = &v1.NodeRuntimeHandlerFeatures{RecursiveReadOnlyMounts: &f.RecursiveReadOnlyMounts, UserNamespaces: &f.UserNamespaces}
		}
		out = append(out, own)
	}
	slices.SortFunc(out, func(a, b v1.NodeRuntimeHandler) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// features are what the runtime can do whatever the handler.
func features(o container.Offers) *v1.NodeFeatures {
	if o.Features == nil {
		return nil
	}
	return &v1.NodeFeatures{SupplementalGroupsPolicy: &o.Features.SupplementalGroupsPolicy}
}

// overlay sets what is ours in a list and keeps the rest.
func overlay(list, ours v1.ResourceList) v1.ResourceList {
	if list == nil {
		list = v1.ResourceList{}
	}
	for name, q := range ours {
		if old, ok := list[name]; !ok || old.Cmp(q) != 0 {
			list[name] = q.DeepCopy()
		}
	}
	return list
}

// topImages are the most largest ones; -1 for all.
func topImages(images []v1.ContainerImage, most int) []v1.ContainerImage {
	slices.SortFunc(images, func(a, b v1.ContainerImage) int {
		if a.SizeBytes != b.SizeBytes {
			return int(min(max(b.SizeBytes-a.SizeBytes, -1), 1))
		}
		return slices.Compare(a.Names, b.Names)
	})
	if most < 0 {
		return images
	}
	return images[:min(len(images), most)]
}
