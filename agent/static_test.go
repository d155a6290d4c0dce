package agent_test

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	v1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/client"
)

func manifest(t *testing.T, dir, name, command string) {
	t.Helper()
	text := "apiVersion: v1\nkind: Pod\nmetadata: {name: " + name + "}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers: [{name: app, image: \"" + image + "\", imagePullPolicy: IfNotPresent, args: [\"" + command + "\"]}]\n"
	// As tools do it: complete under another name first.
	hidden := filepath.Join(dir, "."+name)
	if err := os.WriteFile(hidden, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(hidden, filepath.Join(dir, name+".yaml")); err != nil {
		t.Fatal(err)
	}
}

// "Create static Pods": a mirror pod shows each, comes back when it is deleted,
// follows the file, and goes with it.
func TestStaticPods(t *testing.T) {
	dir := t.TempDir()
	manifest(t, dir, "web", "one")
	r := configured(t, map[string]any{"staticPodPath": dir})
	r.start()
	p := r.wait("web-n1", "a mirror that is ready", isReady)
	hash := p.Annotations["kubernetes.io/config.hash"]
	owner := metav1.GetControllerOf(p)
	if p.Annotations["kubernetes.io/config.mirror"] != hash || p.Annotations["kubernetes.io/config.source"] != "file" || p.Annotations["kubernetes.io/config.seen"] == "" ||
		string(p.UID) == hash || owner == nil || owner.Kind != "Node" || owner.Name != "n1" {
		t.Errorf("%+v", p.ObjectMeta)
	}
	starts := func() int {
		n := 0
		for _, c := range r.runtime.Calls() {
			if strings.HasPrefix(c, "StartContainer") {
				n++
			}
		}
		return n
	}
	began := starts()
	if err := r.client.Delete(t.Context(), api.RefTo(r.pods, p), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	p = r.wait("web-n1", "another mirror", func(now *v1.Pod) bool { return now != nil && now.UID != p.UID && isReady(now) })
	if starts() != began {
		t.Error("the containers of a deleted mirror were started again")
	}

	// Another agent adopts it.
	r.stop()
	r.start()
	manifest(t, dir, "other", "x")
	r.wait("other-n1", "a second pod", isReady)
	if now := r.get("web-n1"); now.UID != p.UID || starts() != began+1 {
		t.Errorf("after a restart: %s, %d starts", describe(now), starts())
	}

	manifest(t, dir, "web", "two")
	r.wait("web-n1", "the changed pod", func(now *v1.Pod) bool {
		return now != nil && now.Annotations["kubernetes.io/config.hash"] != hash && now.Spec.Containers[0].Args[0] == "two" && isReady(now)
	})
	if err := os.Remove(filepath.Join(dir, "web.yaml")); err != nil {
		t.Fatal(err)
	}
	r.wait("web-n1", "the end of the pod whose file is gone", func(now *v1.Pod) bool { return now == nil })
	if r.get("other-n1") == nil {
		t.Error("the other pod went, too")
	}
}

// Static pods are counted apart from the others.
func TestStaticPodsAreCounted(t *testing.T) {
	dir := t.TempDir()
	manifest(t, dir, "web", "one")
	r := configured(t, map[string]any{"staticPodPath": dir})
	r.start()
	for _, name := range []string{"a", "b"} {
		r.pod(name, nil)
	}
	for _, name := range []string{"web-n1", "a", "b"} {
		r.wait(name, "it is ready", isReady)
	}
	_, text := r.fetch("/metrics")
	for _, want := range []string{
		`kubelet_active_pods{static=""} 2`, `kubelet_active_pods{static="true"} 1`, `kubelet_desired_pods{static=""} 2`, `kubelet_desired_pods{static="true"} 1`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %s in %s", want, text)
		}
	}
}

// staticPodPath may come after the agent, go, and come again: it is looked for every
// fileCheckFrequency where not even its parent is there, and watched from then on.
func TestStaticPodPathComesAndGoes(t *testing.T) {
	for _, c := range []struct{ parent, frequency string }{{"", "1h"}, {"far/away", "10ms"}} {
		parent := filepath.Join(t.TempDir(), c.parent)
		dir := filepath.Join(parent, "manifests")
		r := configured(t, map[string]any{"staticPodPath": dir, "fileCheckFrequency": c.frequency})
		r.start()
		r.pod("other", nil)
		r.wait("other", "a pod of the API", isReady)
		for _, command := range []string{"one", "two", "two"} {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			manifest(t, dir, "web", command)
			r.wait("web-n1", "the pod of a directory that came", func(p *v1.Pod) bool { return isReady(p) && p.Spec.Containers[0].Args[0] == command })
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			r.wait("web-n1", "its end with the directory", func(p *v1.Pod) bool { return p == nil })
		}
	}
}

// staticPodURL is asked every httpCheckFrequency, with staticPodURLHeader; while it
// does not answer its pods run on.
func TestStaticPodURL(t *testing.T) {
	const list = `{"apiVersion": "v1", "kind": "PodList", "items": [{"metadata": {"name": "web"}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "app", "image": "` + image + `", "imagePullPolicy": "IfNotPresent", "args": ["%s"]}]}}]}`
	var answer atomic.Pointer[string]
	var asked atomic.Int32
	say := func(text string) { answer.Store(&text) }
	say(fmt.Sprintf(list, "one"))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if text := *answer.Load(); text != "" && slices.Equal(r.Header.Values("X-Node"), []string{"n1", "again"}) {
			fmt.Fprint(w, text)
			return
		}
		http.Error(w, "no", http.StatusForbidden)
	}))
	defer server.Close()
	r := configured(t, map[string]any{"staticPodURL": server.URL, "staticPodURLHeader": map[string]any{"X-Node": []any{"n1", "again"}}, "httpCheckFrequency": "10ms"})
	r.start()
	p := r.wait("web-n1", "a mirror that is ready", isReady)
	if p.Annotations["kubernetes.io/config.source"] != "http" {
		t.Errorf("%+v", p.ObjectMeta)
	}
	say("")
	before := asked.Load()
	r.eventually("refusals", func() bool { return asked.Load() > before+3 })
	if now := r.get("web-n1"); now == nil || now.UID != p.UID {
		t.Errorf("while nobody answers: %s", describe(now))
	}
	say(fmt.Sprintf(list, "two"))
	r.wait("web-n1", "the changed pod", func(p *v1.Pod) bool { return isReady(p) && p.Spec.Containers[0].Args[0] == "two" })
	say(`{"apiVersion": "v1", "kind": "PodList"}`)
	r.wait("web-n1", "its end", func(p *v1.Pod) bool { return p == nil })
}

