package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/websocket"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
)

var logRows = []row{
	{"logs: whole, both streams, long lines", wholeLogs},
	{"logs: tail, limit, timestamps, since", partOfLogs},
	{"logs: follow, also over WebSocket", followLogs},
	{"logs: previous", previousLogs},
	{"logs: refusals", noLogs},
}

func wholeLogs(s *space) {
	got := s.output("p", `
restartPolicy: Never
containers:
- {name: main, image: hansa.local/busybox:1, command: [sh, -c, "echo out; echo err >&2; head -c 40000 /dev/zero | tr '\\0' x; echo; echo -n end"]}
`)
	// Between the streams there is no order.
	want := "out\n" + strings.Repeat("x", 40000) + "\nend"
	if !strings.Contains(got, "err\n") || strings.Replace(got, "err\n", "", 1) != want {
		s.t.Errorf("%d bytes, want %d; begins with %.40q", len(got), len(want), got)
	}
	if got := s.logsOf("p", &corev1.PodLogOptions{Stream: ptr.To("Stderr")}); got != "err\n" {
		s.t.Errorf("standard error alone: %q", got)
	}
}

func partOfLogs(s *space) {
	s.output("p", `
restartPolicy: Never
containers:
- {name: main, image: hansa.local/busybox:1, command: [sh, -c, "echo one; echo two; sleep 2; echo three"]}
`)
	read := func(o corev1.PodLogOptions) string { return s.logsOf("p", &o) }
	if got := read(corev1.PodLogOptions{TailLines: ptr.To[int64](2)}); got != "two\nthree\n" {
		s.t.Errorf("tail 2: %q", got)
	}
	if got := read(corev1.PodLogOptions{TailLines: ptr.To[int64](0)}); got != "" {
		s.t.Errorf("tail 0: %q", got)
	}
	if got := read(corev1.PodLogOptions{LimitBytes: ptr.To[int64](5)}); got != "one\nt" {
		s.t.Errorf("limit 5: %q", got)
	}
	lines := strings.Split(strings.TrimSpace(read(corev1.PodLogOptions{Timestamps: true})), "\n")
	var times []time.Time
	for i, word := range []string{"one", "two", "three"} {
		stamp, rest, _ := strings.Cut(lines[i], " ")
		at, err := time.Parse(time.RFC3339Nano, stamp)
		if err != nil || rest != word {
			s.t.Fatalf("with timestamps: %q", lines)
		}
		times = append(times, at)
	}
	// The API's times have whole seconds.
	if got := read(corev1.PodLogOptions{SinceTime: ptr.To(metav1.NewTime(times[2].Truncate(time.Second)))}); got != "three\n" {
		s.t.Errorf("since the last line: %q", got)
	}
	if got := read(corev1.PodLogOptions{SinceSeconds: ptr.To[int64](1000)}); got != "one\ntwo\nthree\n" {
		s.t.Errorf("since 1000 seconds: %q", got)
	}
	if got := s.kubectl("logs", "p", "--tail=1", "--timestamps"); got != lines[2]+"\n" {
		s.t.Errorf("kubectl logs: %q", got)
	}
}

