package conformance

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// client is the path of a program that hack/build -clients makes.
func client(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../.cache/clients/current", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: go run ./hack/build -clients makes it", err)
	}
	return path
}

// kubeconfig writes a configuration of the shared cluster to a file.
func kubeconfig(t *testing.T, config *rest.Config) string {
	t.Helper()
	c := clientcmdapi.NewConfig()
	c.Clusters["c"] = &clientcmdapi.Cluster{Server: config.Host, CertificateAuthorityData: config.CAData}
	c.AuthInfos["u"] = &clientcmdapi.AuthInfo{ClientCertificateData: config.CertData, ClientKeyData: config.KeyData, Token: config.BearerToken}
	c.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	c.CurrentContext = "x"
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*c, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// collectors are all that kube-state-metrics knows, as resources of the API.
var collectors = map[string]string{
	"certificatesigningrequests": "certificates.k8s.io/v1", "clusterrolebindings": "rbac.authorization.k8s.io/v1", "clusterroles": "rbac.authorization.k8s.io/v1",
	"configmaps": "v1", "cronjobs": "batch/v1", "daemonsets": "apps/v1", "deployments": "apps/v1", "endpoints": "v1",
	"endpointslices": "discovery.k8s.io/v1", "horizontalpodautoscalers": "autoscaling/v2", "ingressclasses": "networking.k8s.io/v1",
	"ingresses": "networking.k8s.io/v1", "jobs": "batch/v1", "leases": "coordination.k8s.io/v1", "limitranges": "v1",
	"mutatingadmissionpolicies": "admissionregistration.k8s.io/v1", "mutatingadmissionpolicybindings": "admissionregistration.k8s.io/v1",
	"mutatingwebhookconfigurations": "admissionregistration.k8s.io/v1", "namespaces": "v1", "networkpolicies": "networking.k8s.io/v1",
	"nodes": "v1", "persistentvolumeclaims": "v1", "persistentvolumes": "v1", "poddisruptionbudgets": "policy/v1", "pods": "v1",
	"replicasets": "apps/v1", "replicationcontrollers": "v1", "resourcequotas": "v1", "rolebindings": "rbac.authorization.k8s.io/v1",
	"roles": "rbac.authorization.k8s.io/v1", "secrets": "v1", "serviceaccounts": "v1", "services": "v1", "statefulsets": "apps/v1",
	"storageclasses": "storage.k8s.io/v1", "validatingadmissionpolicies": "admissionregistration.k8s.io/v1",
	"validatingadmissionpolicybindings": "admissionregistration.k8s.io/v1", "validatingwebhookconfigurations": "admissionregistration.k8s.io/v1",
	"volumeattachments": "storage.k8s.io/v1",
}

// stateMetrics are lines that the samples must give.
var stateMetrics = []string{
	`kube_configmap_info{namespace="NAMESPACE",configmap="sample"} 1`,
	`kube_secret_type{namespace="NAMESPACE",secret="sample",type="example.com/mine"} 1`,
	`kube_namespace_status_phase{namespace="NAMESPACE",phase="Active"} 1`,
	`kube_node_spec_unschedulable{node="sample-node"} 1`,
	`kube_node_status_condition{node="sample-node",condition="Ready",status="true"} 1`,
	`kube_pod_status_phase{namespace="NAMESPACE",pod="sample",uid="UID",phase="Running"} 1`,
	`kube_pod_container_status_restarts_total{namespace="NAMESPACE",pod="sample",uid="UID",container="a"} 3`,
	`kube_pod_container_status_waiting_reason{namespace="NAMESPACE",pod="sample",uid="UID",container="b",reason="CrashLoopBackOff"} 1`,
	`kube_service_spec_type{namespace="NAMESPACE",service="sample",uid="UID",type="NodePort"} 1`,
	`kube_customresource_gadget_size{customresource_group="GROUP",customresource_kind="Gadget",customresource_version="v1",name="a"} 5`,
}

// kube-state-metrics, as a service account that may only list and watch, lists
// and watches all that it knows, custom resources too, and tells of each object.
// What the server does not have (yet) costs nothing but a line of its log.
func TestKubeStateMetrics(t *testing.T) {
	program := client(t, "kube-state-metrics")
	ns, gvr := namespace(t), define(t, gadget)
	admin.want(t, 201, call{method: "POST", path: under(gvr.GroupVersion().String(), "gadgets", ns), body: fmt.Sprintf("{apiVersion: %s/v1, kind: Gadget, metadata: {name: a}, spec: {size: 5}}", gvr.Group)}, nil)
	for _, s := range samples(t, ns) {
		s.make(t)
	}
	account := makeAccount(t, ns, "metrics")
	create(t, "clusterroles", "", fmt.Sprintf("{metadata: {name: %s}, rules: [{apiGroups: ['*'], resources: ['*'], verbs: [list, watch]}]}", ns))
	create(t, "clusterrolebindings", "", fmt.Sprintf("{metadata: {name: %[1]s}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: %[1]s}, subjects: [{kind: ServiceAccount, namespace: %[1]s, name: metrics}]}", ns))

	var names, absent []string
	for name, gv := range collectors {
		names = append(names, name)
		if admin.do(t, call{path: under(gv, name, "")}).code == http.StatusNotFound {
			absent = append(absent, name)
		}
	}
	custom := fmt.Sprintf(`{"kind":"CustomResourceStateMetrics","spec":{"resources":[{"groupVersionKind":{"group":%q,"version":"v1","kind":"Gadget"},`+
		`"labelsFromPath":{"name":["metadata","name"]},"metrics":[{"name":"gadget_size","help":"h","each":{"type":"Gauge","gauge":{"path":["spec","size"]}}}]}]}}`, gvr.Group)
	p, err := shared.begin(exec.CommandContext(t.Context(), program, "--kubeconfig", kubeconfig(t, account.config),
		"--host", "0.0.0.0", "--telemetry-host", "0.0.0.0", "--resources", strings.Join(names, ","), "--custom-resource-state-config", custom))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // ended already if it failed
		<-p.ended
		if t.Failed() {
			t.Log(p.errs.String())
		}
	})
	pod := get(t, "pods", ns, "sample")
	service := get(t, "services", ns, "sample")
	for _, line := range stateMetrics {
		uid := pod.GetUID()
		if strings.Contains(line, "service=") {
			uid = service.GetUID()
		}
		line = strings.NewReplacer("NAMESPACE", ns, "UID", string(uid), "GROUP", gvr.Group).Replace(line)
		eventually(t, line, func() bool { return strings.Contains(scrape("8080"), "\n"+line+"\n") })
	}
	// What changes is told by the watch.
	patch(t, "pods", ns, "sample", `{"metadata":{"labels":{"a":"b"}}}`)
	putStatus(t, at("pods", ns, "sample"), "status", map[string]any{"phase": "Failed", "containerStatuses": []any{}})
	changed := fmt.Sprintf(`kube_pod_status_phase{namespace=%q,pod="sample",uid=%q,phase="Failed"} 1`, ns, pod.GetUID())
	eventually(t, "the pod's change shows", func() bool { return strings.Contains(scrape("8080"), changed) })

	// Its informers list by watches that begin with the objects there are.
	watched := regexp.MustCompile(`(?m)^kube_state_metrics_watch_total\{resource="[^"]*",result="success"\}`)
	eventually(t, "all kinds that are served are watched", func() bool {
		return len(watched.FindAllString(scrape("8081"), -1)) == len(names)-len(absent)+1 // and gadgets
	})
	for line := range strings.Lines(p.errs.String()) {
		if strings.HasPrefix(line, "E") && (len(absent) == 0 || !strings.Contains(line, "the server could not find the requested resource")) {
			t.Errorf("it complains: %s", line)
		}
	}
	t.Logf("not served: %v", absent)
}

// scrape reads the metrics at a port of the shared cluster's node.
func scrape(port string) string {
	resp, err := http.Get("http://" + shared.address.String() + ":" + port + "/metrics")
	if err != nil {
		return "" // not listening yet
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return ""
	}
	return string(b)
}
