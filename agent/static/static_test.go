package static_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"

	"hansa.dev/hansa/agent/static"
	"hansa.dev/hansa/api/kinds"
)

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

const head = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers: [{name: app, image: i}]\n"

func reader(path string) *static.Reader {
	return &static.Reader{Node: "n1", Pods: kinds.Registry().Must("", "pods"), Path: path, HTTP: http.DefaultClient}
}

// "Create static Pods": what the node adds to a file.
func TestFile(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.yaml", head)
	write(t, dir, ".hidden", "nonsense")
	write(t, dir, "b.json", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"api","namespace":"kube-system","uid":"own"},"spec":{"containers":[{"name":"c","image":"i"}]}}`)
	pods, errs := reader(dir).Files()
	if len(errs) > 0 || len(pods) != 2 {
		t.Fatal(pods, errs)
	}
	p := pods[0]
	if p.Name != "web-n1" || p.Namespace != "default" || p.Spec.NodeName != "n1" || len(p.UID) != 32 || p.Annotations["kubernetes.io/config.hash"] != string(p.UID) ||
		p.Annotations["kubernetes.io/config.source"] != "file" || p.Spec.RestartPolicy != v1.RestartPolicyAlways || p.Status.Phase != v1.PodPending ||
		p.Spec.Tolerations[0].Effect != v1.TaintEffectNoExecute || p.Spec.Containers[0].ImagePullPolicy != v1.PullAlways {
		t.Errorf("%+v", p)
	}
	if pods[1].UID != "own" || pods[1].Namespace != "kube-system" {
		t.Errorf("%+v", pods[1])
	}
	again, _ := reader(dir).Files()
	if again[0].UID != p.UID {
		t.Error("another UID for the same file")
	}
	write(t, dir, "a.yaml", strings.Replace(head, "image: i", "image: j", 1))
	if changed, _ := reader(dir).Files(); changed[0].UID == p.UID {
		t.Error("the same UID for another pod")
	}
	if pods, errs := reader(filepath.Join(dir, "b.json")).Files(); len(pods) != 1 || len(errs) != 0 {
		t.Error("a single file:", pods, errs)
	}
	if pods, errs := reader(filepath.Join(dir, "none")).Files(); len(pods)+len(errs) != 0 {
		t.Error("no directory:", pods, errs)
	}
}

// A bad file does not keep the others from running, and says what is wrong.
func TestInvalid(t *testing.T) {
	for text, want := range map[string]string{
		"x: [":                                                     "did not find expected",
		"apiVersion: v1\nkind: Service\n":                          `apiVersion "v1", kind "Service": it has to be v1, Pod`,
		"apiVersion: v1\nkind: Pod\n":                              "metadata.name is missing",
		strings.Replace(head, "web", "We b", 1):                    "metadata: default/We b-n1: ",
		strings.Replace(head, "image: i", "x: 1", 1):               "spec.containers[0].image: Required value",
		head + "  serviceAccountName: me\n":                        "static pods may not reference serviceaccounts",
		head + "  volumes: [{name: v, secret: {secretName: s}}]\n": "static pods may not reference secrets",
		head + "  volumes: [{name: v, projected: {sources: [{configMap: {name: c}}]}}]\n":                                   "static pods may not reference configmaps",
		head + "  volumes: [{name: v, persistentVolumeClaim: {claimName: c}}]\n":                                            "static pods may not reference persistentvolumeclaims",
		strings.Replace(head, "image: i", "image: i, envFrom: [{secretRef: {name: s}}]", 1):                                 "static pods may not reference secrets",
		strings.Replace(head, "image: i", "image: i, env: [{name: a, valueFrom: {configMapKeyRef: {name: s, key: k}}}]", 1): "static pods may not reference configmaps",
	} {
		dir := t.TempDir()
		write(t, dir, "bad.yaml", text)
		write(t, dir, "good.yaml", strings.Replace(head, "web", "good", 1))
		pods, errs := reader(dir).Files()
		if len(pods) != 1 || len(errs) != 1 || !strings.Contains(errs[0].Error(), want) || !strings.Contains(errs[0].Error(), "bad.yaml") {
			t.Errorf("%s: %v, want %s", text, errs, want)
		}
	}
	dir := t.TempDir()
	write(t, dir, "a.yaml", head)
	write(t, dir, "b.yaml", head)
	if pods, errs := reader(dir).Files(); len(pods) != 1 || len(errs) != 1 || errs[0].Error() != "static pod default/web-n1: it is there twice" {
		t.Error(pods, errs)
	}
}

// staticPodURL: a pod or a list, with the headers that are set.
func TestURL(t *testing.T) {
	var answer string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Key") != "1" {
			http.Error(w, "who?", http.StatusForbidden)
			return
		}
		w.Write([]byte(answer))
	}))
	defer server.Close()
	r := reader("")
	r.URL = server.URL
	if _, _, err := r.Fetch(t.Context()); err == nil || !strings.Contains(err.Error(), "403 Forbidden") {
		t.Error(err)
	}
	r.Header = http.Header{"X-Key": {"1"}}
	if _, _, err := r.Fetch(t.Context()); err == nil || !strings.Contains(err.Error(), "the answer is empty") {
		t.Error(err)
	}
	answer = head
	pods, errs, err := r.Fetch(t.Context())
	if err != nil || len(errs) > 0 || len(pods) != 1 || pods[0].Annotations["kubernetes.io/config.source"] != "http" {
		t.Error(pods, errs, err)
	}
	answer = "apiVersion: v1\nkind: PodList\nitems:\n- {metadata: {name: a}, spec: {containers: [{name: c, image: i}]}}\n- {metadata: {}}\n"
	pods, errs, err = r.Fetch(t.Context())
	if err != nil || len(errs) != 1 || len(pods) != 1 || pods[0].Name != "a-n1" {
		t.Error(pods, errs, err)
	}
}
