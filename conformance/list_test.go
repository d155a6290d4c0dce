package conformance

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// list reads names; query is that of the URL, without its mark.
func list(t *testing.T, resource, ns, query string) (names []string, meta metav1.ListMeta) {
	t.Helper()
	var l metav1.PartialObjectMetadataList
	admin.want(t, http.StatusOK, call{path: at(resource, ns) + "?" + query}, &l)
	for _, i := range l.Items {
		if i.Name != "kube-root-ca.crt" {
			names = append(names, i.Name)
		}
	}
	return names, l.ListMeta
}

func selector(kind, text string) string { return kind + "Selector=" + url.QueryEscape(text) }

// Labels and selectors, "API": equality and sets, all requirements at once.
func TestLabelSelectors(t *testing.T) {
	ns := namespace(t)
	for name, labels := range map[string]string{"a": "{tier: web, env: test}", "b": "{tier: web, env: prod}", "c": "{tier: db}", "d": "{}"} {
		create(t, "secrets", ns, "metadata: {name: "+name+", labels: "+labels+"}")
	}
	for text, want := range map[string]string{
		"tier=web":                "a b",
		"tier==web":               "a b",
		"tier!=web":               "c d",
		"tier in (web,db)":        "a b c",
		"tier notin (web)":        "c d",
		"env":                     "a b",
		"!env":                    "c d",
		"tier=web,env=prod":       "b",
		"tier,!env":               "c",
		"tier in (web),env!=prod": "a",
		"":                        "a b c d",
		"no=such":                 "",
	} {
		if got, _ := list(t, "secrets", ns, selector("label", text)); strings.Join(got, " ") != want {
			t.Errorf("%q selects %v, want %s", text, got, want)
		}
	}
	admin.do(t, call{path: at("secrets", ns) + "?" + selector("label", "tier in web")}).refused(t, 400, metav1.StatusReasonBadRequest, "unable to parse requirement")
	admin.do(t, call{path: at("secrets", ns) + "?" + selector("label", "a/b/c=d")}).refused(t, 400, metav1.StatusReasonBadRequest, "unable to parse requirement")
}

// Field selectors, "Supported fields": those of each kind, and no others.
func TestFieldSelectors(t *testing.T) {
	ns, node := namespace(t), ghost(t)
	create(t, "secrets", ns, "metadata: {name: plain}")
	create(t, "secrets", ns, "metadata: {name: typed}\ntype: my/type")
	create(t, "pods", ns, podOn("bound", node))
	create(t, "pods", ns, podOf("free"))
	create(t, "services", ns, "metadata: {name: headless}\nspec: {clusterIP: None}")
	create(t, "services", ns, "metadata: {name: plain}\nspec: {ports: [{port: 80}]}")
	create(t, "events", ns, "metadata: {name: e}\ninvolvedObject: {kind: Pod, name: bound, namespace: "+ns+"}\nreason: Test\ntype: Normal")
	create(t, "jobs", ns, "metadata: {name: j}\nspec: {suspend: true, template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}")
	for _, c := range []struct{ resource, text, want string }{
		{"secrets", "metadata.name=typed", "typed"},
		{"secrets", "metadata.name!=typed", "plain"},
		{"secrets", "metadata.namespace=" + ns, "plain typed"},
		{"secrets", "metadata.namespace=other", ""},
		{"secrets", "type=my/type", "typed"},
		{"secrets", "type=Opaque,metadata.name=plain", "plain"},
		{"pods", "spec.nodeName=" + node, "bound"},
		{"pods", "spec.nodeName=", "free"},
		{"pods", "spec.schedulerName=nobody", "free"},
		{"pods", "spec.restartPolicy=Always,status.phase=Pending", "bound free"},
		{"pods", "status.phase!=Pending", ""},
		{"pods", "spec.serviceAccountName=default,spec.hostNetwork=false", "bound free"},
		{"services", "spec.clusterIP=None", "headless"},
		{"services", "spec.type=ClusterIP", "headless plain"},
		{"events", "involvedObject.name=bound,reason=Test,type=Normal", "e"},
		{"events", "involvedObject.kind=Node", ""},
		{"jobs", "status.successful=0", "j"},
	} {
		if got, _ := list(t, c.resource, ns, selector("field", c.text)); strings.Join(got, " ") != c.want {
			t.Errorf("%s: %q selects %v, want %s", c.resource, c.text, got, c.want)
		}
	}
	if got, _ := list(t, "namespaces", "", selector("field", "metadata.name="+ns+",status.phase=Active")); len(got) != 1 {
		t.Errorf("namespaces by phase: %v", got)
	}
	if got, _ := list(t, "nodes", "", selector("field", "spec.unschedulable=false,metadata.name="+node)); len(got) != 1 {
		t.Errorf("nodes by schedulability: %v", got)
	}
	admin.do(t, call{path: at("pods", ns) + "?" + selector("field", "spec.containers=c")}).
		refused(t, 400, metav1.StatusReasonBadRequest, "field label not supported: spec.containers")
	for _, r := range []string{"nodes", "namespaces"} {
		admin.do(t, call{path: at(r, "") + "?" + selector("field", "metadata.namespace=x")}).
			refused(t, 400, metav1.StatusReasonBadRequest, "field label not supported: metadata.namespace")
	}
	if got, _ := list(t, "priorityclasses", "", selector("field", "metadata.namespace=x")); len(got) > 0 {
		t.Errorf("priority classes of a namespace: %v", got)
	}
	admin.do(t, call{path: at("leases", ns) + "?" + selector("field", "spec.holderIdentity=x")}).
		refused(t, 400, metav1.StatusReasonBadRequest, `"spec.holderIdentity" is not a known field selector: only "metadata.name", "metadata.namespace"`)
	admin.do(t, call{path: at("secrets", ns) + "?" + selector("field", "metadata.name>x")}).refused(t, 400, metav1.StatusReasonBadRequest, "invalid selector")
}

