package conformance

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const applyCBOR = "application/apply-patch+cbor"

// deep is JSON, and so YAML, of lists within lists.
func deep(n int) string {
	return `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"have"},"data":` + strings.Repeat("[", n) + strings.Repeat("]", n) + "}"
}

// deepCBOR is a map with lists within lists.
func deepCBOR(n int) string { return "\xd9\xd9\xf7\xa1\x41a" + strings.Repeat("\x81", n) + "\x80" }

func compressed(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// The body of a request has at most three mebibytes, whatever it is
// (kube-apiserver's --max-request-body-bytes has no flag: 3145728).
func TestBodiesThatAreTooLarge(t *testing.T) {
	ns := namespace(t)
	create(t, "configmaps", ns, "metadata: {name: have}")
	body := strings.Repeat(" ", 3<<20+1)
	for method, types := range map[string][]string{
		"POST":   {"application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "application/cbor"},
		"PUT":    {"application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "application/cbor"},
		"PATCH":  {jsonPatch, mergePatch, strategicPatch, applyPatch + "?", applyCBOR + "?"},
		"DELETE": {"application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "application/cbor"},
	} {
		path := at("configmaps", ns, "have")
		if method == "POST" {
			path = at("configmaps", ns)
		}
		for _, contentType := range types {
			in := call{method: method, path: path, contentType: contentType, body: body}
			if applied, ok := strings.CutSuffix(contentType, "?"); ok {
				in.contentType, in.path = applied, path+"?fieldManager=m"
			}
			s := admin.do(t, in).refused(t, http.StatusRequestEntityTooLarge, metav1.StatusReasonRequestEntityTooLarge, "Request entity too large: limit is 3145728")
			if s.Code == 0 {
				t.Errorf("%s of %s", method, contentType)
			}
		}
	}
	get(t, "configmaps", ns, "have")
}

// What is small on the wire and large in memory is refused, in every encoding.
func TestBodiesThatGrow(t *testing.T) {
	ns := namespace(t)
	create(t, "configmaps", ns, "metadata: {name: have}\ndata: {a: "+strings.Repeat("x", 100<<10)+"}")
	copies := "[" + strings.Repeat(`{"op":"copy","from":"/data/a","path":"/data/b"},`, 59) + `{"op":"copy","from":"/data/a","path":"/data/b"}]`
	post, patched := at("configmaps", ns), at("configmaps", ns, "have")
	for _, tt := range []struct {
		name    string
		in      call
		code    int
		reason  metav1.StatusReason
		message string
	}{
		{"deep JSON", call{method: "POST", path: post, contentType: "application/json", body: deep(20000)}, 400, metav1.StatusReasonBadRequest, "exceeded max depth"},
		{"deep YAML", call{method: "POST", path: post, body: deep(20000)}, 400, metav1.StatusReasonBadRequest, "exceeded max depth of 10000"},
		{"deep CBOR", call{method: "POST", path: post, contentType: "application/cbor", body: deepCBOR(20000)}, 400, metav1.StatusReasonBadRequest, "exceeded max nested level 10000"},
		{"YAML that multiplies", call{method: "POST", path: post, body: multiplying()}, 400, metav1.StatusReasonBadRequest, "document contains excessive aliasing"},
		{"a merge patch that is deep", call{method: "PATCH", path: patched, contentType: mergePatch, body: deep(20000)}, 400, metav1.StatusReasonBadRequest, "invalid JSON patch"},
		{"a strategic patch that is deep", call{method: "PATCH", path: patched, contentType: strategicPatch, body: deep(20000)}, 400, metav1.StatusReasonBadRequest, "invalid JSON patch"},
		{"a JSON patch that is deep", call{method: "PATCH", path: patched, contentType: jsonPatch, body: `[{"op":"add","path":"/data","value":` + deep(20000) + `}]`}, 400, metav1.StatusReasonBadRequest, "invalid JSON patch"},
		{"an apply that is deep", call{method: "PATCH", path: patched + "?fieldManager=m", contentType: applyPatch, body: deep(20000)}, 400, metav1.StatusReasonBadRequest, "exceeded max depth"},
		{"an apply of CBOR that is deep", call{method: "PATCH", path: patched + "?fieldManager=m", contentType: applyCBOR, body: deepCBOR(20000)}, 400, metav1.StatusReasonBadRequest, "exceeded max nested level 10000"},
		{"an apply that multiplies", call{method: "PATCH", path: patched + "?fieldManager=m", contentType: applyPatch, body: multiplying()}, 400, metav1.StatusReasonBadRequest, "document contains excessive aliasing"},
		{"a JSON patch that copies", call{method: "PATCH", path: patched, contentType: jsonPatch, body: copies}, 422, metav1.StatusReasonInvalid, "the server rejected our request due to an error in our request"},
		{"options of a delete that are deep", call{method: "DELETE", path: patched, contentType: "application/json", body: deep(20000)}, 400, metav1.StatusReasonBadRequest, ""},
		{"what is compressed", call{method: "POST", path: post, contentType: "application/json", header: map[string]string{"Content-Encoding": "gzip"},
			body: compressed(t, `{"metadata":{"name":"a"}}`)}, 400, metav1.StatusReasonBadRequest, ""},
	} {
		t.Run(tt.name, func(t *testing.T) { admin.do(t, tt.in).refused(t, tt.code, tt.reason, tt.message) })
	}
	if got := get(t, "configmaps", ns, "have"); field(got, "data", "b") != "" {
		t.Error("something was written")
	}
}

// Annotations have at most 256 KiB, data a mebibyte (also in TestBadInput).
func TestObjectsThatAreTooLarge(t *testing.T) {
	ns := namespace(t)
	large := strings.Repeat("x", 300<<10)
	admin.do(t, call{method: "POST", path: at("configmaps", ns), body: "metadata: {name: a, annotations: {a: " + large + "}}"}).
		refused(t, 422, metav1.StatusReasonInvalid, "metadata.annotations: Too long: may not be more than 262144 bytes")
}

// "Server-Side Apply", field management: managers that update are at most ten
// (DefaultMaxUpdateManagers); the oldest of more become one.
func TestManagersAreBounded(t *testing.T) {
	ns := namespace(t)
	create(t, "configmaps", ns, "metadata: {name: a}\ndata: {k: v}")
	for i := range 25 {
		admin.want(t, http.StatusOK, call{method: "PATCH", path: at("configmaps", ns, "a") + fmt.Sprintf("?fieldManager=m%d", i), contentType: mergePatch,
			body: fmt.Sprintf(`{"data":{"k%d":"v"}}`, i)}, nil)
	}
	managers := owners(get(t, "configmaps", ns, "a"))
	if n := strings.Count(managers, " Update: "); n > 11 || !strings.Contains(managers, "ancient-changes") || !strings.Contains(managers, "m24") {
		t.Errorf("%d managers: %s", n, managers)
	}
}
