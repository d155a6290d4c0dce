package optional_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	testclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/admission/admissiontest"
	"hansa.dev/hansa/apiserver/admission/optional"
	"hansa.dev/hansa/apiserver/auth/authtest"
)

var someone = &user.DefaultInfo{Name: "someone"}

// world is the plugins, all of them on.
type world struct {
	*testing.T
	view    *authtest.View
	clock   *testclock.FakePassiveClock
	may     []string // what someone is allowed
	created []string
	plugins map[string]any
}

const limits = `{apiVersion: eventratelimit.admission.k8s.io/v1alpha1, kind: Configuration, limits: [{type: Namespace, qps: 1, burst: 2}]}`

func newWorld(t *testing.T, files map[string]string, objects ...api.Object) *world {
	t.Helper()
	w := &world{T: t, view: authtest.New(t, objects...), clock: testclock.NewFakePassiveClock(time.Unix(1e9, 0))}
	if files["EventRateLimit"] == "" {
		files = map[string]string{"EventRateLimit": limits, "PodNodeSelector": files["PodNodeSelector"], "PodTolerationRestriction": files["PodTolerationRestriction"]}
	}
	plugins, err := optional.Plugins(w.config(files))
	if err != nil {
		t.Fatal(err)
	}
	w.plugins = plugins
	return w
}

func (w *world) config(files map[string]string) optional.Config {
	c := optional.Config{
		Registry: w.view.Registry, View: w.view, Clock: w.clock, On: []string{"EventRateLimit", "PodNodeSelector", "PodTolerationRestriction"}, Files: map[string][]byte{},
		Authorizer: authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
			if slices.Contains(w.may, fmt.Sprintf("%s %s/%s %s", a.GetVerb(), a.GetResource(), a.GetSubresource(), a.GetName())) {
				return authorizer.DecisionAllow, "", nil
			}
			return authorizer.DecisionNoOpinion, "no", nil
		}),
		CreateNamespace: func(_ context.Context, name string) error {
			w.created = append(w.created, name)
			return nil
		},
	}
	for name, text := range files {
		c.Files[name] = []byte(text)
	}
	return c
}

// admits runs one plugin on a create, or an update where there is an old object.
func (w *world) admits(plugin string, obj, old api.Object, code int32, refusal string) {
	w.Helper()
	a := admissiontest.Create(w.view.Registry, someone, obj)
	if old != nil {
		a = admissiontest.Update(w.view.Registry, someone, obj, old)
	}
	admissiontest.Expect(w.T, plugin, w.plugins[plugin], a, code, refusal)
}

func pod(change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"}}
	p.Spec.Containers = []corev1.Container{{Name: "c", Image: "i", ImagePullPolicy: corev1.PullIfNotPresent}}
	for _, f := range change {
		f(p)
	}
	return p
}

func TestAlwaysPullImages(t *testing.T) {
	w := newWorld(t, nil)
	p := pod(func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{}}}}
	})
	w.admits("AlwaysPullImages", p, nil, 0, "")
	if p.Spec.Containers[0].ImagePullPolicy != corev1.PullAlways || p.Spec.Volumes[0].Image.PullPolicy != corev1.PullAlways {
		t.Errorf("the pod is %v", p.Spec)
	}
	same := pod()
	w.admits("AlwaysPullImages", same, pod(), 0, "")
	if same.Spec.Containers[0].ImagePullPolicy != corev1.PullIfNotPresent {
		t.Error("a pod whose images are as they were is changed")
	}
	err := w.plugins["AlwaysPullImages"].(admission.Validator).Validate(t.Context(), admissiontest.Create(w.view.Registry, someone, pod()))
	if want := `pods "p" is forbidden: spec.containers[0].imagePullPolicy: Unsupported value: "IfNotPresent": supported values: "Always"`; err == nil || err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
}

func TestLimitPodHardAntiAffinityTopology(t *testing.T) {
	w := newWorld(t, nil)
	apart := func(key string) *corev1.Pod {
		return pod(func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: key}}}}
		})
	}
	w.admits("LimitPodHardAntiAffinityTopology", apart("kubernetes.io/hostname"), nil, 0, "")
	w.admits("LimitPodHardAntiAffinityTopology", apart("zone"), nil, 403,
		`pods "p" is forbidden: affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey zone but only key kubernetes.io/hostname is allowed`)
}

