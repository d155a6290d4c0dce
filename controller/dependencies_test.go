package controller_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"hansa.dev/hansa/api/dependency"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/controller/dependencies"
	"hansa.dev/hansa/internal/podstate"
	"hansa.dev/hansa/store"
)

func dependants(c client.Interface, r events.Recorder) controller.Loop { return dependencies.New(c, r) }

// annotated gives an object annotations: NAME, VALUE, …
func annotated[T metav1.Object](obj T, pairs ...string) T {
	a := obj.GetAnnotations()
	if a == nil {
		a = map[string]string{}
	}
	for i := 0; i < len(pairs); i += 2 {
		a[pairs[i]] = pairs[i+1]
	}
	obj.SetAnnotations(a)
	return obj
}

// shopping is a cluster with all that workloads with dependencies need.
func shopping(t testing.TB, in tester) (*world, *driver) {
	w := newWorldIn(t, in)
	w.run(deployments)
	w.run(replicaSets)
	w.run(collector)
	w.run(jobs)
	w.run(namespaces)
	return w, w.run(dependants)
}

// onePodOf is the one pod of an app that is not on its way out, or nil.
func (w *world) onePodOf(app string) *corev1.Pod {
	for _, p := range all[*corev1.Pod](w, "") {
		if (p.Labels["app"] == app || p.Labels[batchv1.JobNameLabel] == app) && p.DeletionTimestamp == nil {
			return p
		}
	}
	return nil
}

// waits checks the gates of an app's pod, and what its condition says.
func (w *world) waits(app, message string, gates ...string) {
	w.Helper()
	p := w.onePodOf(app)
	if p == nil {
		w.Fatalf("%s has no pod", app)
	}
	var have []string
	for _, g := range p.Spec.SchedulingGates {
		have = append(have, g.Name)
	}
	if !slices.Equal(have, gates) {
		w.Errorf("%s has the gates %v, not %v", app, have, gates)
	}
	if message == "" {
		return
	}
	c := podstate.Condition(p, corev1.PodScheduled)
	want := "Scheduling is blocked due to non-empty scheduling gates: waits for " + message
	if c == nil || c.Reason != corev1.PodReasonSchedulingGated || c.Message != want {
		w.Errorf("the pod of %s says %+v\nnot %s", app, c, want)
	}
}

const (
	dbGate      = "depends-on.hansa.dev/deployment.db"
	migrateGate = "depends-on.hansa.dev/job.migrate"
)

// The example of README.md.
func TestDependenciesStartInOrder(t *testing.T) {
	w, _ := shopping(t, t)
	create(w, annotated(aDeployment("app", 1), dependency.DependsOn, "deployment/db:Ready, job/migrate:Complete"))
	create(w, annotated(aJob("migrate", 1, 1), dependency.DependsOn, "deploy/db"))
	w.live()
	w.waits("app", "deployment/db:Ready (does not exist), job/migrate:Complete (has not ended)", dbGate, migrateGate)
	w.waits("migrate", "deployment/db:Ready (does not exist)", dbGate)
	w.said("Normal WaitingForDependencies Scheduling is blocked due to non-empty scheduling gates: waits for deployment/db:Ready (does not exist)")
	w.rests()

	create(w, aDeployment("db", 1))
	w.settle()
	w.waits("app", "deployment/db:Ready (no replica is ready), job/migrate:Complete (has not ended)", dbGate, migrateGate)
	w.runs(w.onePodOf("db"))
	w.settle()
	w.waits("migrate", "")
	w.waits("app", "job/migrate:Complete (has not ended)", dbGate, migrateGate)
	w.said("Normal DependenciesMet")
	w.live()
	w.exits(w.onePodOf("migrate"), 0)
	w.settle()
	w.waits("app", "")
	w.live()
	if !podstate.Ready(w.onePodOf("app")) {
		t.Error("the app does not run")
	}
	if a := w.deployment("app").Annotations[dependency.Completed]; a != "job/migrate:Complete" {
		t.Errorf("noted is %q", a)
	}
	w.rests()
}

// Pods of a StatefulSet wait one after the other.
func TestDependencyOfStatefulSet(t *testing.T) {
	w, _ := shopping(t, t)
	w.run(statefulSets)
	create(w, annotated(aStatefulSet("web", 2), dependency.DependsOn, "deployment/db"))
	w.live()
	if n := len(w.running()); n != 1 {
		t.Errorf("%d pods while the first waits", n)
	}
	if g := w.pod("web-0").Spec.SchedulingGates; len(g) != 1 || g[0].Name != dbGate {
		t.Errorf("gates %v", g)
	}
	create(w, aDeployment("db", 1))
	w.live()
	for _, name := range []string{"web-0", "web-1"} {
		if p := w.pod(name); p == nil || !podstate.Ready(p) {
			t.Errorf("%s does not run", name)
		}
	}
	w.rests()
}

