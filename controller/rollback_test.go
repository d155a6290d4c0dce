package controller_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/controller/rollback"
	"hansa.dev/hansa/internal/onfailure"
	"hansa.dev/hansa/internal/podstate"
)

func rollbacks(c client.Interface, r events.Recorder) controller.Loop {
	return rollback.NewDeployments(c, r)
}

// fate is what becomes of a pod, by how its image begins.
func (w *world) fate(p *corev1.Pod) (begins bool) {
	image := p.Spec.Containers[0].Image
	waits := func(reason, message string) {
		update(w, p, "status", func(p *corev1.Pod) {
			now := w.stamp()
			p.Status.Phase, p.Status.StartTime = corev1.PodPending, &now
			setReady(p, false, now)
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", Image: image, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}}}
		})
	}
	switch {
	case len(p.Status.ContainerStatuses) > 0 || len(p.Spec.SchedulingGates) > 0:
		return false
	case strings.HasPrefix(image, "missing"):
		waits("ImagePullBackOff", `Back-off pulling image "`+image+`"`)
	case strings.HasPrefix(image, "crashing"):
		waits("CrashLoopBackOff", "back-off 10s restarting failed container")
	case strings.HasPrefix(image, "unready"):
		update(w, p, "status", func(p *corev1.Pod) {
			now := w.stamp()
			p.Status.Phase, p.Status.StartTime = corev1.PodRunning, &now
			setReady(p, false, now)
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", Image: image, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}}}
		})
	default:
		p = w.runs(p)
		update(w, p, "status", func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", Image: image, Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: w.stamp()}}}}
		})
	}
	return true
}

// fates is live, with pods that may fail.
func (w *world) fates() {
	w.Helper()
	for range 1000 {
		w.settle()
		did := false
		for _, p := range all[*corev1.Pod](w, "") {
			if p.DeletionTimestamp != nil {
				w.gone(p)
				did = true
			} else if w.fate(p) {
				did = true
			}
		}
		if !did {
			return
		}
		w.clock.Step(time.Second)
	}
	w.Fatal("the pods do not come to rest")
}

// unwell makes a pod that was ready lose it.
func (w *world) unwell(p *corev1.Pod) {
	w.Helper()
	update(w, p, "status", func(p *corev1.Pod) {
		setReady(p, false, w.stamp())
		p.Status.ContainerStatuses[0].Ready = false
	})
}

// passFates lets time pass second by second, as far as pods are concerned.
func (w *world) passFates(d time.Duration) {
	w.Helper()
	for range d / (5 * time.Second) {
		w.pass(5 * time.Second)
		w.fates()
	}
}

// monitored is a deployment with a policy, rolled out and found good.
func monitored(t *testing.T, change func(*appsv1.Deployment)) *world {
	w := workloads(t)
	w.run(rollbacks)
	w.guard(change)
	return w
}

func (w *world) guard(change func(*appsv1.Deployment)) {
	d := aDeployment("web", 4)
	d.Annotations = map[string]string{onfailure.ActionAnnotation: "rollback", onfailure.MonitorAnnotation: "30s"}
	d.Spec.ProgressDeadlineSeconds = ptr.To[int32](120)
	if change != nil {
		change(d)
	}
	create(w, d)
	w.fates()
	w.tells("False Monitoring Revision 1 (web-")
	w.passFates(40 * time.Second)
	w.tells("False Good Revision 1 became ready and stayed so")
	w.rolledOut("web", 4)
	w.rests()
	w.events = nil
}

// tells checks the condition RolledBack.
func (w *world) tells(want string) {
	w.Helper()
	got := ""
	for _, c := range w.deployment("web").Status.Conditions {
		if c.Type == onfailure.ConditionType {
			got = fmt.Sprintf("%s %s %s", c.Status, c.Reason, c.Message)
		}
	}
	if !strings.HasPrefix(got, want) {
		w.Errorf("condition %q, want %q", got, want)
	}
}

