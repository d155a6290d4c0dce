package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	corev1 "k8s.io/api/core/v1"
)

var lifecycleRows = []row{
	{"native sidecars: started before, stopped after, last to first", sidecarsAtTheEnd},
	{"pod-level resources", podLevelResources},
	{"in-place resize: memory down, not below its use, observed generation", resizedDown},
	{"in-place resize: restarted where the policy says", resizedByRestart},
	{"in-place resize: refused, deferred", resizeWaits},
	{"in-place resize: of the pod itself", podResized},
	{"in-place resize: of a sidecar", sidecarResized},
	{"in-place resize: of init containers that end", initResized},
	{"in-place resize: in progress", resizeInProgress},
	{"restart rules of a container", restartRules},
	{"restart rules: RestartAllContainers", restartsAll},
	{"stop signals", stopSignal},
	{"host aliases and the managed hosts file", hostAliases},
	{"hostname, subdomain and FQDN", hostnames},
	{"supplemental groups policy", groupsPolicy},
	{"fsGroup change policy", groupChangePolicy},
	{"procMount", procMount},
	{"termination message policy", messagePolicy},
	{"logs of pods that are gone", goneLogs},
}

// The sidecars tell when they start and stop, in a log that outlives the pod.
func sidecarsAtTheEnd(s *space) {
	says := func(name, more string) string {
		return fmt.Sprintf(`{name: %s, image: hansa.local/busybox:1, command: [sh, -c, "echo start; trap 'echo stop; exit 0' TERM; while :; do sleep 0.1; done"], %s}`, name, more)
	}
	const probe = `restartPolicy: Always, startupProbe: {exec: {command: ["true"]}, periodSeconds: 1}`
	s.create("p", `
terminationGracePeriodSeconds: 30
initContainers:
- `+says("first", probe)+`
- `+says("second", probe)+`
containers:
- `+says("main", "")+`
`)
	s.ready("p")
	s.kubectl("delete", "pod", "p")
	when := map[string]time.Time{}
	for _, name := range []string{"first", "second", "main"} {
		for _, l := range s.stamped("p", "-c", name) {
			when[l.line+" "+name] = l.at
		}
	}
	order := []string{"start first", "start second", "start main", "stop main", "stop second", "stop first"}
	for i, what := range order {
		if when[what].IsZero() || i > 0 && when[what].Before(when[order[i-1]]) {
			s.t.Errorf("%s at %s: not after %v", what, when[what], order[:i])
		}
	}
}

// stampedLine is a line of a log and when it was written.
type stampedLine struct {
	at   time.Time
	line string
}

// stamped reads the log of a pod that is going, as lastLog does.
func (s *space) stamped(pod string, flags ...string) []stampedLine {
	s.t.Helper()
	var out []stampedLine
	for line := range strings.Lines(s.lastLog(pod, append(flags, "--timestamps")...)) {
		stamp, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		at, err := time.Parse(time.RFC3339Nano, stamp)
		if err != nil {
			s.t.Fatalf("log of %s: %q", pod, line)
		}
		out = append(out, stampedLine{at, rest})
	}
	return out
}

// hansaLogs reads a log by hansa logs.
func (s *space) hansaLogs(pod string, flags ...string) (string, error) {
	return s.hansa(append([]string{"logs", "--data-dir", s.dir, s.name + "/" + pod}, flags...)...)
}

// lastLog reads the log of a pod that is going, once it is gone.
func (s *space) lastLog(pod string, flags ...string) string {
	s.t.Helper()
	s.gone(pod)
	// The node keeps them a moment after it heard that the pod is gone.
	var out string
	await(s.t, "the logs of a pod that is gone are kept", func() (err error) {
		out, err = s.hansaLogs(pod, flags...)
		return err
	})
	return out
}

