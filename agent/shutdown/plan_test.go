package shutdown_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubelet "k8s.io/kubelet/config/v1beta1"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"hansa.dev/hansa/agent/shutdown"
)

func seconds(n int) metav1.Duration { return metav1.Duration{Duration: time.Duration(n) * time.Second} }

func pods(priorities ...int32) []*v1.Pod {
	var out []*v1.Pod
	for _, p := range priorities {
		out = append(out, &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint(p)}, Spec: v1.PodSpec{Priority: &p, TerminationGracePeriodSeconds: ptr.To[int64](15)}})
	}
	return out
}

func script(c *kubelet.KubeletConfiguration, pods []*v1.Pod) string {
	var out []string
	for _, g := range shutdown.Plan(shutdown.Periods(c), pods) {
		line := fmt.Sprintf("%s:", g.Grace)
		for _, p := range g.Pods {
			line += fmt.Sprintf(" %s(%s)", p.Name, g.For(p))
		}
		out = append(out, line)
	}
	return strings.Join(out, "; ")
}

// "Graceful node shutdown": critical pods end last, in their part of the time;
// "Pod priority based graceful node shutdown": by the priorities that are set.
func TestPlan(t *testing.T) {
	regular := &kubelet.KubeletConfiguration{ShutdownGracePeriod: seconds(30), ShutdownGracePeriodCriticalPods: seconds(10)}
	custom := &kubelet.KubeletConfiguration{ShutdownGracePeriodByPodPriority: []kubelet.ShutdownGracePeriodByPodPriority{
		{Priority: 100000, ShutdownGracePeriodSeconds: 10}, {Priority: 0, ShutdownGracePeriodSeconds: 60}, {Priority: 1000, ShutdownGracePeriodSeconds: 120},
	}}
	for _, c := range []struct {
		config *kubelet.KubeletConfiguration
		pods   []*v1.Pod
		want   string
	}{
		{regular, pods(0, 2000000000, 5, 2000001000, -5), "20s: 0(15s) 5(15s) -5(15s); 10s: 2000000000(10s) 2000001000(10s)"},
		{regular, pods(2000001000), "10s: 2000001000(10s)"},
		{regular, nil, ""},
		{custom, pods(-1, 0, 999, 1000, 99999, 100000, 200000), "1m0s: -1(15s) 0(15s) 999(15s); 2m0s: 1000(15s) 99999(15s); 10s: 100000(10s) 200000(10s)"},
		{&kubelet.KubeletConfiguration{}, pods(0), ""},
	} {
		if got := script(c.config, c.pods); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

// Every pod ends exactly once, never before one of a lower group, and none has
// more time than its group.
func TestPlanProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := &kubelet.KubeletConfiguration{}
		for range rapid.IntRange(1, 4).Draw(t, "periods") {
			c.ShutdownGracePeriodByPodPriority = append(c.ShutdownGracePeriodByPodPriority, kubelet.ShutdownGracePeriodByPodPriority{
				Priority: rapid.Int32Range(-10, 10).Draw(t, "priority"), ShutdownGracePeriodSeconds: rapid.Int64Range(0, 30).Draw(t, "grace"),
			})
		}
		all := pods(rapid.SliceOfN(rapid.Int32Range(-20, 20), 0, 8).Draw(t, "pods")...)
		n, last := 0, int32(-1<<31)
		for _, g := range shutdown.Plan(shutdown.Periods(c), all) {
			if g.Priority < last {
				t.Fatalf("group %d after %d", g.Priority, last)
			}
			last = g.Priority
			for _, p := range g.Pods {
				n++
				if g.For(p) > g.Grace {
					t.Fatalf("%s has %s of %s", p.Name, g.For(p), g.Grace)
				}
			}
		}
		if n != len(all) {
			t.Fatalf("%d of %d pods", n, len(all))
		}
	})
}
