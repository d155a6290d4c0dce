package e2e

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

var environmentRows = []row{
	{"environment from every source", environment},
	{"environment from files of a volume", environmentFiles},
	{"service environment variables", serviceVariables},
	{"environment that waits for its source", environmentWaits},
}

func environment(s *space) {
	s.apply(`
apiVersion: v1
kind: ConfigMap
metadata: {name: config}
data: {one: "1", two: "2"}
---
apiVersion: v1
kind: Secret
metadata: {name: secret}
stringData: {password: hidden}
---
apiVersion: v1
kind: Service
metadata: {name: earlier}
spec: {selector: {app: nothing}, ports: [{name: http, port: 80}]}
`)
	p := s.createPod(podOf(s.t, "p", `
metadata:
  labels: {tier: front}
  annotations: {note: a note}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: hansa.local/busybox:1
    command: [env]
    resources: {limits: {cpu: 250m, memory: 64Mi}, requests: {cpu: 100m, memory: 32Mi}}
    envFrom:
    - {prefix: C_, configMapRef: {name: config}}
    - {secretRef: {name: secret}}
    - {configMapRef: {name: none, optional: true}}
    env:
    - {name: LITERAL, value: "a b"}
    - {name: EXPANDED, value: "<$(LITERAL)> $$(LITERAL) $(UNKNOWN)"}
    - {name: KEY, valueFrom: {configMapKeyRef: {name: config, key: two}}}
    - {name: SECRET, valueFrom: {secretKeyRef: {name: secret, key: password}}}
    - {name: ABSENT, valueFrom: {configMapKeyRef: {name: config, key: three, optional: true}}}
    - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
    - {name: POD_UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}
    - {name: LABEL, valueFrom: {fieldRef: {fieldPath: "metadata.labels['tier']"}}}
    - {name: ANNOTATION, valueFrom: {fieldRef: {fieldPath: "metadata.annotations['note']"}}}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: ACCOUNT, valueFrom: {fieldRef: {fieldPath: spec.serviceAccountName}}}
    - {name: HOST_IP, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}
    - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: POD_IPS, valueFrom: {fieldRef: {fieldPath: status.podIPs}}}
    - {name: CPU_LIMIT, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1m}}}
    - {name: CPU_ROUNDED, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}
    - {name: MEMORY_REQUEST, valueFrom: {resourceFieldRef: {resource: requests.memory, divisor: 1Mi}}}
`))
	p = s.finished(p.Name)
	got := map[string]string{}
	for line := range strings.Lines(s.logs("p", "main")) {
		k, v, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		got[k] = v
	}
	for name, want := range map[string]string{
		"C_one": "1", "C_two": "2", "password": "hidden",
		"LITERAL": "a b", "EXPANDED": "<a b> $(LITERAL) $(UNKNOWN)",
		"KEY": "2", "SECRET": "hidden",
		"POD_NAME": "p", "POD_NAMESPACE": s.name, "POD_UID": string(p.UID),
		"LABEL": "front", "ANNOTATION": "a note", "NODE": nodeName, "ACCOUNT": "default",
		"HOST_IP": nodeIP, "POD_IP": p.Status.PodIP, "POD_IPS": p.Status.PodIP,
		"CPU_LIMIT": "250", "CPU_ROUNDED": "1", "MEMORY_REQUEST": "32",
		"HOSTNAME": "p", "KUBERNETES_SERVICE_HOST": "10.43.0.1", "KUBERNETES_SERVICE_PORT": "443",
		"EARLIER_SERVICE_PORT": "80", "EARLIER_SERVICE_PORT_HTTP": "80",
		"PATH": "/bin:/sbin:/usr/bin:/usr/sbin", // the image's
	} {
		if v, ok := got[name]; !ok || v != want {
			s.t.Errorf("%s=%q, want %q", name, v, want)
		}
	}
	if v, ok := got["ABSENT"]; ok {
		s.t.Errorf("an absent optional key gave %q", v)
	}
	if got["EARLIER_PORT"] != "tcp://"+got["EARLIER_SERVICE_HOST"]+":80" {
		s.t.Errorf("service links: %q and %q", got["EARLIER_PORT"], got["EARLIER_SERVICE_HOST"])
	}
}

// "Define Environment Variable Values Using An Init Container" (fileKeyRef).
func environmentFiles(s *space) {
	const pod = `
restartPolicy: Never
enableServiceLinks: false
volumes: [{name: work, emptyDir: {}}]
initContainers:
- {name: setup, image: hansa.local/busybox:1, command: [sh, -c, "printf \"# words\\nWORD='two words'\\n\" > /work/env"], volumeMounts: [{name: work, mountPath: /work}]}
containers:
- name: main
  image: hansa.local/busybox:1
  command: [sh, -c, 'echo "$GIVEN/$NONE/"']
  env:
  - {name: GIVEN, valueFrom: {fileKeyRef: {volumeName: work, path: env, key: WORD}}}
  - {name: NONE, valueFrom: {fileKeyRef: {volumeName: work, path: env, key: OTHER, optional: true}}}
`
	if got := s.output("p", pod); got != "two words//\n" {
		s.t.Errorf("got %q", got)
	}
	s.create("lacks", strings.Replace(pod, ", optional: true", "", 1))
	s.until("lacks", "the key is missing", func(p *corev1.Pod) bool {
		w := waiting(p)
		return w.Reason == "CreateContainerConfigError" && strings.Contains(w.Message, `environment variable key "OTHER" not found in file "env"`)
	})
}

