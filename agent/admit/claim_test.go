package admit_test

import (
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/agent/admit"
	"hansa.dev/hansa/agent/pod"
)

func list(cpu, memory string) v1.ResourceList {
	return v1.ResourceList{v1.ResourceCPU: resource.MustParse(cpu), v1.ResourceMemory: resource.MustParse(memory)}
}

// "Resize CPU and Memory Resources assigned to Containers", "How Deferred Resizes are
// Retried", on a node of 2 processors and 1 Gi.
func TestResize(t *testing.T) {
	start := time.Unix(1e9, 0)
	claim := func(uid, cpu, memory string, wants v1.ResourceList, change func(*admit.Claim)) *admit.Claim {
		c := &admit.Claim{Pod: asks(cpu, memory), Holds: list(cpu, memory), Wants: wants, Since: start}
		c.Pod.UID = types.UID(uid)
		if change != nil {
			change(c)
		}
		return c
	}
	priority := func(n int32) func(*admit.Claim) { return func(c *admit.Claim) { c.Pod.Spec.Priority = ptr.To(n) } }
	guaranteed := func(c *admit.Claim) {
		c.Pod.Spec.Containers[0].Resources.Limits = c.Pod.Spec.Containers[0].Resources.Requests
	}
	later := func(c *admit.Claim) { c.Since = start.Add(time.Second) }
	const full = "Deferred: Node didn't have enough resource: cpu, requested: 1500, used: 1500, capacity: 2000"
	for name, c := range map[string]struct {
		claims []*admit.Claim
		want   map[types.UID]string
	}{
		"nobody asks": {[]*admit.Claim{claim("a", "1", "0", nil, nil)}, map[types.UID]string{}},
		"it fits":     {[]*admit.Claim{claim("a", "1", "512Mi", list("1500m", "512Mi"), nil), claim("b", "500m", "512Mi", nil, nil)}, map[types.UID]string{"a": ""}},
		"it does not": {[]*admit.Claim{claim("a", "1", "0", list("1500m", "0"), nil), claim("b", "501m", "0", nil, nil)}, map[types.UID]string{
			"a": "Deferred: Node didn't have enough resource: cpu, requested: 1500, used: 501, capacity: 2000"}},
		"no node has it": {[]*admit.Claim{claim("a", "1", "0", list("1", "2Gi"), nil)}, map[types.UID]string{
			"a": "Infeasible: Node didn't have enough capacity: memory, requested: 2147483648, capacity: 1073741824"}},
		"what others want takes nothing": {[]*admit.Claim{claim("a", "1", "0", list("1800m", "0"), nil), claim("b", "500m", "0", list("600m", "0"), nil)}, map[types.UID]string{
			"a": "Deferred: Node didn't have enough resource: cpu, requested: 1800, used: 500, capacity: 2000", "b": ""}},
		"less is granted, on a node that is over full, too": {[]*admit.Claim{claim("a", "3", "0", list("2500m", "0"), nil), claim("b", "1", "0", list("900m", "0"), nil)}, map[types.UID]string{"a": "", "b": ""}},
		"less of one and more of another":                   {[]*admit.Claim{claim("a", "3", "0", list("2500m", "1Gi"), nil)}, map[types.UID]string{"a": ""}},
		"less is free once it is taken away":                {[]*admit.Claim{claim("a", "1500m", "0", list("500m", "0"), nil), claim("b", "500m", "0", list("1500m", "0"), nil)}, map[types.UID]string{"a": "", "b": full}},
		"limits alone":                                      {[]*admit.Claim{claim("a", "2", "0", list("2", "0"), nil), claim("b", "1", "0", nil, nil)}, map[types.UID]string{"a": ""}},
		"the higher priority first": {[]*admit.Claim{claim("a", "500m", "0", list("1500m", "0"), guaranteed), claim("b", "500m", "0", list("1500m", "0"), priority(1)), claim("c", "0", "0", list("1m", "0"), nil)},
			map[types.UID]string{"a": full, "b": "", "c": "Deferred: Node didn't have enough resource: cpu, requested: 1, used: 2000, capacity: 2000"}},
		"guaranteed pods first":       {[]*admit.Claim{claim("a", "500m", "1Mi", list("1500m", "1Mi"), nil), claim("b", "500m", "1Mi", list("1500m", "1Mi"), func(c *admit.Claim) { guaranteed(c); later(c) })}, map[types.UID]string{"a": full, "b": ""}},
		"who waits the longest first": {[]*admit.Claim{claim("a", "500m", "0", list("1500m", "0"), later), claim("b", "500m", "0", list("1500m", "0"), nil)}, map[types.UID]string{"a": full, "b": ""}},
		"who comes later gets what is left": {[]*admit.Claim{claim("a", "1", "0", list("2", "0"), priority(1)), claim("b", "500m", "0", list("1", "0"), nil)}, map[types.UID]string{
			"a": "Deferred: Node didn't have enough resource: cpu, requested: 2000, used: 500, capacity: 2000", "b": ""}},
	} {
		got := admit.Resize(c.claims, list("2", "1Gi"))
		if len(got) != len(c.want) {
			t.Errorf("%s: %d answers, want %d", name, len(got), len(c.want))
		}
		for uid, want := range c.want {
			if text := answer(got[uid]); text != want {
				t.Errorf("%s: %s: %q, want %q", name, uid, text, want)
			}
		}
	}
}

func answer(f *pod.Failure) string {
	if f == nil {
		return ""
	}
	return f.Error()
}
