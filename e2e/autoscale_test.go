package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// TestAutoscaling is about what containers are measured to use, and what comes of
// it.
func TestAutoscaling(t *testing.T) {
	t.Parallel()
	for _, r := range []row{
		{"kubectl top node", topNode},
		{"kubectl top pod", topPod},
		{"metrics of pods and nodes", resourceMetrics},
		{"an autoscaler follows the CPU", followsCPU},
		{"an autoscaler follows memory", followsMemory},
		{"an autoscaler follows one container", followsContainer},
		{"an autoscaler follows a container's memory and the CPU, whichever asks for more", followsSeveral},
		{"kubectl autoscale", autoscales},
	} {
		t.Run(r.noun, func(t *testing.T) {
			t.Parallel()
			r.check(newSpace(t, shared))
		})
	}
}

// busy is a container that works as long as there is a file /tmp/work, and asks
// for a hundredth of a CPU, of which looking for the file takes next to nothing on a
// busy machine, too; idle is one that never does.
const (
	busy = `{name: main, image: hansa.local/busybox:1, command: [sh, -c, "while true; do [ -f /tmp/work ] || sleep 5; done"], resources: {requests: {cpu: 10m}, limits: {cpu: 100m}}}`
	idle = `{name: idle, image: hansa.local/busybox:1, command: [sleep, "100000"], resources: {requests: {cpu: 10m}}}`
)

func workers(containers ...string) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: worker}
spec:
  replicas: 1
  selector: {matchLabels: {app: worker}}
  template:
    metadata: {labels: {app: worker}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [%s]
`, strings.Join(containers, ", "))
}

// scaler is an autoscaler of the workers by its metrics, which shrinks at once.
func scaler(metric string) string {
	return fmt.Sprintf(`
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: worker}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: worker}
  minReplicas: 1
  maxReplicas: 3
  metrics: [%s]
  behavior: {scaleDown: {stabilizationWindowSeconds: 0}}
