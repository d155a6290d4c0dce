package conformance

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api/quota"
)

// limit makes a quota and waits until what is used is counted.
func limit(t *testing.T, ns, name, spec string) {
	t.Helper()
	create(t, "resourcequotas", ns, fmt.Sprintf(`{"metadata": {"name": %q}, "spec": %s}`, name, spec))
	eventually(t, "the quota is counted", func() bool {
		q := quotaOf(t, ns, name)
		return len(q.Status.Used) > 0 && quota.Equal(q.Spec.Hard, q.Status.Hard)
	})
}

func quotaOf(t *testing.T, ns, name string) *corev1.ResourceQuota {
	t.Helper()
	var q corev1.ResourceQuota
	admin.want(t, http.StatusOK, call{method: "GET", path: at("resourcequotas", ns, name)}, &q)
	return &q
}

// used waits until a quota says that so much of everything is used.
func used(t *testing.T, ns, name string, amounts string) {
	t.Helper()
	want := corev1.ResourceList{}
	for _, pair := range strings.Fields(amounts) {
		key, value, _ := strings.Cut(pair, "=")
		want[corev1.ResourceName(key)] = resource.MustParse(value)
	}
	eventually(t, "the quota says "+amounts, func() bool {
		got := quotaOf(t, ns, name).Status.Used
		return quota.Equal(quota.Mask(got, want), want)
	})
}

// podBody is a pod that is never placed.
func podBody(name, spec, resources string) string {
	return fmt.Sprintf(`{"metadata": {"name": %q}, "spec": {"schedulerName": "nobody", "terminationGracePeriodSeconds": 0, %s "containers": [{"name": "c", "image": "i", "resources": {%s}}]}}`, name, spec, resources)
}

// refusedPod is a create of a pod that a quota refuses.
func refusedPod(t *testing.T, ns, body, message string) {
	t.Helper()
	admin.do(t, call{method: "POST", path: at("pods", ns), body: body}).refused(t, http.StatusForbidden, metav1.StatusReasonForbidden, message)
}

func remove(t *testing.T, path string) {
	t.Helper()
	admin.want(t, http.StatusOK, call{method: "DELETE", path: path}, nil)
}

