package e2e

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// prometheusConfig is what documentation of Prometheus' kubernetes_sd_configs
// suggests, narrowed to a namespace: one job for each role, and one for the
// ways to a node. API, TOKEN, CA, NAMESPACE and PROXY are filled in; PROXY is a
// service that stands in for what would carry an ingress' traffic.
const prometheusConfig = `
global: {scrape_interval: 1s, scrape_timeout: 1s}
scrape_configs:
- job_name: apiserver
  scheme: https
  tls_config: &tls {ca_file: CA}
  authorization: &auth {credentials_file: TOKEN}
  kubernetes_sd_configs: [{role: endpoints, api_server: &api API, tls_config: *tls, authorization: *auth, namespaces: {names: [default]}}]
  relabel_configs:
  - {action: keep, source_labels: [__meta_kubernetes_service_name, __meta_kubernetes_endpoint_port_name], regex: kubernetes;https}
- job_name: node
  scheme: https
  tls_config: &node {insecure_skip_verify: true}
  authorization: *auth
  kubernetes_sd_configs: [{role: node, api_server: *api, tls_config: *tls, authorization: *auth}]
  metrics_path: /metrics/resource
- job_name: node-by-proxy
  scheme: https
  tls_config: *tls
  authorization: *auth
  kubernetes_sd_configs: [{role: node, api_server: *api, tls_config: *tls, authorization: *auth}]
  relabel_configs:
  - {source_labels: [__meta_kubernetes_node_name], target_label: __metrics_path__, replacement: "/api/v1/nodes/${1}/proxy/metrics/resource", regex: (.+)}
  - {target_label: __address__, replacement: HOST}
- job_name: pod
  kubernetes_sd_configs: [{role: pod, api_server: *api, tls_config: *tls, authorization: *auth, namespaces: {names: [NAMESPACE]}, selectors: [{role: pod, label: app=web}]}]
  relabel_configs:
  - {action: keep, source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_scrape, __meta_kubernetes_pod_container_port_name, __meta_kubernetes_pod_ready], regex: true;web;true}
  - {source_labels: [__meta_kubernetes_pod_name], target_label: pod}
  - {source_labels: [__meta_kubernetes_pod_node_name], target_label: node}
- job_name: service
  kubernetes_sd_configs: [{role: service, api_server: *api, tls_config: *tls, authorization: *auth, namespaces: {names: [NAMESPACE]}}]
  relabel_configs:
  - {source_labels: [__meta_kubernetes_service_name], target_label: service}
  - {source_labels: [__meta_kubernetes_service_cluster_ip, __meta_kubernetes_service_port_number], separator: ":", target_label: __address__}
- job_name: endpoints
  kubernetes_sd_configs: [{role: endpoints, api_server: *api, tls_config: *tls, authorization: *auth, namespaces: {names: [NAMESPACE]}}]
  relabel_configs: &endpoint
  - {action: keep, source_labels: [__meta_kubernetes_service_label_app], regex: web}
  - {source_labels: [__meta_kubernetes_pod_name], target_label: pod}
- job_name: endpointslice
  kubernetes_sd_configs: [{role: endpointslice, api_server: *api, tls_config: *tls, authorization: *auth, namespaces: {names: [NAMESPACE]}}]
  relabel_configs: *endpoint
- job_name: ingress
  kubernetes_sd_configs: [{role: ingress, api_server: *api, tls_config: *tls, authorization: *auth, namespaces: {names: [NAMESPACE]}}]
  relabel_configs:
  - {source_labels: [__meta_kubernetes_ingress_scheme, __address__, __meta_kubernetes_ingress_path], regex: "(.+);(.+);(.+)", replacement: "${1}://${2}${3}", target_label: instance}
  - {target_label: __address__, replacement: PROXY}
`

// scraped is what Prometheus is to find.
const scraped = `
apiVersion: v1
kind: ServiceAccount
metadata: {name: prometheus}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: prometheus-NAMESPACE}
rules:
- {apiGroups: [""], resources: [nodes, services, endpoints, pods], verbs: [get, list, watch]}
- {apiGroups: [""], resources: [nodes/metrics, nodes/proxy], verbs: [get]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [get, list, watch]}
- {apiGroups: [networking.k8s.io], resources: [ingresses], verbs: [get, list, watch]}
- {nonResourceURLs: [/metrics], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: prometheus-NAMESPACE}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: prometheus-NAMESPACE}
subjects: [{kind: ServiceAccount, namespace: NAMESPACE, name: prometheus}]
---
apiVersion: v1
kind: Service
metadata: {name: web, labels: {app: web}}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: web}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec: {rules: [{host: web.example.test, http: {paths: [{path: /shop, pathType: Prefix, backend: {service: {name: web, port: {name: http}}}}]}}]}
---`

// prometheus is a running one.
type prometheus struct {
	*space
	url string
	log lockedBuffer
}