func TestExtendedResourceToleration(t *testing.T) {
	w := newWorld(t, nil)
	p := pod(func(p *corev1.Pod) {
		one := resource.MustParse("1")
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"example.com/b": one, "cpu": one}
		p.Spec.InitContainers = []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"example.com/a": one}}}}
	})
	for range 2 {
		w.admits("ExtendedResourceToleration", p, nil, 0, "")
	}
	if got := fmt.Sprint(p.Spec.Tolerations); got != "[{example.com/a Exists  NoSchedule <nil>} {example.com/b Exists  NoSchedule <nil>}]" {
		t.Errorf("tolerations are %s", got)
	}
}

func TestDenyServiceExternalIPs(t *testing.T) {
	w := newWorld(t, nil)
	service := func(ips ...string) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "s"}, Spec: corev1.ServiceSpec{ExternalIPs: ips}}
	}
	const refusal = `services "s" is forbidden: Use of external IPs is denied by admission control`
	w.admits("DenyServiceExternalIPs", service(), nil, 0, "")
	w.admits("DenyServiceExternalIPs", service("192.0.2.1"), nil, 403, refusal)
	w.admits("DenyServiceExternalIPs", service("192.0.2.1"), service("192.0.2.1", "192.0.2.2"), 0, "")
	w.admits("DenyServiceExternalIPs", service("192.0.2.3"), service("192.0.2.1"), 403, refusal)
}

func TestNamespaces(t *testing.T) {
	w := newWorld(t, nil, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}})
	lost := pod(func(p *corev1.Pod) { p.Namespace = "lost" })
	w.admits("NamespaceExists", pod(), nil, 0, "")
	w.admits("NamespaceExists", lost, nil, 404, `namespaces "lost" not found`)
	w.admits("NamespaceExists", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "new"}}, nil, 0, "")
	w.admits("NamespaceAutoProvision", pod(), nil, 0, "")
	w.admits("NamespaceAutoProvision", lost, nil, 0, "")
	if !slices.Equal(w.created, []string{"lost"}) {
		t.Errorf("created are %v", w.created)
	}
}

func TestAlways(t *testing.T) {
	w := newWorld(t, nil)
	w.admits("AlwaysAdmit", pod(), nil, 0, "")
	w.admits("AlwaysDeny", pod(), nil, 403, `pods "p" is forbidden: admission control is denying all modifications`)
}

func TestOwnerReferencesPermissionEnforcement(t *testing.T) {
	w := newWorld(t, nil)
	owned := func(kind string, blocks bool) *corev1.Pod {
		return pod(func(p *corev1.Pod) {
			p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: "o", UID: "u", BlockOwnerDeletion: ptr.To(blocks)}}
		})
	}
	const plugin = "OwnerReferencesPermissionEnforcement"
	w.admits(plugin, owned("ReplicaSet", false), nil, 0, "")
	w.admits(plugin, owned("ReplicaSet", false), pod(), 403, `pods "p" is forbidden: cannot set an ownerRef on a resource you can't delete: no, <nil>`)
	w.admits(plugin, owned("ReplicaSet", true), owned("ReplicaSet", true), 0, "")
	w.admits(plugin, owned("ReplicaSet", true), nil, 403,
		`pods "p" is forbidden: cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: no, <nil>`)
	w.admits(plugin, owned("Thing", true), nil, 403,
		`pods "p" is forbidden: cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion apps/v1 Kind Thing: no matches for kind "Thing" in version "apps/v1"`)
	w.may = []string{"delete pods/ p", "update replicasets/finalizers o"}
	w.admits(plugin, owned("ReplicaSet", true), pod(), 0, "")
	w.may = []string{"update */finalizers *"}
	w.admits(plugin, owned("Thing", true), nil, 0, "")
}