`, metric)
}

func (s *space) runningWorkers() []corev1.Pod {
	s.t.Helper()
	list, err := s.client.CoreV1().Pods(s.name).List(s.t.Context(), metav1.ListOptions{LabelSelector: "app=worker"})
	if err != nil {
		s.t.Fatal(err)
	}
	var out []corev1.Pod
	for _, p := range list.Items {
		if condition(&p, corev1.PodReady) == corev1.ConditionTrue && p.DeletionTimestamp == nil {
			out = append(out, p)
		}
	}
	return out
}

// scaledTo waits for a number of running workers.
func (s *space) scaledTo(n int) {
	s.t.Helper()
	await(s.t, fmt.Sprintf("%d workers run", n), func() error {
		if got := len(s.runningWorkers()); got != n {
			h, err := s.client.AutoscalingV2().HorizontalPodAutoscalers(s.name).Get(s.t.Context(), "worker", metav1.GetOptions{})
			if err != nil {
				return err
			}
			status, err := json.Marshal(h.Status)
			return errors.Join(fmt.Errorf("there are %d; the autoscaler says %s", got, status), err)
		}
		return nil
	})
}

func (s *space) work(on bool) {
	s.t.Helper()
	command := "rm -f /tmp/work"
	if on {
		command = "touch /tmp/work"
	}
	for _, p := range s.runningWorkers() {
		s.exec(p.Name, "sh", "-c", command)
	}
}

// Documentation: "HorizontalPodAutoscaler Walkthrough".
func followsCPU(s *space) {
	s.apply(workers(busy) + "---" + scaler(`{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}`))
	s.kubectl("rollout", "status", "deployment/worker", "--timeout=120s")
	s.work(true)
	s.scaledTo(3)
	s.event("worker", "Normal SuccessfulRescale: New size: 3; reason: cpu resource utilization (percentage of request) above target")
	if got := s.kubectl("describe", "hpa", "worker"); !regexp.MustCompile(`resource cpu on pods  \(as a percentage of request\): +\d+% \(\d+m\) / 50%`).MatchString(got) || !strings.Contains(got, "ValidMetricFound") {
		s.t.Errorf("kubectl describe hpa:\n%s", got)
	}
	if got := s.kubectl("get", "hpa", "worker", "--no-headers"); !regexp.MustCompile(`^worker +Deployment/worker +cpu: \d+%/50% +1 +3 +\d`).MatchString(got) {
		s.t.Errorf("kubectl get hpa: %s", got)
	}
	s.work(false)
	s.scaledTo(1)
	s.event("worker", "Normal SuccessfulRescale: New size: 1; reason: All metrics below target")
}

func followsMemory(s *space) {
	s.apply(workers(`{name: main, image: hansa.local/testimage:1, args: [alloc, "48"]}`) +
		"---" + scaler(`{type: Resource, resource: {name: memory, target: {type: AverageValue, averageValue: 20Mi}}}`))
	s.scaledTo(3)
	await(s.t, "the autoscaler is at its limit", func() error {
		h, err := s.client.AutoscalingV2().HorizontalPodAutoscalers(s.name).Get(s.t.Context(), "worker", metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range h.Status.Conditions {
			if c.Type == autoscalingv2.ScalingLimited && c.Reason == "TooManyReplicas" && h.Status.CurrentMetrics[0].Resource.Current.AverageValue.Value() > 48<<20 {
				return nil
			}
		}
		return fmt.Errorf("status %+v", h.Status)
	})
}

// The other container would keep the pod as a whole below its target.
func followsContainer(s *space) {
	large := strings.Replace(idle, "requests: {cpu: 10m}", "requests: {cpu: 500m}", 1)
	s.apply(workers(busy, large) + "---" + scaler(`{type: ContainerResource, containerResource: {name: cpu, container: main, target: {type: Utilization, averageUtilization: 50}}}`))
	s.kubectl("rollout", "status", "deployment/worker", "--timeout=120s")
	s.work(true)
	s.event("worker", "Normal SuccessfulRescale: New size: 3; reason: cpu container resource utilization (percentage of request) above target")
}

func followsSeveral(s *space) {
	const metrics = `{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}, ` +
		`{type: ContainerResource, containerResource: {name: memory, container: hoard, target: {type: AverageValue, averageValue: %s}}}`
	s.apply(workers(busy, `{name: hoard, image: hansa.local/testimage:1, args: [alloc, "48"], resources: {requests: {cpu: 10m}}}`) + "---" + scaler(fmt.Sprintf(metrics, "20Mi")))
	s.scaledTo(3)
	s.event("worker", "reason: memory resource above target")
	await(s.t, "it shows both", func() error {
		h, err := s.client.AutoscalingV2().HorizontalPodAutoscalers(s.name).Get(s.t.Context(), "worker", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if m := h.Status.CurrentMetrics; len(m) != 2 || m[0].Resource == nil || m[0].Resource.Current.AverageUtilization == nil || *m[0].Resource.Current.AverageUtilization > 50 ||
			m[1].ContainerResource == nil || m[1].ContainerResource.Container != "hoard" || m[1].ContainerResource.Current.AverageValue.Value() < 48<<20 {
			return fmt.Errorf("metrics %+v", m)
		}
		return nil
	})
	s.apply(scaler(fmt.Sprintf(metrics, "1Gi")))
	s.scaledTo(1)
	s.work(true)
	s.scaledTo(3)
	s.event("worker", "reason: cpu resource utilization (percentage of request) above target")
}

func autoscales(s *space) {
	s.apply(workers(idle))
	s.kubectl("autoscale", "deployment", "worker", "--min=2", "--max=4", "--cpu=50%")
	s.scaledTo(2)
	s.event("worker", "Normal SuccessfulRescale: New size: 2; reason: Current number of replicas below Spec.MinReplicas")
	await(s.t, "the autoscaler is active", func() error {
		if got := s.kubectl("describe", "hpa", "worker"); !strings.Contains(got, "ScalingActive   True    ValidMetricFound") {
			return errors.New(got)
		}
		return nil
	})
}

// Documentation: "Tools for Monitoring Resources"; kubectl reference, "kubectl
// top".
func topNode(s *space) {
	got := s.kubectl("top", "node")
	m := regexp.MustCompile(`^NAME +CPU\(cores\) +CPU\(%\) +MEMORY\(bytes\) +MEMORY\(%\) *\n(\S+) +(\d+)m +\d+% +(\d+)Mi +\d+% *\n$`).FindStringSubmatch(got)
	if m == nil || m[1] != nodeName {
		s.t.Fatalf("kubectl top node:\n%s", got)
	}
	if cpu, err := strconv.Atoi(m[2]); err != nil || cpu < 1 || cpu > 1000*128 {
		s.t.Errorf("the node uses %s thousandths of a CPU", m[2])
	}
}

func topPod(s *space) {
	s.create("busy", "containers: ["+strings.Replace(busy, "[ -f /tmp/work ] || sleep 5", ":", 1)+", "+idle+"]")
	s.create("idle", "containers: ["+idle+"]")
	s.ready("busy")
	s.ready("idle")
	form := regexp.MustCompile(`^busy +(\d+)m +\d+Mi *\nidle +\d+m +\d+Mi *\n$`)
	await(s.t, "kubectl top shows the pods, and what they use once they have started", func() error {
		out, err := s.cluster.kubectl("-n", s.name, "top", "pod", "--no-headers", "--sort-by=cpu")
		if err != nil {
			return err
		}
		found := form.FindStringSubmatch(out)
		if found == nil {
			return errors.New(out)
		}
		if cpu, err := strconv.Atoi(found[1]); err != nil || cpu < 5 || cpu > 130 { // of a limit of 100
			return fmt.Errorf("the busy pod uses %s thousandths of a CPU", found[1])
		}
		return nil
	})
	got := s.kubectl("top", "pod", "busy", "--containers", "--no-headers")
	if !regexp.MustCompile(`^busy +idle +\dm +\d+Mi *\nbusy +main +\d+m +\d+Mi *\n$`).MatchString(got) {
		s.t.Errorf("kubectl top pod --containers:\n%s", got)
	}
	if got := s.kubectl("top", "pod", "-l", "app=idle", "--no-headers"); !strings.HasPrefix(got, "idle ") || strings.Contains(got, "busy") {
		s.t.Errorf("kubectl top pod -l:\n%s", got)
	}
	if got := s.kubectl("top", "pod", "--sum", "-l", "app=idle"); !strings.Contains(got, "________") {
		s.t.Errorf("kubectl top pod --sum:\n%s", got)
	}
	if out, err := s.cluster.kubectl("-n", s.name, "top", "pod", "gone"); err == nil || !strings.Contains(err.Error()+out, `pods "gone" not found`) && !strings.Contains(err.Error()+out, `podmetrics.metrics.k8s.io "`+s.name+`/gone" not found`) {
		s.t.Errorf("kubectl top pod of none: %v %s", err, out)
	}
}

// Documentation: "Resource metrics pipeline".
func resourceMetrics(s *space) {
	s.create("idle", "containers: ["+idle+"]")
	s.ready("idle")
	raw := func(path string, into any) error {
		data, err := s.client.CoreV1().RESTClient().Get().RequestURI("/apis/metrics.k8s.io/v1beta1" + path).DoRaw(s.t.Context())
		if err != nil {
			return err
		}
		return json.Unmarshal(data, into)
	}
	var pod metricsv1beta1.PodMetrics
	await(s.t, "metrics of the pod", func() error { return raw("/namespaces/"+s.name+"/pods/idle", &pod) })
	if len(pod.Containers) != 1 || pod.Containers[0].Name != "idle" || pod.Labels["app"] != "idle" || pod.Window.Duration <= 0 || pod.Timestamp.IsZero() {
		s.t.Errorf("metrics of the pod: %+v", pod)
	}
	if n := pod.Containers[0].Usage.Memory().Value(); n <= 0 || n > 64<<20 {
		s.t.Errorf("it uses %d bytes", n)
	}
	var nodes metricsv1beta1.NodeMetricsList
	if err := raw("/nodes", &nodes); err != nil || len(nodes.Items) != 1 || nodes.Items[0].Usage.Cpu().IsZero() || nodes.Items[0].Usage.Memory().IsZero() {
		s.t.Errorf("metrics of nodes: %+v, %v", nodes, err)
	}
	var pods metricsv1beta1.PodMetricsList
	if err := raw("/namespaces/"+s.name+"/pods?labelSelector=app%3Dother", &pods); err != nil || len(pods.Items) != 0 {
		s.t.Errorf("metrics of pods with another label: %+v, %v", pods, err)
	}
}