// Every kind is selected by the labels of the table, and by no others, which it
// refuses in its words.
func TestFieldLabels(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "api", "kinds", "testdata", "fieldlabels.golden"))
	if err != nil {
		t.Fatal(err)
	}
	for row := range strings.SplitSeq(strings.TrimSuffix(string(data), "\n"), "\n"+"\n") {
		kind, refusal, _ := strings.Cut(row, "\n\t")
		kind, labels, _ := strings.Cut(kind, ":")
		groupVersion, resource, _ := strings.Cut(kind, " ")
		known := strings.Fields(labels)
		t.Run(kind, func(t *testing.T) {
			path := under(groupVersion, resource, "") + "?limit=1&"
			for _, label := range known {
				admin.want(t, http.StatusOK, call{path: path + selector("field", label+"=none")}, nil)
			}
			admin.do(t, call{path: path + selector("field", "none=none")}).refused(t, 400, metav1.StatusReasonBadRequest, refusal)
			for _, label := range []string{"metadata.namespace", "name", "status.replicas"} {
				if !slices.Contains(known, label) {
					admin.do(t, call{path: path + selector("field", label+"=none")}).refused(t, 400, metav1.StatusReasonBadRequest, "")
				}
			}
		})
	}
}

// Selectors that name nothing, and those that are none: what
// k8s.io/apimachinery/pkg/fields makes of them, in all verbs that take them.
func TestMalformedFieldSelectors(t *testing.T) {
	ns := namespace(t)
	create(t, "secrets", ns, "metadata: {name: a}")
	create(t, "secrets", ns, "metadata: {name: b}")
	for _, c := range []struct{ text, want string }{
		{"=", "a b"},
		{"==", "a b"},
		{",,", "a b"},
		{"==,metadata.name=a", "a"},
		{"metadata.name=", ""},
		{"metadata.namespace==", ""},
		{"metadata.name!=", "a b"},
		{"metadata.name==a,", "a"},
		{"metadata.name=a,metadata.name=b", ""},
		{"===", "invalid field selector: unescaped character in value: 61"},
		{"metadata.name===a", "invalid field selector: unescaped character in value: 61"},
		{"metadata.name=a=b", "invalid field selector: unescaped character in value: 61"},
		{"metadata.name", "invalid selector: 'metadata.name'; can't understand 'metadata.name'"},
		{"metadata.name in (a)", "invalid selector: 'metadata.name in (a)'; can't understand 'metadata.name in (a)'"},
		{`metadata.name=a\`, `invalid field selector: invalid escape sequence: \`},
		{`metadata.name=\a`, `invalid field selector: invalid escape sequence: \a`},
		{"=a", "field label not supported: "},
		{"metadata.name =a", "field label not supported: metadata.name "},
		{"Metadata.Name=a", "field label not supported: Metadata.Name"},
	} {
		path := at("secrets", ns) + "?" + selector("field", c.text)
		if !strings.Contains(c.want, ": ") {
			if got, _ := list(t, "secrets", ns, selector("field", c.text)); strings.Join(got, " ") != c.want {
				t.Errorf("%q selects %v, want %s", c.text, got, c.want)
			}
			if got, _ := list(t, "secrets", "", selector("field", c.text+",metadata.namespace="+ns)); strings.Join(got, " ") != c.want && !strings.HasPrefix(c.text, "=") {
				t.Errorf("%q selects %v in all namespaces, want %s", c.text, got, c.want)
			}
			continue
		}
		for _, call := range []call{{path: path}, {path: path + "&watch=1"}, {method: "DELETE", path: path}} {
			if s := admin.do(t, call).refused(t, 400, metav1.StatusReasonBadRequest, c.want); s.Message != c.want {
				t.Errorf("%s %q is refused with %q, want %q", call.method, c.text, s.Message, c.want)
			}
		}
	}
}

// API concepts, "Retrieving large results sets in chunks": pages of one state,
// with a count of what is left.
func TestPagination(t *testing.T) {
	ns := namespace(t)
	for i := range 7 {
		create(t, "secrets", ns, fmt.Sprintf("metadata: {name: s%d, labels: {half: '%d'}}", i, i%2))
	}
	names, meta := list(t, "secrets", ns, "limit=3")
	if meta.Continue == "" || meta.RemainingItemCount == nil || *meta.RemainingItemCount != 4 {
		t.Fatalf("first page has %+v", meta)
	}
	create(t, "secrets", ns, "metadata: {name: s0a}")
	create(t, "secrets", ns, "metadata: {name: s9}")
	admin.want(t, http.StatusOK, deleteCall("secrets", ns, "s5", ""), nil)
	version := meta.ResourceVersion
	for pages := 1; meta.Continue != ""; pages++ {
		var more []string
		more, meta = list(t, "secrets", ns, "limit=3&continue="+meta.Continue)
		names = append(names, more...)
		if meta.ResourceVersion != version {
			t.Errorf("page %d is of version %s, the first of %s", pages, meta.ResourceVersion, version)
		}
		if left := meta.RemainingItemCount; meta.Continue == "" && left != nil || meta.Continue != "" && (left == nil || *left != 1) {
			t.Errorf("page %d leaves %v", pages, left)
		}
	}
	if got := strings.Join(names, " "); got != "s0 s1 s2 s3 s4 s5 s6" {
		t.Errorf("pages hold %s", got)
	}
	names, meta = list(t, "secrets", ns, "limit=1&labelSelector=half%3D0")
	if meta.Continue == "" || meta.RemainingItemCount != nil {
		t.Errorf("a page of selected objects has %+v", meta)
	}
	names = nil
	for next := ""; ; {
		page, meta := list(t, "secrets", ns, "limit=2&labelSelector=half%3D0&continue="+next)
		names = append(names, page...)
		if next = meta.Continue; next == "" {
			break
		}
	}
	if got := strings.Join(names, " "); got != "s0 s2 s4 s6" {
		t.Errorf("selected pages hold %s", got)
	}
	if _, meta := list(t, "secrets", ns, "limit=50"); meta.Continue != "" || meta.RemainingItemCount != nil {
		t.Errorf("a page that holds all has %+v", meta)
	}
	admin.do(t, call{path: at("secrets", ns) + "?continue=nonsense"}).refused(t, 400, metav1.StatusReasonBadRequest, "continue key is not valid")
	foreign := base64.RawURLEncoding.EncodeToString([]byte(`{"v":"meta.k8s.io/v2","rv":5,"start":"x"}`))
	admin.do(t, call{path: at("secrets", ns) + "?continue=" + foreign}).refused(t, 400, metav1.StatusReasonBadRequest, "continue key is not valid")
}

// API concepts, "Semantics for get and list".
func TestResourceVersionRules(t *testing.T) {
	ns := namespace(t)
	first := create(t, "secrets", ns, "metadata: {name: a}")
	second := patch(t, "secrets", ns, "a", `{"data":{"k":"MQ=="}}`)
	create(t, "secrets", ns, "metadata: {name: b}")
	old := first.GetResourceVersion()

	for _, version := range []string{"", "0", old} {
		got := admin.want(t, http.StatusOK, call{path: at("secrets", ns, "a") + "?resourceVersion=" + version}, nil).object(t)
		if got.GetResourceVersion() != second.GetResourceVersion() {
			t.Errorf("get at %q is of %s", version, got.GetResourceVersion())
		}
	}
	for _, c := range []struct{ query, want string }{
		{"", "a b"},
		{"resourceVersion=0", "a b"},
		{"resourceVersion=" + old, "a b"},
		{"resourceVersion=" + old + "&resourceVersionMatch=NotOlderThan", "a b"},
		{"resourceVersion=0&resourceVersionMatch=NotOlderThan", "a b"},
		{"resourceVersion=" + old + "&resourceVersionMatch=Exact", "a"},
		{"resourceVersion=" + old + "&limit=5", "a"},
		{"resourceVersion=" + old + "&limit=1&resourceVersionMatch=NotOlderThan", "a"},
	} {
		got, meta := list(t, "secrets", ns, c.query)
		if strings.Join(got, " ") != c.want {
			t.Errorf("list with %q has %v, want %s", c.query, got, c.want)
		}
		if exact := strings.Contains(c.query, "Exact"); exact && meta.ResourceVersion != old {
			t.Errorf("list with %q is of %s", c.query, meta.ResourceVersion)
		}
	}
	for query, message := range map[string]string{
		"resourceVersionMatch=Exact":                     "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
		"resourceVersionMatch=NotOlderThan":              "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
		"resourceVersion=0&resourceVersionMatch=Exact":   `resourceVersionMatch: Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"`,
		"resourceVersion=5&resourceVersionMatch=Roughly": `resourceVersionMatch: Unsupported value: "Roughly"`,
	} {
		admin.do(t, call{path: at("secrets", ns) + "?" + query}).refused(t, 422, metav1.StatusReasonInvalid, message)
	}
	_, page := list(t, "secrets", ns, "limit=1")
	admin.do(t, call{path: at("secrets", ns) + "?limit=1&resourceVersion=" + old + "&continue=" + page.Continue}).
		refused(t, 400, metav1.StatusReasonBadRequest, "specifying resource version is not allowed when using continue")
	admin.do(t, call{path: at("secrets", ns, "a") + "?resourceVersion=x"}).refused(t, 500, metav1.StatusReasonUnknown, "")
	admin.do(t, call{path: at("secrets", ns) + "?watch=1&resourceVersion=x"}).refused(t, 500, metav1.StatusReasonUnknown, "")
}

// API concepts, "Unavailable resource versions": what is in the future is waited
// for a moment, then refused as too large.
func TestFutureVersionsTimeOut(t *testing.T) {
	ns := namespace(t)
	for _, path := range []string{at("secrets", ns), at("secrets", ns, "a")} {
		a := admin.do(t, call{path: path + "?resourceVersion=9000000000000"})
		s := a.refused(t, 504, metav1.StatusReasonTimeout, "Too large resource version: 9000000000000, current: ")
		if s.Details == nil || s.Details.RetryAfterSeconds != 1 || !slices.Equal(causesOf(s), []string{"ResourceVersionTooLarge "}) || a.header.Get("Retry-After") != "1" {
			t.Errorf("%s: details are %+v, Retry-After %q", path, s.Details, a.header.Get("Retry-After"))
		}
	}
}
