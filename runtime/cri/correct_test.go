package cri

import (
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"hansa.dev/hansa/runtime"
)

// What was kept of a container's end has the last word over what containerd says.
func TestCorrect(t *testing.T) {
	at := time.Unix(1_700_000_000, 0)
	for _, c := range []struct {
		name     string
		code     int32
		reason   string
		e        runtime.Exit
		want     int32
		reasoned string
	}{
		{"not heard", 255, "Unknown", runtime.Exit{Code: 5, At: at}, 5, "Error"},
		{"not heard, well", 255, "Unknown", runtime.Exit{At: at}, 0, "Completed"},
		{"not heard, killed for memory", 255, "Unknown", runtime.Exit{Code: 137, At: at, OOMKilled: true}, 137, "OOMKilled"},
		{"not heard, a child killed for memory", 255, "Unknown", runtime.Exit{Code: 1, At: at, OOMKilled: true}, 1, "OOMKilled"},
		{"only the kill heard", 255, "OOMKilled", runtime.Exit{Code: 137, At: at, OOMKilled: true}, 137, "OOMKilled"},
		{"only the end heard", 137, "Error", runtime.Exit{Code: 137, At: at, OOMKilled: true}, 137, "OOMKilled"},
		{"all heard", 255, "Error", runtime.Exit{Code: 255, At: at}, 255, "Error"},
		{"did not start", 128, "StartError", runtime.Exit{Code: 137, At: at}, 128, "StartError"},
	} {
		st := &cri.ContainerStatus{ExitCode: c.code, Reason: c.reason, FinishedAt: at.UnixNano()}
		correct(st, c.e)
		if st.ExitCode != c.want || st.Reason != c.reasoned || st.FinishedAt != at.UnixNano() {
			t.Errorf("%s: %v", c.name, st)
		}
	}
}
