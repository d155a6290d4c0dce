package conformance

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	flagz "k8s.io/apiserver/pkg/server/flagz/api/v1beta1"
	statusz "k8s.io/apiserver/pkg/server/statusz/api/v1beta1"
)

// "Kubernetes API health endpoints": one word, or every check by name.
func TestHealth(t *testing.T) {
	for _, root := range []string{"/healthz", "/livez", "/readyz"} {
		if a := admin.do(t, call{path: root}); a.code != http.StatusOK || string(a.body) != "ok" || !strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") {
			t.Errorf("%s: %d %s", root, a.code, a.body)
		}
		verbose := admin.do(t, call{path: root + "?verbose"})
		for _, line := range []string{"[+]ping ok\n", "[+]etcd ok\n", root[1:] + " check passed\n"} {
			if !strings.Contains(string(verbose.body), line) {
				t.Errorf("%s?verbose lacks %q: %s", root, line, verbose.body)
			}
		}
		if a := admin.do(t, call{path: root + "?verbose&exclude=etcd"}); !strings.Contains(string(a.body), "[+]etcd excluded: ok\n") {
			t.Errorf("%s without etcd: %s", root, a.body)
		}
		if a := admin.do(t, call{path: root + "/etcd"}); a.code != http.StatusOK || string(a.body) != "ok" {
			t.Errorf("%s/etcd: %d %s", root, a.code, a.body)
		}
	}
	counted := string(admin.want(t, http.StatusOK, call{path: "/metrics/slis"}, nil).body)
	for _, root := range []string{"healthz", "livez", "readyz"} {
		if !strings.Contains(counted, `kubernetes_healthcheck{name="etcd",type="`+root+`"} 1`) || !strings.Contains(counted, `kubernetes_healthchecks_total{name="etcd",status="success",type="`+root+`"} `) {
			t.Errorf("%s is not counted:\n%s", root, counted)
		}
	}
}

// Checks tell by name what fails, and why only to who asks for one; without that one
// all is well.
func TestHealthWithoutEtcd(t *testing.T) {
	t.Parallel()
	p := startPlane(t)
	root := p.as(t, "admin", "system:masters")
	p.etcd.end(t)
	lacks := func(path string, a answer) {
		t.Helper()
		root, _, _ := strings.Cut(path[1:], "?")
		for _, line := range []string{"[+]ping ok\n", "[-]etcd failed: reason withheld\n", root + " check failed\n"} {
			if a.code != http.StatusInternalServerError || !strings.Contains(string(a.body), line) {
				t.Errorf("%s: %d, lacks %q: %s", path, a.code, line, a.body)
			}
		}
	}
	for _, path := range []string{"/readyz?verbose", "/readyz", "/livez", "/healthz"} { // each waits for etcd for a while
		var a answer
		eventually(t, path+" fails", func() bool {
			a = root.do(t, call{path: path})
			return a.code != http.StatusOK
		})
		lacks(path, a)
	}
	root.want(t, http.StatusOK, call{path: "/readyz?exclude=etcd"}, nil)
	root.want(t, http.StatusOK, call{path: "/readyz/ping"}, nil)
	if a := root.want(t, http.StatusInternalServerError, call{path: "/readyz/etcd"}, nil); !strings.HasPrefix(string(a.body), "internal server error: ") {
		t.Errorf("/readyz/etcd: %s", a.body)
	}
}

