package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	statsv1alpha1 "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/apiserver/aggregation"
	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/monitor/resourcemetrics"
)

// computed are the kinds that are made when somebody asks for them.
func (p *controlPlane) computed(l *lifecycle, log *slog.Logger) map[schema.GroupResource]request.Computed {
	x := newProxies(p)
	metrics := resourcemetrics.New(resourcemetrics.Config{
		View: p.store.View(), Nodes: x.nodes, Pods: x.pods, Ask: x.summary, Clock: clock.RealClock{}, Log: log,
	})
	return map[schema.GroupResource]request.Computed{
		{Resource: "componentstatuses"}:                      components(l, p.store.Ready),
		{Group: metricsv1beta1.GroupName, Resource: "nodes"}: metrics.NodeMetrics,
		{Group: metricsv1beta1.GroupName, Resource: "pods"}:  metrics.PodMetrics,
	}
}

// mostSummary bounds what a node says of itself, in bytes: some KiB a pod.
const mostSummary = 32 << 20

// summary asks a node's own API for what it uses of cpu and memory.
func (x *proxies) summary(ctx context.Context, n *corev1.Node) (*statsv1alpha1.Summary, error) {
	at, err := x.nodeURL(n.Name)
	if err != nil {
		return nil, err
	}
	at.Path, at.RawQuery = "/stats/summary", "only_cpu_and_memory=true"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := x.node.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body := io.LimitReader(resp.Body, mostSummary)
	if resp.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(body, maxRefusal))
		if err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("node %s answered %s: %s", n.Name, resp.Status, text)
	}
	var out statsv1alpha1.Summary
	if err := json.NewDecoder(body).Decode(&out); err != nil {
		return nil, fmt.Errorf("read what node %s uses: %w", n.Name, err)
	}
	return &out, nil
}

// loopMetrics are the metrics as a loop asks for them: those of resources of this
// server, unless somebody else's is registered.
type loopMetrics struct {
	*aggregation.Reader
	requests *request.Handler
}

func (p *controlPlane) metricsOf(loop string) loopMetrics {
	return loopMetrics{&aggregation.Reader{Server: p.aggregate, Authorizer: p.authorize, As: loopUser(loop)}, p.handler}
}

// Pods are what the pods that a selector matches use.
func (m loopMetrics) Pods(ctx context.Context, namespace string, selector labels.Selector) ([]metricsv1beta1.PodMetrics, error) {
	gv := metricsv1beta1.SchemeGroupVersion
	if m.Serves(gv) {
		data, err := m.Get(ctx, gv, namespace, []string{"pods"}, url.Values{"labelSelector": {selector.String()}})
		if err != nil {
			return nil, err
		}
		var list metricsv1beta1.PodMetricsList
		err = json.Unmarshal(data, &list)
		return list.Items, err
	}
	info := &request.Info{User: m.As, Verb: "list", Namespace: namespace, Served: m.requests.Registry.ByGVR(gv.WithResource("pods"))}
	page, err := m.requests.List(ctx, info, &metav1.ListOptions{LabelSelector: selector.String()})
	if err != nil {
		return nil, err
	}
	var out []metricsv1beta1.PodMetrics
	for o := range page.Objects {
		out = append(out, *o.(*metricsv1beta1.PodMetrics))
	}
	return out, nil
}
