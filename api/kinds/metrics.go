package kinds

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"hansa.dev/hansa/api"
)

// Yields says that this server answers for a group-version only as long as no
// APIService names another one. There is no APIService of its own for it, so that
// whoever installs a metrics server finds the place free.
func Yields(gv schema.GroupVersion) bool { return gv == metricsv1beta1.SchemeGroupVersion }

// nodeMetrics and podMetrics are not stored: nodes are asked when the server is.
func nodeMetrics() *api.Resource {
	return stored[metricsv1beta1.NodeMetrics, *metricsv1beta1.NodeMetrics, metricsv1beta1.NodeMetricsList](metricsv1beta1.SchemeGroupVersion, &api.Resource{
		Plural:   "nodes",
		Singular: "",
		Kind:     "NodeMetrics",
		Verbs:    []string{"get", "list"},
		Table: usageTable(func(m *metricsv1beta1.NodeMetrics, _ time.Time) []any {
			return usageCells(m.Name, m.Usage, m.Window)
		}),
	})
}

func podMetrics() *api.Resource {
	return stored[metricsv1beta1.PodMetrics, *metricsv1beta1.PodMetrics, metricsv1beta1.PodMetricsList](metricsv1beta1.SchemeGroupVersion, &api.Resource{
		Plural:     "pods",
		Singular:   "",
		Kind:       "PodMetrics",
		Namespaced: true,
		Verbs:      []string{"get", "list"},
		Table: usageTable(func(m *metricsv1beta1.PodMetrics, _ time.Time) []any {
			sum := corev1.ResourceList{}
			for _, c := range m.Containers {
				for name, q := range c.Usage {
					s := sum[name]
					s.Add(q)
					sum[name] = s
				}
			}
			return usageCells(m.Name, sum, m.Window)
		}),
	})
}

// usageTable has the columns of the metrics server.
func usageTable[T api.Object](row func(T, time.Time) []any) *api.Table {
	quantity := func(name corev1.ResourceName) metav1.TableColumnDefinition {
		return metav1.TableColumnDefinition{Name: string(name), Type: "string", Format: "quantity", Description: "Usage of " + string(name)}
	}
	return &api.Table{
		Columns: []metav1.TableColumnDefinition{
			{Name: "Name", Type: "string", Format: "name", Description: "Name of the resource"},
			quantity(corev1.ResourceCPU), quantity(corev1.ResourceMemory),
			{Name: "Window", Type: "string", Format: "duration", Description: "Time over which usage was measured"},
		},
		Row: cells(row),
	}
}

func usageCells(name string, usage corev1.ResourceList, window metav1.Duration) []any {
	text := func(q resource.Quantity) string { return q.String() }
	return []any{name, text(usage[corev1.ResourceCPU]), text(usage[corev1.ResourceMemory]), window.Duration.String()}
}
