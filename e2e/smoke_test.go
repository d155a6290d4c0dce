package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// One pod, as one would try it by hand (landing place 2).
func TestOnePod(t *testing.T) {
	t.Parallel()
	s := newSpace(t, shared)
	s.kubectl("run", "one", "--image="+shell, "--", "sh", "-c", "echo hello; exec sleep 1000")
	s.ready("one")
	await(t, "its log", func() error {
		if got := s.kubectl("logs", "one"); got != "hello\n" {
			return fmt.Errorf("it is %q", got)
		}
		return nil
	})
	if got := s.kubectl("exec", "one", "--", "hostname"); got != "one\n" {
		t.Errorf("exec hostname: %q", got)
	}
	s.kubectl("delete", "pod", "one", "--grace-period=1")
	s.gone("one")
}

// Three pods answer by name from a fourth (landing place 3).
func TestThreePodsAnswerByName(t *testing.T) {
	t.Parallel()
	s := newSpace(t, shared)
	s.apply(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: greeter}
spec:
  replicas: 3
  selector: {matchLabels: {app: greeter}}
  template:
    metadata: {labels: {app: greeter}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: hansa.local/testimage:1
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: greeter}
spec:
  selector: {app: greeter}
  ports: [{port: 80, targetPort: 8080}]
`)
	s.kubectl("rollout", "status", "deployment/greeter", "--timeout=120s")
	s.create("fourth", `
containers:
- {name: main, image: hansa.local/busybox:1, command: [sleep, "1000"]}
`)
	s.ready("fourth")
	seen := map[string]bool{}
	await(t, "three pods answer by the service's name", func() error {
		seen[strings.TrimSpace(s.exec("fourth", "wget", "-qO-", "http://greeter/"))] = true
		if len(seen) != 3 {
			return fmt.Errorf("there answered %v", seen)
		}
		return nil
	})
}
