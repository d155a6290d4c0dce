package dependencies

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"hansa.dev/hansa/api/dependency"
)

var now = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func on(kind, name, condition string) dependency.Dependency {
	return dependency.Dependency{Target: dependency.Target{Kind: kind, Namespace: "n", Name: name}, Condition: condition}
}

var (
	db      = on("deployment", "db", "Ready")
	queue   = on("deployment", "queue", "Ready")
	migrate = on("job", "migrate", "Complete")

	isMet    = dependency.State{Met: true}
	isGone   = dependency.State{Lost: true, Why: "no replica is ready"}
	isFew    = dependency.State{Why: "not all replicas are ready"}
	hasEnded = dependency.State{Lost: true, Failed: true, Why: "has failed: BackoffLimitExceeded"}
	hasToEnd = dependency.State{Lost: true, Why: "has not ended"}
	foreign  = "example.com/gate"
	stateOf  = func(a, b, c dependency.State) outlook { return outlook{states: statesOf(a, b, c)} }
	statesOf = func(a, b, c dependency.State) map[dependency.Dependency]dependency.State {
		return states{db: a, queue: b, migrate: c}
	}
	allGates  = []string{db.Gate(), queue.Gate(), migrate.Gate()}
	everybody = []dependency.Dependency{db, queue, migrate}
)

type states = map[dependency.Dependency]dependency.State

func waitingPod(gates ...string) *corev1.Pod {
	p := &corev1.Pod{}
	for _, g := range gates {
		p.Spec.SchedulingGates = append(p.Spec.SchedulingGates, corev1.PodSchedulingGate{Name: g})
	}
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonSchedulingGated, Message: plain}}
	return p
}

func TestPlanWaiting(t *testing.T) {
	for _, c := range []struct {
		what    string
		s       subject
		o       outlook
		drop    []string
		message string
	}{
		{"nothing is there", subject{pod: waitingPod(allGates...), needs: everybody}, stateOf(isGone, isFew, hasToEnd), nil,
			": waits for deployment/db:Ready (no replica is ready), deployment/queue:Ready (not all replicas are ready), job/migrate:Complete (has not ended)"},
		{"what is done for good frees alone", subject{pod: waitingPod(allGates...), needs: everybody}, stateOf(isGone, isMet, isMet), []string{migrate.Gate()},
			": waits for deployment/db:Ready (no replica is ready)"},
		{"what comes and goes does not", subject{pod: waitingPod(allGates...), needs: everybody}, stateOf(isMet, isMet, hasToEnd), nil,
			": waits for job/migrate:Complete (has not ended)"},
		{"all is there", subject{pod: waitingPod(allGates...), needs: everybody}, stateOf(isMet, isMet, isMet), allGates, ""},
		{"a gate that was freed", subject{pod: waitingPod(db.Gate()), needs: everybody}, stateOf(isMet, isMet, hasToEnd), []string{db.Gate()}, ""},
		{"asked for no more", subject{pod: waitingPod(allGates...), needs: everybody[1:]}, stateOf(isGone, isMet, isMet), allGates, ""},
		{"not understood any more", subject{pod: waitingPod(allGates...), needs: everybody[1:], vague: "no kind"}, stateOf(isGone, isMet, isMet), []string{migrate.Gate()}, ": waits for no kind"},
		{"gates of others stay", subject{pod: waitingPod(db.Gate(), foreign), needs: everybody}, stateOf(isMet, isMet, isMet), []string{db.Gate()}, ""},
	} {
		got := planPods([]subject{c.s}, c.o, now)
		var one podPlan
		if len(got.pods) > 0 {
			one = got.pods[0]
		}
		if !slices.Equal(one.drop, c.drop) || strings.TrimPrefix(one.message, plain) != c.message {
			t.Errorf("%s: drops %v, says %q", c.what, one.drop, one.message)
		}
	}
}

