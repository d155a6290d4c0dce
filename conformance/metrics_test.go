package conformance

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

const nodeMetrics = "/apis/metrics.k8s.io/v1beta1/nodes"

// Documentation: "Resource metrics pipeline".
func TestResourceMetrics(t *testing.T) {
	ns := namespace(t)
	node := ghost(t)
	admin.do(t, call{path: nodeMetrics + "/" + node}).refused(t, 404, "NotFound", fmt.Sprintf(`nodemetrics.metrics.k8s.io %q not found`, node))
	admin.do(t, call{path: "/apis/metrics.k8s.io/v1beta1/namespaces/" + ns + "/pods/none"}).refused(t, 404, "NotFound", fmt.Sprintf(`podmetrics.metrics.k8s.io "%s/none" not found`, ns))
	var list metricsv1beta1.NodeMetricsList
	eventually(t, "the node is measured", func() bool {
		admin.want(t, http.StatusOK, call{path: nodeMetrics, accept: "application/json"}, &list)
		return len(list.Items) == 1
	})
	m := list.Items[0]
	if m.Usage.Cpu().Sign() <= 0 || m.Usage.Memory().Sign() <= 0 || m.Window.Duration <= 0 || m.Labels["kubernetes.io/hostname"] != m.Name {
		t.Errorf("metrics %+v", m)
	}
	var pods metricsv1beta1.PodMetricsList
	admin.want(t, http.StatusOK, call{path: "/apis/metrics.k8s.io/v1beta1/namespaces/" + ns + "/pods", accept: "application/json"}, &pods)
	if pods.Items == nil || len(pods.Items) != 0 {
		t.Errorf("pods %+v", pods)
	}
	for _, method := range []string{"POST", "DELETE", "PUT"} {
		if a := admin.do(t, call{method: method, path: nodeMetrics + "/" + m.Name, body: "{}"}); a.code != http.StatusMethodNotAllowed && a.code != http.StatusNotFound {
			t.Errorf("%s: %d", method, a.code)
		}
	}
	if a := admin.do(t, call{path: apiServices + "/v1beta1.metrics.k8s.io"}); a.code != http.StatusNotFound {
		t.Errorf("there is an APIService in the way of a metrics server: %d", a.code)
	}
}

// Who may view a namespace may see what its pods use.
func TestMetricsReaders(t *testing.T) {
	ns := namespace(t)
	can := func() string {
		return strings.TrimSpace(shared.run(t, "kubectl", "auth", "can-i", "list", "pods.metrics.k8s.io", "--as=reader", "-n", ns).out)
	}
	if got := can(); got != "no" {
		t.Errorf("before: %s", got)
	}
	for _, role := range []string{"view", "edit", "admin"} {
		if r := shared.run(t, "kubectl", "create", "rolebinding", "reader", "--clusterrole="+role, "--user=reader", "-n", ns); r.code != 0 {
			t.Fatalf("%+v", r)
		}
		if got := can(); got != "yes" {
			t.Errorf("who may %s: %s", role, got)
		}
		shared.run(t, "kubectl", "delete", "rolebinding", "reader", "-n", ns)
	}
}

// registerVersion makes the extension answer for a group-version, by a function
// of what is below that.
func (e *extension) registerVersion(t *testing.T, group, version string, answer func(w http.ResponseWriter, below string)) {
	t.Helper()
	at := "/apis/" + group + "/" + version
	e.lies(func(w http.ResponseWriter, r *http.Request) bool {
		below, ours := strings.CutPrefix(r.URL.Path, at)
		if !ours {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		if below == "" {
			fmt.Fprintf(w, `{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"%s/%s","resources":[]}`, group, version)
			return true
		}
		answer(w, below)
		return true
	})
	name := version + "." + group
	body := fmt.Sprintf("apiVersion: apiregistration.k8s.io/v1\nkind: APIService\nmetadata: {name: %s}\nspec: {group: %s, version: %s, groupPriorityMinimum: 100, versionPriority: 100, service: {namespace: %s, name: api}, caBundle: %s}",
		name, group, version, e.namespace, base64.StdEncoding.EncodeToString(e.authority))
	admin.want(t, http.StatusCreated, call{method: "POST", path: apiServices, body: body}, nil)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		r, err := admin.open(ctx, call{method: "DELETE", path: apiServices + "/" + name})
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
	})
	eventually(t, name+" is available", func() bool {
		a := admin.do(t, call{path: apiServices + "/" + name, accept: "application/json"})
		conditions, _, _ := unstructured.NestedSlice(a.object(t).Object, "status", "conditions")
		for _, c := range conditions {
			if c := c.(map[string]any); c["type"] == "Available" && c["status"] == "True" {
				return true
			}
		}
		return false
	})
}

