package onfailure

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestPolicy(t *testing.T) {
	for _, c := range []struct {
		name string
		in   map[string]string
		want Policy
		on   bool
	}{
		{"nothing", nil, Policy{}, false},
		{"defaults", map[string]string{ActionAnnotation: "rollback"}, Policy{Rollback, 0, time.Minute, 10 * time.Minute}, true},
		{"all", map[string]string{ActionAnnotation: "pause", RatioAnnotation: "0.25", MonitorAnnotation: "90s", DeadlineAnnotation: "1m"}, Policy{Pause, .25, 90 * time.Second, time.Minute}, true},
		{"not to be understood", map[string]string{ActionAnnotation: "explode"}, Policy{}, false},
	} {
		if got, on := Read(c.in); got != c.want || on != c.on {
			t.Errorf("%s: %+v, %t", c.name, got, on)
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct{ name, value, field, want string }{
		{ActionAnnotation, "explode", "", `metadata.annotations[hansa.dev/on-failure]: Invalid value: "explode": must be rollback or pause`},
		{ActionAnnotation, "pause", "", ""},
		{RatioAnnotation, "25%", "", "must be a number from 0 to 1"},
		{RatioAnnotation, "1.5", "", "must be a number from 0 to 1"},
		{RatioAnnotation, "NaN", "", "must be a number from 0 to 1"},
		{RatioAnnotation, "1", "", ""},
		{MonitorAnnotation, "60", "", "must be a duration from 0s to 24h"},
		{MonitorAnnotation, "-1s", "", "must be a duration from 0s to 24h"},
		{MonitorAnnotation, "0s", "", ""},
		{DeadlineAnnotation, "0s", "", "must be a duration from 1s to 24h"},
		{DeadlineAnnotation, "1m", "", ""},
		{DeadlineAnnotation, "1m", "spec.progressDeadlineSeconds", "must be left out: use spec.progressDeadlineSeconds"},
	} {
		errs := Validate(map[string]string{c.name: c.value}, nil, c.field)
		if got := errs.ToAggregate(); (c.want == "") != (got == nil) || got != nil && !strings.Contains(got.Error(), c.want) {
			t.Errorf("%s=%s: %v, want %q", c.name, c.value, got, c.want)
		}
		if again := Validate(map[string]string{c.name: c.value}, map[string]string{c.name: c.value}, c.field); len(again) > 0 {
			t.Errorf("%s=%s is refused where it was before: %v", c.name, c.value, again)
		}
	}
	if got := Warnings(map[string]string{MonitorAnnotation: "1s"}); len(got) != 1 || !strings.Contains(got[0], "has no effect without hansa.dev/on-failure") {
		t.Errorf("warnings: %q", got)
	}
}

func carrier(name string, marks map[string]string) *appsv1.ReplicaSet {
	return &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: marks}}
}

func TestHeld(t *testing.T) {
	numbers := map[string]int64{"a": 1, "b": 2, "c": 3}
	number := func(rs *appsv1.ReplicaSet) int64 { return numbers[rs.Name] }
	failed := func(n int64) string { return Failure{n, "PodsFailed", `it "crashed"`}.String() }
	a, b := carrier("a", map[string]string{GoodMark: "1"}), carrier("b", map[string]string{GoodMark: "1"})
	bad := carrier("c", map[string]string{FailedMark: failed(3)})
	w := carrier("w", map[string]string{ActionAnnotation: "rollback"})
	all := []*appsv1.ReplicaSet{a, b, bad}
	if got, held := Held(w, bad, all, number); !held || got != b {
		t.Errorf("%v instead, %t", got, held)
	}
	if f := FailureOf(bad, 3); f == nil || f.Message != `it "crashed"` {
		t.Errorf("failure %+v", f)
	}
	if _, held := Held(w, a, all, number); held {
		t.Error("a good revision is held")
	}
	numbers["c"] = 4 // rolled out anew
	if _, held := Held(w, bad, all, number); held {
		t.Error("a revision with another number is held")
	}
	numbers["c"] = 3
	b.Annotations[FailedMark] = failed(2)
	if got, _ := Held(w, bad, all, number); got != a {
		t.Errorf("%v instead, not the last that is still good", got)
	}
	if _, held := Held(w, bad, all[1:], number); held {
		t.Error("held without anything good")
	}
	w.Annotations[ActionAnnotation] = "pause"
	if _, held := Held(w, bad, all, number); held {
		t.Error("held where the policy is to pause")
	}
}