// The pods of a CronJob wait for what it, its job template and its pods' template name.
func TestDependencyOfCronJob(t *testing.T) {
	w, _ := shopping(t, t)
	w.run(cronJobs)
	c := annotated(aCronJob("night", "* * * * *", batchv1.ForbidConcurrent), dependency.DependsOn, "deployment/db")
	c.Spec.JobTemplate.Annotations = map[string]string{dependency.DependsOn: "configmap/x"}
	c.Spec.JobTemplate.Spec.Template.Annotations = map[string]string{dependency.DependsOn: "secret/y"}
	create(w, c)
	w.pass(time.Minute)
	jobs := w.allJobs()
	if len(jobs) != 1 {
		t.Fatalf("%d jobs", len(jobs))
	}
	w.waits(jobs[0].Name, "secret/y:Exists (does not exist), configmap/x:Exists (does not exist), deployment/db:Ready (does not exist)",
		"depends-on.hansa.dev/secret.y", "depends-on.hansa.dev/configmap.x", dbGate)
	create(w, aDeployment("db", 1))
	create(w, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "x"}})
	create(w, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "y"}})
	w.live()
	w.waits(jobs[0].Name, "")
	w.rests()
}

// The pods of a DaemonSet wait on every node, and one is waited for on all.
func TestDependencyOfDaemonSet(t *testing.T) {
	w, _ := shopping(t, t)
	w.run(daemonSets)
	for _, name := range []string{"a", "b"} {
		create(w, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	create(w, annotated(aDaemonSet("agent"), dependency.DependsOn, "configmap/x"))
	create(w, annotated(aDeployment("app", 1), dependency.DependsOn, "daemonset/agent"))
	w.settle()
	for _, p := range w.running() {
		if len(p.Spec.SchedulingGates) != 1 {
			t.Errorf("%s has the gates %v", p.Name, p.Spec.SchedulingGates)
		}
	}
	create(w, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "x"}})
	w.settle()
	w.waits("app", "daemonset/agent:Ready (no replica is ready)", "depends-on.hansa.dev/daemonset.agent")
	for _, p := range w.running() {
		if p.Labels["app"] == "agent" {
			w.runs(p)
			w.settle()
		}
	}
	w.waits("app", "")
}

// A change wakes those who name the object, and only if it stands differently then.
func TestDependenciesAreWokenByWhatTheyNameAlone(t *testing.T) {
	w, loop := shopping(t, t)
	create(w, aDeployment("db", 1))
	create(w, annotated(aDeployment("app", 1), dependency.DependsOn, "deployment/db"))
	other := create(w, aDeployment("other", 1))
	w.settle()
	w.loops = nil
	loop.ready = nil
	woken := func(what string, want ...string) {
		t.Helper()
		var got []string
		for _, k := range loop.ready {
			got = append(got, k.Name)
		}
		if loop.ready = nil; !slices.Equal(got, want) {
			t.Errorf("%s wakes %v, want %v", what, got, want)
		}
	}
	update(w, other, "status", func(d *appsv1.Deployment) { d.Status.ReadyReplicas, d.Status.Replicas = 1, 1 })
	create(w, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "x"}})
	update(w, w.deployment("db"), "", func(d *appsv1.Deployment) { d.Labels = map[string]string{"a": "b"} })
	update(w, w.deployment("app"), "", func(d *appsv1.Deployment) { d.Labels = map[string]string{"a": "b"} })
	woken("what concerns nobody")
	update(w, w.deployment("db"), "status", func(d *appsv1.Deployment) { d.Status.ReadyReplicas, d.Status.Replicas = 1, 1 })
	woken("a replica that is ready", "deployments.apps/app")
}

// What has completed counts for new pods once its object is gone; a job of the same
// name counts for itself.
func TestDependencyThatCompletedIsRemembered(t *testing.T) {
	w, _ := shopping(t, t)
	create(w, aJob("migrate", 1, 1))
	app := aDeployment("app", 1)
	app.Spec.Template.Annotations = map[string]string{dependency.DependsOn: "job/migrate"}
	create(w, app)
	w.settle()
	w.waits("app", "job/migrate:Complete (has not ended)", migrateGate)
	w.live()
	w.exits(w.onePodOf("migrate"), 0)
	w.live()
	remove(w, w.job("migrate"), metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationBackground)})
	w.live()
	remove(w, w.onePodOf("app"), metav1.DeleteOptions{})
	w.live()
	w.waits("app", "")
	create(w, aJob("migrate", 1, 1))
	w.settle()
	remove(w, w.onePodOf("app"), metav1.DeleteOptions{})
	w.settle()
	w.waits("app", "job/migrate:Complete (has not ended)", migrateGate)
	w.rests()
}

