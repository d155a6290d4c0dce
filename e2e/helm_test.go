package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
)

// helm is a version of Helm and a copy of the chart in testdata, whose custom
// resources are in a group of its own.
type helm struct {
	*space
	version, chart, group string
}

// newHelm prepares a version of Helm for a space.
func newHelm(s *space, version string) *helm {
	s.t.Helper()
	h := &helm{space: s, version: version, chart: filepath.Join(s.t.TempDir(), "app"), group: s.name + ".example.com"}
	err := filepath.WalkDir("testdata/charts/app", func(path string, d fs.DirEntry, err error) error {
		to := filepath.Join(h.chart, strings.TrimPrefix(path, "testdata/charts/app"))
		if err != nil || d.IsDir() {
			return errorOr(err, os.MkdirAll(to, 0o755))
		}
		b, err := os.ReadFile(path)
		return errorOr(err, os.WriteFile(to, bytes.ReplaceAll(b, []byte("GROUP"), []byte(h.group)), 0o644))
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { // what Helm never deletes
		if _, err := s.cluster.kubectl("delete", "crd", "gadgets."+h.group, "--ignore-not-found", "--wait=false"); err != nil {
			s.t.Error(err)
		}
	})
	return h
}

func errorOr(first, second error) error {
	if first != nil {
		return first
	}
	return second
}

// run runs a command of Helm and returns what it printed.
func (h *helm) run(args ...string) (string, error) {
	program := filepath.Join("..", ".cache", "clients", "current", "helm-"+h.version)
	if _, err := os.Stat(program); err != nil {
		h.t.Fatalf("%v: go run ./hack/build -clients makes it", err)
	}
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, append(args, "--kubeconfig", h.dir+"/kubeconfig", "-n", h.name)...)
	home := filepath.Dir(h.chart)
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("helm-%s %s: %w: %s", h.version, strings.Join(args, " "), err, out)
	}
	return string(out), err
}

// must is run for what has to succeed; its output has the words given.
func (h *helm) must(args []string, words ...string) string {
	h.t.Helper()
	out, err := h.run(args...)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, w := range words {
		if !strings.Contains(out, w) {
			h.t.Errorf("helm-%s %s lacks %q:\n%s", h.version, strings.Join(args, " "), w, out)
		}
	}
	return out
}

// fails is run for what must not succeed, and why.
func (h *helm) fails(args []string, words ...string) {
	h.t.Helper()
	_, err := h.run(args...)
	if err == nil {
		h.t.Fatalf("helm-%s %s succeeded", h.version, strings.Join(args, " "))
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			h.t.Errorf("it lacks %q: %v", w, err)
		}
	}
}

// with are the arguments of install or upgrade of the chart.
func (h *helm) with(verb string, more ...string) []string {
	return append([]string{verb, "app", h.chart, "--set", "group=" + h.group, "--timeout", patience.String()}, more...)
}

// history lists the revisions as "NUMBER STATUS".
func (h *helm) history() string {
	h.t.Helper()
	var revisions []struct {
		Revision int
		Status   string
	}
	if err := json.Unmarshal([]byte(h.must([]string{"history", "app", "-o", "json"})), &revisions); err != nil {
		h.t.Fatal(err)
	}
	var all []string
	for _, r := range revisions {
		all = append(all, fmt.Sprint(r.Revision, " ", r.Status))
	}
	return strings.Join(all, ", ")
}

// want compares the history and values of the objects, by jsonpath.
func (h *helm) want(history string, values ...string) {
	h.t.Helper()
	if got := h.history(); got != history {
		h.t.Errorf("history is %s, want %s", got, history)
	}
	for i := 0; i < len(values); i += 3 {
		if got := h.kubectl("get", values[i], "-o", "jsonpath="+values[i+1]); got != values[i+2] {
			h.t.Errorf("%s %s is %q, want %q", values[i], values[i+1], got, values[i+2])
		}
	}
}

// absent demands that there is no such object.
func (h *helm) absent(kind, name string) {
	h.t.Helper()
	if out := h.kubectl("get", kind, name, "--ignore-not-found"); out != "" {
		h.t.Errorf("there is %s", out)
	}
}

const (
	readyReplicas = "{.status.readyReplicas}"
	word          = "{.spec.template.spec.containers[0].env[0].value}"
)

// TestHelm is about the releases of Helm 3 and 4, with pods that really run.
func TestHelm(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"3", "4"} {
		for _, r := range []struct {
			noun  string
			check func(*helm)
		}{
			{"install, upgrade, rollback, test, uninstall", helmLife},
			{"dry run and template", helmDryRun},
			{"rollback on failure", helmRollsBack},
			{"ownership", helmOwnership},
		} {
			t.Run(version+" "+r.noun, func(t *testing.T) {
				t.Parallel()
				r.check(newHelm(newSpace(t, shared), version))
			})
		}
	}
	t.Run("4 goes on with a release of 3", func(t *testing.T) {
		t.Parallel()
		helmSuccession(newSpace(t, shared))
	})
}

