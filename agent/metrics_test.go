package agent_test

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Families of /metrics have the types and labels that they have in the kubelet: the
// table is recorded of pkg/kubelet of kubernetes v1.37.2 and of component-base. Those that are "here" are
// served, those of "when" as long as there is something to count; why the others are
// not is in design/agent.md.
func TestMetricFamilies(t *testing.T) {
	r := newRig(t)
	r.pod("web", func(p *v1.Pod) {
		p.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}}}
	})
	r.wait("web", "Ready", isReady)
	r.agent.CountAll()
	r.fetch("/healthz")
	table, err := os.ReadFile("testdata/kubelet-metrics.txt")
	if err != nil {
		t.Fatal(err)
	}
	design, err := os.ReadFile("../design/agent.md")
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]string
	r.eventually("the node to have started", func() bool {
		got = r.agent.Families()
		return got["kubelet_node_startup_duration_seconds"] != ""
	})
	known := map[string]bool{}
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		name, want, state := f[0], f[1]+" "+f[2], f[3]
		known[name] = true
		is, there := got[name]
		switch {
		case state == "here" && is != want, state == "when" && there && is != want:
			t.Errorf("%s is %q, want %q", name, is, want)
		case state == "here" || state == "when":
		case there:
			t.Errorf("%s is there, although it is left out (%s)", name, state)
		case !strings.Contains(string(design), "| `"+state+"` |"):
			t.Errorf("%s is left out (%s), and nobody says why", name, state)
		}
	}
	for name := range got {
		if !known[name] && !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
			t.Errorf("the kubelet has no %s", name)
		}
	}
}

// metric is the value of a series of /metrics, 0 without it.
func (r *rig) metric(series string) float64 {
	r.t.Helper()
	_, text := r.fetch("/metrics")
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(series) + ` (\S+)$`).FindStringSubmatch(text)
	if m == nil {
		return 0
	}
	v, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		r.t.Fatal(err)
	}
	return v
}

// counts waits until series have their values.
func (r *rig) counts(what string, want map[string]float64) {
	r.t.Helper()
	r.eventually(what, func() bool {
		for series, v := range want {
			if got := r.metric(series); got != v {
				r.t.Logf("%s is %v, want %v", series, got, v)
				return false
			}
		}
		return true
	})
}

// A pod's life, as it is counted.
func TestPodsAreCounted(t *testing.T) {
	dir := t.TempDir()
	manifest(t, dir, "own", "one")
	r := configured(t, map[string]any{"staticPodPath": dir})
	r.start()
	r.wait("own-n1", "a mirror that is ready", isReady)
	r.pod("web", func(p *v1.Pod) {
		p.Spec.InitContainers = []v1.Container{{Name: "init", Image: image, Args: []string{"end"}}}
	})
	r.eventually("the init container to be there", func() bool { return r.runtime.Exit("init", 0, "Completed") })
	r.wait("web", "Ready", isReady)
	r.counts("a pod that was started", map[string]float64{
		`kubelet_started_pods_total`: 2, `kubelet_started_pods_errors_total`: 0,
		`kubelet_started_containers_total{container_type="container"}`:                                          2,
		`kubelet_started_containers_total{container_type="init_container"}`:                                     1,
		`kubelet_terminated_containers_total{container_type="init_container",exit_code="0",reason="Completed"}`: 1,
		`kubelet_pod_start_duration_seconds_count`:                                                              2,
		`kubelet_pod_start_sli_duration_seconds_count`:                                                          1, // static pods are not made in the API
		`kubelet_pod_start_total_duration_seconds_count`:                                                        1,
		`kubelet_containers_per_pod_count_sum`:                                                                  2,
		`kubelet_pod_worker_duration_seconds_count{operation_type="create"}`:                                    2,
		`kubelet_runtime_operations_total{operation_type="run_podsandbox"}`:                                     2,
		`kubelet_cgroup_manager_duration_seconds_count{operation_type="create"}`:                                2,
		`kubelet_desired_pods{static=""}`:                                                                       1,
		`kubelet_desired_pods{static="true"}`:                                                                   1,
		`kubelet_active_pods{static=""}`:                                                                        1,
		`kubelet_mirror_pods`:                                                                                   1,
		`kubelet_running_pods`:                                                                                  2,
		`kubelet_running_containers{container_state="running"}`:                                                 2,
	})
	if r.metric(`kubelet_pod_status_sync_duration_seconds_count`) == 0 {
		t.Error("no status was measured")
	}
	r.delete("web")
	r.wait("web", "deletion", gone)
	r.eventually("its end to be measured", func() bool { return r.metric(`kubelet_pod_worker_duration_seconds_count{operation_type="kill"}`) > 0 })

	// What goes wrong.
	r.runtime.Fail("RunSandbox", errors.New("no"))
	limit := resource.MustParse("1Mi")
	p := r.pod("large", func(p *v1.Pod) {
		p.Spec.Volumes = []v1.Volume{{Name: "v", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{SizeLimit: &limit}}}}
	})
	r.wait("large", "Ready", isReady)
	if err := os.WriteFile(filepath.Join(r.dir, "pods", string(p.UID), "volumes/kubernetes.io~empty-dir/v/big"), make([]byte, 2<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	r.agent.KeepHouse(t.Context())
	r.wait("large", "eviction", inPhase(v1.PodFailed))
	r.runtime.Fail("CreateContainer", errors.New("no"))
	r.pod("late", nil)
	r.wait("late", "Ready", isReady)
	r.pod("windows", func(p *v1.Pod) { p.Spec.OS = &v1.PodOS{Name: v1.Windows} })
	r.wait("windows", "refusal", inPhase(v1.PodFailed))
	r.counts("what went wrong", map[string]float64{
		`kubelet_started_pods_errors_total`:                                                                  1,
		`kubelet_runtime_operations_errors_total{operation_type="run_podsandbox"}`:                           1,
		`kubelet_run_podsandbox_errors_total{runtime_handler=""}`:                                            1,
		`kubelet_evictions{eviction_signal="emptydirfs.limit"}`:                                              1,
		`kubelet_started_containers_errors_total{code="CreateContainerError",container_type="container"}`:    1,
		`kubelet_admission_rejections_total{reason="PodOSNotSupported"}`:                                     1,
		`volume_manager_total_volumes{plugin_name="kubernetes.io/empty-dir",state="actual_state_of_world"}`:  0,
		`volume_manager_total_volumes{plugin_name="kubernetes.io/empty-dir",state="desired_state_of_world"}`: 0,
	})

	// Another agent does not count again what was.
	r.stop()
	r.start()
	r.wait("late", "Ready", isReady)
	r.counts("nothing that was there before", map[string]float64{
		`kubelet_started_pods_total`: 0, `kubelet_pod_start_duration_seconds_count`: 0, `kubelet_pod_start_sli_duration_seconds_count`: 0,
		`kubelet_running_pods`: 2,
	})
}
