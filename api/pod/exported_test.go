package pod

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func badSelector() *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "In", Values: []string{"no label"}}}}
}

// What was let in before a rule came stays, but nothing new of the kind does.
func TestStoredFlawsAreForgiven(t *testing.T) {
	for name, flaw := range map[string]func(*corev1.Pod){
		"deletion cost": func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.PodDeletionCost: "dear"} },
		"pod affinity label value": func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{
				{TopologyKey: "zone", LabelSelector: badSelector()}}}}
		},
		"node affinity label value": func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "a", Operator: "In", Values: []string{"no label"}}}}}}}}
		},
		"spread selector": func(p *corev1.Pod) {
			p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{
				{MaxSkew: 1, TopologyKey: "zone", WhenUnsatisfiable: "DoNotSchedule", LabelSelector: badSelector()}}
		},
		"partial huge page": func(p *corev1.Pod) {
			huge := corev1.ResourceList{"cpu": resource.MustParse("1"), "hugepages-2Mi": resource.MustParse("1Mi")}
			p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Limits: huge, Requests: huge.DeepCopy()}
		},
		"token path": func(p *corev1.Pod) {
			p.Spec.ServiceAccountName = "robot"
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "../token"}}}}}}}
		},
		"host sysctl": func(p *corev1.Pod) {
			p.Spec.HostNetwork = true
			p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "net.core.somaxconn", Value: "1"}}}
		},
		"host network in a user namespace": func(p *corev1.Pod) { p.Spec.HostUsers, p.Spec.HostNetwork = ptr(false), true },
		"comparing toleration": func(p *corev1.Pod) {
			p.Spec.Tolerations = []corev1.Toleration{{Key: "a", Operator: corev1.TolerationOpGt, Value: "5"}}
		},
		"restart on resize of an init container": func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "i", Image: "i", ResizePolicy: []corev1.ContainerResizePolicy{
				{ResourceName: "cpu", RestartPolicy: corev1.RestartContainer}}}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
			flaw(p)
			PrepareCreate(p)
			if len(Validate(p)) == 0 {
				t.Error("a new pod is let in")
			}
			old := p.DeepCopy()
			p.Labels = map[string]string{"a": "b"}
			if errs := ValidateUpdate(p, old); len(errs) > 0 {
				t.Errorf("a stored pod: %v", errs.ToAggregate())
			}
			path := field.NewPath("spec", "template")
			sound := corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
			DefaultTemplate(&sound)
			flawed := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Annotations: p.Annotations}, Spec: p.Spec}
			if len(ValidateTemplateUpdate(&flawed, &sound, path)) == 0 {
				t.Error("a sound template may become flawed")
			}
			if errs := ValidateTemplateUpdate(&flawed, &flawed, path); len(errs) > 0 {
				t.Errorf("a stored template: %v", errs.ToAggregate())
			}
		})
	}
}

// Parts of a pod are checked wherever they stand.
func TestPartsAtOtherPaths(t *testing.T) {
	at := field.NewPath("at")
	check := func(part func(*checker)) field.ErrorList {
		c := &checker{}
		part(c)
		return c.errs
	}
	twoSources := corev1.EnvVar{Name: "A", Value: "v", ValueFrom: &corev1.EnvVarSource{
		FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.name"}}}
	negative := resource.MustParse("-1")
	for _, c := range []struct {
		name string
		got  field.ErrorList
		want []wantCause
	}{
		{"env", check(func(c *checker) { c.env(at, []corev1.EnvVar{{Name: "A"}, {}}) }), []wantCause{{Reason: "FieldValueRequired", Field: "at[1].name"}}},
		{"env from two sources", check(func(c *checker) { c.env(at, []corev1.EnvVar{twoSources}) }), []wantCause{{Reason: "FieldValueInvalid", Field: "at[0].valueFrom"}}},
		{"env from", check(func(c *checker) { c.envFrom(at, []corev1.EnvFromSource{{}}) }), []wantCause{
			{Reason: "FieldValueInvalid", Field: "at", Detail: "must specify one of: `configMapRef` or `secretRef`"}}},
		{
			"resources",
			check(func(c *checker) {
				c.resourceRequirements(at, &corev1.ResourceRequirements{
					Limits: corev1.ResourceList{"cpu": negative}, Claims: []corev1.ResourceClaim{{Name: "there"}, {Name: "missing"}},
				}, containerResource, sets.New("there"))
			}),
			[]wantCause{{Reason: "FieldValueInvalid", Field: "at.limits[cpu]"}, {Reason: "FieldValueNotFound", Field: "at.claims[1]"}},
		},
		{"quantity", ValidateResourceQuantity("cpu", negative, at), []wantCause{{Reason: "FieldValueInvalid", Field: "at"}}},
		{"fraction of a thing", ValidateResourceQuantity("example.com/gpu", resource.MustParse("500m"), at), []wantCause{
			{Reason: "FieldValueInvalid", Field: "at", Detail: "must be an integer"}}},
		{"tolerations", check(func(c *checker) { c.tolerations(at, []corev1.Toleration{{Operator: "Equal"}}) }), []wantCause{{Reason: "FieldValueInvalid", Field: "at[0].operator"}}},
		{"node selector", check(func(c *checker) { c.nodeSelector(at, &corev1.NodeSelector{}) }), []wantCause{
			{Reason: "FieldValueRequired", Field: "at.nodeSelectorTerms", Detail: "must have at least one node selector term"}}},
		{"volumes", check(func(c *checker) { c.volumes(at, []corev1.Volume{{Name: "v"}}, nil) }), []wantCause{
			{Reason: "FieldValueRequired", Field: "at[0]", Detail: "must specify a volume type"}}},
		{
			"ephemeral volume of a long name",
			check(func(c *checker) {
				c.volumes(at, []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{
					VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{Spec: corev1.PersistentVolumeClaimSpec{
						AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
						Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{"storage": resource.MustParse("1Gi")}},
					}}}}}}, &metav1.ObjectMeta{Name: "a_b"})
			}),
			[]wantCause{{Reason: "FieldValueInvalid", Field: "at[0].name"}},
		},
	} {
		t.Run(c.name, func(t *testing.T) { checkCauses(t, c.got, c.want) })
	}
}