func helmLife(h *helm) {
	h.kubectl("create", "configmap", "before", "--from-literal=key=found")
	h.must(h.with("install", "--wait", "--wait-for-jobs"), "STATUS: deployed", "app says one")
	h.want("1 deployed",
		"deployment/app", readyReplicas, "1",
		"configmap/app", "{.data.looked-up} {.data.not-there} {.data.accounts} {.data.has-deployments} {.data.has-gadgets}", "found true 1 true true",
		"gadgets."+h.group+"/app", "{.spec.size} {.spec.word}", "3 one",
		"job/app-post-install", "{.status.succeeded}", "1",
		"configmap/app-first", "{.metadata.name}", "app-first")
	h.absent("job", "app-pre-install") // deleted when it had succeeded
	h.absent("configmap", "app-db")
	status := []string{"status", "app"}
	if h.version == "3" { // the next one always does
		status = append(status, "--show-resources")
	}
	h.must(status, "==> v1/Deployment", "==> v1/Gadget", "STATUS: deployed")
	h.must([]string{"get", "hooks", "app"}, "pre-install", "pre-delete")
	h.must([]string{"get", "manifest", "app"}, "kind: Gadget")
	h.must([]string{"get", "notes", "app"}, "app says one")
	h.must([]string{"list", "--filter", "^app$"}, "app-1.0.0")
	h.must([]string{"test", "app", "--logs", "--timeout", patience.String()}, "Succeeded", "one")

	h.must(h.with("upgrade", "--set", "replicas=2,word=two,db.enabled=true", "--wait"), "REVISION: 2")
	h.want("1 superseded, 2 deployed", "deployment/app", readyReplicas, "2", "deployment/app", word, "two",
		"configmap/app-db", "{.data.size} {.data.owner}", "7 parent", "job/app-pre-upgrade", "{.status.succeeded}", "1")
	h.must([]string{"get", "values", "app"}, "word: two")
	h.must([]string{"test", "app", "--logs", "--timeout", patience.String()}, "Succeeded", "two")

	h.must([]string{"rollback", "app", "1", "--wait", "--timeout", patience.String()}, "Rollback was a success")
	h.want("1 superseded, 2 superseded, 3 deployed", "deployment/app", word, "one", "deployment/app", "{.spec.replicas}", "1")
	h.absent("configmap", "app-db")

	h.must([]string{"uninstall", "app", "--wait", "--keep-history", "--timeout", patience.String()}, "uninstalled")
	for _, kind := range []string{"deployment", "service", "configmap", "gadgets." + h.group} {
		h.absent(kind, "app")
	}
	h.want("1 superseded, 2 superseded, 3 uninstalled", "crd/gadgets."+h.group, "{.metadata.name}", "gadgets."+h.group,
		"job/app-pre-delete", "{.status.succeeded}", "1")
	h.must([]string{"uninstall", "app", "--timeout", patience.String()})
	h.fails([]string{"status", "app"}, "release: not found")
	if out := h.kubectl("get", "secrets", "-l", "owner=helm", "-o", "name"); out != "" {
		h.t.Errorf("left behind: %s", out)
	}
}

func helmDryRun(h *helm) {
	h.kubectl("create", "configmap", "before", "--from-literal=key=found")
	// Without the definition, the custom resource is refused by its kind.
	h.fails(h.with("install", "--dry-run=server", "--skip-crds"), "Gadget")
	template := h.with("template", "--dry-run=server")
	if h.version == "3" { // the next one validates whenever it asks the server
		h.must(h.with("template", "--dry-run=server", "--kube-version", "1.37.2"), "looked-up: \"found\"")
		template = append(template, "--validate")
	}
	h.fails(template, `no matches for kind "Gadget" in version "`+h.group+`/v1"`)
	h.kubectl("apply", "-f", filepath.Join(h.chart, "crds"))
	h.kubectl("wait", "--for=condition=Established", "crd/gadgets."+h.group)
	h.must(h.with("install", "--dry-run=server"), "looked-up: \"found\"", "kube: \"v1.37.2")
	h.must(template, "kind: Gadget", "looked-up: \"found\"")
	// What only a write finds out, no dry run of Helm's does.
	broken := filepath.Join(h.chart, "templates", "broken.yaml")
	if err := os.WriteFile(broken, []byte("apiVersion: v1\nkind: Service\nmetadata: {name: broken}\nspec: {ports: [{port: eighty}]}\n"), 0o644); err != nil {
		h.t.Fatal(err)
	}
	refused := `Service in version "v1" cannot be handled as a Service`
	if h.version == "4" {
		refused = `.spec.ports[port="eighty",protocol="TCP"].port: expected numeric (int or float), got string`
	}
	h.fails(h.with("install"), refused)
	h.must([]string{"list", "--failed"}, "app-1.0.0")
}