// All that may come and go has to be there at once when a pod starts.
func TestDependenciesHoldTogether(t *testing.T) {
	w, _ := shopping(t, t)
	create(w, annotated(aDeployment("app", 1), dependency.DependsOn, "deployment/db, deployment/queue"))
	create(w, aDeployment("db", 1))
	w.settle()
	db := w.runs(w.onePodOf("db"))
	create(w, aDeployment("queue", 1))
	w.settle()
	w.waits("app", "deployment/queue:Ready (no replica is ready)", dbGate, "depends-on.hansa.dev/deployment.queue")
	update(w, db, "status", func(p *corev1.Pod) { setReady(p, false, w.stamp()) })
	w.runs(w.onePodOf("queue"))
	w.settle()
	w.waits("app", "deployment/db:Ready (no replica is ready)", dbGate, "depends-on.hansa.dev/deployment.queue")
	// Who asks for it no more waits no more.
	update(w, w.deployment("app"), "", func(d *appsv1.Deployment) { d.Annotations[dependency.DependsOn] = "deployment/queue" })
	w.settle()
	w.waits("app", "")
	w.rests()
}

// Everything that can be waited for, and what is said while it is not so.
func TestDependencyConditions(t *testing.T) {
	for _, c := range []struct {
		on, missing string
		make        func(w *world)
		meet        func(w *world)
	}{
		{"pod/x", "pod/x:Ready (is not Ready)", func(w *world) { create(w, aPod("x", template(nil, "x"))) }, func(w *world) { w.runs(w.pod("x")) }},
		{"pod/x:Complete", "pod/x:Complete (has not ended)", func(w *world) { create(w, aPod("x", template(nil, "x"))) }, func(w *world) { w.exits(w.pod("x"), 0) }},
		{"job/x:Failed", "job/x:Failed (has not ended)", func(w *world) {
			j := aJob("x", 1, 1)
			j.Spec.BackoffLimit = ptr.To(int32(0))
			create(w, j)
			w.live()
		}, func(w *world) { w.exits(w.onePodOf("x"), 1) }},
		{"cm/x", "configmap/x:Exists (does not exist)", func(*world) {}, func(w *world) {
			create(w, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "x"}})
		}},
		{"replicaset.apps/x", "replicaset/x:Ready (not all replicas are ready)", func(w *world) {
			create(w, &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "x"}, Spec: appsv1.ReplicaSetSpec{
				Replicas: ptr.To(int32(2)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "x"}}, Template: template(map[string]string{"app": "x"}, "x"),
			}})
			w.settle()
			w.runs(w.onePodOf("x"))
		}, func(w *world) { w.live() }},
		{"persistentvolumeclaim/x", "persistentvolumeclaim/x:Bound (does not exist)", func(*world) {}, func(w *world) {
			pvc := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "x"}}
			pvc.Status.Phase = corev1.ClaimBound
			if _, err := w.h.Store.Create(w.Context(), w.row(pvc), pvc, store.WriteOptions{}); err != nil {
				w.Fatal(err)
			}
		}},
	} {
		t.Run(c.on, func(t *testing.T) {
			w, _ := shopping(t, t)
			c.make(w)
			create(w, annotated(aDeployment("app", 1), dependency.DependsOn, c.on))
			w.settle()
			kind, _, _ := strings.Cut(c.missing, "/")
			w.waits("app", c.missing, "depends-on.hansa.dev/"+kind+".x")
			c.meet(w)
			w.settle()
			w.waits("app", "")
			w.rests()
		})
	}
}

// A service is ready when it leads to something that is.
func TestDependencyOnService(t *testing.T) {
	w, _ := shopping(t, t)
	w.run(endpointSlices)
	create(w, annotated(aDeployment("app", 1), dependency.DependsOn, "service/db:Ready"))
	create(w, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "db"}, Spec: corev1.ServiceSpec{
		Selector: map[string]string{"app": "db"}, Ports: []corev1.ServicePort{{Port: 80}},
	}})
	create(w, aDeployment("db", 1))
	w.settle()
	w.waits("app", "service/db:Ready (has no ready endpoint)", "depends-on.hansa.dev/service.db")
	p := w.runs(w.onePodOf("db"))
	update(w, p, "status", func(p *corev1.Pod) { p.Status.PodIP, p.Status.PodIPs = "10.42.0.2", []corev1.PodIP{{IP: "10.42.0.2"}} })
	w.settle()
	w.waits("app", "")
	w.rests()
}

