package pod

import (
	"fmt"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Warnings are sentences for whoever creates a valid pod that is probably not
// what was meant. Updates of pods come from programs and are not warned about:
// with an old pod there are none.
func Warnings(p, old *corev1.Pod) []string {
	if old != nil {
		return nil
	}
	return append(nameWarnings(p.Name), shapeWarnings(p)...)
}

func nameWarnings(name string) []string {
	flaws := validation.IsDNS1123Label(name)
	if len(flaws) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: %v", flaws)}
}

// shapeWarnings are about all but the name.
func shapeWarnings(p *corev1.Pod) []string {
	w := &warner{}
	w.podAndMeta(nil, &p.Spec, &p.ObjectMeta)
	return w.list
}

// TemplateWarnings is Warnings for a valid template at path.
func TemplateWarnings(t *corev1.PodTemplateSpec, path *field.Path) []string {
	w := &warner{template: true}
	w.podAndMeta(path, &t.Spec, &t.ObjectMeta)
	return w.list
}

// StatusWarnings are about addresses in a valid status that are not in their
// canonical form.
func StatusWarnings(p *corev1.Pod) []string {
	w := &warner{}
	for i, ip := range p.Status.PodIPs {
		w.ip(field.NewPath("status", "podIPs").Index(i).Child("ip"), ip.IP)
	}
	for i, ip := range p.Status.HostIPs {
		w.ip(field.NewPath("status", "hostIPs").Index(i).Child("ip"), ip.IP)
	}
	return w.list
}

// warner collects warnings.
type warner struct {
	list     []string
	template bool
}

func (w *warner) add(format string, args ...any) {
	w.list = append(w.list, fmt.Sprintf(format, args...))
}

// ip passes over what is no address at all, which GetWarningsForIP logs.
func (w *warner) ip(at *field.Path, ip string) {
	if len(validation.IsValidIPForLegacyField(at, ip, false, nil)) == 0 {
		w.list = append(w.list, validation.GetWarningsForIP(at, ip)...)
	}
}

func (w *warner) podAndMeta(root *field.Path, spec *corev1.PodSpec, meta *metav1.ObjectMeta) {
	at, annotations := root.Child("spec"), root.Child("metadata", "annotations")
	w.nodeLabels(at, spec)
	w.annotations(annotations, meta.Annotations)
	w.volumes(at.Child("volumes"), spec.Volumes)
	w.repeated(at, spec)
	for _, name := range []corev1.ResourceName{corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
		w.fraction(at.Child("overhead"), spec.Overhead, name)
	}
	pod := deref(spec.SecurityContext)
	if _, ok := meta.Annotations[corev1.SeccompPodAnnotationKey]; ok && pod.SeccompProfile == nil {
		w.seccompAnnotation(annotations.Key(corev1.SeccompPodAnnotationKey))
	}
	eachContainer(spec, at, func(ctr *corev1.Container, p *field.Path) {
		own := deref(ctr.SecurityContext)
		if _, ok := meta.Annotations[seccompPrefix+ctr.Name]; ok && own.SeccompProfile == nil {
			w.seccompAnnotation(annotations.Key(seccompPrefix + ctr.Name))
		}
		w.appArmorAnnotation(annotations, meta.Annotations, ctr, pod.AppArmorProfile)
		for _, name := range []corev1.ResourceName{corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
			w.fraction(p.Child("resources", "limits"), ctr.Resources.Limits, name)
			w.fraction(p.Child("resources", "requests"), ctr.Resources.Requests, name)
		}
		w.hiddenEnv(p.Child("env"), ctr.Env)
	})
	w.ports(at, spec)
	if deref(spec.TerminationGracePeriodSeconds) < 0 {
		w.add("%s: must be >= 0; negative values are invalid and will be treated as 1", at.Child("terminationGracePeriodSeconds"))
	}
	w.nullSelectors(at.Child("affinity"), spec.Affinity)
	if spec.DNSConfig != nil {
		for i, ip := range spec.DNSConfig.Nameservers {
			w.ip(at.Child("dnsConfig", "nameservers").Index(i), ip)
		}
	}
	for i, alias := range spec.HostAliases {
		w.ip(at.Child("hostAliases").Index(i).Child("ip"), alias.IP)
	}
}

// oldNodeLabels are labels of nodes that will go away.
var oldNodeLabels = map[string]string{
	"beta.kubernetes.io/arch":                       `deprecated since v1.14; use "kubernetes.io/arch" instead`,
	"beta.kubernetes.io/os":                         `deprecated since v1.14; use "kubernetes.io/os" instead`,
	"failure-domain.beta.kubernetes.io/region":      `deprecated since v1.17; use "topology.kubernetes.io/region" instead`,
	"failure-domain.beta.kubernetes.io/zone":        `deprecated since v1.17; use "topology.kubernetes.io/zone" instead`,
	"beta.kubernetes.io/instance-type":              `deprecated since v1.17; use "node.kubernetes.io/instance-type" instead`,
	"app.kubernetes.io/created-by":                  "deprecated since v1.9",
	"scheduler.alpha.kubernetes.io/preferAvoidPods": "deprecated since v1.22; use Taints and Tolerations instead",
	"node-role.kubernetes.io/master":                `use "node-role.kubernetes.io/control-plane" instead`,
}

// OldNodeLabel says what is to be told about a label of nodes, if it will go away.
func OldNodeLabel(key string) (string, bool) {
	text, ok := oldNodeLabels[key]
	return text, ok
}

// NodeTermWarnings are about labels in a term that selects nodes.
func NodeTermWarnings(t *corev1.NodeSelectorTerm, path *field.Path) []string {
	w := &warner{}
	w.nodeTerm(path, t, false)
	return w.list
}

const nullSelector = "%s: a null labelSelector results in matching no pod"

func (w *warner) nodeLabels(at *field.Path, spec *corev1.PodSpec) {
	for _, key := range sortedKeys(spec.NodeSelector) {
		if text, ok := oldNodeLabels[key]; ok {
			w.add("%s: %s", at.Child("nodeSelector").Key(key), text)
		}
	}
	if a := deref(spec.Affinity).NodeAffinity; a != nil {
		p := at.Child("affinity", "nodeAffinity")
		for i, t := range requiredTerms(a) {
			w.nodeTerm(p.Child(required, "nodeSelectorTerms").Index(i), &t, false)
		}
		for i, t := range a.PreferredDuringSchedulingIgnoredDuringExecution {
			w.nodeTerm(p.Child(preferred).Index(i).Child("preference"), &t.Preference, true)
		}
	}
	for i, t := range spec.TopologySpreadConstraints {
		p := at.Child("topologySpreadConstraints").Index(i)
		if text, ok := oldNodeLabels[t.TopologyKey]; ok {
			w.add("%s: %s is %s", p.Child("topologyKey"), t.TopologyKey, text)
		}
		if t.LabelSelector == nil {
			w.add(nullSelector, p.Child("labelSelector"))
		}
	}
}

// nodeTerm warns about values only where validation lets them pass.
func (w *warner) nodeTerm(at *field.Path, t *corev1.NodeSelectorTerm, values bool) {
	for i, r := range t.MatchExpressions {
		p := at.Child("matchExpressions").Index(i)
		if text, ok := oldNodeLabels[r.Key]; ok {
			w.add("%s: %s is %s", p.Child("key"), r.Key, text)
		}
		for j, v := range r.Values {
			if !values {
				break
			}
			for _, flaw := range validation.IsValidLabelValue(v) {
				w.add("%s: %s is invalid, %s", p.Child("values").Index(j), v, flaw)
			}
		}
	}
}

// deadAnnotations do nothing any more.
var deadAnnotations = []struct{ key, text string }{
	{"scheduler.alpha.kubernetes.io/critical-pod", `non-functional in v1.16+; use the "priorityClassName" field instead`},
	{"security.alpha.kubernetes.io/sysctls", `non-functional in v1.11+; use the "sysctls" field instead`},
	{"security.alpha.kubernetes.io/unsafe-sysctls", `non-functional in v1.11+; use the "sysctls" field instead`},
}

func (w *warner) annotations(at *field.Path, annotations map[string]string) {
	for _, dead := range deadAnnotations {
		if _, ok := annotations[dead.key]; ok {
			w.add("%s: %s", at.Key(dead.key), dead.text)
		}
	}
}

func (w *warner) seccompAnnotation(at *field.Path) {
	w.add(`%s: non-functional in v1.27+; use the "seccompProfile" field instead`, at)
}

// appArmorAnnotation: in a template, an annotation without a field beside it. Of a
// pod SentWarnings tells.
func (w *warner) appArmorAnnotation(at *field.Path, annotations map[string]string, ctr *corev1.Container, pod *corev1.AppArmorProfile) {
	key := appArmorPrefix + ctr.Name
	if _, ok := annotations[key]; ok && w.template && pod == nil && deref(ctr.SecurityContext).AppArmorProfile == nil {
		w.add(appArmorDeprecated, at.Key(key))
	}
}

const appArmorDeprecated = `%s: deprecated since v1.30; use the "appArmorProfile" field instead`

// SentWarnings are those about a new pod as it was sent: annotations that are made
// fields, or that should be and cannot.
func SentWarnings(p *corev1.Pod) (warnings []string) {
	eachAppArmorAnnotation(p, func(key string, _ *corev1.Container, profile *corev1.AppArmorProfile) {
		if profile == nil || !reflect.DeepEqual(profile, deref(p.Spec.SecurityContext).AppArmorProfile) {
			warnings = append(warnings, fmt.Sprintf(appArmorDeprecated, field.NewPath("metadata", "annotations").Key(key)))
		}
	})
	return warnings
}

// repeated: items of lists that clients merge by a key, which is there twice.
func (w *warner) repeated(at *field.Path, spec *corev1.PodSpec) {
	seen := sets.New[string]()
	for i, alias := range spec.HostAliases {
		if seen.Has(alias.IP) {
			w.add("%s: duplicate ip %q", at.Child("hostAliases").Index(i).Child("ip"), alias.IP)
		}
		seen.Insert(alias.IP)
	}
	seen = sets.New[string]()
	for i, ref := range spec.ImagePullSecrets {
		if seen.Has(ref.Name) {
			w.add("%s: duplicate name %q", at.Child("imagePullSecrets").Index(i).Child("name"), ref.Name)
		}
		seen.Insert(ref.Name)
	}
	for i, ref := range spec.ImagePullSecrets {
		if ref.Name == "" {
			w.add("%s: invalid empty name %q", at.Child("imagePullSecrets").Index(i).Child("name"), ref.Name)
		}
	}
}

func (w *warner) fraction(at *field.Path, list corev1.ResourceList, name corev1.ResourceName) {
	if q, ok := list[name]; ok && q.MilliValue()%1000 != 0 {
		w.add("%s: fractional byte value %q is invalid, must be an integer", at.Key(string(name)), q.String())
	}
}

// hiddenEnv: a variable defined twice is fine where the second definition builds
// on the first.
func (w *warner) hiddenEnv(at *field.Path, env []corev1.EnvVar) {
	seen := sets.New[string]()
	for i, e := range env {
		reference := "$(" + e.Name + ")"
		extends := e.ValueFrom == nil && e.Value != reference && strings.Contains(e.Value, reference)
		if seen.Has(e.Name) && !extends {
			w.add("%s: hides previous definition of %q, which may be dropped when using apply", at.Index(i), e.Name)
		}
		seen.Insert(e.Name)
	}
}

func (w *warner) nullSelectors(at *field.Path, a *corev1.Affinity) {
	list := func(p *field.Path, must []corev1.PodAffinityTerm, may []corev1.WeightedPodAffinityTerm) {
		for i, t := range must {
			if t.LabelSelector == nil {
				w.add(nullSelector, p.Child(required).Index(i).Child("labelSelector"))
			}
		}
		for i, t := range may {
			if t.PodAffinityTerm.LabelSelector == nil {
				w.add(nullSelector, p.Child(preferred).Index(i).Child("podAffinityTerm", "labelSelector"))
			}
		}
	}
	if p := deref(a).PodAffinity; p != nil {
		list(at.Child("podAffinity"), p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if p := deref(a).PodAntiAffinity; p != nil {
		list(at.Child("podAntiAffinity"), p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution)
	}
}
