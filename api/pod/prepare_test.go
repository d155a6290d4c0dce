package pod

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func checkUnchanged(t *testing.T, before, after *corev1.Pod) {
	t.Helper()
	if !apiequality.Semantic.DeepEqual(before, after) {
		t.Errorf("the stored object was written to:\n%s", cmp.Diff(before, after))
	}
}

// stored is a pod as it comes back from the store.
func stored(t *testing.T, change func(*corev1.Pod)) *corev1.Pod {
	t.Helper()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", CreationTimestamp: metav1.NewTime(time.Unix(1e9, 0))},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
	if change != nil {
		change(p)
	}
	PrepareCreate(p)
	if errs := Validate(p); len(errs) > 0 {
		t.Fatalf("the pod to begin with: %v", errs.ToAggregate())
	}
	return p
}

func TestAllowedUpdates(t *testing.T) {
	gated := func(p *corev1.Pod) { p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "g"}} }
	cases := []struct {
		name, subresource string
		old, change       func(*corev1.Pod)
	}{
		{name: "nothing", change: func(*corev1.Pod) {}},
		{name: "labels", change: func(p *corev1.Pod) { p.Labels = map[string]string{"a": "b"} }},
		{name: "image", change: func(p *corev1.Pod) { p.Spec.Containers[0].Image = "j" }},
		{name: "deadline set", change: func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = ptr(int64(5)) }},
		{
			name:   "deadline shortened",
			old:    func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = ptr(int64(5)) },
			change: func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = ptr(int64(4)) },
		},
		{
			name: "toleration added and seconds changed",
			old: func(p *corev1.Pod) {
				p.Spec.Tolerations = []corev1.Toleration{{Key: "a", Operator: "Exists", Effect: "NoExecute", TolerationSeconds: ptr(int64(1))}}
			},
			change: func(p *corev1.Pod) {
				p.Spec.Tolerations[0].TolerationSeconds = ptr(int64(2))
				p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Operator: "Exists"})
			},
		},
		{name: "gate removed", old: gated, change: func(p *corev1.Pod) { p.Spec.SchedulingGates = nil }},
		{name: "node selector added at a gate", old: gated, change: func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"a": "b"} }},
		{name: "node affinity set at a gate", old: gated, change: func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{
				{Weight: 1, Preference: corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "a", Operator: "Exists"}}}},
			}}}
		}},
		{
			name:   "negative grace period mended",
			old:    func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = ptr(int64(-1)) },
			change: func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = ptr(int64(1)) },
		},
		{name: "defaults left out", change: func(p *corev1.Pod) {
			p.Spec.RestartPolicy, p.Spec.EnableServiceLinks, p.Spec.Containers[0].ImagePullPolicy = "", nil, ""
		}},
		{name: "ephemeral container", subresource: "ephemeralcontainers", change: func(p *corev1.Pod) {
			p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "e", Image: "i"}, TargetContainerName: "c"}}
			p.Spec.Containers[0].Image = "ignored"
		}},
		{
			name: "resize", subresource: "resize",
			old: func(p *corev1.Pod) {
				p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"cpu": resource.MustParse("1")}
			},
			change: func(p *corev1.Pod) {
				p.Spec.Containers[0].Resources.Requests["cpu"] = resource.MustParse("2")
				p.Spec.Containers[0].Image = "ignored"
			},
		},
		{name: "resize of a sidecar", subresource: "resize", old: func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "s", Image: "i", RestartPolicy: ptr(corev1.ContainerRestartPolicyAlways),
				Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("1")}}}}
		}, change: func(p *corev1.Pod) { p.Spec.InitContainers[0].Resources.Requests["cpu"] = resource.MustParse("2") }},
		{name: "pod level resize", subresource: "resize", old: func(p *corev1.Pod) {
			p.Spec.Resources = &corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("1")}}
		}, change: func(p *corev1.Pod) { p.Spec.Resources.Requests["cpu"] = resource.MustParse("2") }},
		{name: "status", subresource: "status", change: func(p *corev1.Pod) {
			p.Status.Phase, p.Status.PodIP = corev1.PodRunning, "10.0.0.1"
			p.Status.PodIPs = []corev1.PodIP{{IP: "10.0.0.1"}, {IP: "fd00::1"}}
			p.Spec.RestartPolicy = "ignored"
		}},
		{name: "restart by rule", subresource: "status", old: func(p *corev1.Pod) {
			p.Spec.RestartPolicy = corev1.RestartPolicyNever
			p.Spec.Containers[0].RestartPolicy = ptr(corev1.ContainerRestartPolicyNever)
			p.Spec.Containers[0].RestartPolicyRules = []corev1.ContainerRestartRule{{Action: "Restart",
				ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: "In", Values: []int32{42}}}}
		}, change: func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			old := stored(t, c.old)
			if c.name == "restart by rule" {
				old.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 42}}}}
			}
			before, p := old.DeepCopy(), old.DeepCopy()
			c.change(p)
			if errs := applyUpdate(t, c.subresource, p, old); len(errs) > 0 {
				t.Errorf("refused: %v", errs.ToAggregate())
			}
			checkUnchanged(t, before, old)
			want := old.Generation
			if !apiequality.Semantic.DeepEqual(p.Spec, old.Spec) {
				want++
			}
			if p.Generation != want {
				t.Errorf("generation %d, want %d", p.Generation, want)
			}
			if c.subresource != "" && p.Spec.Containers[0].Image != "i" {
				t.Errorf("subresource %s changed the image", c.subresource)
			}
		})
	}
}