// A metrics server that somebody installs takes the place of ours while it is
// there.
func TestMetricsServerTakesOver(t *testing.T) {
	e := startExtension(t, nil)
	e.service(t)
	e.registerVersion(t, "metrics.k8s.io", "v1beta1", func(w http.ResponseWriter, below string) {
		fmt.Fprintf(w, `{"kind":"NodeMetricsList","apiVersion":"metrics.k8s.io/v1beta1","metadata":{},"items":[{"metadata":{"name":"theirs%s"}}]}`, strings.ReplaceAll(below, "/", "-"))
	})
	names := func() string {
		var list metricsv1beta1.NodeMetricsList
		admin.want(t, http.StatusOK, call{path: nodeMetrics, accept: "application/json"}, &list)
		var out []string
		for _, m := range list.Items {
			out = append(out, m.Name)
		}
		return strings.Join(out, " ")
	}
	if got := names(); got != "theirs-nodes" {
		t.Errorf("with another metrics server: %s", got)
	}
	admin.want(t, http.StatusOK, call{method: "DELETE", path: apiServices + "/v1beta1.metrics.k8s.io"}, nil)
	eventually(t, "ours answers again", func() bool { return !strings.Contains(names(), "theirs") })
}

// A custom resource is scaled by a metric of another server.
func TestAutoscalerOfCustomResource(t *testing.T) {
	e := startExtension(t, nil)
	e.service(t)
	ns := e.namespace
	e.registerVersion(t, "external.metrics.k8s.io", "v1beta1", func(w http.ResponseWriter, below string) {
		if below != "/namespaces/"+ns+"/queue" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		fmt.Fprint(w, `{"kind":"ExternalMetricValueList","apiVersion":"external.metrics.k8s.io/v1beta1","metadata":{},"items":[{"metricName":"queue","timestamp":"2026-01-01T00:00:00Z","value":"15"},{"metricName":"queue","timestamp":"2026-01-01T00:00:00Z","value":"20"}]}`)
	})
	gvr := define(t, `
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
    subresources: {scale: {specReplicasPath: .spec.size, statusReplicasPath: .status.size, labelSelectorPath: .status.selector}}`)
	path := "/apis/" + gvr.Group + "/v1/namespaces/" + ns + "/gadgets"
	admin.want(t, http.StatusCreated, call{method: "POST", path: path, body: fmt.Sprintf("apiVersion: %s/v1\nkind: Gadget\nmetadata: {name: one}\nspec: {size: 2}\nstatus: {size: 2, selector: app=one}", gvr.Group)}, nil)
	admin.want(t, http.StatusCreated, call{method: "POST", path: pathOf("autoscaling", "v2", ns, "horizontalpodautoscalers"), body: fmt.Sprintf(`
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: one}
spec:
  scaleTargetRef: {apiVersion: %s/v1, kind: Gadget, name: one}
  minReplicas: 1
  maxReplicas: 9
  metrics: [{type: External, external: {metric: {name: queue}, target: {type: AverageValue, averageValue: "10"}}}]`, gvr.Group)}, nil)
	eventually(t, "the gadget is scaled", func() bool {
		size, _, _ := unstructured.NestedInt64(admin.want(t, http.StatusOK, call{path: path + "/one"}, nil).object(t).Object, "spec", "size")
		return size == 4
	})
	eventually(t, "the autoscaler says so", func() bool {
		h := admin.want(t, http.StatusOK, call{path: pathOf("autoscaling", "v2", ns, "horizontalpodautoscalers") + "/one", accept: "application/json"}, nil)
		return strings.Contains(string(h.body), `"reason":"ValidMetricFound"`) && strings.Contains(string(h.body), `"averageValue":"17500m"`) && strings.Contains(string(h.body), `"desiredReplicas":4`)
	})
}

func pathOf(group, version, namespace, plural string) string {
	return "/apis/" + group + "/" + version + "/namespaces/" + namespace + "/" + plural
}