// A file that is no pod is said once, in an event of the node.
func TestInvalidStaticPod(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "bad.yaml"), []byte("kind: Pod\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := configured(t, map[string]any{"staticPodPath": dir})
	r.start()
	manifest(t, dir, "web", "one")
	r.wait("web-n1", "the good pod", isReady)
	events := kinds.Registry().Must("", "events")
	r.eventually("one event", func() bool {
		n := 0
		for obj := range r.client.View().List(events, "") {
			if e, ok := obj.(*v1.Event); ok && e.Reason == "InvalidStaticPod" && strings.Contains(e.Message, "bad.yaml") {
				n += int(e.Count)
			}
		}
		return n == 1
	})
}

// away is the door to an API that is not there, and of whose objects nothing is
// known, until it comes.
type away struct {
	client.Interface
	come <-chan struct{}
}

func (a away) View() client.View { return awayView{a.Interface.View(), a.come} }

type awayView struct {
	client.View
	come <-chan struct{}
}

func (v awayView) WaitSynced(ctx context.Context, rows ...*api.Resource) error {
	select {
	case <-v.come:
		return v.View.WaitSynced(ctx, rows...)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (v awayView) ByIndex(r *api.Resource, index, value string) iter.Seq[api.Object] {
	select {
	case <-v.come:
		return v.View.ByIndex(r, index, value)
	default:
		return func(func(api.Object) bool) {}
	}
}

// Static pods run before there is an API server, and are shown once it is there.
func TestStaticPodsWithoutAPI(t *testing.T) {
	dir := t.TempDir()
	manifest(t, dir, "web", "one")
	r := configured(t, map[string]any{"staticPodPath": dir})
	come := make(chan struct{})
	r.door = func(c client.Interface) client.Interface { return away{c, come} }
	r.start()
	r.eventually("the container to run", func() bool {
		return slices.ContainsFunc(r.runtime.Calls(), func(c string) bool { return strings.HasPrefix(c, "StartContainer") })
	})
	if r.get("web-n1") != nil {
		t.Error("there is a mirror although there was no API")
	}
	close(come)
	r.wait("web-n1", "the mirror", isReady)
}

// A static pod is not evicted: nobody would admit it again.
func TestStaticPodsStay(t *testing.T) {
	dir := t.TempDir()
	manifest(t, dir, "web", "one")
	r := configured(t, map[string]any{"staticPodPath": dir, "evictionHard": map[string]any{"memory.available": "99%"}})
	r.start()
	r.wait("web-n1", "a mirror that is ready", isReady)
	r.pod("victim", func(p *v1.Pod) {
		p.Spec.Tolerations = []v1.Toleration{{Operator: v1.TolerationOpExists}}
		p.Spec.Priority = ptr.To[int32](5)
	})
	r.eventually("eviction of the other pod", func() bool {
		r.agent.KeepHouse(t.Context())
		p := r.get("victim")
		return p != nil && p.Status.Reason == "Evicted"
	})
	if p := r.get("web-n1"); !isReady(p) {
		t.Errorf("%s", describe(p))
	}
}

// "Runtime Class": a pod runs by the handler of its class.
func TestRuntimeClass(t *testing.T) {
	r := newRig(t)
	r.pod("early", func(p *v1.Pod) { p.Spec.RuntimeClassName = ptr.To("fast") })
	r.event("early", `FailedCreatePodSandBox: Failed to create pod sandbox: runtimeclass.node.k8s.io "fast" not found`)
	r.class(&nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "fast"}, Handler: "second"})
	r.wait("early", "Ready", isReady)
	boxes, err := r.runtime.Sandboxes(t.Context(), nil)
	if err != nil || len(boxes) != 1 || boxes[0].RuntimeHandler != "second" {
		t.Errorf("%v %v", boxes, err)
	}
}
