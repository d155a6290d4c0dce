package pod

import (
	"encoding/json"
	"math/rand"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"pgregory.net/rapid"
	"sigs.k8s.io/randfill"
)

// words are drawn often, so that random pods get past the first check and
// their parts refer to each other.
var words = []string{
	"", "a", "b", "c", "Always", "Never", "OnFailure", "Exists", "In", "Equal", "cpu", "memory", "hugepages-2Mi", "1",
	"metadata.name", "requests.cpu", "limits.hugepages-2Mi", "10.0.0.1", "fd00::1", "/a", "a/b", "..", "$(a)", "linux", "windows",
	"RuntimeDefault", "Localhost", "localhost/x", "kubernetes.io/hostname", "node.kubernetes.io/x", "NoExecute", "Block", "é\x00",
}

func quantity(q *resource.Quantity, c randfill.Continue) {
	*q = *resource.NewMilliQuantity(int64(c.Intn(5000))-1000, []resource.Format{resource.DecimalSI, resource.BinarySI}[c.Intn(2)])
}

func filler(seed int64) *randfill.Filler {
	return randfill.New().RandSource(rand.NewSource(seed)).NilChance(.4).NumElements(0, 3).MaxDepth(12).Funcs(
		func(s *string, c randfill.Continue) { *s = words[c.Intn(len(words))] },
		func(n *int32, c randfill.Continue) { *n = int32(c.Intn(8)) - 2 },
		func(n *int64, c randfill.Continue) { *n = int64(c.Intn(8)) - 2 },
		quantity,
		func(v *intstr.IntOrString, c randfill.Continue) {
			*v = []intstr.IntOrString{intstr.FromInt32(int32(c.Intn(9))), intstr.FromString(words[c.Intn(len(words))]), {Type: 7}}[c.Intn(3)]
		},
		func(t *metav1.Time, c randfill.Continue) { *t = metav1.Unix(c.Int63n(1e9), 0) },
		func(f *metav1.FieldsV1, _ randfill.Continue) { f.Raw = []byte("{}") },
	)
}

func TestRandomPods(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := filler(rapid.Int64().Draw(t, "seed"))
		p, old := &corev1.Pod{}, &corev1.Pod{}
		f.Fill(p)
		f.Fill(old)
		checkIdempotent(t, p.DeepCopy())
		tryAll(t, p, old)
		// As a client that changes one thing.
		old = p.DeepCopy()
		f.Fill(&p.Spec)
		tryAll(t, p, old)
	})
}

// tryAll calls what takes pods from clients. Validation must neither panic nor
// change a pod, and what is refused has a place.
func tryAll(t rapid.TB, p, old *corev1.Pod) {
	t.Helper()
	for _, try := range []struct {
		name     string
		prepare  func(p, old *corev1.Pod)
		validate func(p, old *corev1.Pod) field.ErrorList
	}{
		{"create", func(p, _ *corev1.Pod) { PrepareCreate(p) }, func(p, _ *corev1.Pod) field.ErrorList { return Validate(p) }},
		{"unprepared", func(_, _ *corev1.Pod) {}, func(p, _ *corev1.Pod) field.ErrorList { return Validate(p) }},
		{"update", PrepareUpdate, ValidateUpdate},
		{"status", PrepareStatusUpdate, ValidateStatusUpdate},
		{"ephemeral containers", PrepareEphemeralContainersUpdate, ValidateEphemeralContainersUpdate},
		{"resize", PrepareResize, ValidateResize},
		{"template", prepareAsTemplate, validateAsTemplate},
	} {
		p, old := p.DeepCopy(), old.DeepCopy()
		try.prepare(p, old)
		given, before := p.DeepCopy(), old.DeepCopy()
		for _, e := range try.validate(p, old) {
			if e.Field == "" || e.Type == "" {
				t.Errorf("%s: an error without a place: %v", try.name, e)
			}
			_ = e.Error()
		}
		if !apiequality.Semantic.DeepEqual(given, p) || !apiequality.Semantic.DeepEqual(before, old) {
			t.Errorf("%s: validation changed the pod", try.name)
		}
		Warnings(p, nil)
		StatusWarnings(p)
		QOS(p)
	}
}

func prepareAsTemplate(p, old *corev1.Pod) {
	template := &corev1.PodTemplateSpec{ObjectMeta: p.ObjectMeta, Spec: p.Spec}
	PrepareTemplate(template, &corev1.PodTemplateSpec{ObjectMeta: old.ObjectMeta, Spec: old.Spec})
	DefaultTemplate(template)
	p.ObjectMeta, p.Spec = template.ObjectMeta, template.Spec
}

func validateAsTemplate(p, old *corev1.Pod) field.ErrorList {
	template, path := &corev1.PodTemplateSpec{ObjectMeta: p.ObjectMeta, Spec: p.Spec}, field.NewPath("template")
	TemplateWarnings(template, path)
	errs := ValidateTemplate(template, path)
	return append(errs, ValidateTemplateUpdate(template, &corev1.PodTemplateSpec{ObjectMeta: old.ObjectMeta, Spec: old.Spec}, path)...)
}

// FuzzValidate reads pods as JSON, so that the fuzzer can mutate those of the
// tables.
func FuzzValidate(f *testing.F) {
	var seeds []*corev1.Pod
	for _, c := range loadCases[invalidCase](f, "invalid/*.yaml") {
		seeds = append(seeds, c.Object)
	}
	for _, c := range loadCases[validCase](f, "valid/*.yaml") {
		seeds = append(seeds, c.Object)
	}
	for _, p := range seeds {
		data, err := json.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, []byte(`{"spec":{"containers":[{"name":"c","image":"i"}]}}`))
	}
	f.Fuzz(func(t *testing.T, data, oldData []byte) {
		var p, old corev1.Pod
		if json.Unmarshal(data, &p) != nil || json.Unmarshal(oldData, &old) != nil {
			return
		}
		tryAll(t, &p, &old)
		checkIdempotent(t, &p)
	})
}
