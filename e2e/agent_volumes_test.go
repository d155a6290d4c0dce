package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var volumeRows = []row{
	{"ConfigMap volumes", configMapVolume},
	{"ConfigMap volumes, live", configMapLive},
	{"Secret volumes", secretVolume},
	{"Secret volumes, of the pod's own namespace", secretOfNamespace},
	{"volumes that wait for their source", volumeWaits},
	{"emptyDir volumes", emptyDirVolume},
	{"emptyDir volumes, too full", emptyDirFull},
	{"ephemeral-storage limits: root file system and logs", ephemeralStorageLimits},
	{"hostPath volumes", hostPathVolume},
	{"mounts that propagate", propagation},
	{"projected volumes", projectedVolume},
	{"issuer discovery from a pod, by its token and authority", issuerDiscovery},
	{"projected volumes: cluster trust bundles, live", trustBundleVolume},
	{"downward volumes", downwardVolume},
	{"parts of volumes", subPath},
}

func configMapVolume(s *space) {
	s.kubectl("create", "configmap", "config", "--from-literal=one=1", "--from-literal=two=2")
	raw := filepath.Join(s.t.TempDir(), "raw")
	s.write(raw, []byte{0, 0xff, 0xfe, '\n', 0x80})
	s.kubectl("create", "configmap", "binary", "--from-file="+raw, "--from-literal=text=t")
	if m, err := s.client.CoreV1().ConfigMaps(s.name).Get(s.t.Context(), "binary", metav1.GetOptions{}); err != nil || len(m.BinaryData) != 1 {
		s.t.Fatalf("binary data %v, %v", m.BinaryData, err)
	}
	got := s.output("p", `
restartPolicy: Never
volumes:
- {name: all, configMap: {name: config}}
- {name: some, configMap: {name: config, defaultMode: 0440, items: [{key: one, path: deep/name}, {key: two, path: two, mode: 0400}]}}
- {name: none, configMap: {name: none, optional: true}}
- {name: binary, configMap: {name: binary}}
containers:
- name: main
  image: hansa.local/busybox:1
  command: [sh, -c, "od -An -v -tx1 /binary/raw && cat /binary/text && echo && cd /all && grep . * && cd /some && grep . deep/name two && stat -Lc '%a %n' /all/one deep/name two && ls /none | wc -l; touch /all/x 2>&1"]
  volumeMounts: [{name: all, mountPath: /all}, {name: some, mountPath: /some}, {name: none, mountPath: /none}, {name: binary, mountPath: /binary}]
`, 1)
	want := " 00 ff fe 0a 80\nt\none:1\ntwo:2\ndeep/name:1\ntwo:2\n644 /all/one\n440 deep/name\n400 two\n0\ntouch: /all/x: Read-only file system\n"
	if got != want {
		s.t.Errorf("got:\n%swant:\n%s", got, want)
	}
}

func configMapLive(s *space) {
	s.kubectl("create", "configmap", "config", "--from-literal=key=old")
	s.create("p", `
volumes:
- {name: config, configMap: {name: config}}
containers:
- name: main
  image: hansa.local/busybox:1
  command: [sleep, "1000"]
  volumeMounts: [{name: config, mountPath: /config}, {name: config, mountPath: /part, subPath: key}]
`)
	s.ready("p")
	s.kubectl("patch", "configmap", "config", "-p", `{"data":{"key":"new","more":"x"}}`)
	await(s.t, "the file changes", func() error {
		if got := s.exec("p", "sh", "-c", "cat /config/key /config/more; true"); got != "newx" {
			return fmt.Errorf("it is %q", got)
		}
		return nil
	})
	if got := s.exec("p", "cat", "/part"); got != "old" {
		s.t.Errorf("mounted by subPath: %q; such files do not follow", got)
	}
}

