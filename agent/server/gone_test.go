package server_test

import (
	"fmt"
	"net/http"
	"os"
	"testing"
	"time"
)

// Logs also of pods that are gone: listed, and read by the same options.
func TestGoneLogs(t *testing.T) {
	r := newRig(t)
	stamp := now.Format(time.RFC3339Nano)
	if err := os.WriteFile(r.run.LogFile, []byte(stamp+" stdout F one\n"+stamp+" stdout F two\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r.run.Running = false
	for path, want := range map[string]string{
		"/hansa/logs/ns/gone":             "200 one\ntwo\n",
		"/hansa/logs/ns/gone?tailLines=1": "200 two\n",
		"/hansa/logs/ns/gone?uid=x":       "404 no log of it is kept\n",
		"/hansa/logs/ns/other":            "404 no log of it is kept\n",
		"/hansa/logs/ns/p?container=app":  "200 one\ntwo\n",
		"/hansa/logs/ns/p?container=none": "400 container \"none\" in pod \"p\" is not available\n",
		"/hansa/logs/ns/gone?tailLines=x": "422 tailLines: must be a whole number of at least 0\n",
		"/hansa/logs/":                    `200 [{"namespace":"ns","name":"gone","uid":"u","deleted":"2026-01-02T15:04:05Z","bytes":5,"containers":["app"]}]`,
	} {
		code, body := r.get(path)
		if got := fmt.Sprint(code, " ", body); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	if code, _ := r.get("/hansa/logs/", "X-Who", "stranger"); code != http.StatusForbidden {
		t.Errorf("a stranger: %d", code)
	}
}