func TestPrepareCreateWritesTheFirstStatus(t *testing.T) {
	p := stored(t, func(p *corev1.Pod) {
		p.Generation = 7
		p.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.0.0.1", QOSClass: corev1.PodQOSGuaranteed}
		p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "g"}}
	})
	want := corev1.PodStatus{Phase: corev1.PodPending, QOSClass: corev1.PodQOSBestEffort, Conditions: []corev1.PodCondition{{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "SchedulingGated",
		Message: "Scheduling is blocked due to non-empty scheduling gates", LastTransitionTime: p.CreationTimestamp,
	}}}
	if d := cmp.Diff(want, p.Status); d != "" || p.Generation != 1 {
		t.Errorf("generation %d, status (-want +got):\n%s", p.Generation, d)
	}
}

// The class of service counts requests that are defaulted from limits, also
// when the client left them out.
func TestPrepareCreateCountsDefaultedRequests(t *testing.T) {
	p := stored(t, func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{"cpu": resource.MustParse("1"), "memory": resource.MustParse("1Gi")}
	})
	if p.Status.QOSClass != corev1.PodQOSGuaranteed {
		t.Errorf("class %s, want Guaranteed", p.Status.QOSClass)
	}
}

// Resources of the pod as a whole are completed when all containers are known,
// also those that admission adds.
func TestPrepareCreateCountsContainersOfAdmission(t *testing.T) {
	p := &corev1.Pod{Spec: corev1.PodSpec{
		Resources:  &corev1.ResourceRequirements{Limits: resources("cpu", "4")},
		Containers: []corev1.Container{{Name: "c", Image: "i", Resources: corev1.ResourceRequirements{Requests: resources("cpu", "1")}}},
	}}
	Default(p)
	p.Spec.InitContainers = []corev1.Container{{Name: "s", Image: "i", RestartPolicy: ptr(corev1.ContainerRestartPolicyAlways),
		Resources: corev1.ResourceRequirements{Requests: resources("cpu", "2")}}}
	Default(p)
	PrepareCreate(p)
	if d := cmp.Diff(resources("cpu", "3"), p.Spec.Resources.Requests); d != "" {
		t.Errorf("requests (-want +got):\n%s", d)
	}
}