func secretVolume(s *space) {
	s.kubectl("create", "secret", "generic", "secret", "--from-literal=key=old")
	s.create("p", `
volumes:
- {name: secret, secret: {secretName: secret, defaultMode: 0400}}
containers:
- {name: main, image: hansa.local/busybox:1, command: [sleep, "1000"], volumeMounts: [{name: secret, mountPath: /secret, readOnly: true}]}
`)
	s.ready("p")
	if got := s.exec("p", "sh", "-c", "cat /secret/key; stat -Lc ' %a %u' /secret/key; stat -fc %T /secret"); got != "old 400 0\ntmpfs\n" {
		s.t.Errorf("got %q", got)
	}
	s.kubectl("patch", "secret", "secret", "-p", `{"stringData":{"key":"new"}}`)
	await(s.t, "the file changes", func() error {
		if got := s.exec("p", "cat", "/secret/key"); got != "new" {
			return fmt.Errorf("it is %q", got)
		}
		return nil
	})
}

func secretOfNamespace(s *space) {
	newSpace(s.t, s.cluster).kubectl("create", "secret", "generic", "secret", "--from-literal=key=another")
	s.kubectl("create", "secret", "generic", "secret", "--from-literal=key=own")
	got := s.output("p", `
restartPolicy: Never
volumes: [{name: secret, secret: {secretName: secret}}]
containers:
- {name: main, image: hansa.local/busybox:1, command: [cat, /secret/key], volumeMounts: [{name: secret, mountPath: /secret}]}
`)
	if got != "own" {
		s.t.Errorf("got %q", got)
	}
}

func volumeWaits(s *space) {
	s.create("p", `
restartPolicy: Never
volumes: [{name: late, configMap: {name: late}}]
containers:
- {name: main, image: hansa.local/busybox:1, command: [cat, /late/key], volumeMounts: [{name: late, mountPath: /late}]}
`)
	s.event("p", `Warning FailedMount: MountVolume.SetUp failed for volume "late" : configmap "late" not found`)
	p := s.until("p", "it waits", func(p *corev1.Pod) bool { return waiting(p).Reason == "ContainerCreating" })
	if p.Status.Phase != corev1.PodPending {
		s.t.Errorf("phase %s", p.Status.Phase)
	}
	s.kubectl("create", "configmap", "late", "--from-literal=key=value")
	s.finished("p")
	if got := s.logs("p", "main"); got != "value" {
		s.t.Errorf("got %q", got)
	}
}

func emptyDirVolume(s *space) {
	s.create("p", `
volumes:
- {name: disk, emptyDir: {}}
- {name: memory, emptyDir: {medium: Memory, sizeLimit: 8Mi}}
containers:
- name: main
  image: hansa.local/busybox:1
  command: [sh, -c, "echo run >> /disk/runs; test $(wc -l < /disk/runs) -gt 1 && exec sleep 1000"]
  volumeMounts: [{name: disk, mountPath: /disk}, {name: memory, mountPath: /memory}]
- name: other
  image: hansa.local/busybox:1
  command: [sleep, "1000"]
  volumeMounts: [{name: disk, mountPath: /there}]
`)
	p := s.until("p", "its container runs for the second time", func(p *corev1.Pod) bool {
		return condition(p, corev1.PodReady) == corev1.ConditionTrue && p.Status.ContainerStatuses[0].RestartCount == 1
	})
	out, _, err := s.execIn("p", "other", "cat", "/there/runs")
	if out != "run\nrun\n" || err != nil {
		s.t.Errorf("what was written before the restart, from the other container: %q, %v", out, err)
	}
	if got := s.exec("p", "sh", "-c", "stat -c %a /disk /memory; stat -fc '%T' /memory; df -m /memory | tail -n 1 | awk '{print $2}'"); got != "777\n777\ntmpfs\n8\n" {
		s.t.Errorf("modes, kind and size: %q", got)
	}
	folder := filepath.Join(s.dir, "pods", string(p.UID))
	if _, err := os.Stat(folder); err != nil {
		s.t.Error(err)
	}
	s.kubectl("delete", "pod", "p")
	await(s.t, "the pod's folder is removed", func() error {
		if _, err := os.Stat(folder); err == nil {
			return fmt.Errorf("%s is there", folder)
		}
		return nil
	})
}

