package rollback

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api/dependency"
	"hansa.dev/hansa/internal/onfailure"
)

var epoch = time.Date(2030, 1, 2, 3, 4, 0, 0, time.UTC)

func at(d time.Duration) metav1.Time { return metav1.NewTime(epoch.Add(d)) }

// aPod was made and started at the epoch; change makes it what it is.
func aPod(name string, change ...func(*corev1.Pod)) *corev1.Pod {
	start := at(0)
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: start}, Status: corev1.PodStatus{
		Phase: corev1.PodRunning, StartTime: &start,
		Conditions: []corev1.PodCondition{
			{Type: corev1.PodReady, Status: corev1.ConditionFalse, LastTransitionTime: start},
			{Type: corev1.ContainersReady, Status: corev1.ConditionFalse, LastTransitionTime: start},
		},
		ContainerStatuses: []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: at(2 * time.Second)}}}},
	}}
	for _, f := range change {
		f(p)
	}
	return p
}

func ready(since time.Duration) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		for i := range p.Status.Conditions {
			p.Status.Conditions[i].Status, p.Status.Conditions[i].LastTransitionTime = corev1.ConditionTrue, at(since)
		}
		p.Status.ContainerStatuses[0].Ready = true
	}
}

func lost(when time.Duration) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		for i := range p.Status.Conditions {
			p.Status.Conditions[i].Status, p.Status.Conditions[i].LastTransitionTime = corev1.ConditionFalse, at(when)
		}
		p.Status.ContainerStatuses[0].Ready = false
	}
}

// gated is a pod that waits for a dependency, and nowhere yet.
func gated(p *corev1.Pod) {
	p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "depends-on.hansa.dev/deployment.db"}}
	p.Status = corev1.PodStatus{Phase: corev1.PodPending}
}

// bereft is a pod whose dependency has failed, and that is restarted once it is back.
func bereft(p *corev1.Pod) {
	p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: dependency.Failed, Status: corev1.ConditionTrue})
}

func waits(reason string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.ContainerStatuses[0].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: "because"}}
	}
}

// What a pod's status says of its revision (the issue: "does not become, or stay,
// ready").
func TestFailing(t *testing.T) {
	now := epoch.Add(time.Minute)
	young := epoch.Add(5 * time.Second)
	for _, c := range []struct {
		name  string
		pod   *corev1.Pod
		now   time.Time
		want  string
		after time.Duration
	}{
		{"starts", aPod("p"), now, "", 0},
		{"is ready", aPod("p", ready(3*time.Second)), now, "", 0},
		{"crash loop", aPod("p", waits("CrashLoopBackOff")), young, "container c: CrashLoopBackOff: because", 0},
		{"crash loop, how it ended", aPod("p", waits("CrashLoopBackOff"), func(p *corev1.Pod) {
			p.Status.ContainerStatuses[0].LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ExitCode: 3, Reason: "Error"}
		}), young, "because (exit code 3, Error)", 0},
		{"no such image", aPod("p", waits("ImagePullBackOff")), now, "container c: ImagePullBackOff: because", 0},
		{"no such image, for a moment", aPod("p", waits("ErrImagePull")), young, "", 5 * time.Second},
		{"not an image", aPod("p", waits("InvalidImageName")), young, "InvalidImageName", 0},
		{"image never pulled", aPod("p", waits("ErrImageNeverPull")), young, "ErrImageNeverPull", 0},
		{"config error", aPod("p", waits("CreateContainerConfigError")), now, "CreateContainerConfigError", 0},
		{"config error, for a moment", aPod("p", waits("CreateContainerConfigError")), young, "", 5 * time.Second},
		{"create error", aPod("p", waits("CreateContainerError")), now, "CreateContainerError", 0},
		{"run error", aPod("p", waits("RunContainerError")), now, "RunContainerError", 0},
		{"is created", aPod("p", waits("ContainerCreating")), now, "", 0},
		{"init container", aPod("p", func(p *corev1.Pod) {
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "i", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}}}
		}), now, "container i: CrashLoopBackOff", 0},
		{"lost readiness", aPod("p", lost(30*time.Second)), now, "container c did not stay ready", 0},
		{"crash after it was ready", aPod("p", lost(30*time.Second), func(p *corev1.Pod) {
			p.Status.ContainerStatuses[0].State = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: at(31 * time.Second)}}
			p.Status.ContainerStatuses[0].LastTerminationState.Terminated = &corev1.ContainerStateTerminated{StartedAt: at(2 * time.Second), ExitCode: 1, Reason: "Error"}
		}), now, "container c ended after the pod was ready (exit code 1, Error)", 0},
		{"crash before it was ready", aPod("p", func(p *corev1.Pod) {
			p.Status.ContainerStatuses[0].LastTerminationState.Terminated = &corev1.ContainerStateTerminated{StartedAt: at(time.Second), ExitCode: 1}
		}), now, "", 0},
		{"node lost", aPod("p", ready(3*time.Second), func(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionFalse }), now, "", 0},
		{"phase Failed", aPod("p", func(p *corev1.Pod) {
			p.Status.Phase, p.Status.Reason, p.Status.Message = corev1.PodFailed, "OutOfcpu", "Pod was rejected."
		}), young, "OutOfcpu Pod was rejected (phase Failed)", 0},
		{"evicted", aPod("p", func(p *corev1.Pod) {
			p.Status.Phase = corev1.PodFailed
			p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue})
		}), now, "", 0},
		{"its dependency failed", aPod("p", waits("CrashLoopBackOff"), bereft), now, "", 0},
		{"being deleted", aPod("p", waits("CrashLoopBackOff"), func(p *corev1.Pod) { stamp := at(0); p.DeletionTimestamp = &stamp }), now, "", 0},
	} {
		got, after := snapshot{}.failing(c.pod, epoch, c.now)
		if !strings.Contains(got, c.want) || c.want == "" && got != "" || after != c.after {
			t.Errorf("%s: %q after %s, want %q after %s", c.name, got, after, c.want, c.after)
		}
	}
}

