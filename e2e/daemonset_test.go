package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestDaemonSets is about DaemonSets with real pods. There is one node; what they do
// with several is tested beside their loop.
func TestDaemonSets(t *testing.T) {
	t.Parallel()
	for _, r := range []row{
		{"a DaemonSet runs and stops with its node's labels", daemonSelects},
		{"a DaemonSet is updated, undone and restarted by kubectl", daemonRollout},
		{"a DaemonSet surges: a new pod is ready before the old one goes", daemonSurges},
		{"a DaemonSet is updated in place: the old pod goes first", daemonInPlace},
		{"a DaemonSet replaces failed pods", daemonFails},
		{"ControllerRevisions of a DaemonSet: names, data, order, limit", daemonRevisions},
	} {
		t.Run(r.noun, func(t *testing.T) {
			t.Parallel()
			r.check(newSpace(t, shared))
		})
	}
}

// daemonSet is one of the test image; more is what its spec has besides, of the pod
// and of the set.
func daemonSet(name, word, pod, set string) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: %[1]s}
spec:
  %[4]s
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      %[3]s
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: hansa.local/testimage:1
        args: [serve]
        env: [{name: WORD, value: %[2]s}]
        ports: [{name: web, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /healthz, port: web}, periodSeconds: 1}
`, name, word, pod, set)
}

// oneOf is the one ready pod of an app.
func (s *space) oneOf(app string) corev1.Pod {
	s.t.Helper()
	var one corev1.Pod
	await(s.t, "one ready pod", func() error {
		pods := s.podsOf(app)
		for _, one = range pods {
		}
		if len(pods) != 1 {
			return fmt.Errorf("there are %d", len(pods))
		}
		return nil
	})
	return one
}

func daemonSelects(s *space) {
	label := "hansa.dev/" + s.name
	s.apply(daemonSet("logs", "one", "nodeSelector: {"+label+": here}", ""))
	await(s.t, "the status to say that no node is asked for", func() error {
		if got := s.kubectl("get", "daemonset", "logs", "-o", "jsonpath={.status.observedGeneration} {.status.desiredNumberScheduled}"); got != "1 0" {
			return errors.New(got)
		}
		return nil
	})
	s.kubectl("label", "node", "--all", label+"=here")
	s.kubectl("rollout", "status", "daemonset/logs", "--timeout=120s")
	p := s.oneOf("logs")
	if p.OwnerReferences[0].Kind != "DaemonSet" || p.Spec.NodeName == "" {
		s.t.Errorf("pod %s on %q is owned by %+v", p.Name, p.Spec.NodeName, p.OwnerReferences)
	}
	await(s.t, "kubectl get shows it", func() error { // the pod is ready before the status says so
		if got := strings.Fields(s.kubectl("get", "daemonset", "logs", "--no-headers")); strings.Join(got[:6], " ") != "logs 1 1 1 1 1" {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
	s.kubectl("label", "node", "--all", label+"-")
	await(s.t, "no pod is left", func() error {
		if got := s.kubectl("get", "pods", "-o", "name"); got != "" {
			return errors.New(got)
		}
		return nil
	})
	s.kubectl("delete", "daemonset", "logs")
	await(s.t, "its history goes with it", func() error {
		if got := s.kubectl("get", "controllerrevisions", "-o", "name"); got != "" {
			return errors.New(got)
		}
		return nil
	})
}

func daemonRollout(s *space) {
	status := func() { s.kubectl("rollout", "status", "daemonset/logs", "--timeout=120s") }
	s.apply(daemonSet("logs", "one", "", ""))
	status()
	first := s.oneOf("logs")
	s.apply(daemonSet("logs", "two", "", ""))
	status()
	second := s.oneOf("logs")
	if second.UID == first.UID || second.Spec.Containers[0].Env[0].Value != "two" {
		s.t.Errorf("%s is followed by %s", first.Name, second.Name)
	}
	if got := s.kubectl("rollout", "history", "daemonset/logs"); !strings.Contains(got, "\n1 ") || !strings.Contains(got, "\n2 ") {
		s.t.Errorf("history:\n%s", got)
	}
	if got := s.kubectl("rollout", "history", "daemonset/logs", "--revision=1"); !strings.Contains(got, "one") {
		s.t.Errorf("revision 1:\n%s", got)
	}
	s.kubectl("set", "image", "daemonset/logs", "main=hansa.local/none:1")
	await(s.t, "the new pod cannot start", func() error {
		got := s.kubectl("get", "pods", "-l", "app=logs")
		if !strings.Contains(got, "ErrImagePull") && !strings.Contains(got, "ImagePullBackOff") {
			return errors.New(got)
		}
		return nil
	})
	s.kubectl("rollout", "undo", "daemonset/logs", "--to-revision=1")
	status()
	third := s.oneOf("logs")
	if third.Spec.Containers[0].Env[0].Value != "one" || third.Labels["controller-revision-hash"] != first.Labels["controller-revision-hash"] {
		s.t.Errorf("undone: %+v", third.Labels)
	}
	s.kubectl("rollout", "restart", "daemonset/logs")
	status()
	if fourth := s.oneOf("logs"); fourth.UID == third.UID || fourth.Annotations["kubectl.kubernetes.io/restartedAt"] != "" && fourth.Spec.Containers[0].Env[0].Value != "one" {
		s.t.Errorf("%s is followed by %s", third.Name, fourth.Name)
	}
}

func daemonSurges(s *space) {
	more := "updateStrategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}"
	s.apply(daemonSet("logs", "one", "", more))
	s.kubectl("rollout", "status", "daemonset/logs", "--timeout=120s")
	first := s.oneOf("logs")
	s.apply(daemonSet("logs", "two", "", more))
	gone := s.until(first.Name, "the old pod is told to go", func(p *corev1.Pod) bool { return p.DeletionTimestamp != nil })
	ready := 0
	for _, p := range s.podsOf("logs") {
		if p.UID != first.UID {
			ready++
			if at := readySince(&p); at.After(gone.DeletionTimestamp.Time) {
				s.t.Errorf("the new pod is ready since %s, the old one ends at %s", at, gone.DeletionTimestamp)
			}
		}
	}
	if ready != 1 {
		s.t.Errorf("%d new pods are ready when the old one goes", ready)
	}
	s.kubectl("rollout", "status", "daemonset/logs", "--timeout=120s")
}

// readySince is when a pod became ready.
func readySince(p *corev1.Pod) (at metav1.Time) {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			at = c.LastTransitionTime
		}
	}
	return at
}

func daemonFails(s *space) {
	s.apply(daemonSet("logs", "one", "", ""))
	first := s.oneOf("logs")
	// The node ends a pod for good that was there for longer than it may.
	s.kubectl("patch", "pod", first.Name, "-p", `{"spec":{"activeDeadlineSeconds":1}}`)
	await(s.t, "another pod is in its place", func() error {
		for _, p := range s.podsOf("logs") {
			if p.UID != first.UID {
				return nil
			}
		}
		return errors.New("there is none")
	})
	await(s.t, "an event says why", func() error {
		if got := s.kubectl("get", "events", "--field-selector=reason=FailedDaemonPod", "-o", "jsonpath={.items[*].source.component}"); !strings.Contains(got, "daemonset-controller") {
			return errors.New(got)
		}
		return nil
	})
}

// maxUnavailable of one node is that node: its pod has ended before there is another.
// A finalizer keeps the old one, so that it can be looked at.
func daemonInPlace(s *space) {
	s.apply(daemonSet("logs", "one", "", "updateStrategy: {rollingUpdate: {maxUnavailable: 1}}"))
	s.kubectl("rollout", "status", "daemonset/logs", "--timeout=120s")
	first := s.oneOf("logs")
	finalizers := func(list string) {
		s.kubectl("patch", "pod", first.Name, "--type=merge", "-p", `{"metadata":{"finalizers":`+list+`}}`)
	}
	finalizers(`["test.dev/look"]`)
	s.kubectl("set", "env", "daemonset/logs", "WORD=two")
	ended := s.finished(first.Name).Status.ContainerStatuses[0].State.Terminated
	second := s.oneOf("logs")
	finalizers("null")
	if ended == nil || second.CreationTimestamp.Time.Before(ended.FinishedAt.Time) || second.Spec.Containers[0].Env[0].Value != "two" {
		s.t.Errorf("%s was made at %s, the one before ended with %+v", second.Name, second.CreationTimestamp, ended)
	}
	s.kubectl("rollout", "status", "daemonset/logs", "--timeout=120s")
}

// No node fits, so it is about revisions alone.
func daemonRevisions(s *space) {
	s.apply(daemonSet("logs", "one", "nodeSelector: {hansa.dev/none: here}", "revisionHistoryLimit: 1"))
	// history awaits revisions of these numbers, and answers with them.
	history := func(numbers ...int64) []appsv1.ControllerRevision {
		s.t.Helper()
		var found []appsv1.ControllerRevision
		await(s.t, fmt.Sprint("revisions ", numbers), func() error {
			list, err := s.client.AppsV1().ControllerRevisions(s.name).List(s.t.Context(), metav1.ListOptions{LabelSelector: "app=logs"})
			if err != nil {
				return err
			}
			found = list.Items
			slices.SortFunc(found, func(a, b appsv1.ControllerRevision) int { return int(a.Revision - b.Revision) })
			if !slices.EqualFunc(found, numbers, func(r appsv1.ControllerRevision, n int64) bool { return r.Revision == n }) {
				return fmt.Errorf("there are %v", found)
			}
			return nil
		})
		return found
	}
	first := history(1)[0]
	hash, named := strings.CutPrefix(first.Name, "logs-")
	if ref := metav1.GetControllerOf(&first); !named || first.Labels["controller-revision-hash"] != hash || ref == nil || ref.Kind != "DaemonSet" || ref.Name != "logs" {
		s.t.Errorf("the first revision is %+v", first.ObjectMeta)
	}
	if data := string(first.Data.Raw); !strings.HasPrefix(data, `{"spec":{"template":{"$patch":"replace"`) || !strings.Contains(data, `"value":"one"`) {
		s.t.Errorf("its data are %s", data)
	}
	s.kubectl("set", "env", "daemonset/logs", "WORD=two")
	history(1, 2)
	s.kubectl("rollout", "undo", "daemonset/logs")
	if back := history(2, 3)[1]; back.UID != first.UID {
		s.t.Errorf("%s is undone to %s", first.Name, back.Name)
	}
	if got := s.field("daemonset/logs", ".spec.template.spec.containers[0].env[0].value"); got != "one" {
		s.t.Errorf("undone to %q", got)
	}
	s.kubectl("set", "env", "daemonset/logs", "WORD=four")
	history(3, 4)
}
