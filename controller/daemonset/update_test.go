package daemonset

import (
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"hansa.dev/hansa/internal/podstate"
)

// cluster is what plans act on in the properties.
type cluster struct {
	ds    *appsv1.DaemonSet
	hash  string
	nodes []*corev1.Node
	pods  []*corev1.Pod
	pause map[string]pause
	now   time.Time
}

func (c *cluster) snapshot() snapshot {
	return look(c.ds, c.hash, c.nodes, c.pods, c.pause, c.now)
}

// decide checks a plan by what it may do, and carries it out.
func (c *cluster) decide(r *rapid.T) bool {
	s := c.snapshot()
	d := plan(s)
	c.fence(r, s, d)
	for _, p := range d.remove {
		p.DeletionTimestamp = &metav1.Time{Time: c.now}
	}
	for _, node := range d.failed {
		c.pause[node] = c.pause[node].next(c.now)
	}
	for _, node := range d.create {
		p := onNode(node, c.hash, unplaced)
		p.Name = fmt.Sprintf("%s-%d", p.Name, born)
		c.pods = append(c.pods, p)
	}
	limit := 1
	if surges(c.ds) {
		limit = 2
	}
	for node, pods := range c.snapshot().pods {
		n := 0
		for _, p := range staying(pods) {
			if !podstate.Finished(p) {
				n++
			}
		}
		if n > limit {
			r.Fatalf("%d pods are on node %s", n, node)
		}
	}
	return len(d.create)+len(d.remove) > 0
}

// fence holds a decision to maxUnavailable and maxSurge.
func (c *cluster) fence(r *rapid.T, s snapshot, d decision) {
	goes := map[*corev1.Pod]bool{}
	for _, p := range d.remove {
		if p.DeletionTimestamp != nil {
			r.Fatalf("pod %s is deleted twice", p.Name)
		}
		goes[p] = true
	}
	desired, missing, made := 0, 0, 0
	for _, n := range c.nodes {
		if !s.needs.on(n).run {
			continue
		}
		desired++
		was, is := false, false
		for _, p := range staying(s.pods[n.Name]) {
			was = was || s.available(p)
			is = is || s.available(p) && !goes[p]
		}
		if !is {
			missing++
		}
		if was && !is {
			made++
		}
	}
	most := unavailable(c.ds, desired)
	if made > 0 && missing > most {
		r.Fatalf("%d nodes are made to have no available pod; now %d of %d lack one, and %d may", made, missing, desired, most)
	}
	extra := 0
	for _, node := range d.create {
		if !s.needs.on(s.byName[node]).run {
			r.Fatalf("a pod is made for node %s", node)
		}
		if pods := staying(s.pods[node]); len(pods) > 0 && !surges(c.ds) || len(s.pods[node]) > 0 && !surges(c.ds) {
			r.Fatalf("a pod is made for node %s, which has one", node)
		} else if len(pods) > 0 && s.available(pods[0]) {
			extra++
		}
	}
	if extra > 0 {
		for name := range s.pods {
			if current, old, ok := s.pair(name); ok && current != nil && old != nil {
				extra++
			}
		}
		if most := surge(c.ds, desired); extra > most {
			r.Fatalf("%d nodes have a second pod, and %d may", extra, most)
		}
	}
}

// finish ends pods that are being deleted.
func (c *cluster) finish(which func(*corev1.Pod) bool) {
	var left []*corev1.Pod
	for _, p := range c.pods {
		if p.DeletionTimestamp == nil || !which(p) {
			left = append(left, p)
		}
	}
	c.pods = left
}

func (c *cluster) start(p *corev1.Pod) {
	p.Spec.NodeName, _ = nodeOf(p)
	p.Status.Phase = corev1.PodRunning
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(c.now)}}
}

func drawSet(r *rapid.T) *appsv1.DaemonSet {
	ds := aSet(rapid.SampledFrom([]string{"1", "2", "40%", "100%"}).Draw(r, "maxUnavailable"), "0")
	if rapid.Bool().Draw(r, "surges") {
		ds = aSet("0", rapid.SampledFrom([]string{"1", "2", "40%", "100%"}).Draw(r, "maxSurge"))
	}
	ds.Spec.MinReadySeconds = rapid.Int32Range(0, 5).Draw(r, "minReadySeconds")
	return ds
}

// Whatever happens to nodes and pods, a set leaves no more nodes without an available
// pod, and has no more second pods, than it may; and in the end every node has what
// it should.
func TestUpdatesKeepTheirFenceAndEnd(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		c := &cluster{ds: drawSet(r), hash: "r0", pause: map[string]pause{}, now: now}
		for i := range rapid.IntRange(1, 5).Draw(r, "nodes") {
			c.nodes = append(c.nodes, aNode(fmt.Sprint("n", i)))
		}
		some := func() *corev1.Pod { return c.pods[rapid.IntRange(0, len(c.pods)-1).Draw(r, "pod")] }
		for i := range 80 {
			switch event := rapid.SampledFrom([]string{"decide", "decide", "template", "taint", "fail", "unready", "start", "start", "end", "end", "delete", "time"}).Draw(r, "event"); {
			case event == "decide":
				c.decide(r)
			case event == "template":
				c.hash = fmt.Sprint("r", rapid.IntRange(0, i).Draw(r, "revision"))
			case event == "taint":
				i := rapid.IntRange(0, len(c.nodes)-1).Draw(r, "node")
				c.nodes[i] = aNode(c.nodes[i].Name, rapid.SampledFrom([][]corev1.TaintEffect{nil, nil, {corev1.TaintEffectNoSchedule}, {corev1.TaintEffectNoExecute}}).Draw(r, "taint")...)
			case event == "time":
				c.now = c.now.Add(time.Duration(rapid.IntRange(1, 10).Draw(r, "seconds")) * time.Second)
			case len(c.pods) == 0:
			case event == "fail":
				failed(some())
			case event == "unready":
				unready(some())
			case event == "start":
				if p := some(); !podstate.Finished(p) {
					c.start(p)
				}
			case event == "delete":
				ending(some())
			case event == "end":
				p := some()
				c.finish(func(q *corev1.Pod) bool { return p == q })
			}
		}
		c.ends(r)
	})
}

// ends lets all go well, and checks what there is then.
func (c *cluster) ends(r *rapid.T) {
	for range 200 {
		c.decide(r)
		c.finish(func(*corev1.Pod) bool { return true })
		c.now = c.now.Add(time.Minute)
		for _, p := range c.pods {
			if !podstate.Finished(p) && !podstate.Ready(p) {
				c.start(p)
			}
		}
	}
	c.now = c.now.Add(time.Minute)
	s := c.snapshot()
	if d := plan(s); text(d) != "" {
		r.Fatalf("there is still something to do: %s", text(d))
	}
	st, _ := status(s)
	for _, n := range c.nodes {
		f, pods := s.needs.on(n), s.pods[n.Name]
		if f.run && len(pods) != 1 || !f.stay && len(pods) > 0 || len(pods) > 0 && !s.updated(pods[0]) {
			r.Fatalf("node %s has %d pods at the end", n.Name, len(pods))
		}
	}
	if st.NumberUnavailable != 0 || st.UpdatedNumberScheduled != st.DesiredNumberScheduled || st.CurrentNumberScheduled != st.DesiredNumberScheduled {
		r.Fatalf("at the end the status is %+v", st)
	}
}