// A follower gets each line when it is written, and the end when the container
// ends.
func followLogs(s *space) {
	s.create("p", `
restartPolicy: Never
containers:
- {name: main, image: hansa.local/busybox:1, command: [sh, -c, "echo first; while [ ! -e /tmp/go ]; do sleep 0.1; done; echo second"]}
`)
	s.ready("p")
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	log, err := s.client.CoreV1().Pods(s.name).GetLogs("p", &corev1.PodLogOptions{Follow: true}).Stream(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	line := make([]byte, len("first\n"))
	if _, err := io.ReadFull(log, line); err != nil || string(line) != "first\n" {
		s.t.Fatalf("%q, %v", line, err)
	}
	bySocket := s.logSocket("p", "follow=true", "binary.k8s.io")
	for _, want := range []string{"", "first\n"} { // the empty one says that the connection stands
		if got, err := receive(bySocket); got != want || err != nil {
			s.t.Fatalf("over WebSocket: %q, %v, want %q", got, err, want)
		}
	}
	s.exec("p", "touch", "/tmp/go")
	rest, err := io.ReadAll(log)
	if string(rest) != "second\n" || err != nil {
		s.t.Errorf("%q, %v", rest, err)
	}
	if got, err := receive(bySocket); got != "second\n" || err != nil {
		s.t.Errorf("over WebSocket, then: %q, %v", got, err)
	}
	if got, err := receive(bySocket); !errors.Is(err, io.EOF) {
		s.t.Errorf("over WebSocket, at the end: %q, %v", got, err)
	}
	for protocol, want := range map[string]string{"": "second\n", "binary.k8s.io": "second\n", "base64.binary.k8s.io": "c2Vjb25kCg=="} {
		ws := s.logSocket("p", "tailLines=1", protocol)
		empty, err := receive(ws)
		got, nextErr := receive(ws)
		if empty != "" || got != want || err != nil || nextErr != nil {
			s.t.Errorf("over WebSocket, protocol %q: %q, %q, %v, %v", protocol, empty, got, err, nextErr)
		}
	}
}

// logSocket reads a log over WebSocket; the test's end closes it.
func (s *space) logSocket(pod, query, protocol string) *websocket.Conn {
	s.t.Helper()
	path := fmt.Sprintf("/api/v1/namespaces/%s/pods/%s/log?%s", s.name, pod, query)
	config, err := websocket.NewConfig(strings.Replace(s.config.Host, "https:", "wss:", 1)+path, s.config.Host)
	if err != nil {
		s.t.Fatal(err)
	}
	if config.TlsConfig, err = rest.TLSConfigFor(s.config); err != nil {
		s.t.Fatal(err)
	}
	if protocol != "" {
		config.Protocol = []string{protocol}
	}
	ws, err := config.DialContext(s.t.Context())
	if err == nil {
		err = ws.SetDeadline(time.Now().Add(patience))
	}
	if err != nil {
		s.t.Fatalf("%s over WebSocket: %v", path, err)
	}
	s.t.Cleanup(func() { ws.Close() })
	return ws
}

// receive reads one message.
func receive(ws *websocket.Conn) (message string, err error) {
	err = websocket.Message.Receive(ws, &message)
	return message, err
}

func previousLogs(s *space) {
	s.create("p", `
restartPolicy: OnFailure
volumes: [{name: work, emptyDir: {}}]
containers:
- name: main
  image: hansa.local/busybox:1
  command: [sh, -c, "echo run >> /work/runs; echo run $(wc -l < /work/runs); test $(wc -l < /work/runs) = 2"]
  volumeMounts: [{name: work, mountPath: /work}]
`)
	s.finished("p")
	if got := s.kubectl("logs", "p"); got != "run 2\n" {
		s.t.Errorf("logs: %q", got)
	}
	if got := s.kubectl("logs", "p", "--previous"); got != "run 1\n" {
		s.t.Errorf("logs of the run before: %q", got)
	}
}

func noLogs(s *space) {
	s.create("p", `
initContainers:
- {name: first, image: hansa.local/busybox:1, command: [sleep, "1000"]}
containers:
- {name: main, image: hansa.local/busybox:1, command: [sleep, "1000"]}
- {name: other, image: hansa.local/busybox:1, command: [sleep, "1000"]}
`)
	s.until("p", "its init container runs", func(p *corev1.Pod) bool {
		return len(p.Status.InitContainerStatuses) == 1 && p.Status.InitContainerStatuses[0].State.Running != nil
	})
	for _, c := range []struct{ container, want string }{
		{"main", `container "main" in pod "p" is waiting to start: PodInitializing`},
		{"none", "container none is not valid for pod p"},
		{"", "a container name must be specified for pod p, choose one of: [main other] or one of the init containers: [first]"},
	} {
		_, err := s.client.CoreV1().Pods(s.name).GetLogs("p", &corev1.PodLogOptions{Container: c.container}).Stream(s.t.Context())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			s.t.Errorf("logs of %q: %v, want %s", c.container, err, c.want)
		}
	}
	_, err := s.client.CoreV1().Pods(s.name).GetLogs("p", &corev1.PodLogOptions{Container: "first", Previous: true}).Stream(s.t.Context())
	if want := `previous terminated container "first" in pod "p" not found`; err == nil || !strings.Contains(err.Error(), want) {
		s.t.Errorf("logs of a run before the first: %v, want %s", err, want)
	}
	var out, errOut bytes.Buffer
	if err := s.pipe(s.t.Context(), nil, &out, &errOut, "kubectl", "--data-dir", s.dir, "-n", s.name, "logs", "none"); err == nil {
		s.t.Error(fmt.Sprint("logs of no pod: ", out.String(), errOut.String()))
	}
}

