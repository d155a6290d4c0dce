package pod_test

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"sigs.k8s.io/yaml"

	"hansa.dev/hansa/agent/pod"
)

var update = flag.Bool("update", false, "write what the scripts print into them")

// TestScripts runs the text scripts in testdata. A script is a list of blocks:
// a command, with more lines of input if it takes any, then ---- and what it
// prints, then a blank line. The commands are the cases of script.run.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { runScript(t, file) })
	}
}

func runScript(t *testing.T, file string) {
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := &script{now: time.Date(2026, 1, 2, 15, 4, 0, 0, time.UTC), fails: map[string]error{}}
	s.start = s.now
	var out bytes.Buffer
	lines := bufio.NewScanner(bytes.NewReader(data))
	var input []string
	for lines.Scan() {
		line := lines.Text()
		if line != "----" {
			if len(input) > 0 || line != "" && !strings.HasPrefix(line, "#") {
				input = append(input, line)
			}
			out.WriteString(line + "\n")
			continue
		}
		var want strings.Builder
		for lines.Scan() && lines.Text() != "" {
			want.WriteString(lines.Text() + "\n")
		}
		got := s.run(t, input)
		if got != want.String() && !*update {
			t.Errorf("%s: %s\ngot:\n%swant:\n%s", file, strings.Join(input, "\n"), got, want.String())
		}
		out.WriteString("----\n" + got + "\n")
		input = nil
	}
	if *update {
		if err := os.WriteFile(file, append(bytes.TrimRight(out.Bytes(), "\n"), '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// script is a pod with a runtime that does what it is told.
type script struct {
	start, now time.Time
	pod        *v1.Pod
	s          *pod.State
	sandboxes  int
	runs       int
	begun      []pod.Action
	restarted  []pod.Action // kills for another run to follow
	lost       bool
	// fails holds, by verb and container, the error of the next attempt.
	fails map[string]error
}

func (x *script) run(t *testing.T, input []string) string {
	t.Helper()
	words := strings.Fields(input[0])
	args := words[1:]
	switch words[0] {
	case "pod": // YAML of a spec follows
		return x.newPod(t, input[1:])
	case "edit": // YAML of the whole spec follows
		x.edit(t, input[1:])
	case "at": // +DURATION from now
		x.now = x.now.Add(duration(t, args[0]))
	case "go": // plan and carry out until there is nothing to do; "go N" rounds
		rounds := 100
		if len(args) > 0 {
			rounds = number(t, args[0])
		}
		return x.goOn(t, rounds)
	case "plan": // one plan, begun and not carried out
		return x.plan(t, true)
	case "look": // one plan, not even begun
		return x.plan(t, false)
	case "do": // carries out what was begun, all or the given verb
		return x.perform(t, strings.Join(args, " "))
	case "fail": // VERB [CONTAINER] REASON[@IMAGE]: the next attempt fails; Away: as the runtime is away
		n := len(args) - 1
		reason, of, _ := strings.Cut(args[n], "@")
		x.fails[strings.Join(args[:n], " ")] = &pod.Failure{Reason: reason, Message: "no luck", Of: of, Cut: reason == "Away"}
	case "left": // CONTAINER created|failed|running: of a start that is cut off
		x.left(args[0], args[1])
	case "exit": // CONTAINER CODE [REASON]
		reason := ""
		if len(args) > 2 {
			reason = args[2]
		}
		x.exit(t, args[0], number(t, args[1]), reason)
	case "lose-sandbox":
		x.s.ObserveSandbox(pod.SandboxInfo{ID: x.s.Sandbox.ID, Attempt: x.s.Sandbox.Attempt})
	case "lose-all": // the runtime forgets everything, as after a reboot
		for _, c := range x.s.Containers {
			c.Runs = nil
		}
		x.s.Sandbox = pod.Sandbox{}
		x.lost = true
	case "probe": // CONTAINER KIND true|false
		x.s.Probed(args[0], x.s.Containers[args[0]].Newest().ID, pod.ProbeKind(args[1]), args[2] == "true")
	case "delete": // GRACE [FINALIZER]
		p := x.pod.DeepCopy()
		p.Finalizers = args[1:]
		grace := int64(duration(t, args[0]).Seconds())
		stamp := metav1.NewTime(x.now.Add(time.Duration(grace) * time.Second))
		p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &stamp, &grace
		x.set(p)
	case "finalized":
		p := x.pod.DeepCopy()
		p.Finalizers = nil
		x.set(p)
	case "gone":
		x.s.SetGone(x.now)
	case "keep": // OLD MIN-AGE
		x.s.Keep = pod.Keep{Old: number(t, args[0]), MinAge: duration(t, args[1])}
	case "shed":
		x.s.Shed = true
	case "excess": // ID...
		x.s.Excess = map[string]bool{}
		for _, id := range args {
			x.s.Excess[id] = true
		}
	case "old":
		var out strings.Builder
		for _, e := range x.s.Old() {
			fmt.Fprintf(&out, "%s +%s\n", e.ID, e.Created.Sub(x.start))
		}
		return out.String()
	case "evict":
		x.s.Terminate(pod.Stop{Since: x.now, Grace: 0, Reason: "Evicted", Message: "the node was low on resource", Fail: true})
	case "refuse":
		x.s.Refused = &pod.Refusal{Reason: "OutOfcpu", Message: "Node didn't have enough resource: cpu"}
	case "restart-agent": // [untold] a new state, from the status, or the one told last, and what the runtime has
		x.restart(len(args) == 0)
	case "condition": // TYPE STATUS, written by somebody else
		p := x.pod.DeepCopy()
		p.Status.Conditions = append(p.Status.Conditions, v1.PodCondition{Type: v1.PodConditionType(args[0]), Status: v1.ConditionStatus(args[1])})
		x.set(p)
	case "grant":
		x.s.Grant()
	case "defer": // REASON
		x.s.Defer(args[0], "no room", x.now)
	case "resources":
		return x.resources()
	case "status":
		return x.status(false)
	case "conditions":
		return x.status(true)
	default:
		t.Fatalf("unknown command %q", input[0])
	}
	return ""
}

func duration(t *testing.T, s string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(strings.TrimPrefix(s, "+"))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (x *script) spec(t *testing.T, lines []string) v1.PodSpec {
	t.Helper()
	var spec v1.PodSpec
	if err := yaml.UnmarshalStrict([]byte(strings.Join(lines, "\n")), &spec); err != nil {
		t.Fatal(err)
	}
	if spec.RestartPolicy == "" {
		spec.RestartPolicy = v1.RestartPolicyAlways
	}
	for _, list := range [][]v1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			if list[i].Image == "" {
				list[i].Image = "img"
			}
		}
	}
	return spec
}

func (x *script) newPod(t *testing.T, lines []string) string {
	x.pod = &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u", Generation: 1}, Spec: x.spec(t, lines)}
	x.s = pod.New(x.pod, []string{"192.0.2.1"}, x.now)
	return ""
}

func (x *script) edit(t *testing.T, lines []string) {
	p := x.pod.DeepCopy()
	p.Generation++
	p.Spec = x.spec(t, lines)
	x.set(p)
}

func (x *script) set(p *v1.Pod) {
	x.pod = p
	x.s.SetPod(p, x.now)
}

func (x *script) plan(t *testing.T, begin bool) string {
	t.Helper()
	var out strings.Builder
	actions, wake := x.s.Plan(x.now)
	for _, a := range actions {
		fmt.Fprintln(&out, a)
		if begin {
			x.s.Begin(a, x.now)
			x.begun = append(x.begun, a)
			if a.Verb == pod.Kill && a.Again {
				x.restarted = append(x.restarted, a)
			}
		}
	}
	if !wake.IsZero() {
		fmt.Fprintf(&out, "wake +%s\n", wake.Sub(x.now))
	}
	return out.String()
}

func (x *script) goOn(t *testing.T, rounds int) string {
	t.Helper()
	var out strings.Builder
	for range rounds {
		got := x.plan(t, true)
		out.WriteString(got)
		if len(x.begun) == 0 {
			break
		}
		out.WriteString(x.perform(t, ""))
	}
	return out.String()
}

// perform carries out what was begun and matches prefix.
func (x *script) perform(t *testing.T, prefix string) string {
	t.Helper()
	var out strings.Builder
	var left []pod.Action
	for _, a := range x.begun {
		if !strings.HasPrefix(a.String(), prefix) {
			left = append(left, a)
			continue
		}
		if a.Verb == pod.Report {
			continue
		}
		key := strings.TrimSpace(string(a.Verb) + " " + a.Container)
		err := x.fails[key]
		delete(x.fails, key)
		if err == nil {
			x.effect(t, a)
		} else {
			fmt.Fprintf(&out, "  %s failed\n", key)
			var f *pod.Failure
			switch {
			case !errors.As(err, &f) || a.Verb != pod.Start:
			case f.Cut:
				x.left(a.Container, "created")
			default:
				x.failed(a, f.Reason)
			}
		}
		x.s.End(a, err, x.now)
	}
	x.begun = left
	return out.String()
}

// failed is what a start that fails leaves behind: a run, unless the container
// was not even made. One whose hook failed had ended before the hook's failure
// was told.
func (x *script) failed(a pod.Action, reason string) {
	run := pod.Run{ID: fmt.Sprintf("%s-%d", a.Container, x.runs+1), Sandbox: x.s.Sandbox.ID, Attempt: a.Attempt, State: cri.ContainerState_CONTAINER_EXITED, Created: x.now}
	switch reason {
	case "RunContainerError":
		run.ExitCode, run.Reason, run.Finished = 128, "StartError", x.now
	case "PostStartHookError":
		run.ExitCode, run.Finished = 137, x.now.Add(-time.Second/2)
	default:
		return
	}
	x.runs++
	x.s.ObserveRun(a.Container, run)
}

// left is what the runtime has of a container whose start was cut off: of the one
// that is under way, or else of the one before.
func (x *script) left(container, state string) {
	var run pod.Run
	for _, r := range x.s.Containers[container].Cut {
		run = *r
	}
	for _, a := range x.begun {
		if a.Verb == pod.Start && a.Container == container {
			x.runs++
			run = pod.Run{ID: fmt.Sprintf("%s-%d", container, x.runs), Sandbox: x.s.Sandbox.ID, Attempt: a.Attempt, Created: x.now}
		}
	}
	switch state {
	case "running":
		run.State, run.Started = cri.ContainerState_CONTAINER_RUNNING, x.now
	case "failed":
		run.State, run.ExitCode, run.Reason, run.Finished = cri.ContainerState_CONTAINER_EXITED, 128, "StartError", x.now
	}
	x.s.ObserveRun(container, run)
}

// effect is what a step does to the world.
func (x *script) effect(t *testing.T, a pod.Action) {
	t.Helper()
	switch a.Verb {
	case pod.RunSandbox:
		x.sandboxes++
		x.s.ObserveSandbox(pod.SandboxInfo{ID: fmt.Sprintf("sb%d", x.sandboxes), Attempt: uint32(a.Attempt), Ready: true,
			IPs: []string{fmt.Sprintf("10.42.0.%d", x.sandboxes)}, Created: x.now})
	case pod.StopSandbox:
		x.s.ObserveSandbox(pod.SandboxInfo{ID: a.ID, Attempt: x.s.Sandbox.Attempt})
	case pod.RemoveSandbox:
		x.s.ForgetSandbox(a.ID)
	case pod.RemoveContainer:
		if r := x.s.Containers[a.Container].Running(); r == nil || r.ID != a.ID { // the worker looks first
			x.s.ForgetRun(a.ID)
		}
	case pod.Start:
		x.runs++
		c := x.s.Containers[a.Container]
		x.s.ObserveRun(a.Container, pod.Run{ID: fmt.Sprintf("%s-%d", a.Container, x.runs), Sandbox: x.s.Sandbox.ID, Attempt: a.Attempt,
			State: cri.ContainerState_CONTAINER_RUNNING, Created: x.now, Started: x.now, Asked: c.Spec.Image, Image: c.Spec.Image, Backoff: c.Backoff.Delay})
	case pod.Kill:
		if x.s.Containers[a.Container].Running() != nil {
			x.exit(t, a.Container, 143, "")
		}
	}
}

func (x *script) exit(t *testing.T, container string, code int, reason string) {
	t.Helper()
	c := x.s.Containers[container]
	if c == nil || c.Running() == nil {
		t.Fatalf("container %s does not run", container)
	}
	r := *c.Running()
	r.State, r.ExitCode, r.Finished, r.Reason = cri.ContainerState_CONTAINER_EXITED, int32(code), x.now, reason
	x.s.ObserveRun(container, r)
}

// restart hands over to a new agent.
func (x *script) restart(told bool) {
	p := x.pod.DeepCopy()
	if told && !x.lost {
		p.Status = *x.s.Status(x.now)
	}
	x.lost = false
	old := x.s
	x.pod = p
	x.s = pod.New(p, []string{"192.0.2.1"}, x.now)
	if sb := old.Sandbox; sb.ID != "" {
		x.s.ObserveSandbox(pod.SandboxInfo{ID: sb.ID, Attempt: sb.Attempt, Ready: sb.Ready, IPs: sb.IPs, Created: sb.CreatedAt})
	}
	for name, c := range old.Containers {
		for _, r := range slices.Concat(c.Runs, c.Cut) {
			known := *r
			known.Told, known.Again = false, false // the runtime does not know that
			x.s.ObserveRun(name, known)
		}
	}
	for _, a := range x.restarted {
		x.s.Recall(a.Container, a.ID, a.Message)
	}
	x.s.Adopt()
	x.begun = nil
}

// status prints the status, and then, if asked for, its conditions.
func (x *script) status(conditions bool) string {
	var out strings.Builder
	st := x.s.Status(x.now)
	// What is reported is what the object shows next.
	p := x.pod.DeepCopy()
	p.Status = *st
	x.set(p)
	fmt.Fprintf(&out, "%s", st.Phase)
	if st.Reason != "" {
		fmt.Fprintf(&out, " reason=%s message=%q", st.Reason, st.Message)
	}
	if st.PodIP != "" {
		fmt.Fprintf(&out, " ip=%s", st.PodIP)
	}
	out.WriteString("\n")
	for _, cs := range slices.Concat(st.InitContainerStatuses, st.ContainerStatuses, st.EphemeralContainerStatuses) {
		fmt.Fprintf(&out, "  %s: %s", cs.Name, stateText(cs.State))
		if last := stateText(cs.LastTerminationState); last != "-" {
			fmt.Fprintf(&out, " last=%s", last)
		}
		if cs.RestartCount > 0 {
			fmt.Fprintf(&out, " restarts=%d", cs.RestartCount)
		}
		if cs.Started != nil && *cs.Started {
			out.WriteString(" started")
		}
		if cs.Ready {
			out.WriteString(" ready")
		}
		out.WriteString("\n")
	}
	if conditions {
		for _, c := range st.Conditions {
			fmt.Fprintf(&out, "  %s=%s", c.Type, c.Status)
			if c.Reason != "" {
				fmt.Fprintf(&out, " %s", c.Reason)
			}
			if c.Message != "" {
				fmt.Fprintf(&out, " %q", c.Message)
			}
			if !c.LastTransitionTime.IsZero() {
				fmt.Fprintf(&out, " since +%s", c.LastTransitionTime.Sub(x.start))
			}
			fmt.Fprintf(&out, " gen=%d\n", c.ObservedGeneration)
		}
	}
	return out.String()
}

// resources prints, of each container, what is granted, what it has, and what it
// would be created with; and what others cannot have for the pod.
func (x *script) resources() string {
	var out strings.Builder
	text := func(l v1.ResourceList) string { q := l[v1.ResourceCPU]; return q.String() }
	for _, cs := range x.s.Status(x.now).ContainerStatuses {
		fmt.Fprintf(&out, "%s: granted=%s has=%s of=%s\n", cs.Name, text(cs.AllocatedResources), text(cs.Resources.Requests),
			text(x.s.GrantedSpec(x.s.Containers[cs.Name]).Resources.Requests))
	}
	fmt.Fprintf(&out, "pod: holds=%s\n", text(x.s.Holds()))
	return out.String()
}

func stateText(s v1.ContainerState) string {
	switch {
	case s.Running != nil:
		return "running"
	case s.Terminated != nil:
		text := fmt.Sprintf("terminated(%s %d", s.Terminated.Reason, s.Terminated.ExitCode)
		if s.Terminated.Message != "" {
			text += fmt.Sprintf(" %q", s.Terminated.Message)
		}
		return text + ")"
	case s.Waiting != nil:
		if s.Waiting.Message != "" {
			return fmt.Sprintf("waiting(%s %q)", s.Waiting.Reason, s.Waiting.Message)
		}
		return "waiting(" + s.Waiting.Reason + ")"
	}
	return "-"
}
