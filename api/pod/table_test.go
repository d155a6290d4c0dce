package pod

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// wantCause is one expected cause; see testdata/README.md.
type wantCause struct {
	Reason string `json:"reason"`
	Field  string `json:"field"`
	Detail string `json:"detail,omitempty"`
}

type invalidCase struct {
	Name      string      `json:"name"`
	InProcess bool        `json:"inProcess,omitempty"`
	Object    *corev1.Pod `json:"object"`
	Want      []wantCause `json:"want"`
}

// loadCases decodes every document of the files that match, strictly.
func loadCases[T any](t testing.TB, pattern string) []T {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("no test data at %s: %v", pattern, err)
	}
	var cases []T
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		docs := utilyaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(data)))
		for {
			buf := make([]byte, len(data)+1)
			n, err := docs.Read(buf)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			if len(bytes.TrimSpace(buf[:n])) == 0 {
				continue
			}
			var c T
			if err := yaml.UnmarshalStrict(buf[:n], &c); err != nil {
				t.Fatalf("%s: %v: %.60s…", file, err, buf[:n])
			}
			cases = append(cases, c)
		}
	}
	return cases
}

// checkCauses compares as sets with counts; details only where the table has them.
func checkCauses(t *testing.T, got field.ErrorList, want []wantCause) {
	t.Helper()
	key := func(reason, field string) string { return reason + " " + field }
	var g, w []string
	details := map[string][]string{}
	for _, e := range got {
		k := key(string(e.Type), e.Field)
		g = append(g, k)
		details[k] = append(details[k], e.Detail)
	}
	for _, c := range want {
		w = append(w, key(c.Reason, c.Field))
	}
	sort.Strings(g)
	sort.Strings(w)
	if d := cmp.Diff(w, g); d != "" {
		t.Errorf("causes (-want +got):\n%s\nin full: %v", d, got.ToAggregate())
		return
	}
	for _, c := range want {
		if c.Detail == "" {
			continue
		}
		if have := details[key(c.Reason, c.Field)]; !contains(have, c.Detail) {
			t.Errorf("%s: detail %q, want %q", c.Field, have, c.Detail)
		}
	}
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

func TestInvalidPods(t *testing.T) {
	cases := loadCases[invalidCase](t, "invalid/*.yaml")
	if len(cases) < 110 {
		t.Errorf("%d cases, the table should have at least 110", len(cases))
	}
	names := map[string]bool{}
	for _, c := range cases {
		if names[c.Name] || len(c.Want) == 0 {
			t.Errorf("case %q is there twice, or expects nothing", c.Name)
		}
		names[c.Name] = true
		t.Run(c.Name, func(t *testing.T) {
			p := c.Object.DeepCopy()
			PrepareCreate(p)
			checkCauses(t, Validate(p), c.Want)
		})
	}
}

// What is wrong with a template is also wrong with a pod made from it, at the
// corresponding path.
func TestTemplateErrorsAreThoseOfPods(t *testing.T) {
	for _, c := range loadCases[invalidCase](t, "invalid/*.yaml") {
		t.Run(c.Name, func(t *testing.T) {
			template := &corev1.PodTemplateSpec{ObjectMeta: c.Object.ObjectMeta, Spec: *c.Object.Spec.DeepCopy()}
			PrepareTemplate(template, nil)
			DefaultTemplate(template)
			pod := map[string]bool{}
			p := c.Object.DeepCopy()
			PrepareCreate(p)
			for _, e := range Validate(p) {
				pod[fmt.Sprintf("%s %s", e.Type, strings.TrimPrefix(e.Field, "metadata."))] = true
			}
			for _, e := range ValidateTemplate(template, field.NewPath("spec", "template")) {
				at, ok := strings.CutPrefix(e.Field, "spec.template.")
				if k := fmt.Sprintf("%s %s", e.Type, at); !ok || !pod[k] && !templateOnly[e.Detail] {
					t.Errorf("%v is no error of the pod", e)
				}
			}
		})
	}
}

// templateOnly are refusals that the pod of the table does not get: its
// selectors had been completed, or its limits been copied to requests.
var templateOnly = map[string]bool{
	"ephemeral containers not allowed in pod template": true,
}

type validCase struct {
	Name   string      `json:"name"`
	Object *corev1.Pod `json:"object"`
}

func TestValidPods(t *testing.T) {
	for _, c := range loadCases[validCase](t, "valid/*.yaml") {
		t.Run(c.Name, func(t *testing.T) {
			p := c.Object.DeepCopy()
			PrepareCreate(p)
			if errs := Validate(p); len(errs) > 0 {
				t.Errorf("create: %v", errs.ToAggregate())
			}
			unchanged := p.DeepCopy()
			if errs := ValidateUpdate(p, unchanged); len(errs) > 0 {
				t.Errorf("update that changes nothing: %v", errs.ToAggregate())
			}
			template := &corev1.PodTemplateSpec{ObjectMeta: c.Object.ObjectMeta, Spec: *c.Object.Spec.DeepCopy()}
			PrepareTemplate(template, nil)
			DefaultTemplate(template)
			if errs := ValidateTemplate(template, field.NewPath("template")); len(errs) > 0 {
				t.Errorf("template: %v", errs.ToAggregate())
			}
		})
	}
}
