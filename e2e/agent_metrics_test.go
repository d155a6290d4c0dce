package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"

	statsv1alpha1 "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

var metricRows = []row{
	{"stats summary", statsSummary},
	{"metrics of containers, as cAdvisor's", cadvisorMetrics},
	{"metrics of resources", metricsResource},
	{"metrics of probes and of the node", probeMetrics},
}

// ofNode asks the node's own API.
func (s *space) ofNode(path string) string {
	s.t.Helper()
	out, err := s.cluster.kubectl("get", "--raw", "/api/v1/nodes/"+nodeName+"/proxy"+path)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// measuredPod writes 1 MiB to its root file system and to a volume, and logs.
func (s *space) measuredPod() {
	s.t.Helper()
	s.create("p", `
containers:
- name: main
  image: hansa.local/busybox:1
  command: [sh, -c, "echo said; dd if=/dev/zero of=/work/f bs=1024 count=1024 2>/dev/null; exec sleep 100000"]
  resources: {limits: {cpu: 500m, memory: 64Mi}}
  volumeMounts: [{name: work, mountPath: /work}]
  livenessProbe: {exec: {command: ["true"]}, periodSeconds: 1}
volumes: [{name: work, emptyDir: {}}]
`)
	s.ready("p")
}

// Kubelet API, "/stats/summary".
func statsSummary(s *space) {
	s.measuredPod()
	var p statsv1alpha1.PodStats
	var sum statsv1alpha1.Summary
	await(s.t, "the summary has the pod, its volume and what it wrote", func() error {
		sum = statsv1alpha1.Summary{}
		if err := json.Unmarshal([]byte(s.ofNode("/stats/summary")), &sum); err != nil {
			return err
		}
		for _, p = range sum.Pods {
			if p.PodRef.Namespace == s.name && len(p.VolumeStats) == 1+1 && len(p.Containers) == 1 && p.Containers[0].Rootfs != nil && p.Containers[0].CPU.UsageNanoCores != nil &&
				p.EphemeralStorage != nil && *p.EphemeralStorage.UsedBytes >= 1<<20 {
				return nil
			}
		}
		return fmt.Errorf("pods %+v", sum.Pods)
	})
	c := p.Containers[0]
	if c.Name != "main" || *c.CPU.UsageCoreNanoSeconds == 0 || *c.Memory.WorkingSetBytes == 0 || *c.Memory.AvailableBytes > 64<<20 || *c.Logs.UsedBytes == 0 || *c.Rootfs.CapacityBytes == 0 {
		s.t.Errorf("container %+v", c)
	}
	if p.Network == nil || p.Network.Name != "eth0" || p.Network.RxBytes == nil || *p.ProcessStats.ProcessCount == 0 || *p.CPU.UsageCoreNanoSeconds == 0 || *p.Memory.UsageBytes == 0 {
		s.t.Errorf("pod %+v", p)
	}
	for _, v := range p.VolumeStats {
		if v.Name == "work" && (*v.UsedBytes < 1<<20 || *v.InodesUsed < 2) {
			s.t.Errorf("volume: %d bytes, %d inodes", *v.UsedBytes, *v.InodesUsed)
		}
	}
	n := sum.Node
	if n.NodeName != nodeName || n.CPU.UsageNanoCores == nil || *n.Memory.AvailableBytes == 0 || *n.Fs.CapacityBytes == 0 || n.Runtime.ImageFs == nil || *n.Rlimit.MaxPID == 0 || n.Network == nil || n.StartTime.IsZero() || n.Swap == nil {
		s.t.Errorf("node %+v", n)
	}
	var system []string
	for _, c := range n.SystemContainers {
		system = append(system, c.Name)
	}
	if strings.Join(system, " ") != "runtime pods" {
		s.t.Errorf("system containers %v", system)
	}
	_, err := os.ReadFile("/sys/fs/cgroup/cpu.pressure")
	if counted := unified() && err == nil; (c.CPU.PSI != nil) != counted || (c.IO != nil) != counted || (p.Memory.PSI != nil) != counted || (n.IO != nil) != counted || (n.CPU.PSI != nil) != counted {
		s.t.Errorf("pressure, counted %t: container %v %v, pod %v, node %v %v", counted, c.CPU.PSI, c.IO, p.Memory.PSI, n.CPU.PSI, n.IO)
	}
	var less statsv1alpha1.Summary
	if err := json.Unmarshal([]byte(s.ofNode("/stats/summary?only_cpu_and_memory=true")), &less); err != nil || less.Node.Fs != nil || less.Node.CPU == nil || len(less.Pods) == 0 {
		s.t.Errorf("cpu and memory alone: %+v, %v", less.Node, err)
	}
}

// wantSeries demands a sample of each kind.
func (s *space) wantSeries(text string, series ...string) {
	s.t.Helper()
	for _, one := range series {
		if !regexp.MustCompile(`(?m)^` + one).MatchString(text) {
			s.t.Errorf("no series %s", one)
		}
	}
	if s.t.Failed() {
		s.t.Logf("metrics:\n%s", text)
	}
}

func cadvisorMetrics(s *space) {
	s.measuredPod()
	of := fmt.Sprintf(`namespace="%s",pod="p"`, s.name)
	container := `\{container="main",id="/hansa/[^"]+",image="hansa.local/busybox:1",name="[0-9a-f]{64}",` + of
	pod := `\{container="",id="/hansa/[^"]+",image="",name="",` + of
	s.wantSeries(s.ofNode("/metrics/cadvisor"),
		`container_cpu_usage_seconds_total\{container="main",cpu="total",id="[^"]+",image="hansa.local/busybox:1",name="[0-9a-f]{64}",`+of+`\} \d`,
		`container_memory_working_set_bytes`+container+`\} [1-9]`,
		`container_memory_rss`+container+`\} \d`,
		`container_cpu_cfs_periods_total`+container+`\} \d`,
		`container_spec_memory_limit_bytes`+container+`\} 6.7108864e\+07 \d`,
		`container_spec_cpu_quota`+container+`\} 50000 \d`,
		`container_oom_events_total`+container+`\} 0 \d`,
		`container_start_time_seconds`+container+`\} \d`,
		`container_network_receive_bytes_total`+pod+`,interface="eth0"\} \d`,
		`container_network_transmit_bytes_total`+pod+`,interface="eth0"\} \d`,
		`container_memory_usage_bytes`+pod+`\} [1-9]`,
		`machine_cpu_cores\{boot_id="[^"]+",machine_id="[^"]*",system_uuid="[^"]*"\} [1-9]`,
		`machine_memory_bytes\{[^}]+\} [1-9]`,
		`container_scrape_error 0`)
}

func metricsResource(s *space) {
	s.measuredPod()
	of := fmt.Sprintf(`namespace="%s",pod="p"\}`, s.name)
	s.wantSeries(s.ofNode("/metrics/resource"),
		`container_cpu_usage_seconds_total\{container="main",`+of+` \S+ \d+$`,
		`container_memory_working_set_bytes\{container="main",`+of+` [1-9]\S* \d+$`,
		`container_start_time_seconds\{container="main",`+of+` \S+$`,
		`pod_cpu_usage_seconds_total\{`+of+` \S+ \d+$`, `pod_memory_working_set_bytes\{`+of+` [1-9]\S* \d+$`,
		`node_cpu_usage_seconds_total [1-9]\S* \d+$`, `node_memory_working_set_bytes [1-9]\S* \d+$`, `node_swap_usage_bytes \S+ \d+$`,
		`resource_scrape_error 0$`)
}

func probeMetrics(s *space) {
	s.measuredPod()
	await(s.t, "probes are counted", func() error {
		text := s.ofNode("/metrics/probes")
		of := fmt.Sprintf(`prober_probe_total\{container="main",namespace="%s",pod="p",pod_uid="[^"]+",probe_type="Liveness",result="successful"\} [1-9]`, s.name)
		if !regexp.MustCompile(of).MatchString(text) || !strings.Contains(text, "prober_probe_duration_seconds_bucket{") {
			return fmt.Errorf("metrics:\n%s", text)
		}
		return nil
	})
	s.wantSeries(s.ofNode("/metrics"), `kubelet_node_name\{node="`+nodeName+`"\} 1`, `kubelet_running_pods [1-9]`, `kubelet_running_containers\{container_state="running"\} [1-9]`,
		`kubelet_pod_start_sli_duration_seconds_count [1-9]`, `kubelet_pod_worker_duration_seconds_count\{operation_type="create"\} [1-9]`,
		`kubelet_runtime_operations_total\{operation_type="run_podsandbox"\} [1-9]`, `kubelet_started_containers_total\{container_type="container"\} [1-9]`,
		`kubelet_container_log_filesystem_used_bytes\{container="main",namespace="`+s.name+`",pod="p",uid="[^"]+"\} [1-9]`,
		`kubelet_http_requests_total\{long_running="false",method="GET",path="metrics/probes",server_type="readwrite"\} [1-9]`,
		`kubelet_certificate_manager_server_ttl_seconds [1-9]`, `volume_manager_total_volumes\{plugin_name="kubernetes.io/empty-dir",state="actual_state_of_world"\} [1-9]`,
		`process_resident_memory_bytes `, `go_goroutines `, `kubernetes_build_info\{\S*git_version="v1\.37\.2\+hansa[^"]*"\S*\} 1$`)
}
