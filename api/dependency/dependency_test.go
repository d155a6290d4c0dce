package dependency_test

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/dependency"
	"hansa.dev/hansa/api/kinds"
)

var registry = kinds.Registry()

// shown is a view of a few objects.
type shown map[string]api.Object

func path(r *api.Resource, key api.Key) string {
	return r.GroupResource().String() + "/" + key.Namespace + "/" + key.Name
}

func (s shown) put(objects ...api.Object) shown {
	for _, o := range objects {
		if o.GetUID() == "" {
			o.SetUID(types.UID(fmt.Sprintf("%T%s", o, o.GetName())))
		}
		o.SetNamespace("n")
		s[path(registry.Of(o), api.Key{Namespace: "n", Name: o.GetName()})] = o
	}
	return s
}

func (s shown) Get(r *api.Resource, key api.Key) api.Object { return s[path(r, key)] }

func (s shown) List(r *api.Resource, namespace string) iter.Seq[api.Object] {
	return func(yield func(api.Object) bool) {
		for _, k := range slices.Sorted(maps.Keys(s)) {
			if strings.HasPrefix(k, path(r, api.Key{Namespace: namespace})) && !yield(s[k]) {
				return
			}
		}
	}
}

func (s shown) ByIndex(r *api.Resource, index, value string) iter.Seq[api.Object] {
	return func(yield func(api.Object) bool) {
		for o := range s.List(r, "n") {
			has := slices.ContainsFunc(o.GetOwnerReferences(), func(ref metav1.OwnerReference) bool { return string(ref.UID) == value })
			if index == api.IndexLabel {
				key, v, _ := strings.Cut(value, "=")
				has = o.GetLabels()[key] == v
			}
			if has && !yield(o) {
				return
			}
		}
	}
}

func named(name string, pairs ...string) metav1.ObjectMeta {
	m := metav1.ObjectMeta{Name: name, Annotations: map[string]string{}}
	for i := 0; i < len(pairs); i += 2 {
		m.Annotations[pairs[i]] = pairs[i+1]
	}
	return m
}

func deployment(name, on string) *appsv1.Deployment {
	d := &appsv1.Deployment{ObjectMeta: named(name, dependency.DependsOn, on)}
	d.Spec.Template.Labels = map[string]string{"app": name}
	return d
}

func TestReferences(t *testing.T) {
	for _, c := range []struct{ text, want, bad string }{
		{"", "", ""},
		{"deployment/db:Ready, job/migrate:Complete", "deployment/db:Ready job/migrate:Complete", ""},
		{" deploy/db ,Deployment.apps/db,deployments/db:Ready", "deployment/db:Ready", ""},
		{"sts/a,ds/b,rs/c,rc/d,svc/e,po/f,cj/g,cm/h,pvc/i,secret/k", "statefulset/a:Ready daemonset/b:Ready replicaset/c:Ready replicationcontroller/d:Ready service/e:Ready pod/f:Ready cronjob/g:Complete configmap/h:Exists persistentvolumeclaim/i:Bound secret/k:Exists", ""},
		{"ingress.networking.k8s.io/x", "ingress.networking.k8s.io/x:Exists", ""},
		{"pod/x:example.com/Warm", "pod/x:example.com/Warm", ""},
		{"deployment/db,", "deployment/db:Ready", `a dependency is empty; take the comma away, or write KIND/NAME:CONDITION, as in "deployment/db:Ready"`},
		{"db", "", `"db" names no object; write KIND/NAME:CONDITION, as in "deployment/db:Ready"`},
		{"deployment/", "", `"deployment/" has no name; write KIND/NAME:CONDITION, as in "deployment/db:Ready"`},
		{"deploymnt/db", "", `"deploymnt/db": no kind "deploymnt" is served; write KIND/NAME:CONDITION, as in "deployment/db:Ready"`},
		{"deployment.batch/db", "", `"deployment.batch/db": no kind "deployment.batch" is served; write KIND/NAME:CONDITION, as in "deployment/db:Ready"`},
		{"deployment/other/db", "", `"deployment/other/db" is in a namespace of its own; dependencies are in that of the dependant: write KIND/NAME:CONDITION, as in "deployment/db:Ready"`},
		{"node/x", "", `"node/x": a node is in no namespace; only objects of the dependant's own can be waited for`},
		{"deployment/DB", "", `"deployment/DB": no deployment can have the name "DB": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`},
		{"deployment/db:", "", `"deployment/db:" ends with a colon; name a condition behind it, or leave it out`},
		{"deployment/db:Complete", "", `"deployment/db:Complete": a deployment has no condition "Complete"; use one of Ready, Available, Exists`},
		{"cm/x:Ready", "", `"cm/x:Ready": a configmap has no condition "Ready"; use one of Exists`},
		{"pod/x:-", "", `"pod/x:-": a pod has no condition "-"; use one of Ready, Complete, Failed, Exists`},
	} {
		list, err := dependency.Parse(registry, "n", c.text)
		var got []string
		for _, d := range list {
			got = append(got, d.String())
		}
		bad := ""
		if err != nil {
			bad = err.Error()
		}
		if strings.Join(got, " ") != c.want || bad != c.bad {
			t.Errorf("%s: %v, %s\nwant %s, %s", c.text, got, bad, c.want, c.bad)
		}
	}
	if _, err := dependency.Parse(registry, "n", strings.TrimSuffix(strings.Repeat("cm/x%d,", 65), ",")); err == nil {
		t.Error("names with % are taken")
	}
	var many []string
	for i := range 65 {
		many = append(many, fmt.Sprint("cm/x", i))
	}
	if list, err := dependency.Parse(registry, "n", strings.Join(many, ",")); err == nil || len(list) != 64 {
		t.Errorf("%d dependencies, %v", len(list), err)
	}
}

