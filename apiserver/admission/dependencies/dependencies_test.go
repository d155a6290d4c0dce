package dependencies_test

import (
	"iter"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/dependency"
	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/admission/admissiontest"
	"hansa.dev/hansa/apiserver/admission/dependencies"
	"hansa.dev/hansa/apiserver/auth/authtest"
)

// indexed is a view without indexes: nothing here asks for what they have.
type indexed struct{ *authtest.View }

func (indexed) ByIndex(*api.Resource, string, string) iter.Seq[api.Object] {
	return func(func(api.Object) bool) {}
}

func meta(name string, pairs ...string) metav1.ObjectMeta {
	m := metav1.ObjectMeta{Namespace: "n", Name: name, Annotations: map[string]string{}}
	for i := 0; i < len(pairs); i += 2 {
		m.Annotations[pairs[i]] = pairs[i+1]
	}
	return m
}

func on(name, what string) *appsv1.Deployment {
	return &appsv1.Deployment{ObjectMeta: meta(name, dependency.DependsOn, what)}
}

func by(ref metav1.OwnerReference, p *corev1.Pod) *corev1.Pod {
	ref.Controller = ptr.To(true)
	p.OwnerReferences = []metav1.OwnerReference{ref}
	return p
}

func TestRefusals(t *testing.T) {
	view := authtest.New(t)
	plugin := dependencies.New(view.Registry, indexed{view})
	view.Put(on("b", "deployment/c"))
	view.Put(on("c", "deployment/a"))
	owned := func(p *corev1.Pod) *corev1.Pod {
		return by(metav1.OwnerReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "x", UID: "x"}, p)
	}
	cron := &batchv1.CronJob{ObjectMeta: meta("night")}
	cron.Spec.JobTemplate.Spec.Template.Annotations = map[string]string{dependency.DependsOn: "nothing"}
	for _, c := range []struct {
		name string
		obj  api.Object
		want string
	}{
		{"nothing", on("a", ""), ""},
		{"something", on("a", "deployment/z, job/x"), ""},
		{"malformed", on("a", "db"), `Deployment.apps "a" is invalid: metadata.annotations[hansa.dev/depends-on]: Invalid value: "db": "db" names no object; write KIND/NAME:CONDITION, as in "deployment/db:Ready"`},
		{"malformed in a template", cron, `CronJob.batch "night" is invalid: spec.jobTemplate.spec.template.metadata.annotations[hansa.dev/depends-on]: Invalid value: "nothing": "nothing" names no object; write KIND/NAME:CONDITION, as in "deployment/db:Ready"`},
		{"a circle", on("a", "deployment/b"), `Deployment.apps "a" is invalid: metadata.annotations[hansa.dev/depends-on]: Invalid value: "deployment/b": waits in a circle, so that nothing of it would ever start: deployment/a → deployment/b → deployment/c → deployment/a; take one of these dependencies away`},
		{"itself", on("d", "deployment/d"), `Deployment.apps "d" is invalid: metadata.annotations[hansa.dev/depends-on]: Invalid value: "deployment/d": waits in a circle, so that nothing of it would ever start: deployment/d → deployment/d; take one of these dependencies away`},
		{"on failure", &appsv1.Deployment{ObjectMeta: meta("a", dependency.OnFailure, "panic")}, `Deployment.apps "a" is invalid: metadata.annotations[hansa.dev/on-dependency-failure]: Unsupported value: "panic": supported values: "wait", "stop", "restart"`},
		{"order", &appsv1.Deployment{ObjectMeta: meta("a", dependency.StopOrder, "up")}, `Deployment.apps "a" is invalid: metadata.annotations[hansa.dev/stop-order]: Unsupported value: "up": supported values: "reverse", "parallel"`},
		{"grace", &appsv1.Deployment{ObjectMeta: meta("a", dependency.Grace, "-1s")}, `Deployment.apps "a" is invalid: metadata.annotations[hansa.dev/dependency-grace]: Invalid value: "-1s": must be a time that is not negative, as in "30s"`},
		{"restart of a bare pod", &corev1.Pod{ObjectMeta: meta("p", dependency.OnFailure, dependency.Restart)}, `Pod "p" is invalid: metadata.annotations[hansa.dev/on-dependency-failure]: Invalid value: "restart": nothing makes a pod without a controller again; use a Deployment, a StatefulSet or a Job, or another value`},
		{"restart of a controlled pod", owned(&corev1.Pod{ObjectMeta: meta("p", dependency.OnFailure, dependency.Restart)}), ""},
		{"a pod of a circle", owned(&corev1.Pod{ObjectMeta: meta("p", dependency.DependsOn, "deployment/b")}), ""},
		{"a pod on its node", &corev1.Pod{ObjectMeta: meta("p", dependency.DependsOn, "deployment/x"), Spec: corev1.PodSpec{NodeName: "n"}}, `pods "p" is forbidden: the pod waits for deployment/x:Ready and names its node, so that nothing can hold it back; leave out spec.nodeName, or the annotation hansa.dev/depends-on`},
	} {
		code := int32(422)
		if strings.Contains(c.want, "forbidden") {
			code = 403
		}
		admissiontest.Expect(t, c.name, plugin, admissiontest.Create(view.Registry, nil, c.obj), code, c.want)
	}
	// What was stored before stays as it is; what changes is looked at.
	bad := on("a", "db")
	changed := bad.DeepCopy()
	changed.Labels = map[string]string{"a": "b"}
	admissiontest.Expect(t, "untouched", plugin, admissiontest.Update(view.Registry, nil, changed, bad), 422, "")
	admissiontest.Expect(t, "changed", plugin, admissiontest.Update(view.Registry, nil, on("a", "db,"), bad), 422,
		`Deployment.apps "a" is invalid: metadata.annotations[hansa.dev/depends-on]: Invalid value: "db,": "db" names no object; write KIND/NAME:CONDITION, as in "deployment/db:Ready"`)
}

