package version

import (
	"testing"

	"k8s.io/apimachinery/pkg/util/version"
)

// Clients compare versions as semantic ones: ours must be its Kubernetes
// version to them, in every field.
func TestGet(t *testing.T) {
	info := Get()
	v, err := version.ParseSemantic(info.GitVersion)
	if err != nil {
		t.Fatal(err)
	}
	kubernetes := version.MustParseSemantic(Kubernetes)
	if !v.EqualTo(kubernetes) || v.BuildMetadata() != "hansa."+Hansa {
		t.Errorf("%s does not read as %s with build metadata", info.GitVersion, Kubernetes)
	}
	if got := info.Major + "." + info.Minor; got != version.MajorMinor(v.Major(), v.Minor()).String() {
		t.Errorf("major and minor are %s in version %s", got, info.GitVersion)
	}
	if info.GitCommit != GitCommit() || info.BuildDate != BuildDate() || info.GoVersion == "" || info.Platform == "" {
		t.Errorf("incomplete: %+v", info)
	}
}