// Metrics are in Prometheus' text format, with Kubernetes' names where it has
// them, for those who may read them.
func TestMetrics(t *testing.T) {
	ns := namespace(t)
	create(t, "secrets", ns, "metadata: {name: never-a-label}")
	a := admin.want(t, http.StatusOK, call{path: "/metrics"}, nil)
	if !strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") {
		t.Errorf("content type is %s", a.header.Get("Content-Type"))
	}
	for _, pattern := range []string{
		`(?m)^apiserver_request_total\{code="201",component="apiserver",dry_run="",group="",resource="secrets",scope="namespace",subresource="",verb="POST",version="v1"\} [1-9]`,
		`(?m)^apiserver_request_duration_seconds_bucket\{`, `(?m)^apiserver_current_inflight_requests\{request_kind="mutating"\}`,
		`(?m)^process_resident_memory_bytes `, `(?m)^go_goroutines `, `(?m)^version_info\{binary="1.37.2",component="kube",emulation="1.37",min_compat="1.36"\} 1$`,
		`(?m)^kubernetes_build_info\{build_date="[^"]+",compiler="gc",git_commit="[^"]+",git_tree_state="[^"]+",git_version="v1\.37\.2\+hansa[^"]*",go_version="go[^"]+",major="1",minor="37",platform="linux/[^"]+"\} 1$`,
		`(?m)^workqueue_adds_total\{name="serviceaccount"\} [1-9]`, `(?m)^workqueue_depth\{name="deployment"\}`,
		`(?m)^scheduler_pending_pods\{queue="active"\}`, `(?m)^scheduler_pod_scheduling_attempts_count `,
	} {
		if !regexp.MustCompile(pattern).Match(a.body) {
			t.Errorf("no %s", pattern)
		}
	}
	for _, line := range strings.Split(string(a.body), "\n") {
		if strings.Contains(line, ns) || strings.Contains(line, "never-a-label") {
			t.Errorf("an object's name is in a label: %s", line)
		}
	}
}

// The index and the version are for all who are known.
func TestIndexAndVersion(t *testing.T) {
	var index struct{ Paths []string }
	admin.want(t, http.StatusOK, call{path: "/"}, &index)
	for _, path := range []string{"/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/healthz", "/livez/etcd", "/readyz/ping", "/metrics", "/metrics/slis", "/openapi/v2", "/openapi/v3", "/version", "/statusz", "/flagz"} {
		if !slices.Contains(index.Paths, path) {
			t.Errorf("the index has no %s", path)
		}
	}
	for _, path := range index.Paths {
		if a := admin.do(t, call{path: path}); a.code != http.StatusOK {
			t.Errorf("%s is in the index and gives %d", path, a.code)
		}
	}
}

// "z-pages": what the server tells of itself, as text and as objects, to who may
// monitor it.
func TestZPages(t *testing.T) {
	for path, patterns := range map[string][]string{
		"/statusz": {`^\napiserver statusz\nWarning: .*\n\nStarted: .* \d{4}\nUp: `, `\nGo version: go1\.\d+`, `\nBinary version: 1\.37\.2\nEmulation version: 1\.37\n`, `\nPaths: /flagz /healthz /livez /metrics /readyz /statusz /version\n$`},
		"/flagz":   {`^\napiserver flagz\nWarning: .*\n`, `\nlisten=.*:6443\n`, `\nlog-level=`},
	} {
		a := admin.want(t, http.StatusOK, call{path: path, accept: "*/*"}, nil)
		if got := a.header.Get("Content-Type"); got != "text/plain; charset=utf-8" {
			t.Errorf("%s is %s", path, got)
		}
		for _, pattern := range patterns {
			if !regexp.MustCompile(pattern).Match(a.body) {
				t.Errorf("%s does not match %s:\n%s", path, pattern, a.body)
			}
		}
		admin.do(t, call{path: path, accept: "application/json"}).refused(t, 406, metav1.StatusReasonNotAcceptable, "only the following media types are accepted: application/json, application/yaml, text/plain")
		ordinary := impersonating(t, "ordinary", "system:authenticated")
		ordinary.do(t, call{path: path}).refused(t, 403, metav1.StatusReasonForbidden, `cannot get path "`+path+`"`)
		monitor := impersonating(t, "monitor", "system:monitoring")
		monitor.want(t, http.StatusOK, call{path: path}, nil)
	}
	var status statusz.Statusz
	admin.want(t, http.StatusOK, call{path: "/statusz", accept: "application/json;v=v1beta1;g=config.k8s.io;as=Statusz"}, &status)
	if status.Kind != "Statusz" || status.APIVersion != "config.k8s.io/v1beta1" || status.Name != "apiserver" || status.BinaryVersion != "1.37.2" || !slices.Contains(status.Paths, "/healthz") ||
		time.Since(status.StartTime.Time) < time.Duration(status.UptimeSeconds)*time.Second {
		t.Errorf("status is %+v", status)
	}
	var flags flagz.Flagz
	admin.want(t, http.StatusOK, call{path: "/flagz", accept: "application/yaml;v=v1beta1;g=config.k8s.io;as=Flagz"}, &flags)
	if flags.Kind != "Flagz" || flags.Name != "apiserver" || flags.Flags["data-dir"] == "" {
		t.Errorf("flags are %+v", flags)
	}
}

