package etcd_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/store"
	"hansa.dev/hansa/store/etcd"
	"hansa.dev/hansa/store/storetest"
)

// writers is how many goroutines of the child write at the same time.
const writers = 16

// writer is the child: it writes as fast as it can, and tells each write on
// standard output once it is answered. Each goroutine, in steps that grow by
// one: sets its object to the step, creates an object of the step, deletes that
// of two steps before. With a number of steps it ends by itself.
func writer(dir, steps string) {
	last, err := strconv.Atoi(steps)
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	e, err := etcd.Start(ctx, etcd.Options{Dir: dir})
	if err != nil {
		panic(err)
	}
	reg := storetest.Registry()
	s, err := store.Open(ctx, e, reg, store.Options{})
	if err != nil {
		panic(err)
	}
	configmaps := reg.Must("", "configmaps")
	done := make(chan bool)
	for g := range writers {
		go func() {
			first := stepOf(s, configmaps, g) + 1
			for step := first; last == 0 || step < first+last; step++ {
				if err := writeStep(ctx, s, configmaps, g, step); err != nil {
					panic(err)
				}
			}
			done <- true
		}()
	}
	for range writers {
		<-done
	}
	if err := s.Close(); err != nil {
		panic(err)
	}
}

func objectName(g, step int) string { return fmt.Sprintf("w%02d-s%06d.", g, step) + "x" }

func counterRef(r *api.Resource, g int) api.Ref {
	return api.Ref{Resource: r, Namespace: "default", Name: fmt.Sprintf("counter-%02d", g)}
}

// stepOf is the last step that the store knows of, or -1.
func stepOf(s *store.Store, r *api.Resource, g int) int {
	obj, err := s.Get(context.Background(), counterRef(r, g), "")
	if apierrors.IsNotFound(err) {
		return -1
	}
	if err != nil {
		panic(err)
	}
	step, err := strconv.Atoi(obj.(*corev1.ConfigMap).Data["step"])
	if err != nil {
		panic(err)
	}
	return step
}

func writeStep(ctx context.Context, s *store.Store, r *api.Resource, g, step int) error {
	ref := counterRef(r, g)
	_, err := s.Update(ctx, ref, store.WriteOptions{}, func(api.Object) (store.Outcome, error) {
		return store.Outcome{Object: &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: ref.Namespace, Name: ref.Name},
			Data:       map[string]string{"step": strconv.Itoa(step), "marker": fmt.Sprintf("set-%02d-%06d.", g, step)},
		}}, nil
	})
	if err != nil {
		return err
	}
	fmt.Printf("set-%02d-%06d.\n", g, step)
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: objectName(g, step)}}
	if _, err := s.Create(ctx, r, cm, store.WriteOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	fmt.Printf("w%02d-s%06d.\n", g, step)
	old := api.Ref{Resource: r, Namespace: "default", Name: objectName(g, step-2)}
	if _, err := s.Delete(ctx, old, store.WriteOptions{}, nil); err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	fmt.Printf("del-%02d-%06d.\n", g, step-2)
	return nil
}

// acknowledged is what must be there: what children said, and what they were
// found to have done without saying it.
type acknowledged struct {
	set  [writers]int          // last step
	made [writers]map[int]bool // objects created and not deleted
	gone [writers]int          // last object deleted
}

func (a *acknowledged) note(line string) error {
	var g, step int
	scan := func(format string) bool {
		n, err := fmt.Sscanf(line, format, &g, &step)
		return err == nil && n == 2
	}
	switch {
	case scan("set-%02d-%06d."):
		a.set[g] = step
	case scan("w%02d-s%06d."):
		a.made[g][step] = true
	case scan("del-%02d-%06d."):
		delete(a.made[g], step)
		a.gone[g] = step
	default:
		return fmt.Errorf("the child said %q", line)
	}
	return nil
}

// A server killed at any moment has lost nothing that it answered.
func TestKilled(t *testing.T) {
	t.Parallel()
	const rounds = 50
	dir := filepath.Join(t.TempDir(), "etcd")
	var acked acknowledged
	for g := range writers {
		acked.set[g], acked.made[g], acked.gone[g] = -1, map[int]bool{}, -1
	}
	random := rand.New(rand.NewSource(1))
	total := 0
	for round := range rounds {
		n := killAfter(t, dir, 1+random.Intn(600), &acked)
		total += n
		verify(t, dir, &acked)
		if t.Failed() {
			t.Fatalf("round %d, after %d writes answered", round, n)
		}
	}
	t.Logf("%d writes answered in %d lives", total, rounds)
}