// "Object count quota": every kind, under its older name too, and of custom
// resources.
func TestQuotaCountsObjects(t *testing.T) {
	ns := namespace(t)
	limit(t, ns, "q", `{"hard": {"configmaps": "3", "count/configmaps": "3", "secrets": "1", "services": "3", "services.nodeports": "2", "services.loadbalancers": "1",
		"replicationcontrollers": "1", "resourcequotas": "1", "count/replicasets.apps": "1", "count/deployments.apps": "1", "count/roles.rbac.authorization.k8s.io": "1"}}`)
	// kube-root-ca.crt is one of the config maps.
	used(t, ns, "q", "configmaps=1 count/configmaps=1 secrets=0 services=0 resourcequotas=1 count/replicasets.apps=0")
	refuse := func(path, body, message string) {
		t.Helper()
		admin.do(t, call{method: "POST", path: path, body: body}).refused(t, http.StatusForbidden, metav1.StatusReasonForbidden, message)
	}
	create(t, "configmaps", ns, "metadata: {name: a}")
	create(t, "configmaps", ns, "metadata: {name: b}")
	refuse(at("configmaps", ns), `{"metadata": {"name": "c"}}`,
		`configmaps "c" is forbidden: exceeded quota: q, requested: configmaps=1,count/configmaps=1, used: configmaps=3,count/configmaps=3, limited: configmaps=3,count/configmaps=3`)
	refuse(at("resourcequotas", ns), `{"metadata": {"name": "other"}, "spec": {"hard": {}}}`,
		`resourcequotas "other" is forbidden: exceeded quota: q, requested: resourcequotas=1, used: resourcequotas=1, limited: resourcequotas=1`)
	remove(t, at("configmaps", ns, "a"))
	used(t, ns, "q", "configmaps=2 count/configmaps=2")
	create(t, "configmaps", ns, "metadata: {name: c}")

	create(t, "secrets", ns, "metadata: {name: s}")
	refuse(at("secrets", ns), `{"metadata": {"name": "t"}}`, `secrets "t" is forbidden: exceeded quota: q, requested: secrets=1, used: secrets=1, limited: secrets=1`)
	remove(t, at("secrets", ns, "s"))
	used(t, ns, "q", "secrets=0")

	service := func(name, kind string) string {
		return fmt.Sprintf(`{"metadata": {"name": %q}, "spec": {"type": %q, "ports": [{"port": 80}]}}`, name, kind)
	}
	create(t, "services", ns, service("plain", "ClusterIP"))
	create(t, "services", ns, service("open", "NodePort"))
	used(t, ns, "q", "services=2 services.nodeports=1 services.loadbalancers=0")
	create(t, "services", ns, service("balanced", "LoadBalancer"))
	used(t, ns, "q", "services=3 services.nodeports=2 services.loadbalancers=1")
	admin.do(t, call{method: "PATCH", path: at("services", ns, "plain"), contentType: mergePatch, body: `{"spec": {"type": "NodePort"}}`}).refused(t, http.StatusForbidden, metav1.StatusReasonForbidden,
		`services "plain" is forbidden: exceeded quota: q, requested: services.nodeports=1, used: services.nodeports=2, limited: services.nodeports=2`)
	patch(t, "services", ns, "open", `{"spec": {"type": "ClusterIP"}}`)
	used(t, ns, "q", "services=3 services.nodeports=1")
	remove(t, at("services", ns, "balanced"))
	used(t, ns, "q", "services=2 services.nodeports=0 services.loadbalancers=0")

	roles := under("rbac.authorization.k8s.io/v1", "roles", ns)
	admin.want(t, http.StatusCreated, call{method: "POST", path: roles, body: `{"metadata": {"name": "a"}, "rules": []}`}, nil)
	refuse(roles, `{"metadata": {"name": "b"}, "rules": []}`,
		`roles.rbac.authorization.k8s.io "b" is forbidden: exceeded quota: q, requested: count/roles.rbac.authorization.k8s.io=1, used: count/roles.rbac.authorization.k8s.io=1, limited: count/roles.rbac.authorization.k8s.io=1`)

	const template = `"selector": {"matchLabels": {"a": "b"}}, "replicas": 0, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}`
	create(t, "replicationcontrollers", ns, `{"metadata": {"name": "a"}, "spec": {"selector": {"a": "b"}, "replicas": 0, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}}`)
	used(t, ns, "q", "replicationcontrollers=1")
	remove(t, at("replicationcontrollers", ns, "a"))
	used(t, ns, "q", "replicationcontrollers=0")
	sets := under("apps/v1", "replicasets", ns)
	admin.want(t, http.StatusCreated, call{method: "POST", path: sets, body: `{"metadata": {"name": "a"}, "spec": {` + template + `}}`}, nil)
	used(t, ns, "q", "count/replicasets.apps=1")
	remove(t, sets+"/a")
	used(t, ns, "q", "count/replicasets.apps=0")
}

// "Compute resource quota", "must specify" and in-place resize.
func TestQuotaOfPods(t *testing.T) {
	ns := namespace(t)
	limit(t, ns, "q", `{"hard": {"pods": "2", "count/pods": "5", "cpu": "1", "limits.memory": "1Gi", "requests.ephemeral-storage": "1Gi", "requests.example.com/dongle": "3", "requests.hugepages-2Mi": "4Mi"}}`)
	refusedPod(t, ns, podBody("p", "", `"requests": {"cpu": "1"}`), `pods "p" is forbidden: failed quota: q: must specify limits.memory for: c`)
	refusedPod(t, ns, podBody("p", "", ""), `pods "p" is forbidden: failed quota: q: must specify cpu for: c; limits.memory for: c`)
	enough := func(cpu string) string {
		return fmt.Sprintf(`"requests": {"cpu": %q, "ephemeral-storage": "1Mi", "example.com/dongle": "2"}, "limits": {"cpu": "8", "memory": "100Mi", "example.com/dongle": "2", "hugepages-2Mi": "2Mi"}`, cpu)
	}
	create(t, "pods", ns, podBody("p", "", enough("500m")))
	used(t, ns, "q", "pods=1 count/pods=1 cpu=500m limits.memory=100Mi requests.ephemeral-storage=1Mi requests.example.com/dongle=2 requests.hugepages-2Mi=2Mi")
	refusedPod(t, ns, podBody("r", "", enough("501m")),
		`pods "r" is forbidden: exceeded quota: q, requested: cpu=501m,requests.example.com/dongle=2, used: cpu=500m,requests.example.com/dongle=2, limited: cpu=1,requests.example.com/dongle=3`)

	resize := func(cpu string) answer {
		return admin.do(t, call{method: "PATCH", path: at("pods", ns, "p", "resize"), contentType: strategicPatch,
			body: fmt.Sprintf(`{"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": %q}}}]}}`, cpu)})
	}
	resize("1200m").refused(t, http.StatusForbidden, metav1.StatusReasonForbidden,
		`pods "p" is forbidden: exceeded quota: q, requested: cpu=700m, used: cpu=500m, limited: cpu=1`)
	if a := resize("600m"); a.code != http.StatusOK {
		t.Errorf("a resize within the quota is answered %d %s", a.code, a.body)
	}
	used(t, ns, "q", "cpu=600m")

	// What has ended counts as an object only.
	admin.want(t, http.StatusOK, call{method: "PATCH", path: at("pods", ns, "p", "status"), contentType: mergePatch, body: `{"status": {"phase": "Succeeded"}}`}, nil)
	used(t, ns, "q", "pods=0 count/pods=1 cpu=0 limits.memory=0 requests.example.com/dongle=0")
	remove(t, at("pods", ns, "p"))
	used(t, ns, "q", "count/pods=0")
}

