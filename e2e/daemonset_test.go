package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"

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
		{"a DaemonSet replaces failed pods", daemonFails},
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
	if got := strings.Fields(s.kubectl("get", "daemonset", "logs", "--no-headers")); strings.Join(got[:6], " ") != "logs 1 1 1 1 1" {
		s.t.Errorf("kubectl get: %v", got)
	}
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