// "Log rotation": who follows loses no line of a container that goes on writing
// meanwhile, who reads gets the newest file, and of the files at most as many as
// the node is told stay, the older ones compressed.
func logRotation(s *space) {
	s.create("p", `
containers:
- {name: main, image: hansa.local/busybox:1, command: [sh, -c, "i=0; while :; do echo line $i; i=$((i+1)); sleep 0.02; done"]}
`)
	p := s.ready("p")
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	log, err := s.client.CoreV1().Pods(s.name).GetLogs("p", &corev1.PodLogOptions{Follow: true}).Stream(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	files := func() []string {
		found, err := filepath.Glob(filepath.Join("/tmp/podlogs", s.name+"_p_"+string(p.UID), "main", "*"))
		if err != nil {
			s.t.Fatal(err)
		}
		return found
	}
	lines, seen := bufio.NewScanner(log), map[string]bool{}
	for n, last := 0, -1; n != last; n++ {
		if !lines.Scan() || lines.Text() != fmt.Sprint("line ", n) {
			s.t.Fatalf("followed, line %d: %q, %v", n, lines.Text(), lines.Err())
		}
		if n%100 > 0 || last >= 0 {
			continue
		}
		now := files()
		if len(now) > 3 {
			s.t.Errorf("there are %q", now)
		}
		for _, f := range now {
			seen[strings.TrimSuffix(f, ".gz")] = true
		}
		// Three rotations, and on into the file of after.
		if len(seen) > 3 && slices.ContainsFunc(now, func(f string) bool { return strings.HasSuffix(f, ".gz") }) {
			last = n + 100
		}
	}
	await(s.t, "the newest file, which may have begun just now", func() error {
		n := -1
		for line := range strings.Lines(s.logs("p", "main")) {
			var got int
			if _, err := fmt.Sscanf(line, "line %d\n", &got); err != nil || n >= 0 && got != n+1 || n < 0 && got == 0 {
				s.t.Fatalf("read: %q after line %d, %v", line, n, err)
			}
			n = got
		}
		if n < 0 {
			return errors.New("nothing is read")
		}
		return nil
	})
}

// keptFor is how long the configured node keeps logs of pods that are gone.
const keptFor = 8 * time.Second

// hansa logs: of a pod that is gone for as long as the node is told, and then
// no more; a name that no pod had is said as such.
func goneLogsExpire(s *space) {
	for read := false; !read; {
		s.create("p", `
containers:
- {name: main, image: hansa.local/busybox:1, command: [sh, -c, "echo said; exec sleep 1000"]}
`)
		s.ready("p")
		began := time.Now()
		s.kubectl("delete", "pod", "p", "--grace-period=1")
		s.gone("p")
		await(s.t, "the log of a pod that is gone is read", func() error {
			out, err := s.hansaLogs("p")
			read = err == nil
			if err != nil && time.Since(began) < keptFor {
				return err
			}
			if read && out != "said\n" {
				s.t.Errorf("read %q", out)
			}
			return nil // or the machine was too slow: the next, then
		})
	}
	if out, err := s.hansaLogs("q"); err == nil || !strings.Contains(err.Error(), `pod "q" not found, and no log of it is kept`) {
		s.t.Errorf("of a name with a typo: %q, %v", out, err)
	}
	await(s.t, "the log is kept no longer", func() error {
		out, err := s.hansaLogs("p")
		if err == nil || !strings.Contains(err.Error(), `pod "p" not found, and no log of it is kept`) {
			return fmt.Errorf("%q, %v", out, err)
		}
		return nil
	})
	if list, err := s.hansa("logs", "--data-dir", s.dir, s.name+"/"); err != nil || strings.Contains(list, s.name) {
		s.t.Errorf("list: %v\n%s", err, list)
	}
}