// Whatever is written, what is understood is understood again, and has a gate of its
// own that the API takes.
func TestReferencesProperty(t *testing.T) {
	gates := map[string]dependency.Target{}
	rapid.Check(t, func(r *rapid.T) {
		text := rapid.OneOf(
			rapid.StringMatching(`([a-z.]{0,12}/?[a-z0-9.-]{0,70}(:[A-Za-z]{0,8})?,?){0,3}`),
			rapid.StringMatching(`(deployment|sts|job|pod|cm)/[a-z0-9]([a-z0-9-]{0,80}[a-z0-9])?`),
		).Draw(r, "text")
		list, err := dependency.Parse(registry, "n", text)
		if err != nil {
			return
		}
		var again []string
		for _, d := range list {
			again = append(again, d.String())
			gate := d.Gate()
			if errs := validation.IsQualifiedName(gate); len(errs) > 0 {
				r.Fatalf("gate %s: %v", gate, errs)
			}
			if other, ok := gates[gate]; ok && other != d.Target {
				r.Fatalf("%v and %v have the gate %s", other, d.Target, gate)
			}
			gates[gate] = d.Target
		}
		if twice, err := dependency.Parse(registry, "n", strings.Join(again, ",")); err != nil || !slices.Equal(twice, list) {
			r.Fatalf("%v becomes %v, %v", list, twice, err)
		}
	})
}

func TestConditions(t *testing.T) {
	now := metav1.Now()
	view := shown{}.put(
		&corev1.Service{ObjectMeta: named("out"), Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName}},
		&corev1.Service{ObjectMeta: named("plain"), Spec: corev1.ServiceSpec{Selector: map[string]string{"a": "b"}}},
		&corev1.Service{ObjectMeta: named("manual")},
		&discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: "m", Labels: map[string]string{discoveryv1.LabelServiceName: "manual"}}, Endpoints: []discoveryv1.Endpoint{{}}},
		&batchv1.CronJob{ObjectMeta: named("never")},
		&batchv1.CronJob{ObjectMeta: named("once"), Status: batchv1.CronJobStatus{LastSuccessfulTime: &now}},
		&batchv1.Job{ObjectMeta: named("later"), Spec: batchv1.JobSpec{Suspend: ptr.To(true)}},
		&appsv1.DaemonSet{ObjectMeta: named("few"), Status: appsv1.DaemonSetStatus{DesiredNumberScheduled: 2, NumberReady: 1}},
		&appsv1.DaemonSet{ObjectMeta: named("none")},
		&appsv1.StatefulSet{ObjectMeta: named("all"), Spec: appsv1.StatefulSetSpec{Replicas: ptr.To(int32(2))}, Status: appsv1.StatefulSetStatus{ReadyReplicas: 2}},
		&corev1.ReplicationController{ObjectMeta: named("rc"), Spec: corev1.ReplicationControllerSpec{Replicas: ptr.To(int32(0))}},
		&appsv1.Deployment{ObjectMeta: named("starting"), Status: appsv1.DeploymentStatus{ReadyReplicas: 1}},
		&corev1.PersistentVolumeClaim{ObjectMeta: named("claim")},
		&corev1.Pod{ObjectMeta: named("ended"), Status: corev1.PodStatus{Phase: corev1.PodFailed}},
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "going", DeletionTimestamp: &now, Finalizers: []string{"x"}}},
	)
	for text, want := range map[string]dependency.State{
		"svc/out":                  {Met: true},
		"svc/plain":                {Lost: true, Why: "has no ready endpoint"},
		"svc/manual":               {Met: true},
		"cronjob/never":            {Lost: true, Why: "has had no success yet"},
		"cronjob/once":             {Met: true},
		"job/later":                {Lost: true, Why: "is suspended"},
		"ds/few":                   {Why: "not all replicas are ready"},
		"ds/none":                  {Lost: true, Why: "no replica is ready"},
		"sts/all":                  {Met: true},
		"rc/rc":                    {Lost: true, Why: "no replica is ready"},
		"deploy/starting":          {Why: "is not available"},
		"pvc/claim":                {Lost: true, Why: "is not bound"},
		"pod/ended":                {Lost: true, Failed: true, Why: "has ended: Failed"},
		"pod/ended:Failed":         {Met: true},
		"pod/going:Exists":         {Lost: true, Why: "is being deleted"},
		"pod/none:example.com/own": {Lost: true, Why: "does not exist"},
	} {
		list, err := dependency.Parse(registry, "n", text)
		if err != nil {
			t.Fatal(err)
		}
		if got := dependency.Look(registry, view, list[0]); got != want {
			t.Errorf("%s: %+v, want %+v", text, got, want)
		}
	}
}