// undone checks that the image is back everywhere, and that a client that waits
// for a rollout is told that it failed.
func (w *world) undone(image string) {
	w.Helper()
	d := w.deployment("web")
	if got := d.Spec.Template.Spec.Containers[0].Image; got != image {
		w.Errorf("spec has image %s, want %s", got, image)
	}
	w.serves(image, 4)
	w.fails("failed: ")
}

// serves checks that ready pods of an image run, and no others.
func (w *world) serves(image string, n int) {
	w.Helper()
	for _, p := range w.running() {
		if p.Spec.Containers[0].Image != image || !podstate.Ready(p) {
			w.Errorf("pod %s of image %s, ready %t", p.Name, p.Spec.Containers[0].Image, podstate.Ready(p))
		}
	}
	if len(w.running()) != n {
		w.Errorf("%d pods run, want %d", len(w.running()), n)
	}
}

// fails is by what `kubectl rollout status` fails.
func (w *world) fails(message string) {
	w.Helper()
	d := w.deployment("web")
	if c := w.progressing("web"); d.Status.ObservedGeneration < d.Generation || c.Reason != "ProgressDeadlineExceeded" || !strings.Contains(c.Message, message) {
		w.Errorf("generation %d of %d, Progressing %+v", d.Status.ObservedGeneration, d.Generation, c)
	}
}

func TestRollbackOfMissingImage(t *testing.T) {
	w := monitored(t, nil)
	w.setImage("web", "missing:2")
	w.fates()
	w.tells("False Monitoring Revision 2 (web-")
	w.passFates(20 * time.Second)
	w.undone("one")
	w.tells("True PodsFailed Revision 2 (web-")
	w.said(`Warning RolledBack Revision 2 (web-`, `failed, and was rolled back to web-`, `2 of 4 pods failed: pod web-`, `container c: ImagePullBackOff: Back-off pulling image "missing:2"`)
	w.rests()
	w.passFates(10 * time.Minute)
	w.rests()
}

func TestRollbackOfCrashes(t *testing.T) {
	w := monitored(t, nil)
	w.setImage("web", "crashing:2")
	w.fates()
	w.undone("one")
	w.tells("True PodsFailed")
	w.rests()
}

func TestRollbackOfReadinessThatNeverComes(t *testing.T) {
	w := monitored(t, nil)
	w.setImage("web", "unready:2")
	w.fates()
	w.passFates(100 * time.Second)
	w.tells("False Monitoring Revision 2")
	w.passFates(40 * time.Second)
	w.undone("one")
	w.tells("True ProgressDeadlineExceeded Revision 2")
	w.rests()
}

// A pod that was ready fails within its time of monitoring, once the rollout is
// complete.
func TestRollbackOfRevisionThatDoesNotStayReady(t *testing.T) {
	w := monitored(t, nil)
	w.setImage("web", "two")
	w.fates()
	w.rolledOut("web", 4)
	w.passFates(20 * time.Second)
	w.tells("False Monitoring Revision 2")
	w.unwell(w.running()[0])
	w.fates()
	w.undone("one")
	w.tells("True PodsFailed")
	w.said("container c did not stay ready")
	w.rests()
}

func TestGoodRevisionIsNotRolledBack(t *testing.T) {
	w := monitored(t, nil)
	w.setImage("web", "two")
	w.fates()
	w.passFates(40 * time.Second)
	w.tells("False Good Revision 2")
	w.unwell(w.running()[0])
	w.passFates(10 * time.Minute)
	w.tells("False Good Revision 2")
	if got := w.deployment("web").Spec.Template.Spec.Containers[0].Image; got != "two" {
		t.Errorf("image %s", got)
	}
	w.rests()
}

