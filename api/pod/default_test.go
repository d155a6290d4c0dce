package pod

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

// Each golden file has the pod as it is read back, and as it would be in a template.
func TestDefaultGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/default/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, file := range files {
		name, isInput := strings.CutSuffix(file, ".yaml")
		if !isInput || strings.HasSuffix(name, ".golden") || strings.HasSuffix(name, ".template") {
			continue
		}
		count++
		t.Run(filepath.Base(name), func(t *testing.T) {
			p := loadPod(t, file)
			template := &corev1.PodTemplateSpec{ObjectMeta: *p.ObjectMeta.DeepCopy(), Spec: *p.Spec.DeepCopy()}
			DefaultTemplate(template)
			checkGolden(t, name+".golden.yaml", readBack(p))
			checkGolden(t, name+".template.yaml", template)
		})
	}
	if count == 0 {
		t.Error("no pods to default")
	}
}

// readBack is a pod as its creator reads it back; what it has of a status is
// written after that.
func readBack(sent *corev1.Pod) *corev1.Pod {
	p := sent.DeepCopy()
	Default(p)
	PrepareCreate(p)
	if apiequality.Semantic.DeepEqual(sent.Status, corev1.PodStatus{}) {
		return p
	}
	old := p.DeepCopy()
	p.Status = sent.Status
	PrepareStatusUpdate(p, old)
	return p
}

func loadPod(t *testing.T, file string) *corev1.Pod {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p := &corev1.Pod{}
	if err := yaml.UnmarshalStrict(data, p); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return p
}

func checkGolden(t *testing.T, file string, object any) {
	t.Helper()
	got, err := yaml.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s (-want +got):\n%s", file, d)
	}
}

func TestPullPolicy(t *testing.T) {
	const (
		always, absent = corev1.PullAlways, corev1.PullIfNotPresent
		hash           = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	)
	for image, want := range map[string]corev1.PullPolicy{
		"nginx":                       always,
		"nginx:latest":                always,
		"nginx:1.27":                  absent,
		"nginx:Latest":                absent,
		"library/nginx":               always,
		"registry.local:5000/nginx":   always,
		"registry.local:5000/nginx:1": absent,
		"localhost/nginx":             always,
		"[fd00::1]:5000/nginx":        always,
		"nginx@sha256:" + hash:        absent,
		"nginx:latest@sha256:" + hash: always,
		"nginx:1@sha256:" + hash:      absent,
		hash:                          absent,
		"x/" + hash:                   always,
		"":                            absent,
		"Nginx":                       absent,
		"REGISTRY/nginx":              always,
		"nginx:":                      absent,
		"nginx@sha256:12":             absent,
		" nginx":                      absent,
		"a//b":                        absent,
		strings.Repeat("a", 255):      always,
		strings.Repeat("a", 256):      absent,
		"example.com/" + strings.Repeat("a", 255): always,
	} {
		if got := pullPolicyFor(image); got != want {
			t.Errorf("%.80q: %s, want %s", image, got, want)
		}
	}
}

// What is seen without the grammar is what the grammar says.
func TestPullPolicyWithoutGrammar(t *testing.T) {
	piece := rapid.SampledFrom([]string{"a", "b1", "A", "latest", "1.27", ":", ":latest", "/", "@", "@sha256:", strings.Repeat("0", 64), ".", "-", "[::1]", ":5000/", " "})
	rapid.Check(t, func(t *rapid.T) {
		image := strings.Join(rapid.SliceOfN(piece, 0, 6).Draw(t, "pieces"), "")
		if tag := imageTag(image); saysOtherTag(image) && tag == "latest" {
			t.Errorf("%q is taken for another tag", image)
		}
	})
}

type qosCase struct {
	Name string             `json:"name"`
	Spec corev1.PodSpec     `json:"spec"`
	Want corev1.PodQOSClass `json:"want"`
}

func TestQOS(t *testing.T) {
	for _, c := range loadCases[qosCase](t, "qos.yaml") {
		t.Run(c.Name, func(t *testing.T) {
			p := &corev1.Pod{Spec: c.Spec}
			PrepareCreate(p)
			if p.Status.QOSClass != c.Want {
				t.Errorf("%s, want %s", p.Status.QOSClass, c.Want)
			}
			p.Status.QOSClass = "nonsense"
			if got := QOS(p); got != c.Want {
				t.Errorf("with a class in the status: %s, want %s", got, c.Want)
			}
		})
	}
}

func checkIdempotent(t rapid.TB, p *corev1.Pod) {
	t.Helper()
	Default(p)
	once := p.DeepCopy()
	if Default(p); !apiequality.Semantic.DeepEqual(once, p) {
		t.Errorf("Default again changes the pod:\n%s", cmp.Diff(once, p))
	}
	template := &corev1.PodTemplateSpec{ObjectMeta: p.ObjectMeta, Spec: p.Spec}
	if DefaultTemplate(template); !apiequality.Semantic.DeepEqual(&once.Spec, &template.Spec) {
		t.Errorf("a defaulted pod lacks defaults of templates:\n%s", cmp.Diff(once.Spec, template.Spec))
	}
}
