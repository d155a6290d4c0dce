package conformance

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// "Pod Security Admission": what the labels of a namespace enforce, warn of and
// write into the audit log, and that they are checked themselves.
func TestPodSecurity(t *testing.T) {
	ns := namespace(t)
	label := func(body string) answer {
		return admin.do(t, call{method: "PATCH", path: at("namespaces", "", ns), contentType: mergePatch, body: `{"metadata": {"labels": ` + body + `}}`})
	}
	const privileged = `{"metadata": {"name": "p"}, "spec": {"schedulerName": "nobody", "containers": [{"name": "c", "image": "i", "securityContext": {"privileged": true}}]}}`
	create(t, "pods", ns, strings.Replace(privileged, `"p"`, `"there"`, 1))
	label(`{"pod-security.kubernetes.io/enforce": "low"}`).refused(t, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid,
		`Namespace "`+ns+`" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "low": must be one of privileged, baseline, restricted`)
	stricter := label(`{"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/warn": "restricted", "pod-security.kubernetes.io/warn-version": "v1.25"}`)
	if got := strings.Join(stricter.header.Values("Warning"), "\n"); stricter.code != http.StatusOK || !strings.Contains(got, `existing pods in namespace \"`+ns+`\" violate the new PodSecurity enforce level \"baseline:latest\"`) ||
		!strings.Contains(got, "there: privileged") {
		t.Errorf("the answer is %d with warnings %s", stricter.code, got)
	}
	eventually(t, "the level is enforced", func() bool {
		a := admin.do(t, call{method: "POST", path: at("pods", ns), body: privileged})
		return a.code == http.StatusForbidden && a.status(t).Message ==
			`pods "p" is forbidden: violates PodSecurity "baseline:latest": privileged (container "c" must not set securityContext.privileged=true)`
	})
	good := admin.want(t, http.StatusCreated, call{method: "POST", path: at("pods", ns), body: podBody("good", "", "")}, nil)
	if got := good.header.Get("Warning"); !strings.Contains(got, `would violate PodSecurity \"restricted:v1.25\": allowPrivilegeEscalation != false`) {
		t.Errorf("a pod below the level warned of has the warning %s", got)
	}
	// Workloads are warned of and not refused.
	workload := admin.want(t, http.StatusCreated, call{method: "POST", path: under("apps/v1", "deployments", ns), body: `{"metadata": {"name": "d"}, "spec": {"replicas": 0,
		"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"hostNetwork": true, "containers": [{"name": "c", "image": "i"}]}}}}`}, nil)
	if got := workload.header.Get("Warning"); !strings.Contains(got, "host namespaces (hostNetwork=true)") {
		t.Errorf("a workload has the warning %s", got)
	}
	metrics := string(admin.do(t, call{path: "/metrics"}).body)
	if !strings.Contains(metrics, `pod_security_evaluations_total{decision="deny",mode="enforce",policy_level="baseline",policy_version="latest",request_operation="create",resource="pod",subresource=""}`) {
		t.Error("the refusal is not counted")
	}
}

// "Admission Control in Kubernetes": plugins that are off by default are switched
// on, others off, and a file configures them.
func TestAdmissionPlugins(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	write("quota.yaml", "apiVersion: apiserver.config.k8s.io/v1\nkind: ResourceQuotaConfiguration\nlimitedResources: [{resource: services, matchContains: [loadbalancers]}]\n")
	config := write("admission.yaml", `apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: ResourceQuota
  path: quota.yaml
- name: EventRateLimit
  configuration: {apiVersion: eventratelimit.admission.k8s.io/v1alpha1, kind: Configuration, limits: [{type: User, qps: 1000, burst: 1000}]}
- name: PodSecurity
  configuration:
    apiVersion: pod-security.admission.config.k8s.io/v1
    kind: PodSecurityConfiguration
    defaults: {enforce: baseline, audit: restricted}
    exemptions: {namespaces: [kube-system]}
`)
	log := filepath.Join(dir, "audit.log")
	c, p := started(t, "plugged", "--admission-control-config-file", config, "--disable-admission-plugins", "DefaultTolerationSeconds",
		"--audit-log-path", log, "--audit-policy-file", write("policy.yaml", "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata, resources: [{resources: [pods]}]}]\n"),
		"--enable-admission-plugins", "AlwaysPullImages,DenyServiceExternalIPs,EventRateLimit,ExtendedResourceToleration,LimitPodHardAntiAffinityTopology,NamespaceAutoProvision,NamespaceExists,OwnerReferencesPermissionEnforcement,PodNodeSelector,PodTolerationRestriction")
	refuse := func(path, body, message string) {
		t.Helper()
		p.do(t, call{method: "POST", path: path, body: body}).refused(t, http.StatusForbidden, metav1.StatusReasonForbidden, message)
	}
	// The namespace is made on the way.
	made := p.want(t, http.StatusCreated, call{method: "POST", path: at("pods", "fresh"), body: podBody("p", "", `"limits": {"example.com/x": "1"}`)}, nil).object(t)
	if containers, _, _ := nested[[]any](made.Object, "spec", "containers"); len(containers) != 1 || containers[0].(map[string]any)["imagePullPolicy"] != "Always" {
		t.Errorf("containers are %v", containers)
	}
	if got := field(made, "spec", "tolerations"); got != `[{"effect":"NoSchedule","key":"example.com/x","operator":"Exists"}]` {
		t.Errorf("tolerations are %s", got)
	}
	refuse(at("pods", "fresh"), podBody("host", `"hostNetwork": true,`, ""), `pods "host" is forbidden: violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true)`)
	p.want(t, http.StatusCreated, call{method: "POST", path: at("pods", "kube-system"), body: podBody("host", `"hostNetwork": true,`, "")}, nil)
	refuse(at("services", "fresh"), `{"metadata": {"name": "s"}, "spec": {"externalIPs": ["192.0.2.1"], "ports": [{"port": 1}]}}`, `services "s" is forbidden: Use of external IPs is denied by admission control`)
	refuse(at("services", "fresh"), `{"metadata": {"name": "s"}, "spec": {"type": "LoadBalancer", "ports": [{"port": 1}]}}`, `services "s" is forbidden: insufficient quota to consume: services.loadbalancers`)
	if err := c.signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	annotated := map[string]string{}
	for _, e := range events(t, log) {
		if e.Verb == "create" && e.ObjectRef.Subresource == "" {
			for key, value := range e.Annotations {
				if name, ok := strings.CutPrefix(key, "pod-security.kubernetes.io/"); ok {
					annotated[e.ObjectRef.Namespace+" "+name] += value
				}
			}
		}
	}
	if annotated["kube-system exempt"] != "namespace" || !strings.HasPrefix(annotated["fresh enforce-policy"], "baseline:latest") ||
		!strings.Contains(annotated["fresh audit-violations"], `would violate PodSecurity "restricted:latest"`) {
		t.Errorf("the audit log has %v", annotated)
	}
	for args, want := range map[string]string{
		"--enable-admission-plugins=Nope":        `enable-admission-plugins plugin "Nope" is unknown`,
		"--admission-control-config-file=/no/it": "--admission-control-config-file: open /no/it: no such file or directory",
	} {
		if r := c.run(t, "up", args); r.code != 2 || !strings.Contains(r.err, want) {
			t.Errorf("%s ends with %+v, want %s", args, r, want)
		}
	}
}
