package e2e

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
)

var registryRows = []row{
	{"pull credentials do not leak", credentialsStay},
	{"pull secrets of the service account", accountSecrets},
	{"images by digest", byDigest},
	{"registry over HTTPS, its CA", registryByCA},
	{"registry with client certificates", registryByClientCertificate},
	{"registry not verified", registryUnverified},
	{"registry headers", registryHeaders},
	{"registry mirrors", registryMirrors},
	{"parallel pulls", parallelPulls},
	{"progress of pulls", pullProgress},
	{"image volumes and their pull policies", imageVolumePolicies},
}

// login makes a pull secret.
func (s *space) login(name string) {
	s.kubectl("create", "secret", "docker-registry", name, "--docker-server="+registryAddress, "--docker-username="+registryUser, "--docker-password="+registryPassword)
}

// What one pod pulled by its secret another one without it does not get,
// although it is on the node.
func credentialsStay(s *space) {
	image := s.publish("private/leak", "leak")
	s.login("key")
	s.create("mine", runs(image, "IfNotPresent", "imagePullSecrets: [{name: key}]"))
	s.finished("mine")
	s.create("theirs", runs(image, "IfNotPresent", ""))
	s.until("theirs", "it is refused", func(p *corev1.Pod) bool {
		w := waiting(p)
		return strings.HasPrefix(w.Reason, "ErrImagePull") || w.Reason == "ImagePullBackOff"
	})
	s.create("never", runs(image, "Never", ""))
	s.until("never", "the image is not there for it", func(p *corev1.Pod) bool { return waiting(p).Reason == "ErrImageNeverPull" })
	// Who has the secret is not sent to the registry again.
	before := images.asked("private/leak:1")
	s.create("again", runs(image, "Never", "imagePullSecrets: [{name: key}]"))
	s.finished("again")
	if after := images.asked("private/leak:1"); before == 0 || after != before {
		s.t.Errorf("the registry was asked %d times, then %d times", before, after)
	}
}

func accountSecrets(s *space) {
	image := s.publish("private/account", "account")
	s.login("key")
	s.apply(`
apiVersion: v1
kind: ServiceAccount
metadata: {name: puller}
imagePullSecrets: [{name: key}]
`)
	s.create("p", runs(image, "Always", "serviceAccountName: puller"))
	if p := s.finished("p"); len(p.Spec.ImagePullSecrets) != 1 {
		s.t.Errorf("the pod's secrets: %v", p.Spec.ImagePullSecrets)
	}
}

func byDigest(s *space) {
	image := s.publish("digest", "by digest")
	s.create("tag", runs(image, "IfNotPresent", ""))
	id := s.finished("tag").Status.ContainerStatuses[0].ImageID
	if !strings.Contains(id, "@sha256:") {
		s.t.Fatalf("image ID %q", id)
	}
	_, digest, _ := strings.Cut(id, "@")
	name := strings.TrimSuffix(image, ":1") + "@" + digest
	for _, policy := range []string{"Always", "IfNotPresent"} {
		pod := strings.ToLower(policy)
		s.create(pod, runs(name, policy, ""))
		if got := s.finished(pod).Status.ContainerStatuses[0]; got.Image == "" || got.ImageID != id {
			s.t.Errorf("%s: image %q, ID %q", policy, got.Image, got.ImageID)
		}
	}
	s.create("none", runs(strings.TrimSuffix(name, digest)+"sha256:"+strings.Repeat("0", 64), "Always", ""))
	s.event("none", "Warning Failed: Failed to pull image")
}

// registryConfig says, in containerd's format, how the node reaches a registry.
func (s *space) registryConfig(host, format string, args ...any) (dir string) {
	s.t.Helper()
	dir = filepath.Join(s.dir, "registry", host)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		s.t.Fatal(err)
	}
	s.write(filepath.Join(dir, "hosts.toml"), []byte(fmt.Sprintf(format, args...)))
	return dir
}