func podLevelResources(s *space) {
	s.create("p", `
resources: {requests: {cpu: 200m, memory: 64Mi}, limits: {cpu: 500m, memory: 96Mi}}
containers:
- {name: a, image: hansa.local/busybox:1, command: [sleep, "1000"], resources: {limits: {memory: 32Mi}}}
- {name: b, image: hansa.local/busybox:1, command: [sleep, "1000"]}
`)
	p := s.ready("p")
	if p.Status.QOSClass != corev1.PodQOSBurstable {
		s.t.Errorf("quality of service %s", p.Status.QOSClass)
	}
	got := s.readGroup(s.podGroup(p, "burstable"))
	if want := (groupValues{shares(204), "50000 100000", "100663296"}); got != want {
		s.t.Errorf("got %+v, want %+v", got, want)
	}
	s.create("big", `
restartPolicy: Never
resources: {limits: {cpu: 100m, memory: 32Mi}}
containers:
- {name: main, image: hansa.local/testimage:1, args: [alloc, "128"]}
`)
	if e := s.finished("big").Status.ContainerStatuses[0].State.Terminated; e.Reason != "OOMKilled" {
		s.t.Errorf("a container without a limit in a pod with one: %+v", e)
	}
}

// A container that is not restarted but for one exit code.
func restartRules(s *space) {
	s.create("p", `
restartPolicy: Never
volumes: [{name: work, emptyDir: {}}]
containers:
- name: main
  image: hansa.local/busybox:1
  command: [sh, -c, "echo run >> /work/runs; test $(wc -l < /work/runs) = 1 && exit 42; exit 7"]
  restartPolicy: Never
  restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}]
  volumeMounts: [{name: work, mountPath: /work}]
`)
	p := s.finished("p")
	c := p.Status.ContainerStatuses[0]
	if p.Status.Phase != corev1.PodFailed || c.RestartCount != 1 || c.State.Terminated.ExitCode != 7 || c.LastTerminationState.Terminated.ExitCode != 42 {
		s.t.Errorf("phase %s, %+v", p.Status.Phase, c)
	}
}

// A rule restarts the whole pod where it is: init containers run again, volumes,
// sandbox and address stay ("Restart All Containers").
func restartsAll(s *space) {
	s.create("p", `
restartPolicy: Never
volumes: [{name: work, emptyDir: {}}]
initContainers:
- {name: setup, image: hansa.local/busybox:1, command: [sh, -c, "echo setup >> /work/log"], volumeMounts: [{name: work, mountPath: /work}]}
containers:
- name: main
  image: hansa.local/busybox:1
  command: [sh, -c, "echo main >> /work/log; test $(grep -c main /work/log) = 2 || { until grep -q other /work/log; do sleep 0.1; done; exit 88; }; exec sleep 1000"]
  restartPolicy: Never
  restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [88]}}]
  volumeMounts: [{name: work, mountPath: /work}]
- {name: other, image: hansa.local/busybox:1, command: [sh, -c, "echo other >> /work/log; exec sleep 1000"], volumeMounts: [{name: work, mountPath: /work}]}
`)
	first := s.until("p", "it runs", func(p *corev1.Pod) bool { return p.Status.PodIP != "" })
	p := s.until("p", "all its containers were restarted", func(p *corev1.Pod) bool {
		return condition(p, corev1.PodReady) == corev1.ConditionTrue && p.Status.ContainerStatuses[0].RestartCount == 1
	})
	if p.Status.PodIP != first.Status.PodIP || p.Status.ContainerStatuses[0].LastTerminationState.Terminated.ExitCode != 88 {
		s.t.Errorf("at %s before: %+v", first.Status.PodIP, p.Status)
	}
	for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if c.RestartCount != 1 {
			s.t.Errorf("container %s was restarted %d times", c.Name, c.RestartCount)
		}
	}
	await(s.t, "each container has run twice", func() error {
		log := s.exec("p", "cat", "/work/log")
		for _, name := range []string{"setup", "main", "other"} {
			if n := strings.Count(log, name+"\n"); n != 2 {
				return fmt.Errorf("%s ran %d times: %s", name, n, log)
			}
		}
		return nil
	})
}

