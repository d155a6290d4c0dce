package main

import (
	"slices"
	"strings"
	"testing"
)

// The events are what go 1.26 prints for packages written to pass, skip, fail,
// panic and not build.
func TestFollow(t *testing.T) {
	for _, c := range []struct {
		name, events   string
		passed, failed int
		skipped        []string
		prints         string
	}{
		{
			name: "pass",
			events: `{"Action":"start","Package":"m/a"}
{"Action":"run","Package":"m/a","Test":"TestX"}
{"Action":"output","Package":"m/a","Test":"TestX","Output":"=== RUN   TestX\n"}
{"Action":"output","Package":"m/a","Test":"TestX","Output":"--- PASS: TestX (0.00s)\n"}
{"Action":"pass","Package":"m/a","Test":"TestX","Elapsed":0}
{"Action":"output","Package":"m/a","Output":"PASS\n"}
{"Action":"output","Package":"m/a","Output":"ok  \tm/a\t0.002s\n"}
{"Action":"pass","Package":"m/a","Elapsed":0.002}`,
			passed: 1, prints: "ok  \tm/a\t0.002s\n",
		},
		{
			name: "skip",
			events: `{"Action":"output","Package":"m/a","Test":"TestX","Output":"    a_test.go:5: not here\n"}
{"Action":"skip","Package":"m/a","Test":"TestX","Elapsed":0}
{"Action":"output","Package":"m/a","Output":"ok  \tm/a\t0.002s\n"}
{"Action":"pass","Package":"m/a","Elapsed":0.002}`,
			skipped: []string{"m/a.TestX"}, prints: "    a_test.go:5: not here\nok  \tm/a\t0.002s\n",
		},
		{
			name: "no tests",
			events: `{"Action":"output","Package":"m/b","Output":"?   \tm/b\t[no test files]\n"}
{"Action":"skip","Package":"m/b","Elapsed":0}`,
		},
		{
			name: "fail",
			events: `{"Action":"output","Package":"m/a","Test":"TestX","Output":"=== RUN   TestX\n"}
{"Action":"output","Package":"m/a","Test":"TestX","Output":"    a_test.go:5: wrong\n"}
{"Action":"output","Package":"m/a","Test":"TestY","Output":"quiet\n"}
{"Action":"pass","Package":"m/a","Test":"TestY","Elapsed":0}
{"Action":"fail","Package":"m/a","Test":"TestX","Elapsed":0}
{"Action":"output","Package":"m/a","Output":"FAIL\tm/a\t0.002s\n"}
{"Action":"fail","Package":"m/a","Elapsed":0.002}`,
			passed: 1, failed: 1, prints: "    a_test.go:5: wrong\nFAIL\tm/a\t0.002s\n",
		},
		{
			name: "process ends in a test",
			events: `{"Action":"output","Package":"m/a","Test":"TestX","Output":"exit status 3\n"}
{"Action":"output","Package":"m/a","Output":"FAIL\tm/a\t0.002s\n"}
{"Action":"fail","Package":"m/a","Elapsed":0.002}`,
			failed: 1, prints: "exit status 3\nFAIL\tm/a\t0.002s\n",
		},
		{
			name: "build",
			events: `{"ImportPath":"m/a [m/a.test]","Action":"build-output","Output":"a.go:3: undefined: x\n"}
{"ImportPath":"m/a [m/a.test]","Action":"build-fail"}
{"Action":"output","Package":"m/a","Output":"FAIL\tm/a [build failed]\n"}
{"Action":"fail","Package":"m/a","Elapsed":0,"FailedBuild":"m/a [m/a.test]"}`,
			failed: 1, prints: "a.go:3: undefined: x\nFAIL\tm/a [build failed]\n",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			got, err := follow(strings.NewReader(c.events), &out)
			if err != nil {
				t.Fatal(err)
			}
			if got.passed != c.passed || got.failed != c.failed || !slices.Equal(got.skipped, c.skipped) {
				t.Errorf("tally %+v, want %d passed, %d failed, skipped %v", got, c.passed, c.failed, c.skipped)
			}
			if out.String() != c.prints {
				t.Errorf("prints %q, want %q", out.String(), c.prints)
			}
		})
	}
}

func TestFollowRefusesOtherOutput(t *testing.T) {
	if _, err := follow(strings.NewReader("go: no such tool"), &strings.Builder{}); err == nil {
		t.Error("no error for output that is no event")
	}
}

func TestChoose(t *testing.T) {
	got, err := choose([]string{"race", "unit"})
	if err != nil || len(got) != 2 || got[0].name != "unit" || got[1].name != "race" {
		t.Errorf("chosen %v, error %v; want unit, race", got, err)
	}
	if _, err := choose([]string{"uint"}); err == nil || !strings.Contains(err.Error(), `no stage "uint", only unit,`) {
		t.Errorf("a stage that is not there: %v", err)
	}
}