// "Quota scopes": of a pod, by spec.scopes and by scopeSelector.
func TestQuotaScopes(t *testing.T) {
	ns := namespace(t)
	limit(t, ns, "best-effort", `{"hard": {"pods": "5"}, "scopes": ["BestEffort"]}`)
	limit(t, ns, "not-best-effort", `{"hard": {"pods": "5"}, "scopes": ["NotBestEffort"]}`)
	limit(t, ns, "terminating", `{"hard": {"pods": "5"}, "scopes": ["Terminating"]}`)
	limit(t, ns, "not-terminating", `{"hard": {"pods": "5"}, "scopes": ["NotTerminating"]}`)
	limit(t, ns, "critical", `{"hard": {"pods": "1"}, "scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["system-node-critical"]}]}}`)
	limit(t, ns, "abroad", `{"hard": {"pods": "0"}, "scopeSelector": {"matchExpressions": [{"scopeName": "CrossNamespacePodAffinity", "operator": "Exists"}]}}`)
	create(t, "pods", ns, podBody("plain", "", ""))
	create(t, "pods", ns, podBody("sized", `"activeDeadlineSeconds": 3600,`, `"requests": {"cpu": "1m"}`))
	create(t, "pods", ns, podBody("urgent", `"priorityClassName": "system-node-critical",`, ""))
	used(t, ns, "best-effort", "pods=2")
	used(t, ns, "not-best-effort", "pods=1")
	used(t, ns, "terminating", "pods=1")
	used(t, ns, "not-terminating", "pods=2")
	used(t, ns, "critical", "pods=1")
	refusedPod(t, ns, podBody("urgent-too", `"priorityClassName": "system-node-critical",`, ""),
		`pods "urgent-too" is forbidden: exceeded quota: critical, requested: pods=1, used: pods=1, limited: pods=1`)
	const affinity = `"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "t", "namespaceSelector": {}, "labelSelector": {}}]}},`
	refusedPod(t, ns, podBody("abroad", affinity, ""), `pods "abroad" is forbidden: exceeded quota: abroad, requested: pods=1, used: pods=0, limited: pods=0`)
	// A pod that gets a deadline changes its scope.
	patch(t, "pods", ns, "plain", `{"spec": {"activeDeadlineSeconds": 3600}}`)
	used(t, ns, "terminating", "pods=2")
	used(t, ns, "not-terminating", "pods=1")
	for _, name := range []string{"plain", "sized", "urgent"} {
		remove(t, at("pods", ns, name))
	}
	used(t, ns, "best-effort", "pods=0")
	used(t, ns, "critical", "pods=0")
}

