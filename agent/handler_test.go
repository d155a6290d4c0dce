package agent

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
)

// After a restart, a request about a pod that ran on may come before the agent
// has found the pod: it waits, and is not answered with 404.
func TestNodeAPIWaitsUntilTheAgentKnowsItsPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &Agent{knows: make(chan struct{})}
		a.Authorize = func(h http.Handler) http.Handler { return h }
		h, done := a.Handler(), false
		go func() {
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/containerLogs/default/p/c", nil))
			done = true
		}()
		synctest.Wait()
		if done {
			t.Fatal("answered before the agent knows its pods")
		}
		close(a.knows)
		synctest.Wait()
		if !done {
			t.Error("not answered although the agent knows its pods")
		}
	})
}