// An image names the signal by which its container is asked to stop.
func stopSignal(s *space) {
	image := s.shellImage()
	file, err := image.ConfigFile()
	if err != nil {
		s.t.Fatal(err)
	}
	config := *file.Config.DeepCopy()
	config.StopSignal = "SIGUSR1"
	if image, err = withConfig(image, config); err != nil {
		s.t.Fatal(err)
	}
	s.create("p", `
terminationGracePeriodSeconds: 60
containers:
- name: main
  image: `+s.publishImage("stop-signal", image)+`
  command: [sh, -c, "trap 'echo by USR1; exit 0' USR1; trap 'echo by TERM; exit 0' TERM; while :; do sleep 0.1; done"]
`)
	s.ready("p")
	s.kubectl("delete", "pod", "p")
	if got := s.lastLog("p"); got != "by USR1\n" {
		s.t.Errorf("it said %q", got)
	}
}

func hostAliases(s *space) {
	got := s.output("p", `
restartPolicy: Never
hostAliases: [{ip: 192.0.2.7, hostnames: [one.test, two.test]}]
containers:
- {name: main, image: hansa.local/busybox:1, command: [sh, -c, "cat /etc/hosts; ping -c 1 -w 1 two.test | head -n 1"]}
`)
	p := s.finished("p")
	for _, want := range []string{"# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n", p.Status.PodIP + "\tp\n", "192.0.2.7\tone.test\ttwo.test\n", "PING two.test (192.0.2.7)"} {
		if !strings.Contains(got, want) {
			s.t.Errorf("no %q in %s", want, got)
		}
	}
	// On the host's network it is the host's, and without aliases not managed at
	// all; a mount of one's own is left alone.
	got = s.output("host", `
restartPolicy: Never
hostNetwork: true
hostAliases: [{ip: 192.0.2.7, hostnames: [one.test]}]
containers:
- {name: main, image: hansa.local/busybox:1, command: [cat, /etc/hosts]}
`)
	if !strings.HasPrefix(got, "# Kubernetes-managed hosts file (host network).\n") || !strings.Contains(got, "192.0.2.7\tone.test\n") {
		s.t.Errorf("on the host's network: %s", got)
	}
	s.kubectl("create", "configmap", "hosts", "--from-literal=hosts=mine")
	got = s.output("own", `
restartPolicy: Never
volumes: [{name: hosts, configMap: {name: hosts}}]
containers:
- {name: main, image: hansa.local/busybox:1, command: [cat, /etc/hosts], volumeMounts: [{name: hosts, mountPath: /etc/hosts, subPath: hosts}]}
`)
	if got != "mine" {
		s.t.Errorf("a mount of one's own: %q", got)
	}
}