// "Storage resource quota": claims, and those of one class.
func TestQuotaOfStorage(t *testing.T) {
	ns := namespace(t)
	limit(t, ns, "q", `{"hard": {"persistentvolumeclaims": "2", "requests.storage": "3Gi", "gold.storageclass.storage.k8s.io/requests.storage": "1Gi", "gold.storageclass.storage.k8s.io/persistentvolumeclaims": "1"}}`)
	claim := func(name, class, size string) string {
		return fmt.Sprintf(`{"metadata": {"name": %q}, "spec": {"storageClassName": %q, "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": %q}}}}`, name, class, size)
	}
	create(t, "persistentvolumeclaims", ns, claim("a", "gold", "1Gi"))
	used(t, ns, "q", "persistentvolumeclaims=1 requests.storage=1Gi gold.storageclass.storage.k8s.io/requests.storage=1Gi gold.storageclass.storage.k8s.io/persistentvolumeclaims=1")
	admin.do(t, call{method: "POST", path: at("persistentvolumeclaims", ns), body: claim("b", "lead", "2.5Gi")}).refused(t, http.StatusForbidden, metav1.StatusReasonForbidden,
		`persistentvolumeclaims "b" is forbidden: exceeded quota: q, requested: requests.storage=2560Mi, used: requests.storage=1Gi, limited: requests.storage=3Gi`)
	create(t, "persistentvolumeclaims", ns, claim("b", "lead", "2Gi"))
	remove(t, at("persistentvolumeclaims", ns, "a"))
	used(t, ns, "q", "persistentvolumeclaims=1 requests.storage=2Gi gold.storageclass.storage.k8s.io/requests.storage=0")
}

// "Quota and DRA": devices by class.
func TestQuotaOfDevices(t *testing.T) {
	ns := namespace(t)
	limit(t, ns, "q", `{"hard": {"count/resourceclaims.resource.k8s.io": "2", "gpu.deviceclass.resource.k8s.io/devices": "3"}}`)
	claims := under("resource.k8s.io/v1", "resourceclaims", ns)
	claim := func(name string, n int) string {
		return fmt.Sprintf(`{"metadata": {"name": %q}, "spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu", "count": %d}}]}}}`, name, n)
	}
	admin.want(t, http.StatusCreated, call{method: "POST", path: claims, body: claim("a", 2)}, nil)
	used(t, ns, "q", "count/resourceclaims.resource.k8s.io=1 gpu.deviceclass.resource.k8s.io/devices=2")
	admin.do(t, call{method: "POST", path: claims, body: claim("b", 2)}).refused(t, http.StatusForbidden, metav1.StatusReasonForbidden,
		`resourceclaims.resource.k8s.io "b" is forbidden: exceeded quota: q, requested: gpu.deviceclass.resource.k8s.io/devices=2, used: gpu.deviceclass.resource.k8s.io/devices=2, limited: gpu.deviceclass.resource.k8s.io/devices=3`)
}

// A quota of ten admits ten of a hundred that come at once, however often, and
// what failed or is gone is given back.
func TestQuotaUnderConcurrency(t *testing.T) {
	ns := namespace(t)
	limit(t, ns, "q", `{"hard": {"pods": "10"}}`)
	for range 3 {
		var group sync.WaitGroup
		codes := make([]int, 100)
		for i := range codes {
			group.Go(func() {
				codes[i] = admin.do(t, call{method: "POST", path: at("pods", ns), body: podBody(fmt.Sprintf("p%d", i), "", "")}).code
			})
		}
		group.Wait()
		var made []int
		for i, code := range codes {
			switch code {
			case http.StatusCreated:
				made = append(made, i)
			case http.StatusForbidden:
			default:
				t.Errorf("a create is answered %d", code)
			}
		}
		if len(made) != 10 {
			t.Fatalf("%d pods are admitted, want 10", len(made))
		}
		used(t, ns, "q", "pods=10")
		for _, i := range made {
			group.Go(func() { remove(t, at("pods", ns, fmt.Sprintf("p%d", i))) })
		}
		group.Wait()
		used(t, ns, "q", "pods=0")
	}
	// Many of one name: all but one fail after they were charged.
	var group sync.WaitGroup
	for range 30 {
		group.Go(func() { admin.do(t, call{method: "POST", path: at("pods", ns), body: podBody("same", "", "")}) })
	}
	group.Wait()
	used(t, ns, "q", "pods=1")
	admin.want(t, http.StatusCreated, call{method: "POST", path: at("pods", ns) + "?dryRun=All", body: podBody("dry", "", "")}, nil)
	used(t, ns, "q", "pods=1")
}