func circleFrom(view shown, name string) string {
	g := dependency.Graph{Registry: registry, View: view}
	c := g.Circle(dependency.Target{Kind: "deployment", Namespace: "n", Name: name})
	if c == nil {
		return ""
	}
	return dependency.Spell(c)
}

func TestCircles(t *testing.T) {
	owned := deployment("child", "")
	owned.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: "a", UID: "a", Controller: ptr.To(true)}}
	front := func(app string) *corev1.Service {
		return &corev1.Service{ObjectMeta: named("front"), Spec: corev1.ServiceSpec{Selector: map[string]string{"app": app}}}
	}
	earlier := &appsv1.ReplicaSet{ObjectMeta: named("x-1")}
	earlier.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: "x", UID: "x", Controller: ptr.To(true)}}
	earlier.Spec.Template.ObjectMeta = metav1.ObjectMeta{Labels: map[string]string{"app": "x"}, Annotations: map[string]string{dependency.DependsOn: "deployment/a"}}
	run := &batchv1.Job{ObjectMeta: named("y-1")}
	run.OwnerReferences = []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "CronJob", Name: "y", UID: "y", Controller: ptr.To(true)}}
	run.Spec.Template.ObjectMeta = metav1.ObjectMeta{Labels: map[string]string{"app": "y"}, Annotations: map[string]string{dependency.DependsOn: "deployment/a"}}
	byTemplate := deployment("b", "")
	byTemplate.Spec.Template.Annotations = map[string]string{dependency.DependsOn: "deployment/a"}
	a := func(on string) *appsv1.Deployment {
		d := deployment("a", on)
		d.UID = "a"
		return d
	}
	for _, c := range []struct {
		view shown
		want string
	}{
		{shown{}.put(a("deployment/b"), deployment("b", "deployment/c")), ""},
		{shown{}.put(a("deployment/a")), "deployment/a → deployment/a"},
		{shown{}.put(a("deployment/b"), deployment("b", "deployment/c"), deployment("c", "deployment/a")), "deployment/a → deployment/b → deployment/c → deployment/a"},
		// What is only to exist needs nothing of what it waits for.
		{shown{}.put(a("deployment/b:Exists"), deployment("b", "deployment/a")), ""},
		{shown{}.put(a("deployment/b"), byTemplate), "deployment/a → deployment/b → deployment/a"},
		{shown{}.put(a("deployment/b"), deployment("b", "service/front"), front("a")), "deployment/a → deployment/b → service/front → deployment/a"},
		// What is left of an earlier revision, or of a run that is over, starts nothing.
		{shown{}.put(a("service/front"), front("x"), earlier), ""},
		{shown{}.put(a("service/front"), front("y"), run), ""},
		// A child inherits what its owner waits for, but does not wait for itself.
		{shown{}.put(a("deployment/child"), owned), ""},
		{shown{}.put(a("deployment/b"), deployment("b", "deployment/child"), owned), "deployment/b → deployment/child → deployment/b"},
	} {
		if got := circleFrom(c.view, "a"); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// The pods of a stateful set have labels that its template has not, by which a
// service leads to one of them.
func TestCirclesOverPlaces(t *testing.T) {
	for name, c := range map[string]struct {
		selector map[string]string
		circle   bool
	}{
		"its first":             {map[string]string{appsv1.StatefulSetPodNameLabel: "db-1"}, true},
		"one that may come":     {map[string]string{"app": "db", appsv1.PodIndexLabel: "7"}, true},
		"by both":               {map[string]string{appsv1.StatefulSetPodNameLabel: "db-1", appsv1.PodIndexLabel: "1"}, true},
		"by both, of which one": {map[string]string{appsv1.StatefulSetPodNameLabel: "db-1", appsv1.PodIndexLabel: "2"}, false},
		"before its first":      {map[string]string{appsv1.StatefulSetPodNameLabel: "db-0"}, false},
		"of another":            {map[string]string{appsv1.StatefulSetPodNameLabel: "db-1-1"}, false},
		"of another app":        {map[string]string{"app": "x", appsv1.StatefulSetPodNameLabel: "db-1"}, false},
		"no place":              {map[string]string{appsv1.PodIndexLabel: "01"}, false},
		"an empty place":        {map[string]string{appsv1.PodIndexLabel: ""}, false},
		"an empty name":         {map[string]string{appsv1.StatefulSetPodNameLabel: "db-"}, false},
	} {
		db := &appsv1.StatefulSet{ObjectMeta: named("db", dependency.DependsOn, "service/front")}
		db.Spec.Ordinals = &appsv1.StatefulSetOrdinals{Start: 1}
		db.Spec.Template.Labels = map[string]string{"app": "db"}
		front := &corev1.Service{ObjectMeta: named("front"), Spec: corev1.ServiceSpec{Selector: c.selector}}
		g := dependency.Graph{Registry: registry, View: shown{}.put(db, front)}
		circle := g.Circle(dependency.Target{Kind: "statefulset", Namespace: "n", Name: "db"})
		if (circle != nil) != c.circle {
			t.Errorf("%s: the circle is %v", name, circle)
		}
	}
}

// A circle is found when, and only when, there is one: against the transitive closure.
func TestCirclesProperty(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(r, "n")
		view := shown{}
		reach := make([][]bool, n)
		for i := range n {
			reach[i] = make([]bool, n)
			var on []string
			for k := range n {
				if reach[i][k] = rapid.IntRange(0, 3).Draw(r, "edge") == 0; reach[i][k] {
					on = append(on, fmt.Sprint("deployment/d", k))
				}
			}
			view.put(deployment(fmt.Sprint("d", i), strings.Join(on, ",")))
		}
		for k := range n {
			for i := range n {
				for j := range n {
					reach[i][j] = reach[i][j] || reach[i][k] && reach[k][j]
				}
			}
		}
		want := reach[0][0]
		for k := range n {
			want = want || reach[0][k] && reach[k][k]
		}
		if got := circleFrom(view, "d0"); got != "" != want {
			r.Fatalf("%q, want one: %t", got, want)
		}
	})
}

