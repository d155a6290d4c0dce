package e2e

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
)

// quiet is how many renewals of the node's lease have to follow one another
// without anything between them.
const quiet = 4

// At rest, the store's revision grows by lease renewals only, whatever runs,
// has ended, or waits.
func TestRest(t *testing.T) {
	if !alone(t) {
		return
	}
	c := started(t, newCluster("rest"))
	s := newSpace(t, c)
	s.apply(deployment("web", "one", 2) + `
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: web}]}
---
apiVersion: v1
kind: Service
metadata: {name: elsewhere}
spec: {clusterIP: None, ports: [{port: 80}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: elsewhere}
subsets: [{addresses: [{ip: 192.0.2.1}], ports: [{port: 80}]}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: work}
spec:
  template:
    spec:
      restartPolicy: Never
      containers:
      - {name: main, image: hansa.local/busybox:1, command: ["true"]}
`)
	s.create("waits", `
nodeSelector: {colour: none}
containers:
- {name: main, image: hansa.local/busybox:1}
`)
	s.unschedulable("waits", "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.")
	s.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
	s.kubectl("wait", "--for=condition=complete", "job/work", "--timeout=120s")

	leases := c.client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	w, err := leases.Watch(t.Context(), metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", nodeName).String()})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	last, inRow := int64(0), 0
	for seen := 0; inRow < quiet; seen++ {
		e, ok := <-w.ResultChan()
		if !ok {
			t.Fatal("the watch ended")
		}
		now := revision(t, e.Object.(*coordinationv1.Lease).ResourceVersion)
		switch {
		case now == last+1:
			inRow++
		case seen > 2*quiet:
			t.Fatalf("between two renewals of the lease the store went from revision %d to %d; written since:\n%s", last, now, s.writtenSince(last))
		default:
			inRow = 0
		}
		last = now
	}
}

// revision is that of the store at which an object was written.
func revision(t testing.TB, version string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(version, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n / 128
}

// writtenSince lists the objects that were written after a revision.
func (s *space) writtenSince(after int64) string {
	s.t.Helper()
	kinds := strings.Fields(s.kubectl("api-resources", "--verbs=list", "-o", "name"))
	table := s.kubectl("get", strings.Join(kinds, ","), "-A", "--no-headers",
		"-o", "custom-columns=V:.metadata.resourceVersion,K:.kind,NS:.metadata.namespace,N:.metadata.name,R:.reason")
	var lines []string
	for line := range strings.Lines(table) {
		if version, rest, _ := strings.Cut(line, " "); revision(s.t, version) > after {
			lines = append(lines, fmt.Sprint(revision(s.t, version), rest))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}