func TestPodTopologyLabels(t *testing.T) {
	w := newWorld(t, nil, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{corev1.LabelTopologyZone: "z", "other": "x"}}})
	p := pod(func(p *corev1.Pod) { p.Spec.NodeName = "n" })
	w.admits("PodTopologyLabels", p, nil, 0, "")
	b := &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: "n"}}
	admissiontest.Expect(t, "binding", w.plugins["PodTopologyLabels"], admissiontest.Post(w.view.Registry, someone, pod(), "binding", b), 0, "")
	for _, labels := range []map[string]string{p.Labels, b.Labels} {
		if len(labels) != 1 || labels[corev1.LabelTopologyZone] != "z" {
			t.Errorf("labels are %v", labels)
		}
	}
	w.admits("PodTopologyLabels", pod(func(p *corev1.Pod) { p.Spec.NodeName = "gone" }), nil, 0, "")
}

func TestPodResizeValidator(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("1Gi")}}}
	other := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "w", Labels: map[string]string{corev1.LabelOSStable: "windows"}}}
	w := newWorld(t, nil, node, other)
	sized := func(node, cpu, memory string) *corev1.Pod {
		return pod(func(p *corev1.Pod) {
			p.Spec.NodeName = node
			p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
		})
	}
	for _, tt := range []struct {
		node, cpu, memory string
		code              int32
		refusal           string
	}{
		{"n", "2", "1Gi", 0, ""},
		{"", "9", "9Gi", 0, ""},
		{"n", "3", "2Gi", 403, `pods "p" is forbidden: node didn't have enough allocatable resources: cpu, requested: 3000, allocatable: 2000; memory, requested: 2147483648, allocatable: 1073741824`},
		{"w", "1", "1Gi", 403, `pods "p" is forbidden: pod resize is only supported on linux nodes, node "w" is "windows"`},
		{"gone", "1", "1Gi", 403, `pods "p" is forbidden: node "gone" not found`},
	} {
		a := admissiontest.Update(w.view.Registry, someone, sized(tt.node, tt.cpu, tt.memory), sized(tt.node, "1m", "1Mi"))
		a.Subresource = "resize"
		admissiontest.Expect(t, tt.node+tt.cpu, w.plugins["PodResizeValidator"], a, tt.code, tt.refusal)
	}
}

func TestPodNodeSelector(t *testing.T) {
	space := func(name, selector string) *corev1.Namespace {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if selector != "" {
			ns.Annotations = map[string]string{"scheduler.alpha.kubernetes.io/node-selector": selector}
		}
		return ns
	}
	w := newWorld(t, map[string]string{"PodNodeSelector": "podNodeSelectorPluginConfig: {clusterDefaultNodeSelector: kind=any, held: 'kind=any,x=y'}"},
		space("ns", "env=test"), space("plain", ""), space("held", ""))
	in := func(namespace string, selector map[string]string) *corev1.Pod {
		return pod(func(p *corev1.Pod) { p.Namespace, p.Spec.NodeSelector = namespace, selector })
	}
	p := in("ns", map[string]string{"a": "b"})
	w.admits("PodNodeSelector", p, nil, 0, "")
	if fmt.Sprint(p.Spec.NodeSelector) != "map[a:b env:test]" {
		t.Errorf("the selector is %v", p.Spec.NodeSelector)
	}
	p = in("plain", nil)
	w.admits("PodNodeSelector", p, nil, 0, "")
	if fmt.Sprint(p.Spec.NodeSelector) != "map[kind:any]" {
		t.Errorf("the selector is %v", p.Spec.NodeSelector)
	}
	w.admits("PodNodeSelector", in("ns", map[string]string{"env": "other"}), nil, 403, `pods "p" is forbidden: pod node label selector conflicts with its namespace node label selector`)
	w.admits("PodNodeSelector", in("held", map[string]string{"x": "y"}), nil, 0, "")
	w.admits("PodNodeSelector", in("held", map[string]string{"z": "y"}), nil, 403, `pods "p" is forbidden: pod node label selector labels conflict with its namespace whitelist`)
	w.admits("PodNodeSelector", in("gone", nil), nil, 404, `namespaces "gone" not found`)
}