func TestGates(t *testing.T) {
	view := authtest.New(t)
	plugin := dependencies.New(view.Registry, indexed{view})
	web := on("web", "deployment/db, job/migrate")
	web.UID = "web"
	web.Annotations[dependency.Completed] = "job/old:Complete"
	copied := &appsv1.ReplicaSet{ObjectMeta: meta("web-1", dependency.DependsOn, "configmap/stale")}
	copied.UID = "set"
	copied.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: "web", UID: "web", Controller: ptr.To(true)}}
	view.Put(web)
	view.Put(copied)
	set := metav1.OwnerReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-1", UID: "set"}
	db := &appsv1.Deployment{ObjectMeta: meta("db"), Status: appsv1.DeploymentStatus{
		ReadyReplicas: 1, Conditions: []appsv1.DeploymentCondition{{Type: appsv1.DeploymentAvailable, Status: corev1.ConditionTrue}},
	}}
	job := &batchv1.Job{ObjectMeta: meta("migrate"), Status: batchv1.JobStatus{Conditions: []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}}}}
	gates := func(p *corev1.Pod) string {
		t.Helper()
		a := admissiontest.Create(view.Registry, nil, p)
		if err := admissiontest.Run(t.Context(), plugin, a); err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, g := range p.Spec.SchedulingGates {
			names = append(names, strings.TrimPrefix(g.Name, dependency.GatePrefix))
		}
		return strings.Join(names, " ")
	}
	pod := func(pairs ...string) *corev1.Pod { return &corev1.Pod{ObjectMeta: meta("p", pairs...)} }
	expect := func(what, want string, p *corev1.Pod) {
		t.Helper()
		if got := gates(p); got != want {
			t.Errorf("%s: gates %q, want %q", what, got, want)
		}
	}
	expect("nothing", "", pod())
	expect("of its own", "deployment.db", pod(dependency.DependsOn, "deployment/db"))
	expect("of its controllers, without copies", "deployment.db job.migrate", by(set, pod()))
	expect("of all of them", "configmap.x deployment.db job.migrate", by(set, pod(dependency.DependsOn, "configmap/x,deployment/db")))
	expect("not for what controls it, nor for what was done before", "deployment.db job.migrate", by(set, pod(dependency.DependsOn, "deployment/web,job/old")))
	mirror := pod(dependency.DependsOn, "deployment/db", corev1.MirrorPodAnnotationKey, "x")
	expect("a mirror", "", mirror)
	view.Put(db)
	expect("all that may come and go", "deployment.db job.migrate", by(set, pod()))
	view.Put(job)
	expect("all is there", "", by(set, pod()))
	view.Remove(db)
	expect("what is done needs no gate", "deployment.db", by(set, pod()))
}

// Where nobody depends on anything, a new pod costs a look at its owners.
func BenchmarkPlainPod(b *testing.B) {
	view := authtest.New(b)
	plugin := dependencies.New(view.Registry, indexed{view})
	a := admissiontest.Create(view.Registry, nil, &corev1.Pod{ObjectMeta: meta("p")})
	chain := admission.Chain{{Plugin: plugin}}
	b.ReportAllocs()
	for b.Loop() {
		if err := chain.Admit(b.Context(), a); err != nil {
			b.Fatal(err)
		}
		if err := chain.Validate(b.Context(), a); err != nil {
			b.Fatal(err)
		}
	}
}
