// Package rollback undoes revisions of workloads that do not become ready, or do
// not stay so, where their annotations ask for it (package onfailure). It writes
// what it finds out on what carries a revision, and puts a template back as
// `kubectl rollout undo` does; the loop of the kind does the rest.
package rollback

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/dependency"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/client/events"
	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/internal/onfailure"
)

// Name is the loop's identity, for every kind.
const Name = "rollback-controller"

// Loop watches the revisions of one kind of workload.
type Loop struct {
	flavor
	client    client.Interface
	events    events.Recorder
	workloads *api.Resource
	carriers  *api.Resource
	pods      *api.Resource
}

// Name is the loop's identity.
func (l *Loop) Name() string { return Name }

// Sources are the workloads, what carries their revisions, and their pods.
func (l *Loop) Sources() []controller.Source {
	none := func(api.Object) []api.Key { return nil }
	return []controller.Source{
		{Resource: l.workloads},
		{Resource: l.carriers, Keys: func(old, new api.Object) []api.Key {
			return controller.KeysOfOwners(old, new, l.kind.Kind, none)
		}},
		{Resource: l.pods, Keys: l.ownersOfPod},
	}
}

// Step looks at one workload, judges its revision, and does what follows.
func (l *Loop) Step(ctx context.Context, key api.Key, now time.Time) (time.Duration, error) {
	w := l.client.View().Get(l.workloads, key)
	if w == nil || w.GetDeletionTimestamp() != nil {
		return 0, nil
	}
	policy, on := onfailure.Read(w.GetAnnotations())
	s := snapshot{policy: policy, on: on, pausesFirst: l.pausesFirst, paused: w.GetAnnotations()[onfailure.PausedMark]}
	s.undoneFrom, s.undoneTo = onfailure.Undone(w)
	var carriers map[*revision]api.Object
	var err error
	if s.condition = l.conditionOf(w); on {
		if carriers, err = l.look(w, &s); err != nil {
			return 0, fmt.Errorf("revisions of %s %s: %w", l.kind.Kind, key, err)
		}
		graph := dependency.Graph{Registry: l.client.Registry(), View: l.client.View()}
		s.depends = len(graph.Needs(graph.Chain(l.workloads, w))) > 0
	}
	dec := plan(s, now)
	if err := l.mark(ctx, s, dec, carriers); err != nil {
		return 0, err
	}
	if w, err = l.tell(ctx, w, s, dec, now); err != nil {
		return 0, err
	}
	if err := l.change(ctx, w, s, dec, carriers); err != nil {
		return 0, err
	}
	return dec.after, nil
}

// mark writes what was found out on what carries the revisions; what is good first,
// so that a failure finds what to go back to.
func (l *Loop) mark(ctx context.Context, s snapshot, dec decision, carriers map[*revision]api.Object) error {
	for _, r := range dec.good {
		err := l.annotate(ctx, carriers[r], func(a map[string]string) {
			a[onfailure.GoodMark] = strconv.FormatInt(r.number, 10)
			delete(a, onfailure.FailedMark)
		})
		if err != nil {
			return err
		}
	}
	switch {
	case dec.failed != nil:
		return l.annotate(ctx, carriers[s.asked], func(a map[string]string) { a[onfailure.FailedMark] = dec.failed.String() })
	case dec.forgive:
		return l.annotate(ctx, carriers[s.asked], func(a map[string]string) { delete(a, onfailure.FailedMark) })
	}
	return nil
}

// annotate changes the annotations of what carries a revision.
func (l *Loop) annotate(ctx context.Context, carrier api.Object, change func(map[string]string)) error {
	annotations := maps.Clone(carrier.GetAnnotations())
	if annotations == nil {
		annotations = map[string]string{}
	}
	if change(annotations); maps.Equal(annotations, carrier.GetAnnotations()) {
		return nil
	}
	changed := carrier.DeepCopyObject().(api.Object)
	changed.SetAnnotations(annotations)
	if _, err := l.client.Update(ctx, l.carriers, changed, ""); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("mark revision %s/%s: %w", changed.GetNamespace(), changed.GetName(), err)
	}
	return nil
}

// tell writes the condition, and an event when it tells of something that was
// done. It answers with the workload as it is then.
func (l *Loop) tell(ctx context.Context, w api.Object, s snapshot, dec decision, now time.Time) (api.Object, error) {
	c := dec.condition
	if c.same(s.condition) {
		return w, nil
	}
	changed := w.DeepCopyObject().(api.Object)
	if c != nil {
		c.since = now
	}
	l.setCondition(changed, c)
	written, err := l.client.Update(ctx, l.workloads, changed, "status")
	if err != nil {
		return nil, fmt.Errorf("update condition of %s %s/%s: %w", l.kind.Kind, w.GetNamespace(), w.GetName(), err)
	}
	switch {
	case c == nil:
	case c.status == corev1.ConditionTrue:
		l.events.Event(events.About(l.kind, w, ""), corev1.EventTypeWarning, reasonRolledBack, c.message)
	case c.reason == reasonPaused || c.reason == reasonNoGood:
		l.events.Event(events.About(l.kind, w, ""), corev1.EventTypeWarning, c.reason, c.message)
	}
	return written, nil
}

// change writes the workload itself, unless somebody else has meanwhile.
func (l *Loop) change(ctx context.Context, w api.Object, s snapshot, dec decision, carriers map[*revision]api.Object) error {
	if dec.undo == nil && !dec.suspend && !dec.resume && !dec.resumed && !dec.forget {
		return nil
	}
	changed := w.DeepCopyObject().(api.Object)
	annotations := changed.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
		changed.SetAnnotations(annotations)
	}
	switch {
	case dec.undo != nil:
		if err := l.undo(changed, carriers[dec.undo]); err != nil {
			return fmt.Errorf("undo %s %s/%s: %w", l.kind.Kind, w.GetNamespace(), w.GetName(), err)
		}
		annotations[onfailure.UndoneMark] = onfailure.UndoneText(s.asked.name, dec.undo.name)
		l.goOn(changed, s.paused)
	case dec.suspend:
		l.suspend(changed)
		annotations[onfailure.PausedMark] = s.asked.name
	case dec.resumed:
		annotations[onfailure.PausedMark] = s.asked.name + resumedSuffix
		delete(annotations, onfailure.StrategyMark)
	case dec.resume:
		l.goOn(changed, s.paused)
	case dec.forget:
		for _, m := range []string{onfailure.UndoneMark, onfailure.PausedMark, onfailure.StrategyMark} {
			delete(annotations, m)
		}
	}
	if _, err := l.client.Update(ctx, l.workloads, changed, ""); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("update %s %s/%s: %w", l.kind.Kind, w.GetNamespace(), w.GetName(), err)
	}
	return nil
}

// goOn takes back a pause of ours, by its mark, unless somebody has already.
func (l *Loop) goOn(w api.Object, mark string) {
	if mark != "" && !strings.HasSuffix(mark, resumedSuffix) {
		l.resume(w)
	}
	delete(w.GetAnnotations(), onfailure.PausedMark)
	delete(w.GetAnnotations(), onfailure.StrategyMark)
}