func TestPodTolerationRestriction(t *testing.T) {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns", Annotations: map[string]string{
		"scheduler.alpha.kubernetes.io/defaultTolerations":   `[{"key": "a", "operator": "Exists", "effect": "NoSchedule"}]`,
		"scheduler.alpha.kubernetes.io/tolerationsWhitelist": `[{"key": "a", "operator": "Exists"}]`,
	}}}
	w := newWorld(t, map[string]string{"PodTolerationRestriction": `{apiVersion: podtolerationrestriction.admission.k8s.io/v1alpha1, kind: Configuration, default: [{key: d, operator: Exists}], whitelist: [{key: d, operator: Exists}, {key: node.kubernetes.io/memory-pressure, operator: Exists}]}`},
		ns, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "plain"}})
	p := pod(func(p *corev1.Pod) {
		p.Spec.Tolerations = []corev1.Toleration{{Key: "a", Operator: corev1.TolerationOpEqual, Value: "v", Effect: corev1.TaintEffectNoSchedule}}
	})
	w.admits("PodTolerationRestriction", p, nil, 0, "")
	if got := fmt.Sprint(p.Spec.Tolerations); got != "[{a Exists  NoSchedule <nil>}]" {
		t.Errorf("tolerations are %s", got)
	}
	w.admits("PodTolerationRestriction", pod(func(p *corev1.Pod) {
		p.Spec.Tolerations = []corev1.Toleration{{Key: "b", Operator: corev1.TolerationOpExists}}
	}), nil, 500,
		`pod tolerations (possibly merged with namespace default tolerations) conflict with its namespace whitelist`)
	plain := pod(func(p *corev1.Pod) {
		p.Namespace = "plain"
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"cpu": resource.MustParse("1")}
	})
	w.admits("PodTolerationRestriction", plain, nil, 0, "")
	if got := fmt.Sprint(plain.Spec.Tolerations); got != "[{d Exists   <nil>} {node.kubernetes.io/memory-pressure Exists  NoSchedule <nil>}]" {
		t.Errorf("tolerations are %s", got)
	}
}

func TestEventRateLimit(t *testing.T) {
	w := newWorld(t, nil)
	event := func(namespace string) *corev1.Event {
		return &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "e"}}
	}
	for range 2 {
		w.admits("EventRateLimit", event("ns"), nil, 0, "")
	}
	w.admits("EventRateLimit", event("ns"), nil, 429, "Too many requests: limit reached on type Namespace for key ns")
	w.admits("EventRateLimit", event("other"), nil, 0, "")
	w.admits("EventRateLimit", pod(), nil, 0, "")
	w.clock.SetTime(w.clock.Now().Add(time.Second))
	w.admits("EventRateLimit", event("ns"), nil, 0, "")
}

// What is wrong with a plugin's configuration is said.
func TestConfigurations(t *testing.T) {
	w := newWorld(t, nil)
	for _, tt := range []struct{ name, file, want string }{
		{"EventRateLimit", "", "configuration of EventRateLimit: it needs limits; give them in the file of --admission-control-config-file"},
		{"EventRateLimit", "{apiVersion: v1, kind: X}", `configuration of EventRateLimit: it is a "X" of "v1", want a Configuration of eventratelimit.admission.k8s.io/v1alpha1`},
		{"EventRateLimit", "{apiVersion: eventratelimit.admission.k8s.io/v1alpha1, kind: Configuration, limits: [{type: Planet, qps: 1, burst: 1}]}", `configuration of EventRateLimit: limits[0].type: "Planet" is not Server, Namespace, User or SourceAndObject`},
		{"EventRateLimit", "{apiVersion: eventratelimit.admission.k8s.io/v1alpha1, kind: Configuration, limits: [{type: Server, burst: 1}]}", `configuration of EventRateLimit: limits[0].qps: 0 is not positive`},
		{"PodTolerationRestriction", "{apiVersion: v1, kind: X}", `configuration of PodTolerationRestriction: it is a "X" of "v1", want a Configuration of podtolerationrestriction.admission.k8s.io/v1alpha1`},
		{"PodNodeSelector", "podNodeSelectorPluginConfig: {ns: 'a,b'}", `configuration of PodNodeSelector: podNodeSelectorPluginConfig[ns]: invalid selector: [a]`},
	} {
		files := map[string]string{"EventRateLimit": limits}
		files[tt.name] = tt.file
		if _, err := optional.Plugins(w.config(files)); err == nil || err.Error() != tt.want {
			t.Errorf("%s: %v\nwant %s", tt.name, err, tt.want)
		}
	}
}