// A quota follows its spec: raised, lowered below what is used, and removed.
func TestQuotaChanges(t *testing.T) {
	ns := namespace(t)
	limit(t, ns, "q", `{"hard": {"secrets": "1"}}`)
	create(t, "secrets", ns, "metadata: {name: a}")
	patch(t, "resourcequotas", ns, "q", `{"spec": {"hard": {"secrets": "2", "services": "1"}}}`)
	used(t, ns, "q", "secrets=1 services=0")
	create(t, "secrets", ns, "metadata: {name: b}")
	patch(t, "resourcequotas", ns, "q", `{"spec": {"hard": {"secrets": "1"}}}`)
	eventually(t, "the new limit is there", func() bool {
		q := quotaOf(t, ns, "q")
		return quota.Equal(q.Status.Hard, corev1.ResourceList{"secrets": resource.MustParse("1"), "services": resource.MustParse("1")})
	})
	admin.do(t, call{method: "POST", path: at("secrets", ns), body: `{"metadata": {"name": "c"}}`}).refused(t, http.StatusForbidden, metav1.StatusReasonForbidden,
		`secrets "c" is forbidden: exceeded quota: q, requested: secrets=1, used: secrets=2, limited: secrets=1`)
	// What counts already may still change.
	patch(t, "secrets", ns, "a", `{"metadata": {"labels": {"x": "y"}}}`)
	remove(t, at("resourcequotas", ns, "q"))
	eventually(t, "the limit is gone", func() bool {
		return admin.do(t, call{method: "POST", path: at("secrets", ns) + "?dryRun=All", body: `{"metadata": {"name": "c"}}`}).code == http.StatusCreated
	})
}

// A quota counts custom resources as any other, from the moment that they are
// defined.
func TestQuotaOfCustomResources(t *testing.T) {
	ns := namespace(t)
	group := group(t)
	count := "count/gadgets." + group
	create(t, "resourcequotas", ns, fmt.Sprintf(`{"metadata": {"name": "q"}, "spec": {"hard": {%q: "1"}}}`, count))
	gadgets := define(t, gadget)
	used(t, ns, "q", count+"=0")
	path := under(gadgets.GroupVersion().String(), gadgets.Resource, ns)
	object := func(name string) string {
		return fmt.Sprintf(`{"apiVersion": %q, "kind": "Gadget", "metadata": {"name": %q}}`, gadgets.GroupVersion(), name)
	}
	admin.want(t, http.StatusCreated, call{method: "POST", path: path, body: object("a")}, nil)
	used(t, ns, "q", count+"=1")
	admin.do(t, call{method: "POST", path: path, body: object("b")}).refused(t, http.StatusForbidden, metav1.StatusReasonForbidden,
		fmt.Sprintf(`gadgets.%[2]s "b" is forbidden: exceeded quota: q, requested: %[1]s=1, used: %[1]s=1, limited: %[1]s=1`, count, group))
	remove(t, path+"/a")
	used(t, ns, "q", count+"=0")
}

// "ReplicationController", "ReplicaSet": who cannot make all pods because of a
// quota says so, and no more once the rest is not wanted.
func TestQuotaFailsReplicas(t *testing.T) {
	ns := namespace(t)
	limit(t, ns, "q", `{"hard": {"pods": "2"}}`)
	create(t, "replicationcontrollers", ns, `{"metadata": {"name": "rc"}, "spec": {"selector": {"a": "b"}, "replicas": 3, "template": {"metadata": {"labels": {"a": "b"}},
		"spec": {"schedulerName": "nobody", "terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "i"}]}}}}`)
	failure := func() (message string, made int32) {
		var rc corev1.ReplicationController
		admin.want(t, http.StatusOK, call{path: at("replicationcontrollers", ns, "rc")}, &rc)
		for _, c := range rc.Status.Conditions {
			if c.Type == corev1.ReplicationControllerReplicaFailure {
				message = c.Message
			}
		}
		return message, rc.Status.Replicas
	}
	eventually(t, "the failure is told", func() bool {
		message, made := failure()
		return made == 2 && strings.Contains(message, "exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2")
	})
	used(t, ns, "q", "pods=2")
	patch(t, "replicationcontrollers", ns, "rc", `{"spec": {"replicas": 2}}`)
	eventually(t, "there is no failure any more", func() bool {
		message, _ := failure()
		return message == ""
	})
}