// newPrometheus starts Prometheus as a service account of the space.
func newPrometheus(s *space, service string) *prometheus {
	s.t.Helper()
	dir := s.t.TempDir()
	token, err := s.client.CoreV1().ServiceAccounts(s.name).CreateToken(s.t.Context(), "prometheus", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	u, err := url.Parse(s.config.Host)
	if err != nil {
		s.t.Fatal(err)
	}
	config := strings.NewReplacer("HOST", u.Host, "API", s.config.Host, "TOKEN", dir+"/token", "CA", dir+"/ca", "NAMESPACE", s.name, "PROXY", service).Replace(prometheusConfig)
	for name, data := range map[string]string{"token": token.Status.Token, "ca": string(s.config.CAData), "config": config} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
	const listen = "127.0.0.1:9090"
	p := &prometheus{space: s, url: "http://" + listen}
	cmd := exec.Command(filepath.Join("..", ".cache", "clients", "current", "prometheus"),
		"--config.file", dir+"/config", "--storage.tsdb.path", dir+"/data", "--web.listen-address", listen)
	cmd.Stdout, cmd.Stderr = &p.log, &p.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		s.t.Fatalf("%v: go run ./hack/build -clients makes it", err)
	}
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill() // ended already if it failed
		_ = cmd.Wait()         // by the signal
		if s.t.Failed() {
			s.t.Logf("Prometheus says\n%s", p.log.String())
		}
	})
	return p
}

// query answers with the values of an instant query, each as "NAME=VALUE,... VALUE"
// with the labels asked for.
func (p *prometheus) query(expression string, labels ...string) (found []string, err error) {
	text, err := fetch(p.url + "/api/v1/query?query=" + url.QueryEscape(expression))
	if err != nil {
		return nil, err
	}
	var answer struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		return nil, err
	}
	for _, r := range answer.Data.Result {
		line := ""
		for _, l := range labels {
			line += l + "=" + r.Metric[l] + " "
		}
		found = append(found, line+fmt.Sprint(r.Value[1]))
	}
	slices.Sort(found)
	return found, nil
}

// finds waits until a query has this answer.
func (p *prometheus) finds(expression string, labels []string, want ...string) {
	p.t.Helper()
	slices.Sort(want)
	await(p.t, expression, func() error {
		got, err := p.query(expression, labels...)
		if err == nil && !slices.Equal(got, want) {
			err = fmt.Errorf("it is %q, want %q", got, want)
		}
		return err
	})
}

// TestPrometheus: Prometheus, as a service account, discovers what it
// scrapes by every role through the API, follows what changes, and stores what
// the server, the node and pods tell of themselves.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	s := newSpace(t, shared)
	s.apply(strings.ReplaceAll(scraped, "NAMESPACE", s.name) + strings.Replace(deployment("web", "one", 1),
		"metadata: {labels: {app: web}}", `metadata: {labels: {app: web}, annotations: {prometheus.io/scrape: "true"}}`, 1))
	t.Cleanup(func() {
		for _, kind := range []string{"clusterrole", "clusterrolebinding"} {
			if _, err := s.cluster.kubectl("delete", kind, "prometheus-"+s.name); err != nil {
				t.Error(err)
			}
		}
	})
	s.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
	service := s.kubectl("get", "service", "web", "-o", "jsonpath={.spec.clusterIP}") + ":80"
	p := newPrometheus(s, service)

	job := []string{"job"}
	p.finds("up", job, "job=apiserver 1", "job=node 1", "job=node-by-proxy 1", "job=pod 1", "job=service 1", "job=endpoints 1", "job=endpointslice 1", "job=ingress 1")
	pod := s.kubectl("get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}")
	p.finds(`testimage_info{job="pod"}`, []string{"pod", "host", "node"}, "pod="+pod+" host="+pod+" node="+nodeName+" 1")
	p.finds(`testimage_info{job=~"endpoints|endpointslice"}`, []string{"job", "pod", "host"}, "job=endpoints pod="+pod+" host="+pod+" 1", "job=endpointslice pod="+pod+" host="+pod+" 1")
	p.finds(`testimage_info{job="ingress"}`, []string{"instance"}, "instance=http://web.example.test/shop 1")
	p.finds(`sum by (job) (apiserver_longrunning_requests{resource="ingresses",verb="WATCH"}) > bool 0`, job, "job=apiserver 1")
	p.finds(fmt.Sprintf(`container_start_time_seconds{container="main",namespace=%q} > bool 1.6e9`, s.name), job, "job=node 1", "job=node-by-proxy 1")
	p.finds(fmt.Sprintf(`container_memory_working_set_bytes{job="node",container="main",namespace=%q} > bool 0`, s.name), job, "job=node 1")
	p.finds(`resource_scrape_error`, job, "job=node 0", "job=node-by-proxy 0")

	s.kubectl("scale", "deployment/web", "--replicas=3")
	p.finds(`sum by (job) (up{job=~"pod|endpoints|endpointslice"})`, job, "job=pod 3", "job=endpoints 3", "job=endpointslice 3")
	s.kubectl("delete", "deployment/web", "ingress/web")
	p.finds(`up{job=~"pod|endpoints|endpointslice|ingress"}`, job)
	for line := range strings.Lines(p.log.String()) {
		complaint := strings.Contains(line, "level=ERROR") || strings.Contains(line, "level=WARN")
		if complaint && !strings.Contains(line, "v1 Endpoints is deprecated") {
			t.Errorf("it complains: %s", line)
		}
	}
}
