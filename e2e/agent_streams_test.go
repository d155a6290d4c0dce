package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"k8s.io/client-go/tools/remotecommand"
)

var streamRows = []row{
	{"exec: output, input, exit codes", execStreams},
	{"exec: a terminal", execTerminal},
	{"exec: over SPDY", execSPDY},
	{"exec: refusals", execRefused},
	{"attach", attach},
	{"attach: a terminal, kubectl run -it", attachTerminal},
	{"exec and logs by kubectl of other versions", otherKubectls},
	{"copied files", copied},
	{"proxy", proxied},
	{"port-forward over WebSocket", func(s *space) { portForward(s, "true") }},
	{"port-forward over SPDY", func(s *space) { portForward(s, "false") }},
}

const sleeper = `
containers:
- {name: main, image: hansa.local/busybox:1, command: [sleep, "1000"]}
`

func execStreams(s *space) {
	s.create("p", sleeper)
	s.ready("p")
	var out, errOut bytes.Buffer
	err := s.pipe(s.t.Context(), strings.NewReader("typed\n"), &out, &errOut, "kubectl", "--data-dir", s.dir, "-n", s.name,
		"exec", "-i", "p", "--", "sh", "-c", "read word; echo got $word; echo bad >&2; exit 7")
	if out.String() != "got typed\n" || !strings.HasPrefix(errOut.String(), "bad\n") || err == nil || !strings.Contains(err.Error(), "exit status 7") {
		s.t.Errorf("out %q, error %q, %v", out.String(), errOut.String(), err)
	}
	// Much of it, both ways, and the end of the input is the command's end.
	much := strings.Repeat("0123456789abcdef", 1<<16)
	out.Reset()
	err = s.pipe(s.t.Context(), strings.NewReader(much), &out, io.Discard, "kubectl", "--data-dir", s.dir, "-n", s.name, "exec", "-i", "p", "--", "cat")
	if err != nil || out.String() != much {
		s.t.Errorf("%d of %d bytes came back, %v", out.Len(), len(much), err)
	}
}

func execTerminal(s *space) {
	s.create("p", sleeper)
	s.ready("p")
	x := newTerminal(s.t, s.cluster, 33, 111, "kubectl", "--data-dir", s.dir, "-n", s.name, "exec", "-it", "p", "--", "sh")
	x.write("tty\n")
	x.expect("/dev/pts/")
	size := func(want string) {
		s.t.Helper()
		await(s.t, "the container's terminal has the size of ours", func() error {
			x.write("stty size\n")
			if got := x.shown(); !strings.Contains(got, want) {
				return fmt.Errorf("shown: %q", got)
			}
			return nil
		})
	}
	size("33 111")
	x.resize(44, 99)
	size("44 99")
	x.write("sleep 2000\n")
	await(s.t, "the shell waits for another program", func() error {
		if got := s.exec("p", "ps"); !strings.Contains(got, " sleep 2000") {
			return fmt.Errorf("there runs:\n%s", got)
		}
		return nil
	})
	x.write("\x03") // Ctrl-C
	await(s.t, "the shell is back", func() error {
		x.write("echo $((6*7))\n")
		if got := x.shown(); !strings.Contains(got, "42\r\n") {
			return fmt.Errorf("shown: %q", got)
		}
		return nil
	})
	x.write("exit 5\n")
	select {
	case err := <-x.done:
		if err == nil || err.Error() != "exit status 5" {
			s.t.Errorf("kubectl ended with %v\n%s", err, x.shown())
		}
	case <-time.After(patience):
		s.t.Errorf("kubectl does not end:\n%s", x.shown())
	}
}

func execSPDY(s *space) {
	s.create("p", sleeper)
	s.ready("p")
	r := s.client.CoreV1().RESTClient().Post().Namespace(s.name).Resource("pods").Name("p").SubResource("exec").
		Param("stdin", "true").Param("stdout", "true").Param("stderr", "true")
	for _, w := range []string{"sh", "-c", "cat; echo bad >&2; exit 3"} {
		r.Param("command", w)
	}
	e, err := remotecommand.NewSPDYExecutor(s.config, http.MethodPost, r.URL())
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	var out, errOut bytes.Buffer
	err = e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: strings.NewReader("typed"), Stdout: &out, Stderr: &errOut})
	if out.String() != "typed" || errOut.String() != "bad\n" || err == nil || err.Error() != "command terminated with exit code 3" {
		s.t.Errorf("out %q, error %q, %v", out.String(), errOut.String(), err)
	}
}

