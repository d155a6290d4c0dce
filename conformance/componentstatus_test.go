package conformance

import (
	"net/http"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ComponentStatuses are not stored but asked for: they can be read, and nothing
// else.
func TestComponentStatuses(t *testing.T) {
	client := kube.CoreV1().ComponentStatuses()
	list, err := client.List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"controller-manager", "etcd-0", "scheduler"}
	if len(list.Items) != len(names) || list.ResourceVersion != "" {
		t.Fatalf("the list is %+v", list)
	}
	for i, name := range names {
		got := list.Items[i]
		if c := got.Conditions; got.Name != name || len(c) != 1 || c[0].Type != corev1.ComponentHealthy || c[0].Status != corev1.ConditionTrue || c[0].Message != "ok" || c[0].Error != "" {
			t.Errorf("%s is %+v", name, got)
		}
	}
	one, err := client.Get(t.Context(), "etcd-0", metav1.GetOptions{})
	if err != nil || one.Name != "etcd-0" || len(one.Conditions) != 1 {
		t.Errorf("one alone is %+v, %v", one, err)
	}
	for selector, want := range map[string]int{"metadata.name=scheduler": 1, "metadata.name!=scheduler": 2, "metadata.name=x": 0} {
		if some, err := client.List(t.Context(), metav1.ListOptions{FieldSelector: selector}); err != nil || len(some.Items) != want {
			t.Errorf("%s: %d, %v", selector, len(some.Items), err)
		}
	}
	if some, err := client.List(t.Context(), metav1.ListOptions{LabelSelector: "a=b"}); err != nil || len(some.Items) != 0 {
		t.Errorf("by a label: %v, %v", some, err)
	}
	path := at("componentstatuses", "")
	a := admin.want(t, http.StatusOK, call{path: path}, nil)
	if a.header.Get("Warning") != `299 - "v1 ComponentStatus is deprecated in v1.19+"` {
		t.Errorf("the warning is %q", a.header.Get("Warning"))
	}
	var table metav1.Table
	admin.want(t, http.StatusOK, call{path: path, accept: asTable}, &table)
	if len(table.Rows) != 3 || table.Rows[1].Cells[0] != "etcd-0" || table.Rows[1].Cells[1] != "Healthy" {
		t.Errorf("the table is %+v", table.Rows)
	}
	admin.do(t, call{path: path + "/none"}).refused(t, http.StatusNotFound, metav1.StatusReasonNotFound, `componentstatus "none" not found`)
	for _, c := range []call{
		{method: "POST", path: path, body: "metadata: {name: x}"}, {path: path + "?watch=true"}, {method: "DELETE", path: path},
		{method: "DELETE", path: path + "/etcd-0"}, {method: "PUT", path: path + "/etcd-0", body: "metadata: {name: etcd-0}"},
	} {
		admin.do(t, c).refused(t, http.StatusMethodNotAllowed, metav1.StatusReasonMethodNotAllowed, "")
	}
}