func TestPlanRunning(t *testing.T) {
	marked := &corev1.Pod{Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: dependency.Failed, Status: corev1.ConditionTrue, Message: "why"}}}}
	since := map[dependency.Dependency]time.Time{db: now.Add(-10 * time.Second)}
	const lost, ended = "deployment/db:Ready no replica is ready", "job/migrate:Complete has failed: BackoffLimitExceeded"
	for _, c := range []struct {
		what, mode string
		pod        *corev1.Pod
		o          outlook
		want       podPlan
		after      time.Duration
	}{
		{"wait", dependency.Wait, &corev1.Pod{}, outlook{statesOf(isGone, isMet, hasEnded), "", since}, podPlan{}, 0},
		{"within its grace", dependency.Stop, &corev1.Pod{}, outlook{statesOf(isGone, isMet, isMet), "", since}, podPlan{}, 20 * time.Second},
		{"just lost", dependency.Restart, &corev1.Pod{}, stateOf(isGone, isMet, isMet), podPlan{}, 30 * time.Second},
		{"a part of it is left", dependency.Stop, &corev1.Pod{}, stateOf(isFew, isMet, isMet), podPlan{}, 0},
		{"lost for too long", dependency.Stop, &corev1.Pod{}, outlook{statesOf(isGone, isMet, isMet), "", map[dependency.Dependency]time.Time{db: now.Add(-30 * time.Second)}}, podPlan{stop: lost}, 0},
		{"failed", dependency.Stop, &corev1.Pod{}, stateOf(isMet, isMet, hasEnded), podPlan{stop: ended}, 0},
		{"runs again", dependency.Stop, &corev1.Pod{}, stateOf(isMet, isMet, hasToEnd), podPlan{}, 0},
		{"failed, to be restarted", dependency.Restart, &corev1.Pod{}, stateOf(isMet, isMet, hasEnded), podPlan{fail: ended}, 0},
		{"known", dependency.Restart, marked, stateOf(isMet, isMet, hasEnded), podPlan{}, 0},
		{"coming back", dependency.Restart, marked, stateOf(isFew, isMet, isMet), podPlan{}, 0},
		{"back", dependency.Restart, marked, stateOf(isMet, isMet, isMet), podPlan{restart: "why"}, 0},
	} {
		s := subject{pod: c.pod, needs: everybody, mode: c.mode, grace: dependency.DefaultGrace}
		got := planPods([]subject{s}, c.o, now)
		var one podPlan
		if len(got.pods) > 0 {
			one = got.pods[0]
		}
		if one.stop != c.want.stop || one.restart != c.want.restart || one.fail != c.want.fail || got.after != c.after {
			t.Errorf("%s: %+v after %s", c.what, one, got.after)
		}
	}
}

// Pods whose revision is monitored say when they lack something: once when it is lost,
// and once when it is back.
func TestPlanMonitored(t *testing.T) {
	says := func(status corev1.ConditionStatus) *corev1.Pod {
		return &corev1.Pod{Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: dependency.Failed, Status: status}}}}
	}
	silent, lacks, has := &corev1.Pod{}, says(corev1.ConditionUnknown), says(corev1.ConditionFalse)
	ago := func(d time.Duration) outlook {
		return outlook{statesOf(isGone, isMet, isMet), "", map[dependency.Dependency]time.Time{db: now.Add(-d)}}
	}
	const lost, ended = "deployment/db:Ready no replica is ready", "job/migrate:Complete has failed: BackoffLimitExceeded"
	for _, c := range []struct {
		what, mode string
		monitored  bool
		pod        *corev1.Pod
		o          outlook
		want       podPlan
		after      time.Duration
	}{
		{"not monitored", dependency.Wait, false, silent, ago(0), podPlan{}, 0},
		{"lost", dependency.Wait, true, silent, ago(0), podPlan{lack: lost}, 0},
		{"known", dependency.Wait, true, lacks, ago(time.Hour), podPlan{}, 0},
		{"failed for good", dependency.Wait, true, silent, stateOf(isMet, isMet, hasEnded), podPlan{lack: ended}, 0},
		{"not done anew", dependency.Wait, true, silent, stateOf(isMet, isMet, hasToEnd), podPlan{}, 0},
		{"back", dependency.Wait, true, lacks, stateOf(isMet, isMet, isMet), podPlan{back: true}, 0},
		{"a part of it is back", dependency.Wait, true, lacks, stateOf(isFew, isMet, isMet), podPlan{back: true}, 0},
		{"back, and not monitored any more", dependency.Wait, false, lacks, stateOf(isMet, isMet, isMet), podPlan{back: true}, 0},
		{"that is known", dependency.Wait, true, has, stateOf(isMet, isMet, isMet), podPlan{}, 0},
		{"lost again", dependency.Wait, true, has, ago(0), podPlan{lack: lost}, 0},
		{"within its grace", dependency.Stop, true, silent, ago(10 * time.Second), podPlan{lack: lost}, 20 * time.Second},
		{"known, within its grace", dependency.Restart, true, lacks, ago(10 * time.Second), podPlan{}, 20 * time.Second},
		{"for too long", dependency.Stop, true, lacks, ago(30 * time.Second), podPlan{stop: lost}, 0},
		{"for too long, to be restarted", dependency.Restart, true, lacks, ago(30 * time.Second), podPlan{fail: lost}, 0},
		{"back in time", dependency.Restart, true, lacks, stateOf(isMet, isMet, isMet), podPlan{back: true}, 0},
		{"to be restarted", dependency.Restart, true, says(corev1.ConditionTrue), ago(time.Hour), podPlan{}, 0},
	} {
		s := subject{pod: c.pod, needs: everybody, mode: c.mode, grace: dependency.DefaultGrace, monitored: c.monitored}
		got := planPods([]subject{s}, c.o, now)
		var one podPlan
		if len(got.pods) > 0 {
			one = got.pods[0]
		}
		if one.stop != c.want.stop || one.fail != c.want.fail || one.lack != c.want.lack || one.back != c.want.back || one.restart != "" || got.after != c.after {
			t.Errorf("%s: %+v after %s", c.what, one, got.after)
		}
	}
}