// Who does not know of resources of a pod as a whole does not take them away,
// and a resize completes what is added to them.
func TestPodLevelResourcesOutlastUpdates(t *testing.T) {
	whole := &corev1.ResourceRequirements{Requests: resources("cpu", "2"), Limits: resources("cpu", "4")}
	old := stored(t, func(p *corev1.Pod) {
		p.Spec.Resources = whole.DeepCopy()
		p.Spec.Containers[0].Resources.Limits = resources("cpu", "1", "memory", "1Gi")
	})
	old.Spec.Resources = whole.DeepCopy() // as an earlier version left it
	for name, c := range map[string]struct {
		subresource string
		change      func(*corev1.Pod)
		want        *corev1.ResourceRequirements
	}{
		"dropped":             {"", func(p *corev1.Pod) { p.Spec.Resources = nil }, whole},
		"dropped in a resize": {"resize", func(p *corev1.Pod) { p.Spec.Resources = nil }, &corev1.ResourceRequirements{Requests: resources("cpu", "2", "memory", "1Gi"), Limits: resources("cpu", "4", "memory", "1Gi")}},
		"resized": {"resize", func(p *corev1.Pod) { p.Spec.Resources.Requests = resources("cpu", "3") },
			&corev1.ResourceRequirements{Requests: resources("cpu", "3", "memory", "1Gi"), Limits: resources("cpu", "4", "memory", "1Gi")}},
		"more memory than the containers' limits": {"resize", func(p *corev1.Pod) { p.Spec.Resources.Requests = resources("cpu", "2", "memory", "2Gi") },
			&corev1.ResourceRequirements{Requests: resources("cpu", "2", "memory", "2Gi"), Limits: resources("cpu", "4", "memory", "2Gi")}},
	} {
		t.Run(name, func(t *testing.T) {
			before, p := old.DeepCopy(), old.DeepCopy()
			c.change(p)
			if errs := applyUpdate(t, c.subresource, p, old); len(errs) > 0 {
				t.Errorf("refused: %v", errs.ToAggregate())
			}
			checkUnchanged(t, before, old)
			if d := cmp.Diff(c.want, p.Spec.Resources); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// resources is a list of names and quantities.
func resources(pairs ...string) corev1.ResourceList {
	list := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		list[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return list
}

func TestPrepareStatusUpdateKeepsTheRest(t *testing.T) {
	old := stored(t, nil)
	old.DeletionTimestamp = &metav1.Time{Time: time.Unix(2e9, 0)}
	old.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "r"}}
	old.Status.ObservedGeneration = 3
	old.Status.Conditions = []corev1.PodCondition{{Type: "Ready", ObservedGeneration: 2}}
	p := old.DeepCopy()
	p.DeletionTimestamp, p.OwnerReferences = nil, nil
	p.Spec.NodeName = "n2"
	p.Status = corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: "Ready", Status: "True"}, {Type: "Other", ObservedGeneration: 4}}}
	PrepareStatusUpdate(p, old)
	want := old.DeepCopy()
	want.Status.Phase = corev1.PodRunning
	want.Status.Conditions = []corev1.PodCondition{{Type: "Ready", Status: "True", ObservedGeneration: 2}, {Type: "Other", ObservedGeneration: 4}}
	if d := cmp.Diff(want, p); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestLabelKeysAreMergedIntoSelectors(t *testing.T) {
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}}
	p := stored(t, func(p *corev1.Pod) {
		p.Labels = map[string]string{"hash": "1", "tier": "web"}
		p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
			MaxSkew: 1, TopologyKey: "zone", WhenUnsatisfiable: "DoNotSchedule",
			LabelSelector: selector.DeepCopy(), MatchLabelKeys: []string{"hash", "absent"},
		}}
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
			TopologyKey: "zone", LabelSelector: selector.DeepCopy(), MatchLabelKeys: []string{"hash"}, MismatchLabelKeys: []string{"tier"},
		}}}}
	})
	in := metav1.LabelSelectorRequirement{Key: "hash", Operator: "In", Values: []string{"1"}}
	notIn := metav1.LabelSelectorRequirement{Key: "tier", Operator: "NotIn", Values: []string{"web"}}
	got := p.Spec.TopologySpreadConstraints[0].LabelSelector.MatchExpressions
	if d := cmp.Diff([]metav1.LabelSelectorRequirement{in}, got); d != "" {
		t.Errorf("spread (-want +got):\n%s", d)
	}
	got = p.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution[0].LabelSelector.MatchExpressions
	if d := cmp.Diff([]metav1.LabelSelectorRequirement{in, notIn}, got); d != "" {
		t.Errorf("affinity (-want +got):\n%s", d)
	}
}

