package http_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
)

const (
	cborType  = "application/cbor"
	applyCBOR = "application/apply-patch+cbor"
)

// fromCBOR decodes what carries the tag that says it is CBOR.
func fromCBOR(t *testing.T, a answer, into any) {
	t.Helper()
	if got := a.header.Get("Content-Type"); got != cborType || !bytes.HasPrefix(a.body, []byte("\xd9\xd9\xf7")) {
		t.Fatalf("%d %s: %q", a.code, got, a.body)
	}
	if err := direct.Unmarshal(a.body, into); err != nil {
		t.Fatal(err)
	}
}

func toCBOR(t *testing.T, obj any) string {
	t.Helper()
	data, err := direct.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// https://kubernetes.io/docs/reference/using-api/api-concepts/#cbor-encoding
func TestCBOR(t *testing.T) {
	c := newCluster(t, nil)
	c.createConfigMap("a")
	path := configMaps + "/a"

	var cm corev1.ConfigMap
	got := c.do(call{path: path, accept: cborType})
	fromCBOR(t, got, &cm)
	if cm.Kind != "ConfigMap" || cm.APIVersion != "v1" || cm.Data["k"] != "v" {
		t.Errorf("is %+v", cm)
	}
	fromCBOR(t, c.do(call{method: "PUT", path: path, body: string(got.body), contentType: cborType, accept: cborType}), &cm)

	var list corev1.ConfigMapList
	fromCBOR(t, c.do(call{path: configMaps, accept: cborType}), &list)
	if list.Kind != "ConfigMapList" || list.ResourceVersion == "" || len(list.Items) != 1 || list.Items[0].Name != "a" {
		t.Errorf("list is %+v", list)
	}

	var table metav1.Table
	fromCBOR(t, c.do(call{path: configMaps, accept: cborType + ";as=Table;v=v1;g=meta.k8s.io"}), &table)
	if table.Kind != "Table" || len(table.Rows) != 1 || table.Rows[0].Cells[0] != "a" {
		t.Errorf("table is %+v", table)
	}
	var status metav1.Status
	fromCBOR(t, c.do(call{path: configMaps + "/none", accept: cborType}), &status)
	if status.Kind != "Status" || status.Reason != metav1.StatusReasonNotFound {
		t.Errorf("status is %+v", status)
	}
}

func TestApplyCBOR(t *testing.T) {
	c := newCluster(t, nil)
	body := toCBOR(t, map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "a"}, "data": map[string]any{"k": "w"},
	})
	applied := c.do(call{method: "PATCH", path: configMaps + "/a?fieldManager=m", body: body, contentType: applyCBOR})
	var cm corev1.ConfigMap
	applied.decode(t, &cm)
	if m := cm.ManagedFields; applied.code != http.StatusCreated || cm.Data["k"] != "w" || len(m) != 1 || m[0].Operation != "Apply" {
		t.Errorf("apply gave %d %+v", applied.code, cm)
	}
	// A map that repeats a key is no CBOR (RFC 8949 section 5.6).
	twice := "\xa2\x41a\x01\x41a\x02"
	bad := c.do(call{method: "PATCH", path: configMaps + "/a?fieldManager=m", body: twice, contentType: applyCBOR})
	if s := bad.status(t); s.Code != http.StatusBadRequest || !strings.HasPrefix(s.Message, "error decoding patch: cbor: found duplicate map key") {
		t.Errorf("a repeated key gave %d %s", s.Code, s.Message)
	}
}

// A stream is a sequence of items, RFC 8742.
func TestWatchInCBOR(t *testing.T) {
	c := newCluster(t, nil)
	c.createConfigMap("a")
	c.createConfigMap("b")
	resp := c.open(t.Context(), call{path: configMaps + "?watch=1&resourceVersion=0", accept: cborType})
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); got != runtime.ContentTypeCBORSequence {
		t.Fatalf("stream of %s", got)
	}
	frames := cbor.NewFramer().NewFrameReader(resp.Body)
	for _, name := range []string{"a", "b"} {
		frame := make([]byte, 64<<10)
		n, err := frames.Read(frame)
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		var event struct {
			Type   string           `json:"type"`
			Object corev1.ConfigMap `json:"object"`
		}
		if err := direct.Unmarshal(frame[:n], &event); err != nil {
			t.Fatal(err)
		}
		if event.Type != "ADDED" || event.Object.Name != name || event.Object.Kind != "ConfigMap" {
			t.Errorf("event is %+v, want that %s was added", event, name)
		}
	}
}