func (s *space) write(file string, content []byte) {
	s.t.Helper()
	if err := os.WriteFile(file, content, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// pulls checks that an image is pulled.
func (s *space) pulls(name, image string) {
	s.t.Helper()
	s.create(name, runs(image, "Always", ""))
	s.finished(name)
}

// refuses checks that a pull fails, and why.
func (s *space) refuses(name, image, why string) {
	s.t.Helper()
	s.create(name, runs(image, "Always", ""))
	s.until(name, "the pull fails: "+why, func(p *corev1.Pod) bool { return strings.Contains(waiting(p).Message, why) })
	s.kubectl("delete", "pod", name, "--now")
}

func registryByCA(s *space) {
	s.publish("by-ca")
	const format = "[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n"
	dir := s.registryConfig("ca.test", format, "https://"+secureAddress)
	s.refuses("before", "ca.test/by-ca:1", "x509: certificate signed by unknown authority")
	s.write(filepath.Join(dir, "ca.pem"), registryCA.pem())
	s.registryConfig("ca.test", format+"  ca = %q\n", "https://"+secureAddress, filepath.Join(dir, "ca.pem"))
	s.pulls("after", "ca.test/by-ca:1")
}

func registryByClientCertificate(s *space) {
	s.publish("by-client")
	cert, err := registryCA.issue("puller")
	if err != nil {
		s.t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		s.t.Fatal(err)
	}
	const format = "[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = \"ca.pem\"\n"
	dir := s.registryConfig("client.test", format, "https://"+clientsAddress)
	s.write(filepath.Join(dir, "ca.pem"), registryCA.pem())
	s.refuses("before", "client.test/by-client:1", "tls: certificate required")
	s.write(filepath.Join(dir, "cert.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}))
	s.write(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	s.registryConfig("client.test", format+"  client = [[\"cert.pem\", \"key.pem\"]]\n", "https://"+clientsAddress)
	s.pulls("after", "client.test/by-client:1")
}

func registryUnverified(s *space) {
	s.publish("unverified")
	s.registryConfig("unverified.test", "[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n  skip_verify = true\n", "https://"+secureAddress)
	s.pulls("p", "unverified.test/unverified:1")
}

func registryHeaders(s *space) {
	s.publish("keyed/thing")
	const format = "[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n"
	s.registryConfig("keyed.test", format, "http://"+registryAddress)
	s.refuses("before", "keyed.test/keyed/thing:1", "403 Forbidden")
	s.registryConfig("keyed.test", format+"  [host.%q.header]\n    X-Registry-Key = [%q]\n", "http://"+registryAddress, "http://"+registryAddress, registryKey)
	s.pulls("after", "keyed.test/keyed/thing:1")
}

// Mirrors are asked in order before the registry itself, whose name the image
// keeps.
func registryMirrors(s *space) {
	s.publish("mirrored", "mirrored")
	s.registryConfig("mirrored.test", `
server = "https://mirrored.test"
[host."http://127.0.0.1:1"]
  capabilities = ["pull", "resolve"]
[host.%q]
  capabilities = ["pull", "resolve"]
`, "http://"+registryAddress)
	before := images.asked("mirrored:1")
	s.pulls("p", "mirrored.test/mirrored:1")
	if after := images.asked("mirrored:1"); after <= before {
		s.t.Error("the mirror was not asked")
	}
	p := s.finished("p")
	if got := p.Status.ContainerStatuses[0]; got.Image != "mirrored.test/mirrored:1" || !strings.HasPrefix(got.ImageID, "mirrored.test/mirrored@sha256:") {
		s.t.Errorf("image %q, ID %q", got.Image, got.ImageID)
	}
}

// Two images whose blobs come only once both are asked for.
func parallelPulls(s *space) {
	var both sync.WaitGroup
	both.Add(2)
	for _, name := range []string{"parallel/one", "parallel/two"} {
		first := sync.OnceFunc(both.Done)
		gates.Store(name, func() { first(); both.Wait() })
		defer gates.Delete(name)
	}
	s.create("one", runs(s.publish("parallel/one", "parallel one"), "Always", ""))
	s.create("two", runs(s.publish("parallel/two", "parallel two"), "Always", ""))
	s.finished("one")
	s.finished("two")
}

// A pull that takes long says how far it is.
func pullProgress(s *space) {
	release := make(chan struct{})
	letGo := sync.OnceFunc(func() { close(release) })
	defer letGo()
	gates.Store("slow", func() { <-release })
	defer gates.Delete("slow")
	image := s.publishLayer("slow", "slow")
	s.create("p", runs(image, "Always", ""))
	await(s.t, "an event about the progress", func() error {
		var got, total int
		for _, e := range s.events("p") {
			_, rest, ok := strings.Cut(e, `Normal Pulling: Still pulling image "`+image+`" after 10s: `)
			if n, err := fmt.Sscanf(rest, "%d of %d bytes fetched", &got, &total); ok && n == 2 && err == nil && got < total {
				return nil
			}
		}
		return fmt.Errorf("there are only:\n%s", strings.Join(s.events("p"), "\n"))
	})
	letGo()
	s.finished("p")
	s.event("p", "Normal Pulled: Successfully pulled image")
}

func imageVolumePolicies(s *space) {
	image := s.publish("volume", "volume")
	pod := func(policy string) string {
		return fmt.Sprintf(`
restartPolicy: Never
volumes: [{name: files, image: {reference: %q, pullPolicy: %s}}]
containers:
- {name: main, image: hansa.local/busybox:1, command: [ls, /files/bin/busybox], volumeMounts: [{name: files, mountPath: /files}]}
`, image, policy)
	}
	s.create("never", pod("Never"))
	s.event("never", fmt.Sprintf("Warning ErrImageNeverPull: Container image %q is not present with pull policy of Never", image))
	s.until("never", "its container waits for the volume's image", func(p *corev1.Pod) bool { return waiting(p).Reason == "ErrImageNeverPull" })
	none := registryAddress + "/none-of-it:1"
	s.create("none", strings.Replace(pod("Always"), image, none, 1))
	s.until("none", "it backs off, and names the volume's image", func(p *corev1.Pod) bool {
		w := waiting(p)
		return w.Reason == "ImagePullBackOff" && strings.HasPrefix(w.Message, fmt.Sprintf("Back-off pulling image %q: ErrImagePull: ", none)) && strings.Contains(w.Message, "not found")
	})
	s.event("none", fmt.Sprintf("Warning Failed: Failed to pull image %q", none))
	s.event("none", "Warning Failed: Error: ErrImagePull")
	s.event("none", fmt.Sprintf("Normal BackOff: Back-off pulling image %q", none))
	s.output("first", pod("IfNotPresent"))
	before := images.asked("volume:1")
	s.output("second", pod("IfNotPresent"))
	if after := images.asked("volume:1"); before == 0 || after != before {
		s.t.Errorf("IfNotPresent: the registry was asked %d times, then %d times", before, after)
	}
	// A part of it is mounted, as of any volume.
	part := strings.NewReplacer("mountPath: /files", "mountPath: /files, subPath: bin", "/files/bin/busybox", "/files/busybox")
	s.output("third", part.Replace(pod("Always")))
	if after := images.asked("volume:1"); after == before {
		s.t.Error("Always: the registry was not asked")
	}
	// What was not there is, now.
	s.finished("never")
}