// lacking is a pod whose dependency is lost, and regained one of which it is back.
func lacking(p *corev1.Pod) {
	p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: dependency.Failed, Status: corev1.ConditionUnknown, LastTransitionTime: at(0)})
}

func regained(when time.Duration) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: dependency.Failed, Status: corev1.ConditionFalse, LastTransitionTime: at(when)})
	}
}

func crashed(when time.Duration) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		waits("CrashLoopBackOff")(p)
		p.Status.ContainerStatuses[0].LastTerminationState.Terminated = &corev1.ContainerStateTerminated{FinishedAt: at(when), ExitCode: 1, Reason: "Error"}
	}
}

// What breaks because a dependency is lost says nothing of a revision, whichever of the
// two is noticed first.
func TestFailingWithoutDependencies(t *testing.T) {
	s := snapshot{depends: true, policy: onfailure.Policy{Deadline: 30 * time.Second}}
	const unready, crash = "container c did not stay ready", "container c: CrashLoopBackOff: because (exit code 1, Error)"
	for _, c := range []struct {
		name  string
		pod   *corev1.Pod
		want  string
		after time.Duration
	}{
		{"unready for a moment", aPod("p", lost(55*time.Second)), "", 5 * time.Second},
		{"unready", aPod("p", lost(50*time.Second)), unready, 0},
		{"unready without it", aPod("p", lost(30*time.Second), lacking), "", 0},
		{"unready since before it was back", aPod("p", lost(25*time.Second), regained(40*time.Second)), "", 10 * time.Second},
		{"unready since it is back, as far as stamps tell", aPod("p", lost(40*time.Second), regained(40*time.Second)), "", 10 * time.Second},
		{"unready for long since it is back", aPod("p", lost(25*time.Second), regained(30*time.Second)), unready, 0},
		{"unready with it", aPod("p", lost(45*time.Second), regained(40*time.Second)), unready, 0},
		{"crash, a moment ago", aPod("p", crashed(55*time.Second)), "", 5 * time.Second},
		{"crash", aPod("p", crashed(50*time.Second)), crash, 0},
		{"crash without it", aPod("p", crashed(30*time.Second), lacking), "", 0},
		{"crash before it was back", aPod("p", crashed(30*time.Second), regained(40*time.Second)), "", 10 * time.Second},
		{"crash with it", aPod("p", crashed(45*time.Second), regained(40*time.Second)), crash, 0},
		{"no secret, a moment after it is back", aPod("p", waits("CreateContainerConfigError"), regained(55*time.Second)), "", 5 * time.Second},
		{"no secret with it", aPod("p", waits("CreateContainerConfigError"), regained(40*time.Second)), "container c: CreateContainerConfigError: because", 0},
		{"not an image", aPod("p", waits("InvalidImageName")), "container c: InvalidImageName: because", 0},
	} {
		if got, after := s.failing(c.pod, epoch, epoch.Add(time.Minute)); got != c.want || after != c.after {
			t.Errorf("%s: %q after %s, want %q after %s", c.name, got, after, c.want, c.after)
		}
	}
}