func TestAppArmorAnnotationsBecomeFields(t *testing.T) {
	for annotation, want := range map[string]*corev1.AppArmorProfile{
		"unconfined":      {Type: corev1.AppArmorProfileTypeUnconfined},
		"runtime/default": {Type: corev1.AppArmorProfileTypeRuntimeDefault},
		"localhost/mine":  {Type: corev1.AppArmorProfileTypeLocalhost, LocalhostProfile: ptr("mine")},
		"localhost/":      nil,
		"":                nil,
	} {
		p := stored(t, func(p *corev1.Pod) { p.Annotations = map[string]string{appArmorPrefix + "c": annotation} })
		if d := cmp.Diff(want, deref(p.Spec.Containers[0].SecurityContext).AppArmorProfile); d != "" {
			t.Errorf("%q (-want +got):\n%s", annotation, d)
		}
	}
}

// gatedPod uses every field whose gate is off.
func gatedPod() *corev1.Pod {
	user := ptr(int64(5))
	keys := []corev1.KeyToPath{{Key: "k", Path: "k", User: user}}
	files := []corev1.DownwardAPIVolumeFile{{Path: "n", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.name"}, User: user}}
	http := func() *corev1.HTTPGetAction {
		return &corev1.HTTPGetAction{Port: intstr.FromInt32(80), Protocol: ptr(corev1.HTTPProtocol("H2C"))}
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p"},
		Spec: corev1.PodSpec{
			SchedulingGroup:    &corev1.PodSchedulingGroup{PodGroupName: ptr("g")},
			EvictionResponders: []corev1.EvictionResponder{{Name: "example.com/r", Priority: ptr(int32(5000))}},
			ServiceAccountName: "default",
			OS:                 &corev1.PodOS{Name: corev1.Linux},
			InitContainers:     []corev1.Container{{Name: "s", Image: "i", RestartPolicy: ptr(corev1.ContainerRestartPolicyAlways), Lifecycle: &corev1.Lifecycle{StopSignal: ptr(corev1.SIGINT)}}},
			Containers: []corev1.Container{{
				Name: "c", Image: "i",
				VolumeMounts:  []corev1.VolumeMount{{Name: "e", MountPath: "/e", BindMountOptions: []string{"noexec"}}},
				LivenessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: http()}},
				StartupProbe:  &corev1.Probe{ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 1, Mode: ptr(corev1.GRPCProbeModeTLS)}}},
				Lifecycle:     &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{HTTPGet: http()}, StopSignal: ptr(corev1.SIGINT)},
			}},
			Volumes: []corev1.Volume{
				{Name: "e", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Mode: ptr(int32(0700))}}},
				{Name: "m", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "m"}, DefaultUser: user, Items: keys}}},
				{Name: "s", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s", DefaultUser: user, Items: keys}}},
				{Name: "d", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{DefaultUser: user, Items: files}}},
				{Name: "p", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{DefaultUser: user, Sources: []corev1.VolumeProjection{
					{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "m"}, Items: []corev1.KeyToPath{{Key: "a", Path: "a", User: user}}}},
					{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "m"}, Items: []corev1.KeyToPath{{Key: "b", Path: "b", User: user}}}},
					{DownwardAPI: &corev1.DownwardAPIProjection{Items: files}},
					{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "t", User: user}},
					{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{Name: ptr("b"), Path: "c", User: user}},
					{PodCertificate: &corev1.PodCertificateProjection{SignerName: "example.com/s", KeyType: "ED25519", KeyPath: "x", User: user}},
				}}}},
			},
		},
	}
}