func execRefused(s *space) {
	s.create("p", sleeper)
	s.ready("p")
	s.output("done", `
restartPolicy: Never
containers:
- {name: main, image: hansa.local/busybox:1, command: ["true"]}
`)
	for _, c := range []struct{ pod, container, command, want string }{
		{"p", "none", "true", "container none is not valid for pod p"},
		{"done", "main", "true", "cannot exec into a container in a completed pod; current phase is Succeeded"},
		{"none", "main", "true", `pods "none" not found`},
		{"p", "main", "/none", "no such file or directory"},
	} {
		out, code, err := s.execIn(c.pod, c.container, c.command)
		if got := fmt.Sprint(out, err); code == 0 && err == nil || !strings.Contains(got, c.want) {
			s.t.Errorf("exec %s in %s/%s: exit code %d, %s; want %s", c.command, c.pod, c.container, code, got, c.want)
		}
	}
}

func attach(s *space) {
	s.create("p", `
restartPolicy: Never
containers:
- {name: main, image: hansa.local/busybox:1, stdin: true, stdinOnce: true, command: [sh, -c, "read word; echo got $word; exit 6"]}
`)
	s.ready("p")
	var out bytes.Buffer
	err := s.pipe(s.t.Context(), strings.NewReader("typed\n"), &out, io.Discard, "kubectl", "--data-dir", s.dir, "-n", s.name, "attach", "-i", "p")
	if !strings.Contains(out.String(), "got typed\n") {
		s.t.Errorf("out %q, %v", out.String(), err)
	}
	if p := s.finished("p"); p.Status.ContainerStatuses[0].State.Terminated.ExitCode != 6 {
		s.t.Errorf("state %+v", p.Status.ContainerStatuses[0].State)
	}
	if got := s.logs("p", ""); got != "got typed\n" {
		s.t.Errorf("log %q", got)
	}
}

func attachTerminal(s *space) {
	x := newTerminal(s.t, s.cluster, 24, 80, "kubectl", "--data-dir", s.dir, "-n", s.name, "run", "-it", "--rm", "--restart=Never", "p", "--image="+shell, "--", "sh")
	await(s.t, "the shell answers", func() error {
		x.write("echo $((6*7)) $(hostname)\n")
		if got := x.shown(); !strings.Contains(got, "42 p") {
			return fmt.Errorf("shown: %q", got)
		}
		return nil
	})
	x.write("exit\n")
	select {
	case <-x.done:
	case <-time.After(patience):
		s.t.Errorf("kubectl does not end:\n%s", x.shown())
	}
	s.gone("p")
}

