package controller_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/dependency"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/controller/rollback"
	"hansa.dev/hansa/internal/onfailure"
	"hansa.dev/hansa/internal/podstate"
)

func statefulRollbacks(c client.Interface, r events.Recorder) controller.Loop {
	return rollback.NewStatefulSets(c, r)
}

func daemonRollbacks(c client.Interface, r events.Recorder) controller.Loop {
	return rollback.NewDaemonSets(c, r)
}

// onFailure gives a workload the policy to roll back.
func onFailure[T api.Object](o T) T {
	o.SetAnnotations(map[string]string{onfailure.ActionAnnotation: "rollback"})
	return o
}

// workload is a StatefulSet or a DaemonSet of three pods, as their tests see it.
type workload struct {
	*world
	name    string
	make    func() api.Object
	current func() api.Object
	// template, strategy and condition of what there is.
	template  func(api.Object) *corev1.PodTemplateSpec
	strategy  func(api.Object) string
	condition func(api.Object) string
}

func conditionText(kind, status, reason, message string) string {
	if kind != onfailure.ConditionType {
		return ""
	}
	return status + " " + reason + " " + message
}

// revised are the two kinds, each in a world of its own.
func revised(t testing.TB, in tester) []*workload {
	sets := &workload{world: newWorldIn(t, in), name: "StatefulSet"}
	sets.run(statefulSets)
	sets.run(statefulRollbacks)
	sets.make = func() api.Object {
		set := aStatefulSet("web", 3)
		set.Spec.UpdateStrategy = appsv1.StatefulSetUpdateStrategy{RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{Partition: ptr.To[int32](0)}}
		set.Spec.UpdateStrategy.Type = appsv1.RollingUpdateStatefulSetStrategyType
		return set
	}
	sets.current = func() api.Object { return sets.statefulSet("web") }
	sets.template = func(o api.Object) *corev1.PodTemplateSpec { return &o.(*appsv1.StatefulSet).Spec.Template }
	sets.strategy = func(o api.Object) string { return string(o.(*appsv1.StatefulSet).Spec.UpdateStrategy.Type) }
	sets.condition = func(o api.Object) (text string) {
		for _, c := range o.(*appsv1.StatefulSet).Status.Conditions {
			text += conditionText(string(c.Type), string(c.Status), c.Reason, c.Message)
		}
		return text
	}
	daemon := &workload{world: daemons(t, in, "a", "b", "c"), name: "DaemonSet"}
	daemon.run(daemonRollbacks)
	daemon.make = func() api.Object { return aDaemonSet("web") }
	daemon.current = func() api.Object { return daemon.daemonSet("web") }
	daemon.template = func(o api.Object) *corev1.PodTemplateSpec { return &o.(*appsv1.DaemonSet).Spec.Template }
	daemon.strategy = func(o api.Object) string { return string(o.(*appsv1.DaemonSet).Spec.UpdateStrategy.Type) }
	daemon.condition = func(o api.Object) (text string) {
		for _, c := range o.(*appsv1.DaemonSet).Status.Conditions {
			text += conditionText(string(c.Type), string(c.Status), c.Reason, c.Message)
		}
		return text
	}
	return []*workload{sets, daemon}
}

// guard rolls it out with a policy, and waits until it was found good.
func (k *workload) guard(action string) {
	k.Helper()
	o := k.make()
	o.SetAnnotations(map[string]string{onfailure.ActionAnnotation: action, onfailure.MonitorAnnotation: "30s", onfailure.DeadlineAnnotation: "2m"})
	create(k.world, o)
	k.passFates(40 * time.Second)
	k.says("False Good Revision 1")
	k.rests()
	k.events = nil
}

func (k *workload) says(want string) {
	k.Helper()
	if got := k.condition(k.current()); !strings.HasPrefix(got, want) {
		k.Errorf("%s: condition %q, want %q", k.name, got, want)
	}
}

func (k *workload) setImage(image string) {
	k.Helper()
	update(k.world, k.current(), "", func(o api.Object) { k.template(o).Spec.Containers[0].Image = image })
}