func emptyDirFull(s *space) {
	s.create("p", `
volumes: [{name: work, emptyDir: {sizeLimit: 1Mi}}]
containers:
- name: main
  image: hansa.local/busybox:1
  command: [sh, -c, "dd if=/dev/zero of=/work/file bs=1M count=4; exec sleep 1000"]
  volumeMounts: [{name: work, mountPath: /work}]
`)
	p := s.finished("p")
	if p.Status.Phase != corev1.PodFailed || p.Status.Reason != "Evicted" || p.Status.Message != `Usage of EmptyDir volume "work" exceeds the limit "1Mi". ` {
		s.t.Errorf("phase %s, reason %s: %q", p.Status.Phase, p.Status.Reason, p.Status.Message)
	}
}

// "Local ephemeral storage": what counts for a container's limit is its writable
// layer and its logs; the limits of all are that of the pod.
func ephemeralStorageLimits(s *space) {
	const (
		writes = "dd if=/dev/zero of=/file bs=1M count=4; exec sleep 1000"
		logs   = "head -c 4000000 /dev/zero | tr '\\0' x | fold; exec sleep 1000"
		other  = `- {name: other, image: hansa.local/busybox:1, command: [sleep, "1000"], resources: {limits: {ephemeral-storage: 100Mi}}}`
		ofMain = `Container main exceeded its local ephemeral storage limit "1Mi". `
		ofPod  = "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. "
	)
	cases := map[string]struct{ script, other, want string }{
		"writes": {writes, other, ofMain}, "logs": {logs, other, ofMain},
		"writes-alone": {writes, "", ofPod}, "logs-alone": {logs, "", ofPod},
	}
	for name, c := range cases {
		s.create(name, fmt.Sprintf(`
containers:
- {name: main, image: hansa.local/busybox:1, command: [sh, -c, %q], resources: {limits: {ephemeral-storage: 1Mi}}}
%s
`, c.script, c.other))
	}
	for name, c := range cases {
		p := s.finished(name)
		if p.Status.Phase != corev1.PodFailed || p.Status.Reason != "Evicted" || p.Status.Message != c.want {
			s.t.Errorf("%s: phase %s, reason %s: %q", name, p.Status.Phase, p.Status.Reason, p.Status.Message)
		}
		s.event(name, "Warning Evicted: "+c.want)
	}
}

func hostPathVolume(s *space) {
	dir, err := os.MkdirTemp("", "hostpath-")
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("of the host"), 0o644); err != nil {
		s.t.Fatal(err)
	}
	got := s.output("p", fmt.Sprintf(`
restartPolicy: Never
volumes:
- {name: plain, hostPath: {path: %[1]s}}
- {name: file, hostPath: {path: %[1]s/file, type: File}}
- {name: made, hostPath: {path: %[1]s/made/deep, type: DirectoryOrCreate}}
containers:
- name: main
  image: hansa.local/busybox:1
  command: [sh, -c, "cat /plain/file /file; echo; echo hello > /made/word; touch /plain/x 2>&1"]
  volumeMounts: [{name: plain, mountPath: /plain, readOnly: true}, {name: file, mountPath: /file}, {name: made, mountPath: /made}]
`, dir), 1)
	if want := "of the hostof the host\ntouch: /plain/x: Read-only file system\n"; got != want {
		s.t.Errorf("got %q, want %q", got, want)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "made/deep/word")); string(b) != "hello\n" {
		s.t.Errorf("written through the volume: %q, %v", b, err)
	}
	s.create("wrong", fmt.Sprintf(`
volumes: [{name: v, hostPath: {path: %s/file, type: Directory}}]
containers:
- {name: main, image: hansa.local/busybox:1, volumeMounts: [{name: v, mountPath: /v}]}
`, dir))
	s.event("wrong", fmt.Sprintf(`Warning FailedMount: MountVolume.SetUp failed for volume "v" : hostPath type check failed: %s/file is not a directory`, dir))
}

