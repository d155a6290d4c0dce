package conformance

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every test that COVERED.md names is there: its function, and after a slash
// the script or the row.
func TestCoveredTestsExist(t *testing.T) {
	page, err := os.ReadFile("COVERED.md")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`(conformance|e2e) (Test[A-Za-z0-9]+)(?:/([^`]+))?`").FindAllStringSubmatch(string(page), -1)
	if len(named) != strings.Count(string(page), "`conformance Test")+strings.Count(string(page), "`e2e Test") || len(named) < 50 {
		t.Errorf("only %d names of tests are understood", len(named))
	}
	sources := map[string]string{}
	for _, folder := range []string{"conformance", "e2e"} {
		files, err := filepath.Glob(filepath.Join("..", folder, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			sources[folder] += string(data)
		}
	}
	for _, n := range named {
		folder, function, row := n[1], n[2], n[3]
		if !strings.Contains(sources[folder], "\nfunc "+function+"(t *testing.T)") {
			t.Errorf("%s has no %s", folder, function)
		}
		_, err := os.Stat(filepath.Join("testdata", "kubectl", row+".txt"))
		if row != "" && (function != "TestKubectl" || err != nil) && !strings.Contains(sources[folder], `{"`+row+`", `) {
			t.Errorf("%s of %s has no row %q", function, folder, row)
		}
	}
}
