package kinds_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"hansa.dev/hansa/api/kinds"
)

// SCOPE.md lists the kinds without effect, all of them and no others.
func TestScope(t *testing.T) {
	data, err := os.ReadFile("../../SCOPE.md")
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	want.WriteString("| resource | what is missing |\n|---|---|\n")
	for _, row := range kinds.Registry().Resources() {
		if row.Inert != "" {
			fmt.Fprintf(&want, "| %s | %s |\n", row.GroupResource(), row.Inert)
		}
	}
	want.WriteString("\n")
	if !strings.Contains(string(data), want.String()) {
		t.Errorf("SCOPE.md should have the table\n%s", want.String())
	}
}