func TestPlanOrder(t *testing.T) {
	live := &metav1.ObjectMeta{}
	at := func(ago time.Duration, finalizers ...string) *metav1.ObjectMeta {
		stamp := metav1.NewTime(now.Add(-ago))
		return &metav1.ObjectMeta{DeletionTimestamp: &stamp, Finalizers: finalizers}
	}
	for _, c := range []struct {
		what string
		obj  *metav1.ObjectMeta
		o    order
		want orderPlan
	}{
		{"no part in it", live, order{}, orderPlan{}},
		{"stops first", live, order{first: true}, orderPlan{add: true}},
		{"is used", live, order{used: true}, orderPlan{add: true}},
		{"has it", live, order{used: true, finalizer: true}, orderPlan{}},
		{"no part any more", live, order{finalizer: true}, orderPlan{remove: true}},
		{"deleted before", at(0), order{used: true}, orderPlan{}},
		{"deleted, first", at(0), order{first: true, finalizer: true}, orderPlan{foreground: true}},
		{"on its way", at(0, metav1.FinalizerDeleteDependents), order{first: true, finalizer: true}, orderPlan{remove: true}},
		{"orphaning", at(0, metav1.FinalizerOrphanDependents), order{first: true, finalizer: true}, orderPlan{remove: true}},
		{"others may follow", at(time.Second), order{used: true, finalizer: true}, orderPlan{after: 2 * time.Second}},
		{"nobody followed", at(3 * time.Second), order{used: true, finalizer: true}, orderPlan{remove: true}},
		{"others follow", at(time.Hour), order{used: true, waits: true, finalizer: true}, orderPlan{}},
		{"all goes", at(0), order{used: true, all: true, finalizer: true}, orderPlan{remove: true}},
	} {
		if got := planOrder(c.obj, c.o, now); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.what, got, c.want)
		}
	}
}

// Whatever is met when, a pod starts only when all that comes and goes is there and the
// rest has been.
func TestPlanWaitingProperty(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		p := waitingPod(allGates...)
		done := map[dependency.Dependency]bool{}
		for range 20 {
			if len(dependency.Gates(p)) == 0 {
				return
			}
			o := outlook{states: states{}}
			all := true
			for _, d := range everybody {
				o.states[d] = rapid.SampledFrom([]dependency.State{isMet, isMet, isGone, isFew}).Draw(r, d.String())
				done[d] = o.states[d].Met || d.Once() && done[d]
				all = all && done[d]
			}
			plan := planPods([]subject{{pod: p, needs: everybody}}, o, now)
			if p = p.DeepCopy(); len(plan.pods) > 0 {
				p.Spec.SchedulingGates = without(p.Spec.SchedulingGates, plan.pods[0].drop)
			}
			if starts := len(dependency.Gates(p)) == 0; starts != all {
				r.Fatalf("starts: %t, all there: %t", starts, all)
			}
		}
	})
}
