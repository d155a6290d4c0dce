// Package version tells which Hansa this is.
//
// The version of Kubernetes that the API follows and Hansa's own are constants
// of the source; the commit and its date are set at link time by `make build`,
// so that the same commit gives the same binary.
package version

import (
	"runtime"

	"k8s.io/apimachinery/pkg/version"
)

const (
	// Kubernetes is the version whose API is served.
	Kubernetes = "v1.37.2"
	// Hansa is our own version.
	Hansa = "0.1.0"
	// GitVersion is what clients read as the server's version: Kubernetes'
	// version with ours as the build part, which comparisons leave out.
	GitVersion = Kubernetes + "+hansa." + Hansa

	major, minor = "1", "37"
)

// Set by the linker (-X). A plain `go build` or `go test` leaves them.
var (
	gitCommit    = "unknown"
	gitTreeState = "unknown" // clean or dirty, as Kubernetes has it
	buildDate    = "1970-01-01T00:00:00Z"
)

// Minor is the version of Kubernetes without its patch, MAJOR.MINOR.
func Minor() string { return major + "." + minor }

// GitCommit is the commit this binary was built from, or "unknown".
func GitCommit() string { return gitCommit }

// BuildDate is the date of that commit, RFC 3339 in UTC.
func BuildDate() string { return buildDate }

// Get returns the answer to GET /version.
func Get() version.Info {
	return version.Info{
		Major:          major,
		Minor:          minor,
		EmulationMajor: major,
		EmulationMinor: minor,
		// The oldest version whose clients and data this one still serves.
		MinCompatibilityMajor: major,
		MinCompatibilityMinor: "36",
		GitVersion:            GitVersion,
		GitCommit:             gitCommit,
		GitTreeState:          gitTreeState,
		BuildDate:             buildDate,
		GoVersion:             runtime.Version(),
		Compiler:              runtime.Compiler,
		Platform:              runtime.GOOS + "/" + runtime.GOARCH,
	}
}
