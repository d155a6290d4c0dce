package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/client-go/util/exec"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"
)

// A space is a test's own namespace of a cluster. Its methods fail the test
// when the cluster does not do what they are about.
type space struct {
	*cluster
	t    testing.TB
	name string
}

// newSpace makes a namespace that goes with the test.
func newSpace(t testing.TB, c *cluster) *space {
	t.Helper()
	ns, err := c.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s := &space{cluster: c, t: t, name: ns.Name}
	t.Cleanup(func() {
		if c.process == nil {
			return // taken down by the test
		}
		if t.Failed() {
			s.explain()
		}
		// Nobody waits: the cluster has other things to do too.
		if err := c.client.CoreV1().Namespaces().Delete(context.Background(), ns.Name, metav1.DeleteOptions{}); err != nil {
			t.Errorf("delete namespace: %v", err)
		}
	})
	await(t, "the default service account", func() error {
		_, err := c.client.CoreV1().ServiceAccounts(s.name).Get(t.Context(), "default", metav1.GetOptions{})
		return err
	})
	return s
}

// explain shows what became of a failed test's pods.
func (s *space) explain() {
	for _, args := range [][]string{{"get", "pods", "-o", "wide"}, {"get", "events", "--sort-by=.lastTimestamp"}} {
		out, err := s.cluster.kubectl(append([]string{"-n", s.name}, args...)...)
		s.t.Logf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// await calls f until it returns no error.
func await(t testing.TB, what string, f func() error) {
	t.Helper()
	deadline := time.After(patience)
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-again.C:
		case <-deadline:
			t.Fatalf("%s: not so after %s: %v", what, patience, err)
		}
	}
}

// kubectl runs the carried kubectl in the space.
func (s *space) kubectl(args ...string) string {
	s.t.Helper()
	out, err := s.cluster.kubectl(append([]string{"-n", s.name}, args...)...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// apply applies manifests.
func (s *space) apply(manifests string) {
	s.t.Helper()
	var out, errOut bytes.Buffer
	err := s.pipe(s.t.Context(), strings.NewReader(manifests), &out, &errOut, "kubectl", "--data-dir", s.dir, "-n", s.name, "apply", "-f", "-")
	if err != nil {
		s.t.Fatalf("kubectl apply: %v: %s", err, errOut.Bytes())
	}
}

// create makes a pod of a spec in YAML. Pods whose spec says nothing of it get
// a second to end: nobody needs the end of most.
func (s *space) create(name, spec string) *corev1.Pod {
	s.t.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}}}
	if err := yaml.UnmarshalStrict([]byte(spec), &p.Spec); err != nil {
		s.t.Fatalf("spec of pod %s: %v", name, err)
	}
	return s.createPod(p)
}

// podOf reads a pod's metadata and spec.
func podOf(t testing.TB, name, text string) *corev1.Pod {
	t.Helper()
	p := &corev1.Pod{}
	if err := yaml.UnmarshalStrict([]byte(text), p); err != nil {
		t.Fatalf("pod %s: %v", name, err)
	}
	p.Name = name
	return p
}