func hostnames(s *space) {
	for name, c := range map[string]struct{ spec, want string }{
		"plain":    {"", "plain"},
		"named":    {"hostname: other", "other"},
		"sub":      {"hostname: other, subdomain: sub", "other"},
		"full":     {"hostname: other, subdomain: sub, setHostnameAsFQDN: true", "other.sub." + s.name + ".svc.cluster.local"},
		"override": {"hostnameOverride: exactly.this, setHostnameAsFQDN: false", "exactly.this"},
	} {
		fields := map[string]any{}
		for f := range strings.SplitSeq(c.spec, ", ") {
			if k, v, ok := strings.Cut(f, ": "); ok {
				fields[k] = v
				if v == "true" || v == "false" {
					fields[k] = v == "true"
				}
			}
		}
		more, err := json.Marshal(fields)
		if err != nil {
			s.t.Fatal(err)
		}
		spec := strings.TrimSuffix(strings.TrimPrefix(string(more), "{"), "}")
		if spec != "" {
			spec = ", " + spec
		}
		got := s.output(name, `{"restartPolicy": "Never"`+spec+`, "containers": [{"name": "main", "image": "hansa.local/busybox:1", "command": ["hostname"]}]}`)
		if got != c.want+"\n" {
			s.t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// www-data, 33, is in a group of the image's own: that comes by Merge and not by
// Strict ("Configure fine-grained SupplementalGroups control for a Pod").
func groupsPolicy(s *space) {
	layer, err := crane.Layer(map[string][]byte{"etc/group": []byte("root:x:0:\nwww-data:x:33:\nextra:x:5000:www-data\n")})
	if err != nil {
		s.t.Fatal(err)
	}
	image, err := mutate.AppendLayers(s.shellImage(), layer)
	if err != nil {
		s.t.Fatal(err)
	}
	ref := s.publishImage("groups", image)
	for policy, want := range map[string][]int64{"": {33, 3000, 5000}, "Merge": {33, 3000, 5000}, "Strict": {33, 3000}} {
		name, field := "default", ""
		if policy != "" {
			name, field = strings.ToLower(policy), ", supplementalGroupsPolicy: "+policy
		}
		got := s.output(name, fmt.Sprintf(`
restartPolicy: Never
securityContext: {runAsUser: 33, runAsGroup: 33, supplementalGroups: [3000]%s}
containers:
- {name: main, image: %s, command: [id, -G]}
`, field, ref))
		words := strings.Fields(got)
		slices.Sort(words)
		if want := strings.Fields(strings.Trim(fmt.Sprint(want), "[]")); !slices.Equal(words, slices.Sorted(slices.Values(want))) {
			s.t.Errorf("%s: %q, want %v", name, got, want)
		}
		u := s.finished(name).Status.ContainerStatuses[0].User
		if u == nil || u.Linux == nil || u.Linux.UID != 33 || u.Linux.GID != 33 || !slices.Equal(slices.Sorted(slices.Values(u.Linux.SupplementalGroups)), want) {
			s.t.Errorf("%s: the status says %+v", name, u)
		}
	}
}

// Kubernetes applies the policy to none of the volumes that a node makes itself:
// they are the group's either way.
func groupChangePolicy(s *space) {
	for _, policy := range []string{"Always", "OnRootMismatch"} {
		got := s.output(strings.ToLower(policy), fmt.Sprintf(`
restartPolicy: Never
securityContext: {runAsUser: 1000, fsGroup: 4000, fsGroupChangePolicy: %s}
volumes: [{name: work, emptyDir: {}}]
containers:
- {name: main, image: hansa.local/busybox:1, command: [sh, -c, "touch /work/file; stat -c %%g /work /work/file"], volumeMounts: [{name: work, mountPath: /work}]}
`, policy))
		if got != "4000\n4000\n" {
			s.t.Errorf("%s: %q", policy, got)
		}
	}
}

func procMount(s *space) {
	const look = `[sh, -c, "grep -c ' /proc/' /proc/self/mountinfo"]`
	masked := s.output("masked", `
restartPolicy: Never
hostUsers: false
containers:
- {name: main, image: hansa.local/busybox:1, command: `+look+`}
`)
	unmasked := s.output("unmasked", `
restartPolicy: Never
hostUsers: false
containers:
- {name: main, image: hansa.local/busybox:1, command: `+look+`, securityContext: {procMount: Unmasked}}
`, 1)
	if masked == "0\n" || unmasked != "0\n" {
		s.t.Errorf("mounts below /proc: %q masked, %q unmasked", masked, unmasked)
	}
}

func messagePolicy(s *space) {
	for name, c := range map[string]struct{ policy, script, want string }{
		"file":     {"File", "echo logged; echo -n written > /dev/termination-log; exit 1", "written"},
		"log":      {"FallbackToLogsOnError", "echo logged; exit 1", "logged\n"},
		"both":     {"FallbackToLogsOnError", "echo logged; echo -n written > /dev/termination-log; exit 1", "written"},
		"no-error": {"FallbackToLogsOnError", "echo logged", ""},
		"succeeds": {"FallbackToLogsOnError", "echo logged; echo -n written > /dev/termination-log", "written"},
	} {
		s.create(name, fmt.Sprintf(`
restartPolicy: Never
containers:
- {name: main, image: hansa.local/busybox:1, command: [sh, -c, %q], terminationMessagePolicy: %s}
`, c.script, c.policy))
		if e := s.finished(name).Status.ContainerStatuses[0].State.Terminated; e.Message != c.want {
			s.t.Errorf("%s: %q, want %q", name, e.Message, c.want)
		}
	}
}

// hansa logs: a pod that runs, one that is gone, of several the newest; who may
// not read the namespace's logs is refused.
func goneLogs(s *space) {
	pod := func(word string) string {
		return fmt.Sprintf(`
containers:
- {name: main, image: hansa.local/busybox:1, command: [sh, -c, "echo %s; sleep 1000"]}
`, word)
	}
	s.create("p", pod("first"))
	s.ready("p")
	if got, err := s.hansaLogs("p"); got != "first\n" || err != nil {
		s.t.Errorf("of a running pod: %q, %v", got, err)
	}
	uid := string(s.ready("p").UID)
	s.kubectl("delete", "pod", "p")
	if got := s.lastLog("p"); got != "first\n" {
		s.t.Errorf("of a pod that is gone: %q", got)
	}
	s.create("p", pod("second"))
	s.ready("p")
	s.kubectl("delete", "pod", "p")
	if got := s.lastLog("p", "--since", "1h", "--tail", "5", "-f"); got != "second\n" {
		s.t.Errorf("of the newest: %q", got)
	}
	if got := s.lastLog("p", "--uid", uid); got != "first\n" {
		s.t.Errorf("by its UID: %q", got)
	}
	s.create("twice", `
restartPolicy: OnFailure
volumes: [{name: work, emptyDir: {}}]
containers:
- name: main
  image: hansa.local/busybox:1
  command: [sh, -c, "echo run >> /work/runs; echo run $(wc -l < /work/runs); test $(wc -l < /work/runs) = 2"]
  volumeMounts: [{name: work, mountPath: /work}]
`)
	s.finished("twice")
	s.kubectl("delete", "pod", "twice")
	if last, before := s.lastLog("twice"), s.lastLog("twice", "--previous"); last != "run 2\n" || before != "run 1\n" {
		s.t.Errorf("of two runs: %q and %q", last, before)
	}
	list, err := s.hansa("logs", "--data-dir", s.dir, s.name+"/")
	if err != nil || strings.Count(list, s.name+"   p ") != 2 || !strings.Contains(list, "twice") || !strings.HasPrefix(list, "NAMESPACE") {
		s.t.Errorf("list: %v\n%s", err, list)
	}
	if out, err := s.hansaLogs("none"); err == nil || !strings.Contains(err.Error(), `pod "none" not found, and no log of it is kept`) {
		s.t.Errorf("of no pod: %q, %v", out, err)
	}
	// The node asks whether the caller may read the logs of the namespace's pods.
	s.kubectl("create", "serviceaccount", "reader")
	s.kubectl("create", "serviceaccount", "stranger")
	s.kubectl("create", "rolebinding", "reader", "--clusterrole=view", "--serviceaccount="+s.name+":reader")
	for account, want := range map[string]int{"reader": http.StatusOK, "stranger": http.StatusForbidden} {
		token := strings.TrimSpace(s.kubectl("create", "token", account))
		for _, path := range []string{s.name + "/p", s.name} {
			if code, _ := askNode(s.t, s.asToken(token), "/hansa/logs/"+path); code != want {
				s.t.Errorf("%s reads %s: %d, want %d", account, path, code, want)
			}
		}
		if code, _ := askNode(s.t, s.asToken(token), "/hansa/logs/"); code != http.StatusForbidden {
			s.t.Errorf("%s lists the logs of all namespaces: %d", account, code)
		}
	}
}