func (d decision) text() string {
	var words []string
	if d.failed != nil {
		words = append(words, "failed="+d.failed.Reason)
	}
	for _, r := range d.good {
		words = append(words, "good="+r.name)
	}
	if d.condition != nil {
		words = append(words, fmt.Sprintf("%s/%s", d.condition.status, d.condition.reason))
	}
	if d.undo != nil {
		words = append(words, "undo→"+d.undo.name)
	}
	for _, word := range []struct {
		text string
		on   bool
	}{{"suspend", d.suspend}, {"resume", d.resume}, {"resumed", d.resumed}, {"forget", d.forget}, {"forgive", d.forgive}} {
		if word.on {
			words = append(words, word.text)
		}
	}
	if d.after > 0 {
		words = append(words, "after="+d.after.String())
	}
	return strings.Join(words, " ")
}

func TestPlan(t *testing.T) {
	now := epoch.Add(time.Minute)
	policy := onfailure.Policy{Action: onfailure.Rollback, Monitor: 30 * time.Second, Deadline: 2 * time.Minute}
	rev := func(name string, number int64, pods ...*corev1.Pod) *revision {
		return &revision{name: name, number: number, pods: pods}
	}
	good := rev("a", 1)
	good.good, good.everGood = true, true
	failure := &onfailure.Failure{Revision: 2, Reason: reasonPods, Message: "it crashes"}
	bad := func(pods ...*corev1.Pod) *revision {
		r := rev("b", 2, pods...)
		r.failed = failure
		return r
	}
	two := func(change ...func(*corev1.Pod)) []*corev1.Pod {
		return []*corev1.Pod{aPod("p", change...), aPod("q", change...)}
	}
	base := snapshot{policy: policy, on: true, observed: true, desired: 2, whole: true, old: []*revision{good}, lastGood: good}
	with := func(change func(*snapshot)) snapshot {
		s := base
		change(&s)
		return s
	}
	pausing := func(s *snapshot) { s.policy.Action = onfailure.Pause }
	for _, c := range []struct {
		name string
		s    snapshot
		want string
	}{
		{"no policy", snapshot{undoneTo: "a"}, "forget"},
		{"not observed", with(func(s *snapshot) { s.asked, s.observed = bad(), false }), ""},
		{"not made yet", base, ""},
		{"on trial", with(func(s *snapshot) { s.asked = rev("b", 2, two(ready(50*time.Second))...) }), "False/Monitoring after=21s"},
		{"good", with(func(s *snapshot) { s.asked = rev("b", 2, two(ready(10*time.Second))...) }), "good=b False/Monitoring"},
		{"good is said", with(func(s *snapshot) { s.asked = good }), "False/Good"},
		{"ready for as long by the stamp, which is of whole seconds", with(func(s *snapshot) { s.asked = rev("b", 2, two(ready(30*time.Second))...) }), "False/Monitoring after=1s"},
		{"more pods are to come", with(func(s *snapshot) { s.asked = rev("b", 2, aPod("p", ready(0))) }), "False/Monitoring after=2m0s"},
		{"old pods are left", with(func(s *snapshot) {
			s.asked, s.old = rev("b", 2, two(ready(0))...), []*revision{rev("a", 1, aPod("o", lost(time.Second)))}
		}), "False/Monitoring"},
		{"a canary proves nothing of the whole", with(func(s *snapshot) { s.asked, s.whole = rev("b", 2, two(ready(0))...), false }), "False/Monitoring"},
		{"nothing is asked for", with(func(s *snapshot) { s.asked, s.desired = rev("b", 2), 0 }), "False/Monitoring"},
		{"pods fail", with(func(s *snapshot) { s.asked = rev("b", 2, two(waits("CrashLoopBackOff"))...) }), "failed=PodsFailed False/Monitoring"},
		{"half may fail", with(func(s *snapshot) {
			s.policy.Ratio, s.asked = .5, rev("b", 2, aPod("p", waits("CrashLoopBackOff")), aPod("q", ready(0)))
		}), "good=b False/Monitoring"},
		{"more than half", with(func(s *snapshot) { s.policy.Ratio, s.asked = .5, rev("b", 2, two(waits("CrashLoopBackOff"))...) }), "failed=PodsFailed False/Monitoring"},
		{"paused by hand", with(func(s *snapshot) {
			s.asked, s.suspended, s.handsOff = rev("b", 2, two(waits("CrashLoopBackOff"))...), true, true
		}), "False/Monitoring"},
		{"the deployment's deadline", with(func(s *snapshot) {
			s.asked, s.hasDeadline, s.expired = rev("b", 2, two()...), true, now.Add(time.Second)
		}), "failed=ProgressDeadlineExceeded False/Monitoring"},
		{"a deadline of before", with(func(s *snapshot) {
			s.asked, s.hasDeadline, s.expired = rev("b", 2, two()...), true, epoch
		}), "False/Monitoring after=2m0s"},
		{"failed: undo", with(func(s *snapshot) { s.asked = bad() }), "True/PodsFailed undo→a"},
		{"undone, and written again", with(func(s *snapshot) { s.asked, s.undoneFrom, s.undoneTo = bad(), "b", "a" }), "True/PodsFailed"},
		{"there by a rollback", with(func(s *snapshot) {
			s.asked, s.old, s.undoneFrom, s.undoneTo = rev("a", 3, two(waits("CrashLoopBackOff"))...), []*revision{bad()}, "b", "a"
		}), "True/PodsFailed"},
		{"a template of its own after a rollback", with(func(s *snapshot) {
			s.asked, s.undoneFrom, s.undoneTo = rev("c", 4, two(ready(50*time.Second))...), "b", "a"
		}), "False/Monitoring forget after=21s"},
		{"failed: nothing to go back to", with(func(s *snapshot) { s.asked, s.old, s.lastGood = bad(two(waits("CrashLoopBackOff"))...), nil, nil }), "False/NoGoodRevision"},
		{"well after all", with(func(s *snapshot) { s.asked, s.old, s.lastGood = bad(two(ready(0))...), nil, nil }), "good=b False/NoGoodRevision"},
		{"failed: what proves itself later is too late", with(func(s *snapshot) {
			s.asked, s.old, s.lastGood = bad(two(waits("CrashLoopBackOff"))...), []*revision{rev("a", 1, two(ready(0))...)}, nil
		}), "False/NoGoodRevision"},
		{"failed: pause", with(func(s *snapshot) { pausing(s); s.asked = bad() }), "False/Paused suspend"},
		{"paused", with(func(s *snapshot) { pausing(s); s.asked, s.paused, s.suspended = bad(), "b", true }), "False/Paused"},
		{"resumed", with(func(s *snapshot) { pausing(s); s.asked, s.paused = bad(), "b" }), "False/Resumed resumed forgive"},
		{"another template after a pause", with(func(s *snapshot) { pausing(s); s.asked, s.paused, s.suspended = nil, "b", true }), "resume"},
		{"what was before a policy is proof", with(func(s *snapshot) {
			s.old, s.lastGood = []*revision{rev("a", 1, two(ready(0))...)}, nil
		}), "good=a"},
		{"or will be, when its pods have stayed ready", with(func(s *snapshot) {
			s.old, s.lastGood = []*revision{rev("a", 1, two(ready(50*time.Second))...)}, nil
		}), "after=21s"},
		{"unless it does not stay ready", with(func(s *snapshot) {
			s.old, s.lastGood = []*revision{rev("a", 1, aPod("p", ready(0)), aPod("q"))}, nil
		}), ""},
	} {
		if got := plan(c.s, now).text(); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// While pods wait for what they depend on, no deadline runs; one that passed
// meanwhile passes in the trial again (design/dependencies.md).
func TestPlanWhilePodsWait(t *testing.T) {
	now := epoch.Add(time.Minute)
	trial := func(expired time.Time, pods ...*corev1.Pod) snapshot {
		policy := onfailure.Policy{Action: onfailure.Rollback, Monitor: 30 * time.Second, Deadline: 2 * time.Minute}
		return snapshot{policy: policy, on: true, observed: true, desired: 2, whole: true, hasDeadline: true, expired: expired, asked: &revision{name: "b", number: 2, pods: pods}}
	}
	late := trial(epoch.Add(-5*time.Minute), aPod("p"), aPod("q"))
	late.condition = late.says(corev1.ConditionFalse, reasonMonitoring, "Revision 2 (b) is monitored until its pods have stayed ready for 30s")
	late.condition.since = epoch.Add(-2 * time.Minute)
	unheld := trial(now.Add(time.Second))
	unheld.asked.refused = &refusal{missing: 2, since: epoch, waits: true}
	dependent := trial(time.Time{}, aPod("p", lost(55*time.Second)), aPod("q", ready(0)))
	dependent.depends = true
	for _, c := range []struct {
		name string
		s    snapshot
		want string
	}{
		{"all wait", trial(now.Add(time.Second), aPod("p", gated), aPod("q", gated)), "False/WaitingForDependencies"},
		{"one waits, the others are not made yet", trial(now.Add(time.Second), aPod("p", gated)), "False/WaitingForDependencies"},
		{"one waits, another does not get ready", trial(now.Add(time.Second), aPod("p", gated), aPod("q")), "failed=ProgressDeadlineExceeded False/Monitoring"},
		{"one waits, another fails", trial(time.Time{}, aPod("p", gated), aPod("q", waits("CrashLoopBackOff"))), "failed=PodsFailed False/Monitoring"},
		{"one lost what it depends on", trial(time.Time{}, aPod("p", lost(30*time.Second), bereft), aPod("q", ready(0))), "False/WaitingForDependencies"},
		{"one lacks what it depends on for now", trial(time.Time{}, aPod("p", lost(30*time.Second), lacking), aPod("q", ready(0))), "False/WaitingForDependencies"},
		{"all lack it, and do without", trial(time.Time{}, aPod("p", ready(10*time.Second), lacking), aPod("q", ready(10*time.Second), lacking)), "good=b False/WaitingForDependencies"},
		{"one may lack it", dependent, "False/Monitoring after=5s"},
		{"they may not be made before what they depend on", unheld, "False/WaitingForDependencies"},
		{"the deadline passed while they waited", trial(epoch, aPod("p"), aPod("q")), "False/Monitoring after=2m0s"},
		{"and passes again", late, "failed=ProgressDeadlineExceeded False/Monitoring"},
	} {
		if got := plan(c.s, now).text(); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// The deadline of kinds without one of their own runs from the last thing that
// got on.
func TestDeadline(t *testing.T) {
	s := snapshot{policy: onfailure.Policy{Deadline: time.Minute}, desired: 2, asked: &revision{number: 2, pods: []*corev1.Pod{aPod("p", ready(20*time.Second)), aPod("q")}}}
	if _, _, after := judge(s, epoch, epoch.Add(30*time.Second)); after != 50*time.Second {
		t.Errorf("it is asked again after %s", after)
	}
	failed, _, _ := judge(s, epoch, epoch.Add(80*time.Second))
	if failed == nil || failed.Reason != reasonDeadline || !strings.HasPrefix(failed.Message, "only 1 of 2 pods became ready in time") {
		t.Errorf("failure %+v", failed)
	}
	ends := at(50 * time.Second)
	s.old = []*revision{{pods: []*corev1.Pod{aPod("o", func(p *corev1.Pod) { p.DeletionTimestamp = &ends })}}}
	if failed, _, after := judge(s, epoch, epoch.Add(80*time.Second)); failed != nil || after != 30*time.Second {
		t.Errorf("while an old pod ends: %+v, again after %s", failed, after)
	}
}