func projectedVolume(s *space) {
	s.kubectl("create", "configmap", "config", "--from-literal=key=c")
	s.kubectl("create", "secret", "generic", "secret", "--from-literal=key=s")
	got := s.output("p", `
restartPolicy: Never
volumes:
- name: all
  projected:
    defaultMode: 0440
    sources:
    - configMap: {name: config, items: [{key: key, path: from/config}]}
    - secret: {name: secret, items: [{key: key, path: from/secret}]}
    - downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}
    - serviceAccountToken: {path: token, audience: someone, expirationSeconds: 600}
containers:
- name: main
  image: hansa.local/busybox:1
  command: [sh, -c, "cd /all; cat from/config from/secret name; echo; cut -d. -f2 token | tr -- -_ +/ | base64 -d 2>/dev/null; true"]
  volumeMounts: [{name: all, mountPath: /all}]
`)
	head, claims, _ := strings.Cut(got, "\n")
	if head != "csp" {
		s.t.Errorf("files: %q", head)
	}
	for _, want := range []string{`"aud":["someone"]`, `"sub":"system:serviceaccount:` + s.name + `:default"`, `"pod":{"name":"p"`} {
		if !strings.Contains(claims, want) {
			s.t.Errorf("token has no %s: %s", want, claims)
		}
	}
	// What every pod gets: enough to ask the API as its service account.
	got = s.output("caller", `
restartPolicy: Never
containers:
- {name: main, image: hansa.local/testimage:1, args: [ask, /api]}
`)
	if !strings.HasPrefix(got, "200 OK\n") || !strings.Contains(got, `"versions"`) {
		s.t.Errorf("the API's answer: %s", got)
	}
	got = s.output("refused", fmt.Sprintf(`
restartPolicy: Never
containers:
- {name: main, image: hansa.local/testimage:1, args: [ask, /api/v1/namespaces/%s/secrets]}
`, s.name))
	if !strings.HasPrefix(got, "403 Forbidden\n") || !strings.Contains(got, "system:serviceaccount:"+s.name+":default") {
		s.t.Errorf("the API's answer: %s", got)
	}
}

// A trust bundle by its name and one by signer and labels; the files follow.
func trustBundleVolume(s *space) {
	signer := "example.com/" + s.name
	bundle := func(name, signer string, cas ...*authority) *certificatesv1.ClusterTrustBundle {
		b := &certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"live": "yes"}}}
		b.Spec.SignerName = signer
		for _, ca := range cas {
			b.Spec.TrustBundle += string(ca.pem())
		}
		return b
	}
	api := s.client.CertificatesV1().ClusterTrustBundles()
	other := newAuthority("other")
	for _, b := range []*certificatesv1.ClusterTrustBundle{bundle(s.name, "", registryCA), bundle(strings.ReplaceAll(signer, "/", ":")+":one", signer, registryCA)} {
		if _, err := api.Create(s.t.Context(), b, metav1.CreateOptions{}); err != nil {
			s.t.Fatal(err)
		}
		s.t.Cleanup(func() {
			if err := api.Delete(context.Background(), b.Name, metav1.DeleteOptions{}); err != nil {
				s.t.Error(err)
			}
		})
	}
	s.create("p", `
volumes:
- name: trust
  projected:
    sources:
    - clusterTrustBundle: {name: `+s.name+`, path: named.pem}
    - clusterTrustBundle: {signerName: `+signer+`, labelSelector: {matchLabels: {live: "yes"}}, path: signed.pem}
    - clusterTrustBundle: {name: none-of-that-name, optional: true, path: none.pem}
containers:
- {name: main, image: hansa.local/busybox:1, command: [sleep, "1000"], volumeMounts: [{name: trust, mountPath: /trust}]}
`)
	s.ready("p")
	one := string(registryCA.pem())
	if got := s.exec("p", "sh", "-c", "cat /trust/named.pem /trust/signed.pem /trust/none.pem"); got != one+one {
		s.t.Errorf("files: %s", got)
	}
	b, err := api.Get(s.t.Context(), s.name, metav1.GetOptions{})
	if err == nil {
		b = b.DeepCopy()
		b.Spec.TrustBundle = string(other.pem())
		_, err = api.Update(s.t.Context(), b, metav1.UpdateOptions{})
	}
	if err == nil {
		_, err = api.Create(s.t.Context(), bundle(strings.ReplaceAll(signer, "/", ":")+":two", signer, other), metav1.CreateOptions{})
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := api.Delete(context.Background(), strings.ReplaceAll(signer, "/", ":")+":two", metav1.DeleteOptions{}); err != nil {
			s.t.Error(err)
		}
	})
	await(s.t, "the files follow", func() error {
		named, signed := s.exec("p", "cat", "/trust/named.pem"), s.exec("p", "cat", "/trust/signed.pem")
		if named != string(other.pem()) || len(signed) != len(one)+len(named) || !strings.Contains(signed, named) {
			return fmt.Errorf("they are %s and %s", named, signed)
		}
		return nil
	})
}