// helmRollsBack: an upgrade whose hook fails, or whose pods do not get ready,
// leaves the release as it was.
func helmRollsBack(h *helm) {
	atomic := "--atomic"
	if h.version == "4" {
		atomic = "--rollback-on-failure"
	}
	h.must(h.with("install", "--wait"), "deployed")
	h.fails(h.with("upgrade", "--set", "word=two,failUpgrade=true", atomic), "pre-upgrade")
	h.want("1 superseded, 2 failed, 3 deployed", "deployment/app", word, "one", "deployment/app", readyReplicas, "1")
	h.fails(h.with("upgrade", "--set", "replicas=-1", atomic), "spec.replicas: Invalid value: -1")
	h.want("1 superseded, 2 failed, 3 superseded, 4 failed, 5 deployed", "deployment/app", "{.spec.replicas}", "1")
	h.must([]string{"uninstall", "app", "--no-hooks", "--timeout", patience.String()})
	h.fails(h.with("install", atomic, "--set", "replicas=-1"), "spec.replicas: Invalid value: -1")
	h.fails([]string{"status", "app"}, "not found")
}

// helmOwnership: objects of others are left alone unless told otherwise, and
// what was changed by hand becomes as declared again.
func helmOwnership(h *helm) {
	h.kubectl("create", "service", "clusterip", "app", "--tcp=80")
	h.fails(h.with("install"), "exists and cannot be imported into the current release")
	take := h.with("install", "--take-ownership", "--wait")
	if h.version == "4" { // it applies on the server's side
		h.fails(take, `conflict with "kubectl-create" using v1: .spec.ports[port=80,protocol="TCP"].targetPort`)
		h.must([]string{"uninstall", "app", "--no-hooks"})
		take = append(take, "--force-conflicts")
	}
	h.must(take)
	if got := h.kubectl("get", "service", "app", "-o", "jsonpath={.metadata.labels['app\\.kubernetes\\.io/managed-by']}"); got != "Helm" {
		h.t.Errorf("the service is managed by %q", got)
	}
	h.kubectl("set", "env", "deployment/app", "WORD=hand")
	if h.version == "4" {
		h.fails(h.with("upgrade", "--set", "word=two"), "conflict", ".spec.template.spec.containers")
		h.must(h.with("upgrade", "--set", "word=two", "--force-conflicts", "--wait"))
		client, err := dynamic.NewForConfig(h.config)
		if err != nil {
			h.t.Fatal(err)
		}
		u, err := client.Resource(schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}).Namespace(h.name).Get(h.t.Context(), "app", metav1.GetOptions{})
		if err != nil || !appliedBy(u, "helm") {
			h.t.Errorf("helm owns nothing: %v %v", err, u.GetManagedFields())
		}
	} else {
		h.must(h.with("upgrade", "--set", "word=two", "--wait"))
	}
	h.want(h.history(), "deployment/app", word, "two", "deployment/app", readyReplicas, "1")
	h.must([]string{"uninstall", "app", "--wait", "--cascade", "foreground", "--timeout", patience.String()})
	if _, err := h.client.AppsV1().Deployments(h.name).Get(h.t.Context(), "app", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		h.t.Errorf("the deployment: %v", err)
	}
}

func appliedBy(u *unstructured.Unstructured, manager string) bool {
	for _, m := range u.GetManagedFields() {
		if m.Manager == manager && m.Operation == metav1.ManagedFieldsOperationApply {
			return true
		}
	}
	return false
}

// helmSuccession: a release begun by Helm 3 is upgraded by Helm 4, in either way
// of updating, rolled back and uninstalled.
func helmSuccession(s *space) {
	three := newHelm(s, "3")
	three.must(three.with("install", "--wait"))
	four := &helm{space: s, version: "4", chart: three.chart, group: three.group}
	four.must(four.with("upgrade", "--set", "word=two", "--wait"))
	four.want("1 superseded, 2 deployed", "deployment/app", word, "two")
	four.must(four.with("upgrade", "--set", "word=three", "--server-side=true", "--force-conflicts", "--wait"))
	four.want("1 superseded, 2 superseded, 3 deployed", "deployment/app", word, "three", "deployment/app", readyReplicas, "1")
	four.must([]string{"rollback", "app", "1", "--wait", "--timeout", patience.String()})
	four.want("1 superseded, 2 superseded, 3 superseded, 4 deployed", "deployment/app", word, "one")
	four.must([]string{"uninstall", "app", "--wait", "--timeout", patience.String()})
}