// "Service accounts", admission: pods get the default account, its token and
// the secrets to pull with; the account must be there and may be told apart.
func TestServiceAccountAdmission(t *testing.T) {
	ns := namespace(t)
	var pod corev1.Pod
	admin.want(t, http.StatusCreated, call{method: "POST", path: at("pods", ns), body: podOf("a")}, &pod)
	if pod.Spec.ServiceAccountName != "default" || pod.Spec.DeprecatedServiceAccount != "default" || len(pod.Spec.Volumes) != 1 || len(pod.Spec.Containers[0].VolumeMounts) != 1 {
		t.Fatalf("pod has account %s, volumes %v", pod.Spec.ServiceAccountName, pod.Spec.Volumes)
	}
	v := pod.Spec.Volumes[0]
	if !strings.HasPrefix(v.Name, "kube-api-access-") || v.Projected == nil || len(v.Projected.Sources) != 3 ||
		v.Projected.Sources[0].ServiceAccountToken.Path != "token" || *v.Projected.Sources[0].ServiceAccountToken.ExpirationSeconds != 3607 ||
		v.Projected.Sources[1].ConfigMap.Name != "kube-root-ca.crt" || v.Projected.Sources[2].DownwardAPI.Items[0].Path != "namespace" {
		t.Errorf("volume is %+v", v)
	}
	if m := pod.Spec.Containers[0].VolumeMounts[0]; m.Name != v.Name || !m.ReadOnly || m.MountPath != "/var/run/secrets/kubernetes.io/serviceaccount" {
		t.Errorf("mount is %+v", m)
	}
	create(t, "serviceaccounts", ns, "metadata: {name: quiet}\nautomountServiceAccountToken: false\nimagePullSecrets: [{name: pull}]")
	for name, c := range map[string]struct {
		spec    string
		volumes int
	}{
		"account-says-no": {"serviceAccountName: quiet", 0},
		"pod-says-yes":    {"serviceAccountName: quiet, automountServiceAccountToken: true", 1},
		"pod-says-no":     {"automountServiceAccountToken: false", 0},
		"already-mounted": {"volumes: [{name: v, emptyDir: {}}], initContainers: [{name: x, image: i, volumeMounts: [{name: v, mountPath: /var/run/secrets/kubernetes.io/serviceaccount}]}]", 2},
	} {
		var p corev1.Pod
		admin.want(t, http.StatusCreated, call{method: "POST", path: at("pods", ns), body: "metadata: {name: " + name + "}\nspec: {" + c.spec + ", schedulerName: nobody, containers: [{name: c, image: i}]}"}, &p)
		if len(p.Spec.Volumes) != c.volumes {
			t.Errorf("%s: volumes are %v", name, p.Spec.Volumes)
		}
		if quiet := p.Spec.ServiceAccountName == "quiet"; quiet && (len(p.Spec.ImagePullSecrets) != 1 || p.Spec.ImagePullSecrets[0].Name != "pull") {
			t.Errorf("%s: pulls with %v", name, p.Spec.ImagePullSecrets)
		}
	}
	admin.do(t, call{method: "POST", path: at("pods", ns), body: "metadata: {name: x}\nspec: {serviceAccountName: none, containers: [{name: c, image: i}]}"}).
		refused(t, 403, metav1.StatusReasonForbidden, `pods "x" is forbidden: error looking up service account `+ns+`/none: serviceaccount "none" not found`)
}