func loses(w *world, name string) {
	w.Helper()
	update(w, w.onePodOf(name), "status", func(p *corev1.Pod) { setReady(p, false, w.stamp()) })
	w.settle()
}

func finds(w *world, name string) {
	w.Helper()
	update(w, w.onePodOf(name), "status", func(p *corev1.Pod) { setReady(p, true, w.stamp()) })
	w.settle()
}

// failing is an app that runs with its database, and says what is to be done when
// that fails.
func failing(t *testing.T, mode string) *world {
	w, _ := shopping(t, t)
	create(w, aDeployment("db", 1))
	w.live()
	create(w, annotated(aDeployment("app", 1), dependency.DependsOn, "deployment/db", dependency.OnFailure, mode, dependency.Grace, "10s"))
	w.live()
	w.waits("app", "")
	w.rests()
	return w
}

func TestDependencyFailureWait(t *testing.T) {
	w := failing(t, dependency.Wait)
	before := w.onePodOf("app")
	loses(w, "db")
	w.pass(time.Hour)
	if p := w.onePodOf("app"); p.UID != before.UID || podstate.Condition(p, dependency.Failed) != nil {
		t.Errorf("a pod that runs was touched: %+v", p.Status)
	}
	update(w, w.deployment("app"), "", func(d *appsv1.Deployment) { d.Spec.Replicas = ptr.To(int32(2)) })
	w.settle()
	gated := 0
	for _, p := range w.running() {
		gated += len(p.Spec.SchedulingGates)
	}
	if gated != 1 {
		t.Errorf("%d gates on the pods", gated)
	}
	w.rests()
}

func TestDependencyFailureStop(t *testing.T) {
	w := failing(t, dependency.Stop)
	before := w.onePodOf("app")
	loses(w, "db")
	w.pass(5 * time.Second)
	if w.onePodOf("app").UID != before.UID {
		t.Error("the app was stopped though the grace is not over")
	}
	finds(w, "db")
	w.pass(time.Minute)
	if w.onePodOf("app").UID != before.UID {
		t.Error("the app was stopped though the database is back in time")
	}
	loses(w, "db")
	w.pass(11 * time.Second)
	w.said("Warning DependencyFailed Stopping: deployment/db:Ready no replica is ready")
	old := w.pod(before.Name)
	if c := podstate.Condition(old, corev1.DisruptionTarget); old.DeletionTimestamp == nil || c == nil || c.Reason != "DependencyFailed" {
		t.Errorf("the pod is not stopped: %+v", old.Status.Conditions)
	}
	w.gone(old)
	w.settle()
	w.waits("app", "deployment/db:Ready (no replica is ready)", dbGate)
	w.rests()
	finds(w, "db")
	w.waits("app", "")
	w.live()
	if !podstate.Ready(w.onePodOf("app")) {
		t.Error("the app does not run again")
	}
	w.rests()
}

func TestDependencyFailureRestart(t *testing.T) {
	w := failing(t, dependency.Restart)
	before := w.onePodOf("app")
	loses(w, "db")
	w.pass(time.Minute)
	p := w.onePodOf("app")
	if c := podstate.Condition(p, dependency.Failed); p.UID != before.UID || c == nil || c.Status != corev1.ConditionTrue || c.Message != "deployment/db:Ready no replica is ready" {
		t.Errorf("the pod says %+v", p.Status.Conditions)
	}
	w.said("Warning DependencyFailed Restarts once it is back: deployment/db:Ready no replica is ready")
	w.rests()
	finds(w, "db")
	w.live()
	if p := w.onePodOf("app"); p.UID == before.UID || !podstate.Ready(p) || podstate.Condition(p, dependency.Failed) != nil {
		t.Errorf("the pod was not made anew: %+v", p.Status)
	}
	w.said("Normal DependencyRestored Restarting, as what had failed is back")
	w.rests()
}