func (s *space) createPod(p *corev1.Pod) *corev1.Pod {
	s.t.Helper()
	if p.Spec.TerminationGracePeriodSeconds == nil {
		p.Spec.TerminationGracePeriodSeconds = ptr.To[int64](1)
	}
	made, err := s.client.CoreV1().Pods(s.name).Create(s.t.Context(), p, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return made
}

// until watches a pod until the condition holds, and sees every state between.
func (s *space) until(name, what string, holds func(*corev1.Pod) bool) *corev1.Pod {
	s.t.Helper()
	ctx, cancel := context.WithTimeoutCause(s.t.Context(), patience, errors.New("not so after "+patience.String()))
	defer cancel()
	pods := s.client.CoreV1().Pods(s.name)
	p, err := pods.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	for !holds(p) {
		w, err := pods.Watch(ctx, metav1.ListOptions{
			FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String(), ResourceVersion: p.ResourceVersion,
		})
		if err != nil {
			s.t.Fatalf("watch pod %s: %v", name, err)
		}
		p = follow(ctx, w, p, holds)
		w.Stop()
		if ctx.Err() != nil {
			status, _ := yaml.Marshal(p.Status)
			s.t.Fatalf("pod %s, until %s: %v\n%s", name, what, context.Cause(ctx), status)
		}
	}
	return p
}

// follow returns the first pod of a watch for which the condition holds, or the
// last one before the watch ended.
func follow(ctx context.Context, w watch.Interface, p *corev1.Pod, holds func(*corev1.Pod) bool) *corev1.Pod {
	for {
		select {
		case <-ctx.Done():
			return p
		case e, ok := <-w.ResultChan():
			next, isPod := e.Object.(*corev1.Pod)
			if !ok || !isPod {
				return p
			}
			if p = next; holds(p) {
				return p
			}
		}
	}
}

// ready waits until a pod is ready.
func (s *space) ready(name string) *corev1.Pod {
	s.t.Helper()
	return s.until(name, "it is ready", func(p *corev1.Pod) bool { return condition(p, corev1.PodReady) == corev1.ConditionTrue })
}

// finished waits until a pod has ended.
func (s *space) finished(name string) *corev1.Pod {
	s.t.Helper()
	return s.until(name, "it has ended", func(p *corev1.Pod) bool {
		return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	})
}

func condition(p *corev1.Pod, kind corev1.PodConditionType) corev1.ConditionStatus {
	for _, c := range p.Status.Conditions {
		if c.Type == kind {
			return c.Status
		}
	}
	return ""
}

// gone waits until there is no such pod.
func (s *space) gone(name string) {
	s.t.Helper()
	await(s.t, "pod "+name+" is gone", func() error {
		_, err := s.client.CoreV1().Pods(s.name).Get(s.t.Context(), name, metav1.GetOptions{})
		if err == nil {
			return errors.New("it is there")
		}
		return nil
	})
}

// logs reads a container's log.
func (s *space) logs(pod, container string) string {
	s.t.Helper()
	return s.logsOf(pod, &corev1.PodLogOptions{Container: container})
}

func (s *space) logsOf(pod string, o *corev1.PodLogOptions) string {
	s.t.Helper()
	b, err := s.client.CoreV1().Pods(s.name).GetLogs(pod, o).DoRaw(s.t.Context())
	if err != nil {
		s.t.Fatalf("logs of %s: %v", pod, err)
	}
	return string(b)
}

// output runs a pod to its end, with the exit code given or 0, and returns what
// its first container logged.
func (s *space) output(name, spec string, code ...int32) string {
	s.t.Helper()
	first := s.create(name, spec).Spec.Containers[0].Name
	p, got := s.finished(name), s.logs(name, first)
	want := append(code, 0)[0]
	if e := p.Status.ContainerStatuses[0].State.Terminated; e == nil || e.ExitCode != want {
		s.t.Fatalf("pod %s ended so, want exit code %d: %+v\n%s", name, want, p.Status.ContainerStatuses[0].State, got)
	}
	return got
}

// exec runs a command in a pod's container main and returns its output; it has
// to succeed.
func (s *space) exec(pod string, words ...string) string {
	s.t.Helper()
	out, code, err := s.execIn(pod, "main", words...)
	if err != nil || code != 0 {
		s.t.Fatalf("exec %q in %s: exit code %d, %v: %s", words, pod, code, err, out)
	}
	return out
}

// execIn runs a command and returns its output, both streams, and exit code.
// The two do not share a buffer: they are written at the same time.
func (s *space) execIn(pod, container string, words ...string) (string, int, error) {
	r := s.client.CoreV1().RESTClient().Post().Namespace(s.name).Resource("pods").Name(pod).SubResource("exec").
		Param("container", container).Param("stdout", "true").Param("stderr", "true")
	for _, w := range words {
		r.Param("command", w)
	}
	e, err := remotecommand.NewWebSocketExecutor(s.config, "GET", r.URL().String())
	if err != nil {
		return "", 0, err
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	var out, errOut bytes.Buffer
	err = e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &out, Stderr: &errOut})
	var exit utilexec.CodeExitError
	if errors.As(err, &exit) {
		return out.String() + errOut.String(), exit.Code, nil
	}
	return out.String() + errOut.String(), 0, err
}

// events are the reasons and messages of a pod's events, oldest first.
func (s *space) events(pod string) []string {
	s.t.Helper()
	list, err := s.client.CoreV1().Events(s.name).List(s.t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=" + pod})
	if err != nil {
		s.t.Fatal(err)
	}
	var out []string
	for _, e := range list.Items {
		out = append(out, fmt.Sprintf("%s %s: %s", e.Type, e.Reason, e.Message))
	}
	return out
}

// event waits for an event of a pod that contains the text.
func (s *space) event(pod, text string) {
	s.t.Helper()
	await(s.t, fmt.Sprintf("an event %q of pod %s", text, pod), func() error {
		all := s.events(pod)
		for _, e := range all {
			if strings.Contains(e, text) {
				return nil
			}
		}
		return fmt.Errorf("there are only:\n%s", strings.Join(all, "\n"))
	})
}