// "NamespaceLifecycle" and the objects of every namespace.
func TestNamespacesAreComplete(t *testing.T) {
	ns := namespace(t)
	n := get(t, "namespaces", "", ns)
	if n.GetLabels()["kubernetes.io/metadata.name"] != ns || field(n, "status", "phase") != "Active" || field(n, "spec", "finalizers") != `["kubernetes"]` {
		t.Errorf("namespace is %v", n)
	}
	whole := func() bool {
		return !gone(t, "serviceaccounts", ns, "default") && strings.Contains(string(admin.do(t, call{path: at("configmaps", ns, "kube-root-ca.crt")}).body), "BEGIN CERTIFICATE")
	}
	eventually(t, "account and root CA come", whole)
	admin.want(t, http.StatusOK, deleteCall("serviceaccounts", ns, "default", ""), nil)
	patch(t, "configmaps", ns, "kube-root-ca.crt", `{"data":{"ca.crt":"forged"}}`)
	eventually(t, "account and root CA come back", whole)
	had := get(t, "configmaps", ns, "kube-root-ca.crt").GetUID()
	admin.want(t, http.StatusOK, deleteCall("configmaps", ns, "kube-root-ca.crt", ""), nil)
	eventually(t, "the root CA comes back when it is deleted", func() bool {
		return whole() && get(t, "configmaps", ns, "kube-root-ca.crt").GetUID() != had
	})
	for _, name := range []string{"default", "kube-system", "kube-public", "kube-node-lease"} {
		if gone(t, "namespaces", "", name) {
			t.Errorf("there is no namespace %s", name)
		}
	}
}

// "Priority": a pod's class becomes its number; the two of the system are there.
func TestPriorityAdmission(t *testing.T) {
	ns := namespace(t)
	create(t, "priorityclasses", "", "metadata: {name: high-"+ns+"}\nvalue: 1000\npreemptionPolicy: Never")
	pod := func(spec string) string {
		return "metadata: {generateName: p-}\nspec: {" + spec + "schedulerName: nobody, containers: [{name: c, image: i}]}"
	}
	for class, want := range map[string]int64{"": 0, "high-" + ns: 1000, "system-node-critical": 2000001000, "system-cluster-critical": 2000000000} {
		spec := ""
		if class != "" {
			spec = "priorityClassName: " + class + ", "
		}
		if got := field(create(t, "pods", ns, pod(spec)), "spec", "priority"); got != fmt.Sprint(want) {
			t.Errorf("priority of class %q is %s, want %d", class, got, want)
		}
	}
	if u := create(t, "pods", ns, pod("priorityClassName: high-"+ns+", ")); field(u, "spec", "preemptionPolicy") != "Never" {
		t.Errorf("preemption policy is %s", field(u, "spec", "preemptionPolicy"))
	}
	admin.do(t, call{method: "POST", path: at("pods", ns), body: pod("priorityClassName: none, ")}).
		refused(t, 403, metav1.StatusReasonForbidden, "no PriorityClass with name none was found")
	admin.do(t, call{method: "POST", path: at("pods", ns), body: pod("priority: 5, ")}).
		refused(t, 403, metav1.StatusReasonForbidden, "the integer value of priority (5) must not be provided in pod spec; priority admission controller computed 0 from the given PriorityClass name")
	admin.want(t, http.StatusOK, deleteCall("priorityclasses", "", "high-"+ns, ""), nil)
}