func TestMaxFailureRatio(t *testing.T) {
	w := monitored(t, func(d *appsv1.Deployment) { d.Annotations[onfailure.RatioAnnotation] = "0.25" })
	w.setImage("web", "two")
	w.fates()
	w.unwell(w.running()[0])
	w.passFates(20 * time.Second)
	w.tells("False Monitoring Revision 2")
	w.passFates(20 * time.Second)
	w.tells("False Good Revision 2") // the others stayed ready
	w.setImage("web", "three")
	w.fates()
	for _, p := range w.running()[:2] {
		w.unwell(p)
	}
	w.fates()
	w.undone("two")
	w.tells("True PodsFailed")
}

// A rollback never rolls back: what is undone to may fail as it likes.
func TestRollbackNeverRollsBack(t *testing.T) {
	w := monitored(t, nil)
	w.setImage("web", "two")
	w.fates()
	w.passFates(40 * time.Second)
	w.setImage("web", "crashing:3")
	w.fates()
	w.undone("two")
	for _, p := range w.running() {
		w.unwell(p)
	}
	w.passFates(10 * time.Minute)
	if got := w.deployment("web").Spec.Template.Spec.Containers[0].Image; got != "two" {
		t.Errorf("image %s", got)
	}
	w.tells("True PodsFailed Revision 3")
	w.rests()
}

// What failed is not rolled out again, whoever writes it: tools that keep what is
// in a repository have no fight. A change is tried again.
func TestFailedTemplateIsHeld(t *testing.T) {
	w := monitored(t, nil)
	w.setImage("web", "crashing:2")
	w.fates()
	w.undone("one")
	w.setImage("web", "crashing:2")
	w.fates()
	w.tells("True PodsFailed Revision 2")
	w.serves("one", 4)
	w.fails("Revision 2 failed")
	update(w, w.deployment("web"), "", func(d *appsv1.Deployment) { d.Spec.Replicas = ptr.To[int32](6) })
	w.fates()
	w.serves("one", 6)
	w.rests()
	update(w, w.deployment("web"), "", func(d *appsv1.Deployment) { d.Spec.Replicas = ptr.To[int32](4) })
	w.setImage("web", "three")
	w.fates()
	w.rolledOut("web", 4)
	w.serves("three", 4)
	w.tells("False Monitoring Revision 4")
	w.passFates(40 * time.Second)
	w.tells("False Good Revision 4")
	w.rests()
}

// A tool writes the bad template again while the rollback is on its way.
func TestRollbackGoesOnWhereTheTemplateIsWrittenAgain(t *testing.T) {
	w := monitored(t, nil)
	w.setImage("web", "two")
	w.fates()
	for _, p := range w.running() {
		w.unwell(p)
	}
	w.settle() // all pods of the old revision are gone by now
	w.setImage("web", "two")
	w.fates()
	w.serves("one", 4)
	w.tells("True PodsFailed Revision 2")
	w.rests()
}

func TestNoGoodRevision(t *testing.T) {
	w := workloads(t)
	w.run(rollbacks)
	d := aDeployment("web", 4)
	d.Annotations = map[string]string{onfailure.ActionAnnotation: "rollback", onfailure.MonitorAnnotation: "30s"}
	d.Spec.Template.Spec.Containers[0].Image = "crashing:1"
	create(w, d)
	w.fates()
	w.tells("False NoGoodRevision Revision 1 failed, and there is no earlier revision that was good: 4 of 4 pods failed: pod web-")
	w.said("Warning NoGoodRevision Revision 1 failed")
	w.fails("Revision 1 failed: 4 of 4 pods failed")
	w.passFates(10 * time.Minute)
	w.rests()
	// It gets well after all.
	for _, p := range w.running() {
		update(w, p, "status", func(p *corev1.Pod) {
			p.Status.Phase = corev1.PodRunning
			p.Status.ContainerStatuses[0].State = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: w.stamp()}}
			setReady(p, true, w.stamp())
		})
	}
	w.passFates(40 * time.Second)
	w.tells("False Good Revision 1")
	w.rolledOut("web", 4)
	w.rests()
}

