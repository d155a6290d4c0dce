package evict_test

import (
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/agent/evict"
)

func quantity(s string) *resource.Quantity { q := resource.MustParse(s); return &q }

func disk(limit string) v1.Container {
	c := v1.Container{Name: "c" + limit}
	if limit != "" {
		c.Resources.Limits = v1.ResourceList{v1.ResourceEphemeralStorage: resource.MustParse(limit)}
	}
	return c
}

// "Local ephemeral storage": each limit by itself.
func TestOverLimit(t *testing.T) {
	const mi = 1 << 20
	volume := func(name, limit string, medium v1.StorageMedium) v1.Volume {
		e := &v1.EmptyDirVolumeSource{Medium: medium}
		if limit != "" {
			e.SizeLimit = quantity(limit)
		}
		return v1.Volume{Name: name, VolumeSource: v1.VolumeSource{EmptyDir: e}}
	}
	for name, c := range map[string]struct {
		spec    v1.PodSpec
		usage   evict.Usage
		limited bool
		want    string
		of      string
	}{
		"no limits": {v1.PodSpec{Volumes: []v1.Volume{volume("v", "", "")}, Containers: []v1.Container{disk("")}},
			evict.Usage{EmptyDirs: map[string]int64{"v": 99 * mi}}, false, "", ""},
		"volume within": {v1.PodSpec{Volumes: []v1.Volume{volume("v", "1Mi", "")}}, evict.Usage{EmptyDirs: map[string]int64{"v": mi}}, true, "", ""},
		"volume": {v1.PodSpec{Volumes: []v1.Volume{volume("v", "1Mi", "")}}, evict.Usage{EmptyDirs: map[string]int64{"v": mi + 1}}, true,
			`Usage of EmptyDir volume "v" exceeds the limit "1Mi". `, "emptydirfs.limit"},
		"memory": {v1.PodSpec{Volumes: []v1.Volume{volume("v", "1Mi", v1.StorageMediumMemory)}}, evict.Usage{}, false, "", ""},
		"container": {v1.PodSpec{Containers: []v1.Container{disk("1Mi"), disk("9Mi")}}, evict.Usage{Containers: map[string]int64{"c1Mi": 2 * mi}}, true,
			`Container c1Mi exceeded its local ephemeral storage limit "1Mi". `, "ephemeralcontainerfs.limit"},
		"pod": {v1.PodSpec{Volumes: []v1.Volume{volume("v", "", "")}, Containers: []v1.Container{disk("1Mi"), disk("2Mi")}},
			evict.Usage{EmptyDirs: map[string]int64{"v": 4 * mi}}, true, `Pod ephemeral local storage usage exceeds the total limit of containers 3Mi. `, "ephemeralpodfs.limit"},
	} {
		p := &v1.Pod{Spec: c.spec}
		if got, of := evict.OverLimit(p, c.usage); got != c.want || of != c.of {
			t.Errorf("%s: got %q of %q, want %q", name, got, of, c.want)
		}
		if got := evict.Limited(p); got != c.limited {
			t.Errorf("%s: limited %v", name, got)
		}
	}
}

// "Pod selection for kubelet eviction".
func TestChoose(t *testing.T) {
	candidate := func(name string, priority int32, request string, use int64) evict.Candidate {
		return evict.Candidate{
			Pod: &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.PodSpec{Priority: ptr.To(priority), Containers: []v1.Container{{
				Resources: v1.ResourceRequirements{Requests: v1.ResourceList{v1.ResourceMemory: resource.MustParse(request), v1.ResourceEphemeralStorage: resource.MustParse(request)}},
			}}}},
			Usage: evict.Usage{Memory: use, Containers: map[string]int64{"": use}, Inodes: use, PIDs: use},
		}
	}
	within := candidate("within", 0, "100", 100)
	little := candidate("little", 0, "100", 101)
	much := candidate("much", 0, "100", 300)
	important := candidate("important", 5, "100", 900)
	critical := candidate("critical", 2000000000, "0", 9999)
	done := candidate("done", 0, "0", 9999)
	done.Pod.Status.Phase = v1.PodSucceeded
	static := candidate("static", 0, "0", 9999)
	static.Pod.Annotations = map[string]string{"kubernetes.io/config.source": "file"}
	for _, c := range []struct {
		candidates []evict.Candidate
		want       string
	}{
		{[]evict.Candidate{within, little, much, important, critical, done, static}, "much"},
		{[]evict.Candidate{within, little, important}, "little"},
		{[]evict.Candidate{within, important}, "important"},
		{[]evict.Candidate{within, critical}, "within"},
		{[]evict.Candidate{critical, done, static}, ""},
	} {
		for _, name := range []v1.ResourceName{v1.ResourceMemory, v1.ResourceEphemeralStorage} {
			got := ""
			if p := evict.Choose(name, c.candidates); p != nil {
				got = p.Pod.Name
			}
			if got != c.want {
				t.Errorf("%s: got %q, want %q", name, got, c.want)
			}
		}
	}
	// Of process IDs nothing is requested: priority comes first.
	if got := evict.Choose("pids", []evict.Candidate{important, little, much}); got.Pod.Name != "much" {
		t.Errorf("pids: %s", got.Pod.Name)
	}
	if got := evict.Choose("inodes", []evict.Candidate{important, little, much}); got.Pod.Name != "much" {
		t.Errorf("inodes: %s", got.Pod.Name)
	}
}