// Events of both groups are one object.
func TestEventsOfBothGroups(t *testing.T) {
	ns := namespace(t)
	core, err := kube.CoreV1().Events(ns).Create(t.Context(), &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Name: "old"},
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: ns, Name: "p", FieldPath: "spec.containers{c}"},
		Reason:         "Started", Message: "Started container c", Type: corev1.EventTypeNormal, Count: 3, Source: corev1.EventSource{Component: "kubelet", Host: "n"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	asNew, err := kube.EventsV1().Events(ns).Get(t.Context(), "old", metav1.GetOptions{})
	if err != nil || asNew.UID != core.UID || asNew.Regarding.Name != "p" || asNew.Note != "Started container c" || asNew.DeprecatedCount != 3 || asNew.DeprecatedSource.Component != "kubelet" {
		t.Errorf("as events.k8s.io: %+v, %v", asNew, err)
	}
	made, err := kube.EventsV1().Events(ns).Create(t.Context(), &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: "new"}, EventTime: metav1.NowMicro(), ReportingController: "test.dev/me", ReportingInstance: "me-1",
		Action: "Look", Reason: "Seen", Type: corev1.EventTypeWarning, Regarding: corev1.ObjectReference{Kind: "Pod", Namespace: ns, Name: "p"}, Note: "Was seen",
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	asCore, err := kube.CoreV1().Events(ns).Get(t.Context(), "new", metav1.GetOptions{})
	if err != nil || asCore.UID != made.UID || asCore.Message != "Was seen" || asCore.InvolvedObject.Name != "p" || asCore.ReportingController != "test.dev/me" || asCore.Action != "Look" {
		t.Errorf("as core: %+v, %v", asCore, err)
	}
	list, err := kube.EventsV1().Events(ns).List(t.Context(), metav1.ListOptions{FieldSelector: "regarding.name=p,reason=Seen"})
	if err != nil || len(list.Items) != 1 {
		t.Errorf("by the new names of fields: %v", err)
	}
	// "Series": an isomorphic event that is seen again is written in place.
	made.Series = &eventsv1.EventSeries{Count: 2, LastObservedTime: metav1.NewMicroTime(made.EventTime.Add(time.Second))}
	if made, err = kube.EventsV1().Events(ns).Update(t.Context(), made, metav1.UpdateOptions{}); err != nil || made.Series == nil || made.Series.Count != 2 {
		t.Fatalf("with a series: %+v, %v", made, err)
	}
	if asCore, err = kube.CoreV1().Events(ns).Get(t.Context(), "new", metav1.GetOptions{}); err != nil || asCore.Series == nil || asCore.Series.Count != 2 || !asCore.Series.LastObservedTime.Equal(&made.Series.LastObservedTime) {
		t.Errorf("the series as core: %+v, %v", asCore.Series, err)
	}
	admin.do(t, call{method: "PATCH", path: "/apis/events.k8s.io/v1/namespaces/" + ns + "/events/new", contentType: mergePatch, body: `{"series":{"count":1}}`}).
		refused(t, 422, metav1.StatusReasonInvalid, `series.count: Invalid value: "": should be at least 2`)
	w := admin.watch(t, call{path: "/apis/events.k8s.io/v1/namespaces/" + ns + "/events?resourceVersion=" + made.ResourceVersion})
	patch(t, "events", ns, "old", `{"count":4}`)
	if e := w.next(t); e.Type != "MODIFIED" || e.object.GetAPIVersion() != "events.k8s.io/v1" || field(e.object, "deprecatedCount") != "4" {
		t.Errorf("a watch by the other group shows %s %s", e.Type, e.Object)
	}
}

// What needs the agent of a node answers with a Status when there is none.
func TestConnectWithoutAnAgent(t *testing.T) {
	ns, node := namespace(t), ghost(t)
	create(t, "pods", ns, podOf("free"))
	create(t, "pods", ns, podOn("bound", node))
	if a := admin.do(t, call{path: at("pods", ns, "free", "log")}); a.code != http.StatusOK || len(a.body) != 0 {
		t.Errorf("log of a pod without node: %d %s", a.code, a.body)
	}
	admin.do(t, call{path: at("pods", ns, "bound", "log") + "?container=x"}).refused(t, 400, metav1.StatusReasonBadRequest, "container x is not valid for pod bound")
	admin.do(t, call{method: "POST", path: at("pods", ns, "free", "exec") + "?command=true&stdout=1"}).refused(t, 400, metav1.StatusReasonBadRequest, "pod free does not have a host assigned")
	if s := admin.do(t, call{path: at("pods", ns, "bound", "log")}).status(t); s.Code != 500 && s.Code != 503 {
		t.Errorf("log by a node without address: %+v", s)
	}
	create(t, "services", ns, "metadata: {name: s}\nspec: {ports: [{port: 80}]}")
	admin.do(t, call{path: at("services", ns, "s", "proxy")}).refused(t, 503, metav1.StatusReasonServiceUnavailable, `no endpoints available for service "s"`)
}