// Where the policy comes with the first bad template, the earlier pods are the
// proof of what was good.
func TestPolicyThatComesWithTheBadTemplate(t *testing.T) {
	for _, strategy := range []appsv1.DeploymentStrategyType{appsv1.RollingUpdateDeploymentStrategyType, appsv1.RecreateDeploymentStrategyType} {
		t.Run(string(strategy), func(t *testing.T) {
			w := workloads(t)
			w.run(rollbacks)
			d := aDeployment("web", 4)
			d.Spec.Strategy.Type = strategy
			create(w, d)
			w.fates()
			w.passFates(5 * time.Minute)
			update(w, w.deployment("web"), "", func(d *appsv1.Deployment) {
				d.Annotations[onfailure.ActionAnnotation] = "rollback"
				d.Spec.Template.Spec.Containers[0].Image = "crashing:2"
			})
			w.fates()
			w.undone("one")
			w.rests()
		})
	}
}

func TestPauseOnFailure(t *testing.T) {
	paused := func(t *testing.T) *world {
		w := monitored(t, func(d *appsv1.Deployment) { d.Annotations[onfailure.ActionAnnotation] = "pause" })
		w.setImage("web", "crashing:2")
		w.fates()
		if d := w.deployment("web"); !d.Spec.Paused || d.Spec.Template.Spec.Containers[0].Image != "crashing:2" {
			t.Fatalf("paused %t", d.Spec.Paused)
		}
		w.tells("False Paused Revision 2 failed, and the rollout is paused: 2 of 4 pods failed")
		w.said("Warning Paused Revision 2 failed")
		w.fails("Revision 2 failed")
		w.rests()
		return w
	}
	t.Run("resumed", func(t *testing.T) {
		w := paused(t)
		update(w, w.deployment("web"), "", func(d *appsv1.Deployment) { d.Spec.Paused = false })
		w.passFates(time.Minute)
		w.tells("False Resumed Revision 2 was resumed")
		if w.deployment("web").Spec.Paused {
			t.Error("it was paused again")
		}
		w.rests()
	})
	t.Run("a new template goes on", func(t *testing.T) {
		w := paused(t)
		w.setImage("web", "three")
		w.passFates(time.Minute)
		w.tells("False Good")
		w.rolledOut("web", 4)
		w.serves("three", 4)
		if d := w.deployment("web"); d.Spec.Paused || d.Annotations[onfailure.PausedMark] != "" {
			t.Errorf("paused %t, %v", d.Spec.Paused, d.Annotations)
		}
		w.rests()
	})
	t.Run("the earlier template again", func(t *testing.T) {
		w := paused(t)
		w.setImage("web", "one")
		w.passFates(time.Minute)
		w.rolledOut("web", 4)
		w.serves("one", 4)
		w.rests()
	})
}

// What somebody paused is not judged.
func TestPausedByHandIsNotJudged(t *testing.T) {
	w := monitored(t, nil)
	w.setImage("web", "missing:2")
	w.fates()
	update(w, w.deployment("web"), "", func(d *appsv1.Deployment) { d.Spec.Paused = true })
	w.passFates(5 * time.Minute)
	w.tells("False Monitoring Revision 2")
	update(w, w.deployment("web"), "", func(d *appsv1.Deployment) { d.Spec.Paused = false })
	w.fates()
	w.undone("one")
	w.rests()
}

// `kubectl rollout undo` meanwhile is a rollout as any other.
func TestUndoneByHand(t *testing.T) {
	w := monitored(t, nil)
	w.setImage("web", "missing:2")
	w.fates()
	w.setImage("web", "one")
	w.fates()
	w.passFates(40 * time.Second)
	w.tells("False Good Revision 3")
	w.rolledOut("web", 4)
	w.rests()
}