// "Pod selection for kubelet eviction", with images on a file system of their own: who
// has most on the one that is short goes.
func TestChooseByFileSystem(t *testing.T) {
	candidate := func(name string, volume, logs, layer int64) evict.Candidate {
		return evict.Candidate{Pod: &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}}, Usage: evict.Usage{
			EmptyDirs: map[string]int64{"v": volume}, Containers: map[string]int64{"c": logs + layer}, Layers: map[string]int64{"c": layer},
			Inodes: volume + logs + layer, LayerInodes: layer, Memory: volume,
		}}
	}
	all := []evict.Candidate{candidate("volume", 900, 1, 600), candidate("logs", 1, 950, 1), candidate("layer", 1, 1, 700)}
	for signal, want := range map[evict.Signal]string{
		evict.NodeFS: "logs", evict.NodeInodes: "logs", evict.ImageFS: "layer", evict.ImageInodes: "layer", evict.Memory: "volume",
	} {
		var there []evict.Candidate
		for _, c := range all {
			there = append(there, evict.Candidate{Pod: c.Pod, Usage: c.Usage.On(signal)})
		}
		if got := evict.Choose(signal.Resource(), there); got.Pod.Name != want {
			t.Errorf("%s: %s goes, want %s", signal, got.Pod.Name, want)
		}
	}
	if all[1].Usage.Containers["c"] != 951 {
		t.Errorf("what was measured has changed: %+v", all[1].Usage)
	}
}

// The message names the threshold and the containers that use more than they
// requested, as the kubelet's does.
func TestMessage(t *testing.T) {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: v1.PodSpec{Containers: []v1.Container{
		{Name: "big", Resources: v1.ResourceRequirements{Requests: v1.ResourceList{v1.ResourceMemory: resource.MustParse("1Mi")}}},
		{Name: "small", Resources: v1.ResourceRequirements{Requests: v1.ResourceList{v1.ResourceMemory: resource.MustParse("9Mi")}}},
	}}}
	usage := evict.Usage{ContainerMemory: map[string]int64{"big": 2 << 20, "small": 1 << 20}}
	got := evict.Message(evict.Threshold{Signal: evict.Memory, Min: evict.Amount{Absolute: 100 << 20}},
		evict.Observations{evict.Memory: {Available: 50 << 20, Capacity: 1 << 30}}, evict.Candidate{Pod: p, Usage: usage})
	want := "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. Container big was using 2Mi, request is 1Mi, has larger consumption of memory. "
	if got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	got = evict.Message(evict.Threshold{Signal: evict.PIDs, Min: evict.Amount{Part: 0.5}}, evict.Observations{evict.PIDs: {Available: 10, Capacity: 100}}, evict.Candidate{Pod: p})
	if got != "The node was low on resource: pids. Threshold quantity: 50, available: 10. " {
		t.Errorf("pids: %q", got)
	}
}

// Hard thresholds leave a pod no time, soft ones as much as it asks for, up to
// evictionMaxPodGracePeriod.
func TestGrace(t *testing.T) {
	p := &v1.Pod{Spec: v1.PodSpec{TerminationGracePeriodSeconds: ptr.To[int64](20)}}
	soft := evict.Threshold{Signal: evict.Memory, Grace: time.Minute}
	for most, want := range map[int32]time.Duration{0: 0, 10: 10 * time.Second, 60: 20 * time.Second} {
		if got := evict.Grace(soft, p, most); got != want {
			t.Errorf("at most %d: %s", most, got)
		}
	}
	if got := evict.Grace(evict.Threshold{Signal: evict.Memory}, p, 60); got != 0 {
		t.Errorf("hard: %s", got)
	}
}
