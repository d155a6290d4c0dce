package e2e

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var sourceRows = []row{
	{"command and arguments, with expansion", commandAndArguments},
	{"volumes of the API as another user, with fsGroup", sourcesAsUser},
	{"optional sources, created, updated and deleted", optionalSources},
	{"emptyDir volumes, modes by user and medium", emptyDirModes},
	{"downward values: limits, defaults of the node, live labels", func(s *space) { downwardResources(s, plainVolume) }},
	{"projected downward values: limits, defaults of the node, live labels", func(s *space) { downwardResources(s, projectedOf) }},
	{"parts of volumes of the API", partsOfSources},
	{"parts of volumes by expressions, refused", subPathExpressions},
	{"many ConfigMap volumes", manyConfigMaps},
	{"termination message at another path, as another user", messageElsewhere},
}

// The image's own command and arguments, and what a pod says instead of either.
func commandAndArguments(s *space) {
	image := s.shellImage()
	file, err := image.ConfigFile()
	if err != nil {
		s.t.Fatal(err)
	}
	config := *file.Config.DeepCopy()
	config.Entrypoint, config.Cmd = []string{"/bin/echo", "of", "the"}, []string{"image"}
	if image, err = withConfig(image, config); err != nil {
		s.t.Fatal(err)
	}
	ref := s.publishImage("echo", image)
	for name, c := range map[string]struct{ fields, want string }{
		"none":    {"", "of the image"},
		"args":    {"args: [pod]", "of the pod"},
		"command": {"command: [/bin/echo, mine]", "mine"},
		"both":    {"command: [/bin/echo, mine], args: [too]", "mine too"},
		"expand":  {`command: [/bin/echo, "$(A)"], args: ["<$(B)>", "$$(A)", "$(NONE)"], env: [{name: A, value: a}, {name: B, value: "b-$(A)"}]`, "a <b-a> $(A) $(NONE)"},
	} {
		if c.fields != "" {
			c.fields = ", " + c.fields
		}
		got := s.output(name, fmt.Sprintf("\nrestartPolicy: Never\ncontainers:\n- {name: main, image: %q%s}\n", ref, c.fields))
		if got != c.want+"\n" {
			s.t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func sourcesAsUser(s *space) {
	s.kubectl("create", "configmap", "config", "--from-literal=key=c")
	s.kubectl("create", "secret", "generic", "secret", "--from-literal=key=s")
	got := s.output("p", `
restartPolicy: Never
securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 1001}
volumes:
- {name: config, configMap: {name: config, defaultMode: 0440}}
- {name: secret, secret: {secretName: secret, defaultMode: 0400}}
- {name: downward, downwardAPI: {defaultMode: 0440, items: [{path: key, fieldRef: {fieldPath: metadata.name}}]}}
- {name: all, projected: {defaultMode: 0440, sources: [{secret: {name: secret, items: [{key: key, path: deep/key}]}}]}}
containers:
- name: main
  image: hansa.local/busybox:1
  command: [sh, -c, "cat /config/key /secret/key /downward/key /all/deep/key; echo; stat -Lc '%a %g' /config/key /secret/key /downward/key /all/deep/key"]
  volumeMounts: [{name: config, mountPath: /config}, {name: secret, mountPath: /secret}, {name: downward, mountPath: /downward}, {name: all, mountPath: /all}]
`)
	// With a group, what the owner may read the group may.
	if want := "csps\n440 1001\n440 1001\n440 1001\n440 1001\n"; got != want {
		s.t.Errorf("got %q, want %q", got, want)
	}
}

// Each kind, on its own and projected: a source that comes, changes and goes.
func optionalSources(s *space) {
	s.kubectl("create", "configmap", "changed", "--from-literal=key=before")
	s.kubectl("create", "configmap", "deleted", "--from-literal=key=there")
	s.kubectl("create", "secret", "generic", "changed", "--from-literal=key=before")
	s.kubectl("create", "secret", "generic", "deleted", "--from-literal=key=there")
	var volumes, mounts []string
	for _, name := range []string{"created", "changed", "deleted"} {
		for kind, source := range map[string]string{
			"c": "configMap: {name: %s, optional: true}", "s": "secret: {secretName: %s, optional: true}",
			"pc": "projected: {sources: [{configMap: {name: %s, optional: true}}]}", "ps": "projected: {sources: [{secret: {name: %s, optional: true}}]}",
		} {
			volumes = append(volumes, fmt.Sprintf("{name: %s-%s, "+source+"}", kind, name, name))
			mounts = append(mounts, fmt.Sprintf("{name: %s-%s, mountPath: /v/%[1]s/%[2]s}", kind, name))
		}
	}
	s.create("p", fmt.Sprintf(`
volumes: [%s]
containers:
- {name: main, image: hansa.local/busybox:1, command: [sleep, "1000"], volumeMounts: [%s]}
`, strings.Join(volumes, ", "), strings.Join(mounts, ", ")))
	s.ready("p")
	s.kubectl("create", "configmap", "created", "--from-literal=key=new")
	s.kubectl("create", "secret", "generic", "created", "--from-literal=key=new")
	s.kubectl("patch", "configmap", "changed", "-p", `{"data":{"key":"after"}}`)
	s.kubectl("patch", "secret", "changed", "-p", `{"stringData":{"key":"after"}}`)
	s.kubectl("delete", "configmap", "deleted")
	s.kubectl("delete", "secret", "deleted")
	await(s.t, "all volumes follow", func() error {
		got := s.exec("p", "sh", "-c", "cd /v; for k in c s pc ps; do echo $(cat $k/created/key 2>/dev/null) $(cat $k/changed/key) $(ls $k/deleted); done")
		if want := strings.Repeat("new after\n", 4); got != want {
			return fmt.Errorf("got %q", got)
		}
		return nil
	})
}

func emptyDirModes(s *space) {
	for _, medium := range []string{"", "Memory"} {
		for _, user := range []int{0, 1000} {
			name := strings.ToLower(fmt.Sprintf("m%s-%d", medium, user))
			got := s.output(name, fmt.Sprintf(`
restartPolicy: Never
securityContext: {runAsUser: %d}
volumes: [{name: work, emptyDir: {medium: %q}}]
containers:
- name: main
  image: hansa.local/busybox:1
  command: [sh, -c, "stat -c %%a /work; for m in 644 666 777; do echo word > /work/$m; chmod $m /work/$m; stat -c '%%a %%u' /work/$m; cat /work/$m; done"]
  volumeMounts: [{name: work, mountPath: /work}]
`, user, medium))
			want := fmt.Sprintf("777\n644 %[1]d\nword\n666 %[1]d\nword\n777 %[1]d\nword\n", user)
			if got != want {
				s.t.Errorf("medium %q, user %d: %q, want %q", medium, user, got, want)
			}
		}
	}
}

func downwardResources(s *space, volume func(kind, mode, source string) string) {
	n, err := s.client.CoreV1().Nodes().Get(s.t.Context(), nodeName, metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	s.createPod(podOf(s.t, "p", `
metadata: {labels: {color: red}, annotations: {note: one}}
spec:
  volumes:
  - `+volume("downwardAPI", "", `items: [
      {path: labels, fieldRef: {fieldPath: metadata.labels}},
      {path: annotations, fieldRef: {fieldPath: metadata.annotations}},
      {path: cpu-limit, resourceFieldRef: {containerName: main, resource: limits.cpu, divisor: 1m}},
      {path: cpu-request, resourceFieldRef: {containerName: main, resource: requests.cpu, divisor: 1m}},
      {path: memory-limit, resourceFieldRef: {containerName: main, resource: limits.memory}},
      {path: memory-request, resourceFieldRef: {containerName: main, resource: requests.memory}},
      {path: node-cpu, resourceFieldRef: {containerName: other, resource: limits.cpu, divisor: 1m}},
      {path: node-memory, resourceFieldRef: {containerName: other, resource: limits.memory}}]`)+`
  containers:
  - {name: main, image: hansa.local/busybox:1, command: [sleep, "1000"], volumeMounts: [{name: downwardapi, mountPath: /down}], resources: {limits: {cpu: 200m, memory: 64Mi}, requests: {cpu: 100m, memory: 32Mi}}}
  - name: other
    image: hansa.local/busybox:1
    command: [sleep, "1000"]
    env: [{name: CPU, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1m}}}, {name: MEMORY, valueFrom: {resourceFieldRef: {resource: limits.memory}}}]
`))
	s.ready("p")
	cpu, memory := n.Status.Allocatable.Cpu().MilliValue(), n.Status.Allocatable.Memory().Value()
	got := s.exec("p", "sh", "-c", "cd /down; for f in cpu-limit cpu-request memory-limit memory-request node-cpu node-memory; do echo $(cat $f); done")
	if want := fmt.Sprintf("200\n100\n67108864\n33554432\n%d\n%d\n", cpu, memory); got != want {
		s.t.Errorf("in the volume: %q, want %q", got, want)
	}
	got, _, err = s.execIn("p", "other", "sh", "-c", "echo $CPU $MEMORY")
	if want := fmt.Sprintf("%d %d\n", cpu, memory); got != want || err != nil {
		s.t.Errorf("in the environment: %q, %v, want %q", got, err, want)
	}
	s.kubectl("label", "pod", "p", "color=blue", "--overwrite")
	s.kubectl("annotate", "pod", "p", "note=two", "--overwrite")
	await(s.t, "labels and annotations follow", func() error {
		got := s.exec("p", "cat", "/down/labels", "/down/annotations")
		if !strings.Contains(got, `color="blue"`) || !strings.Contains(got, `note="two"`) {
			return fmt.Errorf("they are %q", got)
		}
		return nil
	})
}

// One file of a volume that is updated as a whole, in a folder of the image and
// over a file of it.
func partsOfSources(s *space) {
	s.kubectl("create", "configmap", "config", "--from-literal=key=c")
	s.kubectl("create", "secret", "generic", "secret", "--from-literal=key=s")
	got := s.output("p", `
restartPolicy: Never
volumes:
- {name: config, configMap: {name: config}}
- {name: secret, secret: {secretName: secret}}
- {name: downward, downwardAPI: {items: [{path: deep/key, fieldRef: {fieldPath: metadata.name}}]}}
- {name: all, projected: {sources: [{configMap: {name: config, items: [{key: key, path: deep/key}]}}]}}
containers:
- name: main
  image: hansa.local/busybox:1
  command: [sh, -c, "cat /etc/config /etc/group /secret/file /downward/key /all/key"]
  volumeMounts:
  - {name: config, mountPath: /etc/config, subPath: key}
  - {name: config, mountPath: /etc/group, subPath: key}
  - {name: secret, mountPath: /secret/file, subPath: key}
  - {name: downward, mountPath: /downward, subPath: deep}
  - {name: all, mountPath: /all, subPath: deep}
`)
	if got != "ccspc" {
		s.t.Errorf("got %q", got)
	}
}

// An expression that leads out of the volume, or to no value, keeps its container
// from being created until it is put right.
func subPathExpressions(s *space) {
	pod := func(value string) string {
		return fmt.Sprintf(`
metadata: {annotations: {where: %q}}
spec:
  restartPolicy: Never
  volumes: [{name: work, emptyDir: {}}]
  containers:
  - name: main
    image: hansa.local/busybox:1
    command: [sh, -c, "echo word > /part/file; cat /part/file"]
    env: [{name: WHERE, valueFrom: {fieldRef: {fieldPath: "metadata.annotations['where']"}}}]
    volumeMounts: [{name: work, mountPath: /part, subPathExpr: $(WHERE)}]
`, value)
	}
	for name, value := range map[string]string{"absolute": "/tmp", "up": "../up"} {
		s.createPod(podOf(s.t, name, pod(value)))
		s.until(name, "it is refused", func(p *corev1.Pod) bool { return waiting(p).Reason == "CreateContainerConfigError" })
		s.kubectl("annotate", "pod", name, "where=inside", "--overwrite")
		if p := s.finished(name); p.Status.Phase != corev1.PodSucceeded || s.logs(name, "main") != "word\n" {
			s.t.Errorf("%s, put right: %s", name, p.Status.Phase)
		}
	}
}

func manyConfigMaps(s *space) {
	const volumes, pods = 50, 5
	var all strings.Builder
	var names, mounts []string
	for i := range volumes {
		fmt.Fprintf(&all, "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c%d}\ndata: {key: \"%[1]d\"}\n", i)
		names = append(names, fmt.Sprintf("{name: v%d, configMap: {name: c%[1]d}}", i))
		mounts = append(mounts, fmt.Sprintf("{name: v%d, mountPath: /v/%[1]d}", i))
	}
	s.apply(all.String())
	for i := range pods {
		s.create(fmt.Sprint("p", i), fmt.Sprintf(`
restartPolicy: Never
volumes: [%s]
containers:
- {name: main, image: hansa.local/busybox:1, command: [sh, -c, "cat /v/*/key | wc -c"], volumeMounts: [%s]}
`, strings.Join(names, ", "), strings.Join(mounts, ", ")))
	}
	for i := range pods {
		name := fmt.Sprint("p", i)
		if p := s.finished(name); p.Status.Phase != corev1.PodSucceeded || strings.TrimSpace(s.logs(name, "main")) != "90" {
			s.t.Errorf("%s: %s", name, p.Status.Phase)
		}
	}
}

func messageElsewhere(s *space) {
	s.create("p", `
restartPolicy: Never
securityContext: {runAsUser: 1000}
containers:
- {name: main, image: hansa.local/busybox:1, command: [sh, -c, "echo -n DONE > /dev/termination-custom-log"], terminationMessagePath: /dev/termination-custom-log}
`)
	if e := s.finished("p").Status.ContainerStatuses[0].State.Terminated; e.Message != "DONE" {
		s.t.Errorf("%+v", e)
	}
}
