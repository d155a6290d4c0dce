package e2e

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

var imageRows = []row{
	{"pull policy Never", pullNever},
	{"pull policy IfNotPresent", pullIfNotPresent},
	{"pull policy Always", pullAlways},
	{"pull secrets", pullSecrets},
	{"image that is not there", pullFails},
}

// runs is a pod that runs an image to its end.
func runs(image, policy, more string) string {
	return fmt.Sprintf(`
restartPolicy: Never
containers:
- {name: main, image: %q, imagePullPolicy: %s, command: ["true"]}
%s
`, image, policy, more)
}

func pullNever(s *space) {
	s.create("p", runs("hansa.local/none:1", "Never", ""))
	s.until("p", "it says that the image is missing", func(p *corev1.Pod) bool {
		w := waiting(p)
		return p.Status.Phase == corev1.PodPending && w.Reason == "ErrImageNeverPull" &&
			w.Message == `Container image "hansa.local/none:1" is not present with pull policy of Never`
	})
	s.event("p", "Warning ErrImageNeverPull: ")
	s.create("there", runs(shell, "Never", ""))
	s.finished("there")
}

func pullIfNotPresent(s *space) {
	image := s.publish("sometimes")
	s.create("first", runs(image, "IfNotPresent", ""))
	s.finished("first")
	s.event("first", "Normal Pulling: Pulling image")
	s.event("first", `Normal Pulled: Successfully pulled image "`+image+`"`)
	before := images.asked("sometimes:1")
	s.create("second", runs(image, "IfNotPresent", ""))
	s.finished("second")
	s.event("second", `Normal Pulled: Container image "`+image+`" already present on machine`)
	if after := images.asked("sometimes:1"); before == 0 || after != before {
		s.t.Errorf("the registry was asked %d times, then %d times", before, after)
	}
}

func pullAlways(s *space) {
	image := s.publish("always")
	for _, name := range []string{"first", "second"} {
		before := images.asked("always:1")
		s.create(name, runs(image, "Always", ""))
		s.finished(name)
		if after := images.asked("always:1"); after <= before {
			s.t.Errorf("pod %s: the registry was not asked", name)
		}
	}
}

func pullSecrets(s *space) {
	image := s.publish("private/thing")
	s.create("without", runs(image, "IfNotPresent", ""))
	s.event("without", `Warning Failed: Failed to pull image "`+image+`"`)
	s.kubectl("create", "secret", "docker-registry", "key", "--docker-server="+registryAddress, "--docker-username="+registryUser, "--docker-password="+registryPassword)
	s.create("with", runs(image, "IfNotPresent", "imagePullSecrets: [{name: key}]"))
	if p := s.finished("with"); p.Status.Phase != corev1.PodSucceeded {
		s.t.Errorf("phase %s", p.Status.Phase)
	}
}

func pullFails(s *space) {
	image := registryAddress + "/none:1"
	s.create("p", runs(image, "IfNotPresent", ""))
	s.until("p", "the pull has failed", func(p *corev1.Pod) bool {
		return waiting(p).Reason == "ErrImagePull" && strings.Contains(waiting(p).Message, "not found")
	})
	s.until("p", "it backs off", func(p *corev1.Pod) bool {
		w := waiting(p)
		return w.Reason == "ImagePullBackOff" && strings.HasPrefix(w.Message, `Back-off pulling image "`+image+`": ErrImagePull: `)
	})
	s.event("p", "Warning Failed: Error: ErrImagePull")
	s.event("p", "Normal BackOff: Back-off pulling image")
	if got := s.kubectl("get", "pod", "p"); !strings.Contains(got, "ImagePull") {
		s.t.Errorf("kubectl get: %s", got)
	}
	// The image appears, and the pod comes to run without help.
	s.publish("none")
	s.finished("p")
	s.create("wrong", runs("UPPER CASE", "IfNotPresent", ""))
	s.until("wrong", "its image has no valid name", func(p *corev1.Pod) bool { return waiting(p).Reason == "InvalidImageName" })
}