func TestFieldsOfDisabledGatesAreDropped(t *testing.T) {
	p := gatedPod()
	PrepareCreate(p)
	for i, gate := range gatedSpecFields {
		var s sweep
		if gate(&s, &p.Spec); s.found {
			t.Errorf("gate %d: its fields are still there", i)
		}
		var before sweep
		if gate(&before, &gatedPod().Spec); !before.found {
			t.Errorf("gate %d: the test's pod does not use it", i)
		}
	}
	if errs := Validate(p); len(errs) > 0 {
		t.Errorf("without them: %v", errs.ToAggregate())
	}
	if p.Spec.InitContainers[0].Lifecycle != nil {
		t.Error("a lifecycle that had only a stop signal is still there")
	}

	t.Run("kept where the stored pod has them", func(t *testing.T) {
		old := gatedPod()
		Default(old)
		before, p := old.DeepCopy(), old.DeepCopy()
		PrepareUpdate(p, old)
		checkUnchanged(t, before, old)
		checkUnchanged(t, before, p)
	})

	t.Run("status", func(t *testing.T) {
		old := stored(t, nil)
		p := old.DeepCopy()
		p.Status.NodeAllocatableResourceClaimStatuses = []corev1.NodeAllocatableResourceClaimStatus{{ResourceClaimName: "a"}}
		p.Status.VolumeHealth = []corev1.PodVolumeHealth{{Name: "v"}}
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", VolumeMounts: []corev1.VolumeMountStatus{{Name: "v", VolumeStatus: &corev1.VolumeStatus{}}}}}
		PrepareStatusUpdate(p, old)
		want := old.DeepCopy()
		want.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", VolumeMounts: []corev1.VolumeMountStatus{{Name: "v"}}}}
		checkUnchanged(t, want, p)
	})
}

func TestGracePeriod(t *testing.T) {
	scheduled := func(phase corev1.PodPhase, seconds *int64) *corev1.Pod {
		return &corev1.Pod{Spec: corev1.PodSpec{NodeName: "n", TerminationGracePeriodSeconds: seconds}, Status: corev1.PodStatus{Phase: phase}}
	}
	cases := []struct {
		name string
		pod  *corev1.Pod
		opts *metav1.DeleteOptions
		want int64
	}{
		{"the pod's", scheduled(corev1.PodRunning, ptr(int64(30))), nil, 30},
		{"the request's", scheduled(corev1.PodRunning, ptr(int64(30))), &metav1.DeleteOptions{GracePeriodSeconds: ptr(int64(5))}, 5},
		{"negative", scheduled(corev1.PodRunning, ptr(int64(-5))), nil, 1},
		{"unset", scheduled(corev1.PodRunning, nil), nil, 0},
		{"ended", scheduled(corev1.PodSucceeded, ptr(int64(30))), nil, 0},
		{"on no node", &corev1.Pod{Spec: corev1.PodSpec{TerminationGracePeriodSeconds: ptr(int64(30))}}, nil, 0},
	}
	for _, c := range cases {
		if got := GracePeriod(c.pod, c.opts); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestValidateBinding(t *testing.T) {
	ok := &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: "n"}}
	if errs := ValidateBinding(ok); len(errs) > 0 {
		t.Errorf("%v", errs.ToAggregate())
	}
	checkCauses(t, ValidateBinding(&corev1.Binding{Target: corev1.ObjectReference{Kind: "Pod"}}), []wantCause{
		{Reason: "FieldValueNotSupported", Field: "target.kind", Detail: `supported values: "Node", "<empty>"`},
		{Reason: "FieldValueRequired", Field: "target.name"},
	})
	checkCauses(t, ValidateBinding(&corev1.Binding{Target: corev1.ObjectReference{Name: "x_y"}}), []wantCause{
		{Reason: "FieldValueInvalid", Field: "target.name"},
	})
}