func TestPolicyTakenAway(t *testing.T) {
	w := monitored(t, nil)
	w.setImage("web", "crashing:2")
	w.fates()
	w.undone("one")
	update(w, w.deployment("web"), "", func(d *appsv1.Deployment) { delete(d.Annotations, onfailure.ActionAnnotation) })
	w.fates()
	w.tells("")
	w.rolledOut("web", 4)
	if d := w.deployment("web"); d.Annotations[onfailure.UndoneMark] != "" {
		t.Errorf("annotations %v", d.Annotations)
	}
	w.rests()
}

// Replicas that cannot be made count as pods that failed.
func TestRollbackOfPodsThatAreRefused(t *testing.T) {
	w := monitored(t, nil)
	update(w, w.deployment("web"), "", func(d *appsv1.Deployment) { d.Spec.Template.Spec.PriorityClassName = "missing" })
	w.tryFor(40 * time.Second)
	w.fates()
	w.serves("one", 4)
	w.tells("True PodsFailed")
	w.said("no PriorityClass with name missing was found")
}

// tryFor lets loops try in vain.
func (w *world) tryFor(d time.Duration) {
	for range d / time.Second {
		for _, d := range w.loops {
			for key, at := range d.later {
				if !at.After(w.clock.Now()) {
					d.add(key)
				}
			}
			if clear(d.tries); len(d.ready) > 0 {
				d.step()
			}
		}
		w.clock.Step(time.Second)
	}
}

// Any write of any loop may be the last one of its process.
func TestRollbackSurvivesCrashes(t *testing.T) {
	for at := range 8 {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d %v", at, after), func(t *testing.T) {
				w := monitored(t, nil)
				for _, d := range w.loops {
					d.client.dieAt(at, after)
				}
				w.setImage("web", "crashing:2")
				w.fates()
				w.undone("one")
				w.tells("True PodsFailed Revision 2")
				w.rests()
			})
		}
	}
}

// In no order of loops and events does a rollback fail to end, roll back what it
// rolled back to, or take more available pods than a rollout may.
func TestRollbackEnds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		w := newWorldIn(t, r)
		w.pick = func(n int) int { return rapid.IntRange(0, n-1).Draw(r, "loop") }
		for _, build := range []func(client.Interface, events.Recorder) controller.Loop{deployments, replicaSets, rollbacks} {
			w.run(build)
		}
		w.guard(nil)
		written := w.deployment("web").Generation
		images := []string{"one", "two", "missing:1", "crashing:1", "unready:1"}
		for range rapid.IntRange(1, 8).Draw(r, "events") {
			switch rapid.SampledFrom([]string{"image", "image", "agent", "time", "die", "scale", "unwell"}).Draw(r, "event") {
			case "image":
				w.setImage("web", rapid.SampledFrom(images).Draw(r, "image"))
			case "agent":
				w.fates()
			case "time":
				w.passFates(time.Duration(rapid.IntRange(1, 12).Draw(r, "time")) * 5 * time.Second)
			case "die":
				w.loops[rapid.IntRange(0, 2).Draw(r, "loop")].client.dieAt(rapid.IntRange(0, 6).Draw(r, "write"), rapid.Bool().Draw(r, "after"))
			case "scale":
				n := rapid.Int32Range(1, 6).Draw(r, "replicas")
				update(w, w.deployment("web"), "", func(d *appsv1.Deployment) { d.Spec.Replicas = &n })
			case "unwell":
				if up := slices.DeleteFunc(w.running(), func(p *corev1.Pod) bool { return !podstate.Ready(p) }); len(up) > 0 {
					w.unwell(up[0])
				}
			}
			w.settle()
		}
		w.passFates(6 * time.Minute)
		generation := w.deployment("web").Generation
		w.passFates(6 * time.Minute)
		if d := w.deployment("web"); d.Generation != generation || generation-written > 40 {
			r.Fatalf("it goes on: generation %d, %d, at first %d", d.Generation, generation, written)
		}
		w.rests()
		for _, c := range w.deployment("web").Status.Conditions {
			if c.Type == onfailure.ConditionType && c.Reason == "Monitoring" {
				r.Fatalf("still monitored after all this time: %s", c.Message)
			}
		}
	})
}