// isBack checks that an image is in spec and runs, by the strategy of before.
func (k *workload) isBack(image string) {
	k.Helper()
	o := k.current()
	if got := k.template(o).Spec.Containers[0].Image; got != image || k.strategy(o) != "RollingUpdate" {
		k.Errorf("%s: spec has image %s, strategy %s", k.name, got, k.strategy(o))
	}
	k.serves(image, 3)
}

// byKind runs a test for each kind.
func byKind(t *testing.T, action string, f func(*testing.T, *workload)) {
	for _, k := range revised(t, t) {
		t.Run(k.name, func(t *testing.T) {
			k.guard(action)
			f(t, k)
			k.rests()
		})
	}
}

func TestRollbackOfRevisions(t *testing.T) {
	for _, c := range []struct{ image, reason, why string }{
		{"missing:2", "PodsFailed", "container c: ImagePullBackOff"},
		{"crashing:2", "PodsFailed", "container c: CrashLoopBackOff"},
		{"unready:2", "ProgressDeadlineExceeded", "became ready in time"},
	} {
		t.Run(c.image, func(t *testing.T) {
			byKind(t, "rollback", func(t *testing.T, k *workload) {
				// `kubectl rollout status` fails when it sees another strategy.
				stopped := false
				cancel := k.api.View().Subscribe(k.row(k.current()), func(_, o api.Object) { stopped = stopped || o != nil && k.strategy(o) == "OnDelete" })
				defer cancel()
				k.setImage(c.image)
				k.passFates(3 * time.Minute)
				k.isBack("one")
				k.says("True " + c.reason + " Revision 2 (web-")
				k.said("Warning RolledBack Revision 2", c.why)
				if !stopped {
					t.Error("no client saw that the rollout was stopped")
				}
				for _, m := range []string{onfailure.PausedMark, onfailure.StrategyMark} {
					if v := k.current().GetAnnotations()[m]; v != "" {
						t.Errorf("annotation %s: %s", m, v)
					}
				}
			})
		})
	}
}

func TestRevisionsThatWaitForDependencies(t *testing.T) {
	byKind(t, "rollback", func(t *testing.T, k *workload) {
		k.run(dependants)
		update(k.world, k.current(), "", func(o api.Object) {
			k.template(o).Annotations = map[string]string{dependency.DependsOn: "configmap/settings"}
			k.template(o).Spec.Containers[0].Image = "unready:2"
		})
		k.passFates(10 * time.Minute)
		k.says("False WaitingForDependencies Revision 2 (web-")
		k.rests()
		create(k.world, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "settings"}})
		k.passFates(100 * time.Second)
		k.says("False Monitoring Revision 2")
		k.passFates(time.Minute)
		k.isBack("one")
		k.says("True ProgressDeadlineExceeded Revision 2")
	})
}

func TestRollbackOfRevisionsThatDoNotStayReady(t *testing.T) {
	byKind(t, "rollback", func(t *testing.T, k *workload) {
		k.setImage("two")
		k.fates()
		k.says("False Monitoring Revision 2")
		k.passFates(20 * time.Second)
		k.unwell(k.running()[0])
		k.passFates(time.Minute)
		k.isBack("one")
		k.says("True PodsFailed Revision 2")
	})
}

func TestGoodRevisionsAreNotRolledBack(t *testing.T) {
	byKind(t, "rollback", func(t *testing.T, k *workload) {
		k.setImage("two")
		k.passFates(time.Minute)
		k.says("False Good Revision 2")
		k.unwell(k.running()[0])
		k.passFates(10 * time.Minute)
		k.says("False Good Revision 2")
		if got := k.template(k.current()).Spec.Containers[0].Image; got != "two" {
			t.Errorf("image %s", got)
		}
	})
}

func TestFailedTemplatesOfRevisionsAreHeld(t *testing.T) {
	byKind(t, "rollback", func(t *testing.T, k *workload) {
		k.setImage("crashing:2")
		k.passFates(time.Minute)
		k.isBack("one")
		k.setImage("crashing:2")
		k.passFates(time.Minute)
		k.serves("one", 3)
		k.says("True PodsFailed Revision 2")
		k.rests()
		k.setImage("three")
		k.passFates(time.Minute)
		k.isBack("three")
		k.says("False Good")
	})
}

