// Package modeltest does random operations on a server, by random verbs,
// encodings and batches, and the same on a model of a page of plain code. Both
// have to agree on every answer, on what there is after it, on who owns which
// field, and on what a watch saw.
package modeltest

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"hansa.dev/hansa/api"
)

// Server is what is tested.
type Server struct {
	URL string
	// Client bears the credentials of somebody who may do everything.
	Client *http.Client
	// Namespace is there, and is where all happens.
	Namespace string
	// Node is where pods are: it is there, and nobody runs them.
	Node string
	// Loops says that others write as well: to deployments.
	Loops bool
	// Batch does writes in the process of the server, as the field manager
	// "batch". Nil: there is no such door.
	Batch func(ctx context.Context, writes []Write) []Result
	// Steps is how many operations a run has at most.
	Steps int
}

// Write is one write of a batch: a create or an update of an object, or with a
// subresource of that part of it.
type Write struct {
	Resource       *api.Resource
	Create, Update api.Object
	Subresource    string
}

// Result answers one Write.
type Result struct {
	Object api.Object
	Err    error
}

// defaultManager is who owns fields that nobody in particular has written.
const defaultManager = "modeltest"

// patience is when a watch is given up that does not tell of what has happened.
const patience = time.Minute

// runs are counted, so that each has names and a label of its own.
var runs atomic.Int64

// Test checks as many runs as rapid is told to.
func Test(t *testing.T, s Server) {
	rapid.Check(t, func(rt *rapid.T) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		r := &run{
			T: rt, ctx: ctx, server: s,
			label:   fmt.Sprint("run-", runs.Add(1)),
			objects: map[string]*object{},
		}
		all := []func(string) *Kind{configMaps, ingresses, func(run string) *Kind { return pods(run, s.Node) }}
		if !s.Loops {
			all = append(all, deployments)
		}
		r.kind = rapid.SampledFrom(all).Draw(rt, "kind")(r.label)
		r.names = []string{r.label + "-a", r.label + "-b", r.label + "-c"}
		r.play()
	})
}

// run is one sequence of operations on objects of one kind.
type run struct {
	*rapid.T
	ctx     context.Context
	server  Server
	kind    *Kind
	label   string
	names   []string // that may be in use
	objects map[string]*object
	// newest is the newest version that an answer had; last, what it was before
	// the present operation, the place of which group has.
	newest, last int64
	group        int
	history      []moment
}

func (r *run) play() {
	all, red := r.watch("run="+r.label), r.watch("run="+r.label+",color=red")
	defer all.stop()
	defer red.stop()
	operations := []func(){
		r.create, r.create, r.generate, r.update, r.update, r.mergePatch, r.strategicPatch, r.jsonPatch,
		r.apply, r.apply, r.apply, r.delete, r.delete, r.deleteCollection, r.get, r.list,
	}
	if r.server.Batch != nil {
		operations = append(operations, r.batch, r.batch)
	}
	for range rapid.IntRange(1, r.server.Steps).Draw(r.T, "steps") {
		rapid.SampledFrom(operations).Draw(r.T, "operation")()
	}
	r.end()
	all.compare(r, func(content) bool { return true })
	red.compare(r, func(c content) bool { return c[color] == "red" })
}

// end leaves nothing but an object that tells the watches that this was all.
func (r *run) end() {
	now := int64(0)
	for _, name := range r.names {
		if cur := r.objects[name]; cur != nil && r.kind.held(cur.content) {
			r.patched(name, "", defaultManager, `{"metadata":{"finalizers":null}}`, r.withoutFinalizers(cur.content))
		}
		if r.objects[name] != nil {
			r.deleted(name, &metav1.DeleteOptions{GracePeriodSeconds: &now}, &deletion{kind: r.kind, grace: &now}, false)
		}
	}
	r.created(r.names[0], r.fill(content{color: "red"}), defaultManager, false)
	r.listedBy("run="+r.label, func(content) bool { return true }, 0, media[0])
	r.deleted(r.names[0], &metav1.DeleteOptions{GracePeriodSeconds: &now}, &deletion{kind: r.kind, grace: &now}, false)
}