// Of the pods that are left some can always go, and none goes before one that stops
// before it, unless they form a circle.
func TestHeldProperty(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(r, "n")
		view := shown{}
		acyclic := rapid.Bool().Draw(r, "acyclic")
		uses := make([][]bool, n)
		for i := range n {
			uses[i] = make([]bool, n)
			var on []string
			for k := range n {
				if (k < i || !acyclic) && rapid.IntRange(0, 2).Draw(r, "edge") == 0 {
					uses[i][k] = true
					on = append(on, fmt.Sprint("pod/p", k))
				}
			}
			p := &corev1.Pod{ObjectMeta: named(fmt.Sprint("p", i), dependency.DependsOn, strings.Join(on, ","), dependency.StopOrder, dependency.Reverse)}
			p.UID = types.UID(p.Name)
			view.put(p)
		}
		g := dependency.Graph{Registry: registry, View: view}
		left := n
		for left > 0 {
			held := g.Held("n")
			went := 0
			for i := range n {
				name := fmt.Sprint("p", i)
				if view["pods/n/"+name] == nil || held[types.UID(name)] {
					continue
				}
				for k := range n {
					if acyclic && uses[k][i] && k != i && view[fmt.Sprint("pods/n/p", k)] != nil {
						r.Fatalf("p%d goes before p%d", i, k)
					}
				}
				delete(view, "pods/n/"+name)
				went++
				break
			}
			if went == 0 {
				r.Fatalf("nothing goes of %d", left)
			}
			left--
		}
	})
}

// The nearest word counts.
func TestPolicy(t *testing.T) {
	chain := []dependency.Link{
		{Object: &corev1.Pod{ObjectMeta: named("p", dependency.OnFailure, dependency.Stop)}},
		{Object: &appsv1.StatefulSet{ObjectMeta: named("s", dependency.OnFailure, dependency.Restart, dependency.Grace, "5s")}},
	}
	if mode, grace := dependency.Policy(chain); mode != dependency.Stop || grace.Seconds() != 5 {
		t.Errorf("%s after %s", mode, grace)
	}
	if mode, grace := dependency.Policy(nil); mode != dependency.Wait || grace != dependency.DefaultGrace {
		t.Errorf("%s after %s", mode, grace)
	}
}
