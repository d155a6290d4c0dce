package core

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write what scripts print into testdata")

// TestScripts runs the scripts of testdata. A script is a list of blocks: a few
// commands, a line of dashes, and what they print, up to an empty line. All
// blocks of a script share a cluster. Indented lines below a node or pod are
// more of its spec, in YAML.
//
//	node NAME [cpu=4 memory=8Gi pods=110 KEY=AMOUNT cordoned label.KEY=VALUE image.NAME=SIZE]
//	pod NAME [cpu=1 memory=1Gi KEY=AMOUNT priority=N label.KEY=VALUE port=80 on=NODE image=NAME]
//	schedule NAME...    place pods, or say why not
//	explain NAME        what is found about each node
//	budget APP [allows=N counted=POD]  guards the pods of a label app
//	preempt NAME        who would have to go
//	nominate NAME NODE  promise a node
//	remove NAME...      pods go
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := runScript(t, string(text))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(text) {
				t.Errorf("printed\n%s\nwant\n%s", got, text)
			}
		})
	}
}

type script struct {
	t    *testing.T
	c    *Cluster
	pods map[string]*corev1.Pod
	out  strings.Builder

	budgets []Budget
}

func runScript(t *testing.T, text string) string {
	s := &script{t: t, c: NewCluster(), pods: map[string]*corev1.Pod{}}
	s.c.SetNamespace("default", map[string]string{"team": "x"})
	var result strings.Builder
	for block := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		commands, _, hasOutput := strings.Cut(block+"\n", "----\n")
		s.out.Reset()
		lines := strings.Split(strings.TrimSuffix(commands, "\n"), "\n")
		for i := 0; i < len(lines); i++ {
			line := lines[i]
			var more []string
			for i+1 < len(lines) && strings.HasPrefix(lines[i+1], "  ") {
				i++
				more = append(more, lines[i])
			}
			if !strings.HasPrefix(line, "#") {
				s.command(strings.Fields(line), strings.Join(more, "\n"))
			}
		}
		result.WriteString(strings.TrimSuffix(commands, "\n") + "\n")
		if hasOutput || s.out.Len() > 0 {
			result.WriteString("----\n" + s.out.String())
		}
		result.WriteString("\n")
	}
	return strings.TrimSuffix(result.String(), "\n")
}

func (s *script) command(words []string, more string) {
	s.t.Helper()
	switch words[0] {
	case "node":
		s.c.SetNode(s.node(words[1], words[2:], more))
	case "pod":
		s.pod(words[1], words[2:], more)
	case "schedule":
		for _, name := range words[1:] {
			p := NewPending(s.pods[name], nil)
			node, refusal := s.c.Choose(p)
			if node == "" {
				fmt.Fprintf(&s.out, "%s: %s\n", name, refusal.Message)
				continue
			}
			fmt.Fprintf(&s.out, "%s → %s\n", name, node)
			s.c.Withdraw(p.UID())
			s.c.Add(p.Pod, node)
		}
	case "explain":
		for _, v := range s.c.Explain(NewPending(s.pods[words[1]], nil)) {
			fmt.Fprintln(&s.out, v.print())
		}
	case "preempt":
		p := NewPending(s.pods[words[1]], nil)
		node, refusal := s.c.Choose(p)
		if node != "" {
			s.t.Fatalf("pod %s fits on %s", words[1], node)
		}
		plan := s.c.Preempt(p, refusal, func() []Budget { return s.budgets })
		if plan.Eviction == nil {
			fmt.Fprintf(&s.out, "%s: %s %s\n", words[1], refusal.Message, plan.Message)
			return
		}
		fmt.Fprintf(&s.out, "%s → %s instead of", words[1], plan.Eviction.Node)
		for _, v := range plan.Eviction.Victims {
			fmt.Fprintf(&s.out, " %s", v.Object.Name)
		}
		fmt.Fprintln(&s.out)
	case "budget":
		s.budget(words[1], words[2:])
	case "nominate":
		s.c.Nominate(NewPod(s.pods[words[1]]), words[2])
	case "remove":
		for _, name := range words[1:] {
			s.c.Remove(types.UID(name))
		}
	default:
		s.t.Fatalf("unknown command %q", words)
	}
}

// budget guards the pods of an app, of which so many may go; others are counted
// already.
func (s *script) budget(app string, words []string) {
	b := Budget{Namespace: "default", Selector: labels.SelectorFromSet(labels.Set{"app": app}), Counted: map[string]bool{}}
	for _, w := range words {
		key, value, _ := strings.Cut(w, "=")
		switch key {
		case "allows":
			n, err := strconv.ParseInt(value, 10, 32)
			if err != nil {
				s.t.Fatal(err)
			}
			b.Allowed = int32(n)
		case "counted":
			b.Counted[value] = true
		}
	}
	s.budgets = append(s.budgets, b)
}

func (s *script) node(name string, words []string, more string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}}}
	n.Status.Allocatable = corev1.ResourceList{corev1.ResourcePods: quantity("110")}
	for _, w := range words {
		key, value, _ := strings.Cut(w, "=")
		switch {
		case key == "cordoned":
			n.Spec.Unschedulable = true
		case strings.HasPrefix(key, "label."):
			n.Labels[strings.TrimPrefix(key, "label.")] = value
		case strings.HasPrefix(key, "image."):
			size := quantity(value)
			n.Status.Images = append(n.Status.Images, corev1.ContainerImage{Names: []string{strings.TrimPrefix(key, "image.")}, SizeBytes: size.Value()})
		default:
			n.Status.Allocatable[corev1.ResourceName(key)] = quantity(value)
		}
	}
	s.parse(more, &n.Spec)
	return n
}

func (s *script) parse(text string, into any) {
	s.t.Helper()
	if err := yaml.UnmarshalStrict([]byte(text), into); err != nil {
		s.t.Fatalf("%v in\n%s", err, text)
	}
}

func (s *script) pod(name string, words []string, more string) {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID(name), Labels: map[string]string{}}}
	c := corev1.Container{Name: "c", Image: "small:1", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{}}}
	on := ""
	for _, w := range words {
		key, value, _ := strings.Cut(w, "=")
		number := func() int32 {
			n, err := strconv.Atoi(value)
			if err != nil {
				s.t.Fatalf("%s: %v", w, err)
			}
			return int32(n)
		}
		switch {
		case key == "on":
			on = value
		case key == "image":
			c.Image = value
		case key == "priority":
			p.Spec.Priority = new(number())
		case key == "port":
			c.Ports = append(c.Ports, corev1.ContainerPort{HostPort: number()})
		case strings.HasPrefix(key, "label."):
			p.Labels[strings.TrimPrefix(key, "label.")] = value
		default:
			c.Resources.Requests[corev1.ResourceName(key)] = quantity(value)
		}
	}
	p.Spec.Containers = []corev1.Container{c}
	s.parse(more, &p.Spec)
	s.pods[name] = p
	if on != "" {
		s.c.Add(NewPod(p), on)
	}
}

// A script that prints something else is noticed.
func TestScriptsFail(t *testing.T) {
	text := "node n cpu=1\npod a cpu=2\nschedule a\n----\na → n\n"
	if got := runScript(t, text); got == text || !bytes.Contains([]byte(got), []byte("Insufficient cpu")) {
		t.Errorf("printed %q", got)
	}
}