// killAfter runs the child until it has told of so many writes, kills it, and
// reads what else it had said.
func killAfter(t *testing.T, dir string, acks int, acked *acknowledged) (n int) {
	cmd := self(t, "writer", dir, "0")
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if err := acked.note(lines.Text()); err != nil {
			t.Fatal(err)
		}
		if n++; n == acks {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	// The error is that it was killed.
	_ = cmd.Wait()
	if n < acks {
		t.Fatalf("the child ended by itself after %d writes: %s", n, complaints.String())
	}
	return n
}

func verify(t *testing.T, dir string, acked *acknowledged) {
	reg := storetest.Registry()
	configmaps := reg.Must("", "configmaps")
	s, err := store.Open(t.Context(), embedded(t, dir), reg, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	there := func(g, step int) bool {
		_, err := s.Get(t.Context(), api.Ref{Resource: configmaps, Namespace: "default", Name: objectName(g, step)}, "")
		if err != nil && !apierrors.IsNotFound(err) {
			t.Fatal(err)
		}
		return err == nil
	}
	for g := range writers {
		// One write of each goroutine may have been done and not answered.
		step := stepOf(s, configmaps, g)
		if step < acked.set[g] || step > acked.set[g]+1 {
			t.Errorf("writer %d: step %d is stored, %d was answered", g, step, acked.set[g])
		}
		acked.set[g] = step
		var missing []int
		for made := range acked.made[g] {
			if !there(g, made) {
				missing = append(missing, made)
				delete(acked.made[g], made)
			}
		}
		if len(missing) > 1 || len(missing) == 1 && missing[0] > step-2 {
			t.Errorf("writer %d, at step %d: the objects of steps %d were answered and are lost", g, step, missing)
		}
		if gone := acked.gone[g]; gone >= 0 && there(g, gone) {
			t.Errorf("writer %d: the deletion of step %d was answered and is undone", g, gone)
		}
	}
}

// No write is answered before the log with it is synced. The trace of the
// child's system calls shows, for each answer that it printed, the write to the
// log that has the object's marker, and a sync of that file which began after
// that write and ended before the answer.
func TestSyncedBeforeAnswer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	trace := filepath.Join(dir, "trace")
	child := self(t, "writer", filepath.Join(dir, "etcd"), "20")
	cmd := exec.Command("strace", append([]string{
		"-f", "-y", "-s", "2000000", "-e", "trace=write,pwrite64,writev,fsync,fdatasync", "-o", trace,
	}, child.Args...)...)
	cmd.Env, cmd.SysProcAttr = child.Env, child.SysProcAttr
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("strace (from the package of that name): %v: %.2000s", err, out)
	}
	f, err := os.Open(trace)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	calls := parseTrace(t, f)
	if answers := checkOrder(t, calls); answers < writers*(20+20+18) {
		t.Errorf("the trace has %d answers, want at least %d", answers, writers*(20+20+18))
	}
}

// call is a system call; begin and end are line numbers of the trace.
type call struct {
	name, path, data string
	begin, end       int
}

var (
	callStart  = regexp.MustCompile(`^(\d+) +(\w+)\(\d+<([^>]*)>(.*)`)
	callResume = regexp.MustCompile(`^(\d+) +<\.\.\. (\w+) resumed>(.*)`)
)

func parseTrace(t *testing.T, r io.Reader) (calls []*call) {
	open := map[string]*call{} // by thread
	lines := bufio.NewReader(r)
	for n := 0; ; n++ {
		line, err := lines.ReadString('\n')
		if err == io.EOF {
			return calls
		}
		if err != nil {
			t.Fatal(err)
		}
		if m := callStart.FindStringSubmatch(line); m != nil {
			c := &call{name: m[2], path: m[3], data: m[4], begin: n, end: n}
			calls = append(calls, c)
			if strings.Contains(line, "<unfinished ...>") {
				c.end = -1
				open[m[1]] = c
			}
		} else if m := callResume.FindStringSubmatch(line); m != nil && open[m[1]] != nil {
			open[m[1]].end = n
			open[m[1]].data += m[3]
			delete(open, m[1])
		}
	}
}

var (
	answered = regexp.MustCompile(`(set-\d\d-|w\d\d-s|del-\d\d-)(\d{6})\.`)
	marked   = regexp.MustCompile(`(?:set-\d\d-|w\d\d-s)\d{6}\.`)
)

// checkOrder wants every answer behind the sync of what it answers: the first
// entry of the log with the marker of a set or a create, and for a deletion the
// last one that names the object.
func checkOrder(t *testing.T, calls []*call) (answers int) {
	first, last := map[string]*call{}, map[string]*call{}
	for _, c := range calls {
		if !strings.Contains(c.path, "/wal/") || !strings.HasPrefix(c.name, "write") {
			continue
		}
		for _, m := range marked.FindAllString(c.data, -1) {
			if first[m] == nil {
				first[m] = c
			}
			last[m] = c
		}
	}
	for _, c := range calls {
		if !strings.HasPrefix(c.path, "pipe:") || c.name != "write" {
			continue
		}
		for _, m := range answered.FindAllStringSubmatch(c.data, -1) {
			marker, written := m[0], first
			if g, isDelete := strings.CutPrefix(m[1], "del-"); isDelete {
				if marker, written = "w"+g+"s"+m[2]+".", last; first[marker] == nil {
					continue // of a step that never was
				}
			}
			answers++
			w := written[marker]
			if w == nil {
				t.Errorf("%s was answered and is not in the log", m[0])
			} else if !coveredBefore(calls, w, c) {
				t.Errorf("%s was answered (line %d of the trace) before the log (line %d) was synced", m[0], c.begin, w.begin)
			}
		}
	}
	return answers
}

// coveredBefore says that a sync of the same file lies between a write to it
// and an answer.
func coveredBefore(calls []*call, w, answer *call) bool {
	for _, c := range calls {
		if (c.name == "fdatasync" || c.name == "fsync") && c.path == w.path &&
			w.end >= 0 && c.begin > w.end && c.end >= 0 && c.end < answer.begin {
			return true
		}
	}
	return false
}