// kubectl cp is exec with tar.
func copied(s *space) {
	s.create("p", sleeper)
	s.ready("p")
	dir := s.t.TempDir()
	if err := os.WriteFile(dir+"/there", []byte(strings.Repeat("0123456789", 1<<16)), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.kubectl("cp", dir+"/there", "p:/tmp/file")
	s.kubectl("cp", "p:/tmp/file", dir+"/back")
	if got, err := os.ReadFile(dir + "/back"); err != nil || string(got) != strings.Repeat("0123456789", 1<<16) {
		s.t.Errorf("%d bytes came back, %v", len(got), err)
	}
}

// The API passes requests on to pods, services and nodes.
func proxied(s *space) {
	p := s.server("p", "p", "")
	s.service("p", "selector: {app: p}, ports: [{name: http, port: 80, targetPort: web}]")
	base := "/api/v1/namespaces/" + s.name
	for path, want := range map[string]string{
		base + "/pods/p:8080/proxy/":                   "p\n",
		base + "/pods/p/proxy/":                        "p\n",
		base + "/services/p:http/proxy/":               "p\n",
		"/api/v1/nodes/" + nodeName + "/proxy/healthz": "ok",
	} {
		await(s.t, path+" answers", func() error {
			got, err := s.cluster.kubectl("get", "--raw", path)
			if err == nil && got != want {
				err = fmt.Errorf("it answered %q", got)
			}
			return err
		})
	}
	if got, err := s.cluster.kubectl("get", "--raw", "/api/v1/nodes/"+nodeName+"/proxy/stats/summary"); err != nil || !strings.Contains(got, string(p.UID)) {
		s.t.Errorf("what the node uses: %v\n%s", err, got)
	}
}

// stockKubectl runs a kubectl as others build it, and answers with both streams.
func (s *space) stockKubectl(version, input string, args ...string) (string, error) {
	path := filepath.Join("..", ".cache", "kubectls", "current", "kubectl-"+version)
	cmd := exec.CommandContext(s.t.Context(), path, append([]string{"--kubeconfig", s.dir + "/kubeconfig", "-n", s.name}, args...)...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// otherKubectls are those of the minor version before ours and of Debian, which
// speaks SPDY only.
func otherKubectls(s *space) {
	s.create("p", `
containers:
- {name: main, image: hansa.local/busybox:1, command: [sh, -c, "echo said; exec sleep 1000"]}
`)
	s.ready("p")
	for _, version := range []string{"1.20", "1.36"} {
		kubectl := func(input string, args ...string) (string, error) { return s.stockKubectl(version, input, args...) }
		if got, err := kubectl("", "logs", "p"); err != nil || got != "said\n" {
			s.t.Errorf("%s: logs are %q, %v", version, got, err)
		}
		if got, err := kubectl("typed\n", "exec", "-i", "p", "--", "sh", "-c", "read word; echo got $word"); err != nil || got != "got typed\n" {
			s.t.Errorf("%s: exec said %q, %v", version, got, err)
		}
		if got, err := kubectl("", "exec", "p", "--", "sh", "-c", "exit 7"); err == nil || !strings.Contains(got, "exit code 7") {
			s.t.Errorf("%s: a failing exec said %q, %v", version, got, err)
		}
	}
}

var forwarding = regexp.MustCompile(`Forwarding from 127\.0\.0\.1:(\d+) -> 8080`)

// portForward forwards a port by kubectl, over WebSocket or not.
func portForward(s *space, webSocket string) {
	s.create("p", `
containers:
- name: main
  image: hansa.local/testimage:1
  readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
`)
	s.ready("p")
	cmd := s.program("kubectl", "--data-dir", s.dir, "-n", s.name, "port-forward", "pod/p", ":8080", ":1")
	cmd.Env = append(os.Environ(), "KUBECTL_PORT_FORWARD_WEBSOCKETS="+webSocket)
	var out lockedBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill() //nolint:errcheck // fails when it has ended
		cmd.Wait()         //nolint:errcheck // it was killed
	}()
	var port string
	await(s.t, "kubectl listens", func() error {
		if m := forwarding.FindStringSubmatch(out.String()); m != nil && strings.Contains(out.String(), "-> 1\n") {
			port = m[1]
			return nil
		}
		return fmt.Errorf("it says %q", out.String())
	})
	for i := range 5 {
		answers := make(chan string)
		for range 4 {
			go func() {
				got, err := fetch("http://127.0.0.1:" + port + "/")
				answers <- fmt.Sprint(got, err)
			}()
		}
		for range 4 {
			if got := <-answers; got != "p\n<nil>" {
				s.t.Fatalf("round %d: %s; kubectl says:\n%s", i, got, out.String())
			}
		}
	}
	// Nobody listens on port 1 of the pod: that connection ends.
	other := regexp.MustCompile(`Forwarding from 127\.0\.0\.1:(\d+) -> 1\n`).FindStringSubmatch(out.String())[1]
	conn, err := net.Dial("tcp", "127.0.0.1:"+other)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	if b, err := io.ReadAll(conn); len(b) > 0 {
		s.t.Errorf("from a closed port: %q, %v", b, err)
	}
	await(s.t, "kubectl says that the connection was refused", func() error {
		if !strings.Contains(out.String(), "refused") {
			return fmt.Errorf("it says %q", out.String())
		}
		return nil
	})
}