func TestPauseOfRevisions(t *testing.T) {
	byKind(t, "pause", func(t *testing.T, k *workload) {
		k.setImage("crashing:2")
		k.passFates(time.Minute)
		k.says("False Paused Revision 2 failed, and the rollout is paused")
		if o := k.current(); k.strategy(o) != "OnDelete" || k.template(o).Spec.Containers[0].Image != "crashing:2" {
			t.Errorf("strategy %s", k.strategy(o))
		}
		k.rests()
		k.setImage("three")
		k.passFates(2 * time.Minute)
		k.isBack("three")
		k.says("False Good")
	})
}

func TestNoGoodRevisionToGoBackTo(t *testing.T) {
	for _, k := range revised(t, t) {
		o := k.make()
		o.SetAnnotations(map[string]string{onfailure.ActionAnnotation: "rollback"})
		k.template(o).Spec.Containers[0].Image = "crashing:1"
		create(k.world, o)
		k.passFates(time.Minute)
		k.says("False NoGoodRevision Revision 1 failed, and there is no earlier revision that was good")
		k.rests()
	}
}

// What is rolled out to a part only is judged, and never good.
func TestPartitionIsOnTrial(t *testing.T) {
	k := revised(t, t)[0]
	k.guard("rollback")
	update(k.world, k.statefulSet("web"), "", func(set *appsv1.StatefulSet) {
		set.Spec.UpdateStrategy.RollingUpdate.Partition = ptr.To[int32](2)
		set.Spec.Template.Spec.Containers[0].Image = "two"
	})
	k.passFates(20 * time.Minute)
	k.says("False Monitoring Revision 2")
	k.unwell(slices.DeleteFunc(k.running(), func(p *corev1.Pod) bool { return p.Spec.Containers[0].Image != "two" })[0])
	k.passFates(time.Minute)
	k.isBack("one")
	if p := k.statefulSet("web").Spec.UpdateStrategy.RollingUpdate.Partition; ptr.Deref(p, 0) != 2 {
		t.Errorf("partition %v", p)
	}
	k.rests()
}

func TestRollbackOfRevisionsSurvivesCrashes(t *testing.T) {
	t.Parallel()
	for at := range 8 {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d %v", at, after), func(t *testing.T) {
				byKind(t, "rollback", func(t *testing.T, k *workload) {
					for _, d := range k.loops {
						d.client.dieAt(at, after)
					}
					k.setImage("crashing:2")
					k.passFates(time.Minute)
					k.isBack("one")
					k.says("True PodsFailed Revision 2")
				})
			})
		}
	}
}

func TestRollbackOfRevisionsEnds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		all := revised(t, r)
		k := all[rapid.IntRange(0, len(all)-1).Draw(r, "kind")]
		k.pick = func(n int) int { return rapid.IntRange(0, n-1).Draw(r, "loop") }
		k.guard(rapid.SampledFrom([]string{"rollback", "rollback", "pause"}).Draw(r, "policy"))
		images := []string{"one", "two", "missing:1", "crashing:1", "unready:1"}
		for range rapid.IntRange(1, 6).Draw(r, "events") {
			switch rapid.SampledFrom([]string{"image", "image", "agent", "time", "die", "unwell"}).Draw(r, "event") {
			case "image":
				k.setImage(rapid.SampledFrom(images).Draw(r, "image"))
			case "agent":
				k.fates()
			case "time":
				k.passFates(time.Duration(rapid.IntRange(1, 12).Draw(r, "time")) * 5 * time.Second)
			case "die":
				k.loops[rapid.IntRange(0, len(k.loops)-1).Draw(r, "loop")].client.dieAt(rapid.IntRange(0, 6).Draw(r, "write"), rapid.Bool().Draw(r, "after"))
			case "unwell":
				if up := slices.DeleteFunc(k.running(), func(p *corev1.Pod) bool { return !podstate.Ready(p) }); len(up) > 0 {
					k.unwell(up[0])
				}
			}
			k.settle()
		}
		k.passFates(6 * time.Minute)
		before := k.current().GetGeneration()
		k.passFates(6 * time.Minute)
		if after := k.current().GetGeneration(); after != before || after > 60 {
			r.Fatalf("it goes on: generation %d, %d", before, after)
		}
		k.rests()
	})
}
