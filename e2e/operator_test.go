package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// operatorVariable hands the manifests of examples/operator to the machines,
// which may not see the checkout.
const operatorVariable = "HANSA_E2E_OPERATOR"

// operatorManifests are those of examples/operator in one, the definition first.
func operatorManifests() (string, error) {
	var all []string
	for _, pattern := range []string{"crd/*.yaml", "*.yaml", "webhook/*.yaml"} {
		files, err := filepath.Glob(filepath.Join("..", "examples", "operator", "manifests", pattern))
		if err != nil {
			return "", err
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				return "", err
			}
			all = append(all, string(data))
		}
	}
	if len(all) < 3 {
		return "", fmt.Errorf("examples/operator has only %d manifests", len(all))
	}
	return strings.Join(all, "\n---\n"), nil
}

// The operator of examples/operator, deployed by its manifests, does what its
// own tests show by envtest: webhooks by their service, conversion, status, and
// what it deploys answers.
func TestOperator(t *testing.T) {
	t.Parallel()
	manifests := os.Getenv(operatorVariable)
	kubectl := func(in string, args ...string) (string, error) {
		var out, errOut bytes.Buffer
		err := shared.pipe(t.Context(), strings.NewReader(in), &out, &errOut, append([]string{"kubectl", "--data-dir", shared.dir}, args...)...)
		if err != nil {
			err = fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, errOut.String())
		}
		return out.String(), err
	}
	must := func(in string, args ...string) string {
		t.Helper()
		out, err := kubectl(in, args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	must(manifests, "apply", "-f", "-")
	s := newSpace(t, shared)
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := shared.kubectl("-n", "operator", "logs", "deployment/operator", "--tail=30")
			t.Log(out)
		}
		if _, err := shared.kubectl("delete", "mutatingwebhookconfigurations,validatingwebhookconfigurations,crd", "greeters.example.com", "--ignore-not-found"); err != nil {
			t.Error(err)
		}
		if _, err := shared.kubectl("delete", "namespace", "operator", "--wait=false"); err != nil {
			t.Error(err)
		}
	})
	must("", "-n", "operator", "rollout", "status", "deployment/operator", "--timeout=120s")

	// Written in the old version, filled in by the webhooks of the new one.
	greeter := func(count int) string {
		return fmt.Sprintf("apiVersion: example.com/v1beta1\nkind: Greeter\nmetadata: {name: hello}\nspec: {message: hello, count: %d}\n", count)
	}
	await(t, "the webhooks answer by their service", func() error {
		_, err := kubectl(greeter(2), "-n", s.name, "apply", "-f", "-")
		return err
	})
	s.kubectl("wait", "greeter/hello", "--for=condition=Ready", "--timeout=60s")
	if got := s.kubectl("get", "greeters.v1.example.com", "hello", "-o", "jsonpath={.spec.text} {.spec.replicas} {.spec.image} {.status.readyReplicas}"); got != "hello 2 hansa.local/operator:1 2" {
		t.Errorf("as v1 it is %q", got)
	}
	if _, err := kubectl(greeter(11), "-n", s.name, "apply", "-f", "-"); err == nil || !strings.Contains(err.Error(), "must be between 0 and 10") {
		t.Errorf("too many of them: %v", err)
	}
	s.create("client", "containers:\n- {name: main, image: hansa.local/busybox:1, command: [sleep, \"1000\"]}\n")
	s.ready("client")
	await(t, "what it deploys answers", func() error {
		if got, _, err := s.execIn("client", "main", "wget", "-qO-", "http://hello/"); err != nil || got != "hello\n" {
			return fmt.Errorf("the answer is %q, %w", got, err)
		}
		return nil
	})
	s.kubectl("scale", "greeter/hello", "--replicas=1")
	s.kubectl("wait", "greeter/hello", "--for=jsonpath={.status.readyReplicas}=1", "--timeout=60s")
	if got := must("", "-n", "operator", "get", "configmap", "greeters", "-o", "jsonpath={.data}"); !strings.Contains(got, s.name+".hello") {
		t.Errorf("the directory is %s", got)
	}
	// One leads, whatever becomes of the other.
	if got := must("", "-n", "operator", "get", "lease", "greeters.example.com", "-o", "jsonpath={.spec.holderIdentity}"); !strings.HasPrefix(got, "operator-") {
		t.Errorf("the leader is %q", got)
	}
	s.kubectl("delete", "greeter/hello", "--timeout=60s")
	await(t, "what it owned goes with it", func() error {
		if got := s.kubectl("get", "deployments,services", "-o", "name"); got != "" {
			return fmt.Errorf("there is still %s", got)
		}
		return nil
	})
	if got := must("", "-n", "operator", "get", "configmap", "greeters", "-o", "jsonpath={.data}"); strings.Contains(got, s.name+".hello") {
		t.Errorf("the directory is still %s", got)
	}
}