// A job that failed has failed at once, and a dependency that is deleted is lost.
func TestDependencyFailureOfJobAndByDeletion(t *testing.T) {
	w, _ := shopping(t, t)
	j := aJob("migrate", 1, 1)
	j.Spec.BackoffLimit = ptr.To(int32(0))
	create(w, j)
	create(w, annotated(aDeployment("app", 1), dependency.DependsOn, "job/migrate, configmap/settings", dependency.OnFailure, dependency.Stop))
	settings := create(w, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "settings"}})
	w.live()
	w.exits(w.onePodOf("migrate"), 1)
	w.live()
	w.waits("app", "job/migrate:Complete (has failed: BackoffLimitExceeded)", migrateGate, "depends-on.hansa.dev/configmap.settings")
	remove(w, w.job("migrate"), metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationBackground)})
	w.live()
	create(w, aJob("migrate", 1, 1))
	w.live()
	w.exits(w.onePodOf("migrate"), 0)
	w.live()
	w.waits("app", "")
	remove(w, settings, metav1.DeleteOptions{})
	w.settle()
	w.pass(time.Minute)
	w.live()
	w.waits("app", "configmap/settings:Exists (does not exist)", "depends-on.hansa.dev/configmap.settings")
	w.rests()
}

// Two writes at once can make a circle that admission sees in neither.
func TestDependencyCircleOfTwoWrites(t *testing.T) {
	w, _ := shopping(t, t)
	for i, name := range []string{"a", "b", "c"} {
		d := annotated(aDeployment(name, 1), dependency.DependsOn, "deployment/"+string("bca"[i]))
		w.row(d).Default(d)
		d.UID = types.UID(name)
		if _, err := w.h.Store.Create(w.Context(), w.row(d), d, store.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	w.live()
	w.said("Warning CircularDependency Waits in a circle, so that nothing of it will start: deployment/a → deployment/b → deployment/c → deployment/a; take one of these dependencies away")
	c := podstate.Condition(w.onePodOf("a"), corev1.PodScheduled)
	if !strings.Contains(c.Message, "these wait for one another: deployment/a → deployment/b → deployment/c → deployment/a") {
		t.Errorf("the pod says %q", c.Message)
	}
	w.rests()
	update(w, w.deployment("a"), "", func(d *appsv1.Deployment) { delete(d.Annotations, dependency.DependsOn) })
	w.live()
	for _, name := range []string{"a", "b", "c"} {
		w.waits(name, "")
	}
	w.rests()
}

// Deployments that depend on one another at random start in order, whatever dies
// when, and all of them do.
func TestDependenciesStartProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		w, loop := shopping(t, r)
		w.pick = func(n int) int { return rapid.IntRange(0, n-1).Draw(r, "loop") }
		n := rapid.IntRange(2, 4).Draw(r, "deployments")
		needs := map[string][]string{}
		for _, i := range rapid.Permutation(upTo(n)).Draw(r, "order of creation") {
			name := fmt.Sprint("d", i)
			var on []string
			for k := range i {
				if rapid.Bool().Draw(r, fmt.Sprint(name, " on ", k)) {
					on = append(on, fmt.Sprint("deployment/d", k))
					needs[name] = append(needs[name], fmt.Sprint("d", k))
				}
			}
			d := aDeployment(name, rapid.Int32Range(1, 2).Draw(r, "replicas"))
			if rapid.Bool().Draw(r, "by template") {
				d.Spec.Template.Annotations = map[string]string{dependency.DependsOn: strings.Join(on, ",")}
			} else {
				annotated(d, dependency.DependsOn, strings.Join(on, ","))
			}
			create(w, d)
			if rapid.Bool().Draw(r, "dies") {
				loop.client.dieAt(rapid.IntRange(0, 3).Draw(r, "at write"), rapid.Bool().Draw(r, "after it"))
			}
			w.settle()
		}
		ready := func(name string) bool {
			d := w.deployment(name)
			return d.Status.AvailableReplicas == *d.Spec.Replicas
		}
		for {
			w.settle()
			var free []*corev1.Pod
			for _, p := range w.running() {
				if len(p.Spec.SchedulingGates) > 0 || p.Status.Phase == corev1.PodRunning {
					continue
				}
				for _, d := range needs[p.Labels["app"]] {
					if !ready(d) {
						r.Fatalf("a pod of %s was let go before %s is ready", p.Labels["app"], d)
					}
				}
				free = append(free, p)
			}
			if len(free) == 0 {
				break
			}
			w.runs(free[rapid.IntRange(0, len(free)-1).Draw(r, "pod")])
		}
		for i := range n {
			if !ready(fmt.Sprint("d", i)) {
				r.Fatalf("d%d never started", i)
			}
		}
		w.rests()
	})
}

func upTo(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}