func downwardVolume(s *space) {
	s.createPod(podOf(s.t, "p", `
metadata:
  labels: {tier: front}
  annotations: {note: "a \"note\""}
spec:
  volumes:
  - name: about
    downwardAPI:
      items:
      - {path: labels, fieldRef: {fieldPath: metadata.labels}}
      - {path: annotations, fieldRef: {fieldPath: metadata.annotations}}
      - {path: cpu, mode: 0400, resourceFieldRef: {containerName: main, resource: limits.cpu, divisor: 1m}}
  containers:
  - name: main
    image: hansa.local/busybox:1
    command: [sleep, "1000"]
    resources: {limits: {cpu: 200m}}
    volumeMounts: [{name: about, mountPath: /about}]
`))
	s.ready("p")
	if got := s.exec("p", "sh", "-c", "cd /about; cat labels; echo; cat annotations; echo; cat cpu; stat -Lc ' %a' cpu"); got != "tier=\"front\"\nnote=\"a \\\"note\\\"\"\n200 400\n" {
		s.t.Errorf("got %q", got)
	}
	s.kubectl("label", "pod", "p", "tier=back", "--overwrite")
	await(s.t, "the file changes", func() error {
		if got := s.exec("p", "cat", "/about/labels"); got != `tier="back"` {
			return fmt.Errorf("it is %q", got)
		}
		return nil
	})
}

func subPath(s *space) {
	got := s.output("p", `
restartPolicy: Never
volumes: [{name: work, emptyDir: {}}]
initContainers:
- {name: make, image: hansa.local/busybox:1, command: [sh, -c, "mkdir /work/a /work/p; echo inner > /work/a/file; echo own > /work/p/file"], volumeMounts: [{name: work, mountPath: /work}]}
containers:
- name: main
  image: hansa.local/busybox:1
  command: [sh, -c, "cat /a/file /own/file; ls /new"]
  env: [{name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
  volumeMounts:
  - {name: work, mountPath: /a, subPath: a}
  - {name: work, mountPath: /own, subPathExpr: $(POD)}
  - {name: work, mountPath: /new, subPath: made/for/me}
`)
	if got != "inner\nown\n" {
		s.t.Errorf("got %q", got)
	}
}

// What is mounted below a volume later: seen with HostToContainer, seen by the
// host too with Bidirectional, not seen otherwise.
func propagation(s *space) {
	dir := filepath.Join("/tmp", s.name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := errors.Join(unix.Mount("tmpfs", dir, "tmpfs", 0, ""), unix.Mount("", dir, "", unix.MS_SHARED, "")); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			s.t.Error(err)
		}
	})
	for _, sub := range []string{"later", "inside"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			s.t.Fatal(err)
		}
	}
	s.create("p", `
volumes: [{name: v, hostPath: {path: `+dir+`}}]
containers:
- name: main
  image: hansa.local/busybox:1
  command: [sleep, "1000"]
  securityContext: {privileged: true}
  volumeMounts:
  - {name: v, mountPath: /none}
  - {name: v, mountPath: /from, mountPropagation: HostToContainer}
  - {name: v, mountPath: /both, mountPropagation: Bidirectional}
`)
	s.ready("p")
	if err := errors.Join(unix.Mount("tmpfs", dir+"/later", "tmpfs", 0, ""), os.WriteFile(dir+"/later/file", nil, 0o644)); err != nil {
		s.t.Fatal(err)
	}
	if got := s.exec("p", "sh", "-c", "cd /; ls -d */later/file"); got != "both/later/file\nfrom/later/file\n" {
		s.t.Errorf("the container sees %q", got)
	}
	s.exec("p", "sh", "-c", "mount -t tmpfs none /both/inside && touch /both/inside/file; mount -t tmpfs none /from/later && touch /from/later/own")
	if _, err := os.Stat(dir + "/inside/file"); err != nil {
		s.t.Errorf("what the container mounts: %v", err)
	}
	if _, err := os.Stat(dir + "/later/own"); err == nil {
		s.t.Error("the host sees a mount that was to stay inside")
	}
}
