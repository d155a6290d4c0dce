package kinds

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api"
)

// componentStatus is not stored: the server asks the components when it is asked.
func componentStatus() *api.Resource {
	row := stored[corev1.ComponentStatus, *corev1.ComponentStatus, corev1.ComponentStatusList](corev1.SchemeGroupVersion, &api.Resource{
		Plural:     "componentstatuses",
		Singular:   "componentstatus",
		Kind:       "ComponentStatus",
		ShortNames: []string{"cs"},
		Verbs:      []string{"get", "list"},
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				column("Status", "string", "Status of the component conditions"),
				column("Message", "string", "Message of the component conditions"),
				column("Error", "string", "Error of the component conditions"),
			},
			Row: cells(componentCells),
		},
	})
	row.Versions[0].Deprecated = "v1 ComponentStatus is deprecated in v1.19+"
	return row
}

func componentCells(s *corev1.ComponentStatus, _ time.Time) []any {
	for _, c := range s.Conditions {
		if c.Type != corev1.ComponentHealthy {
			continue
		}
		state := "Unhealthy"
		if c.Status == corev1.ConditionTrue {
			state = "Healthy"
		}
		return []any{s.Name, state, c.Message, c.Error}
	}
	return []any{s.Name, "Unknown", "", ""}
}