// "Accessing the Service", "Environment variables": of the namespace's services
// that there are when a container is made and that have an address, in both
// forms; with enableServiceLinks off only of the API's.
func serviceVariables(s *space) {
	s.apply(`
apiVersion: v1
kind: Service
metadata: {name: two-ports}
spec: {selector: {app: none}, ports: [{name: web-http, port: 80, targetPort: 8080}, {name: dns, port: 53, protocol: UDP}]}
---
apiVersion: v1
kind: Service
metadata: {name: headless}
spec: {clusterIP: None, selector: {app: none}, ports: [{port: 80}]}
`)
	address := strings.TrimSpace(s.kubectl("get", "service", "two-ports", "-o", "jsonpath={.spec.clusterIP}"))
	const spec = `
restartPolicy: Never
enableServiceLinks: %t
containers:
- {name: main, image: hansa.local/busybox:1, command: [env]}
`
	variables := func(pod string, links bool) []string {
		s.t.Helper()
		var out []string
		for line := range strings.Lines(s.output(pod, fmt.Sprintf(spec, links))) {
			if name, _, _ := strings.Cut(line, "="); strings.Contains(name, "_SERVICE_") || strings.Contains(name, "_PORT") {
				out = append(out, strings.TrimSuffix(line, "\n"))
			}
		}
		slices.Sort(out)
		return out
	}
	api := []string{
		"KUBERNETES_PORT=tcp://10.43.0.1:443", "KUBERNETES_PORT_443_TCP=tcp://10.43.0.1:443", "KUBERNETES_PORT_443_TCP_ADDR=10.43.0.1",
		"KUBERNETES_PORT_443_TCP_PORT=443", "KUBERNETES_PORT_443_TCP_PROTO=tcp", "KUBERNETES_SERVICE_HOST=10.43.0.1",
		"KUBERNETES_SERVICE_PORT=443", "KUBERNETES_SERVICE_PORT_HTTPS=443",
	}
	ours := []string{
		"TWO_PORTS_PORT=tcp://" + address + ":80",
		"TWO_PORTS_PORT_53_UDP=udp://" + address + ":53", "TWO_PORTS_PORT_53_UDP_ADDR=" + address, "TWO_PORTS_PORT_53_UDP_PORT=53", "TWO_PORTS_PORT_53_UDP_PROTO=udp",
		"TWO_PORTS_PORT_80_TCP=tcp://" + address + ":80", "TWO_PORTS_PORT_80_TCP_ADDR=" + address, "TWO_PORTS_PORT_80_TCP_PORT=80", "TWO_PORTS_PORT_80_TCP_PROTO=tcp",
		"TWO_PORTS_SERVICE_HOST=" + address, "TWO_PORTS_SERVICE_PORT=80", "TWO_PORTS_SERVICE_PORT_DNS=53", "TWO_PORTS_SERVICE_PORT_WEB_HTTP=80",
	}
	if diff := cmp.Diff(slices.Sorted(slices.Values(slices.Concat(api, ours))), variables("linked", true)); diff != "" {
		s.t.Errorf("with service links (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(api, variables("unlinked", false)); diff != "" {
		s.t.Errorf("without service links (-want +got):\n%s", diff)
	}
}

func environmentWaits(s *space) {
	s.create("p", `
restartPolicy: Never
enableServiceLinks: false
containers:
- name: main
  image: hansa.local/busybox:1
  command: [sh, -c, "echo $LATE"]
  env: [{name: LATE, valueFrom: {secretKeyRef: {name: late, key: word}}}]
`)
	waits := func(message string) {
		s.t.Helper()
		s.until("p", message, func(p *corev1.Pod) bool {
			w := waiting(p)
			return w.Reason == "CreateContainerConfigError" && w.Message == message
		})
	}
	waits(`secret "late" not found`)
	s.kubectl("create", "secret", "generic", "late", "--from-literal=other=x")
	waits(fmt.Sprintf(`couldn't find key word in Secret %s/late`, s.name))
	s.kubectl("patch", "secret", "late", "-p", `{"stringData":{"word":"at last"}}`)
	s.finished("p")
	if got := s.logs("p", "main"); got != "at last\n" {
		s.t.Errorf("got %q", got)
	}
}

// waiting is what the first container waits for.
func waiting(p *corev1.Pod) corev1.ContainerStateWaiting {
	if len(p.Status.ContainerStatuses) == 0 || p.Status.ContainerStatuses[0].State.Waiting == nil {
		return corev1.ContainerStateWaiting{}
	}
	return *p.Status.ContainerStatuses[0].State.Waiting
}
