// Package onfailure is what annotations say about revisions of a workload that
// fail: what users ask for (Policy), and what the rollback loop has found out
// about each revision (marks). design/rollback.md has the whole picture.
package onfailure

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// What users write on a Deployment, StatefulSet or DaemonSet.
const (
	ActionAnnotation   = "hansa.dev/on-failure"
	RatioAnnotation    = "hansa.dev/max-failure-ratio"
	MonitorAnnotation  = "hansa.dev/monitor"
	DeadlineAnnotation = "hansa.dev/progress-deadline"
)

// Marks. The first two are on what carries a revision (a ReplicaSet, a
// ControllerRevision), the others on the workload.
const (
	// GoodMark is the number of the revision when it was found good.
	GoodMark = "hansa.dev/good"
	// FailedMark is a Failure.
	FailedMark = "hansa.dev/failed"
	// UndoneMark is "FROM to TO": TO is there by a rollback from FROM.
	UndoneMark = "hansa.dev/rolled-back"
	// PausedMark names the revision that was paused, and says when somebody
	// resumed it.
	PausedMark = "hansa.dev/paused"
	// StrategyMark is the update strategy that a pause took away.
	StrategyMark = "hansa.dev/paused-strategy"
)

// Marks are the annotations that are about one object alone: nothing that is
// made from it takes them over.
var Marks = []string{GoodMark, FailedMark, UndoneMark, PausedMark, StrategyMark}

// ConditionType is the condition by which a workload tells of all this.
const ConditionType = "RolledBack"

// Action is what is done to a revision that failed.
type Action string

const (
	Rollback Action = "rollback"
	Pause    Action = "pause"
)

// Policy is what to do when a revision fails, and when it does.
type Policy struct {
	Action Action
	// Ratio is how large a part of the revision's pods may fail, 0 to 1.
	Ratio float64
	// Monitor is for how long pods must stay ready.
	Monitor time.Duration
	// Deadline is for how long nothing may get on, for kinds that have no field
	// for it.
	Deadline time.Duration
}

// Defaults: a minute, as the example has it, and the deadline of
// Deployments.
const (
	defaultMonitor  = time.Minute
	defaultDeadline = 10 * time.Minute
	longest         = 24 * time.Hour
)

// Read is the policy in an object's annotations, if it has one. What would not be
// accepted counts as not there.
func Read(annotations map[string]string) (Policy, bool) {
	p := Policy{Action: Action(annotations[ActionAnnotation]), Monitor: defaultMonitor, Deadline: defaultDeadline}
	if p.Action != Rollback && p.Action != Pause {
		return Policy{}, false
	}
	if r, err := ratio(annotations[RatioAnnotation]); err == nil {
		p.Ratio = r
	}
	if d, err := duration(annotations[MonitorAnnotation]); err == nil {
		p.Monitor = d
	}
	if d, err := duration(annotations[DeadlineAnnotation]); err == nil && d > 0 {
		p.Deadline = d
	}
	return p, true
}

func ratio(text string) (float64, error) {
	r, err := strconv.ParseFloat(text, 64)
	if err != nil || !(r >= 0 && r <= 1) {
		return 0, fmt.Errorf("%q is not a number from 0 to 1", text)
	}
	return r, nil
}

func duration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > longest {
		return 0, fmt.Errorf("%q is not a duration from 0s to 24h", text)
	}
	return d, nil
}

// Validate checks what users may write. old are the annotations before, of which
// those that have not changed are not complained about. hasDeadline is the
// field of the kind that says what DeadlineAnnotation would, if there is one.
func Validate(annotations, old map[string]string, hasDeadline string) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("metadata", "annotations")
	check := func(name, allowed string, valid func(string) bool) {
		value, ok := annotations[name]
		if before, had := old[name]; !ok || had && before == value || valid(value) {
			return
		}
		errs = append(errs, field.Invalid(path.Key(name), value, allowed))
	}
	check(ActionAnnotation, "must be rollback or pause", func(v string) bool { return Action(v) == Rollback || Action(v) == Pause })
	check(RatioAnnotation, "must be a number from 0 to 1, the part of a revision's pods that may fail, e.g. 0.25", func(v string) bool {
		_, err := ratio(v)
		return err == nil
	})
	check(MonitorAnnotation, "must be a duration from 0s to 24h, for which pods must stay ready, e.g. 60s", func(v string) bool {
		_, err := duration(v)
		return err == nil
	})
	allowed := "must be a duration from 1s to 24h, e.g. 10m"
	if hasDeadline != "" {
		allowed = "must be left out: use " + hasDeadline
	}
	check(DeadlineAnnotation, allowed, func(v string) bool {
		d, err := duration(v)
		return hasDeadline == "" && err == nil && d >= time.Second
	})
	return errs
}

// Warnings tells of annotations that have no effect.
func Warnings(annotations map[string]string) []string {
	if _, ok := annotations[ActionAnnotation]; ok {
		return nil
	}
	var out []string
	for _, name := range []string{RatioAnnotation, MonitorAnnotation, DeadlineAnnotation} {
		if _, ok := annotations[name]; ok {
			out = append(out, fmt.Sprintf("metadata.annotations[%s]: has no effect without %s: rollback or pause", name, ActionAnnotation))
		}
	}
	return out
}

// Failure is why a revision failed.
type Failure struct {
	Revision int64  `json:"revision"` // its number when it did
	Reason   string `json:"reason"`
	Message  string `json:"message"`
}

// String is the failure as an annotation.
func (f Failure) String() string {
	b, err := json.Marshal(f)
	if err != nil {
		panic(err) // not possible: it has numbers and text only
	}
	return string(b)
}

// FailureOf is the failure of a revision that has this number now, or nil. One
// that is rolled out anew, and so has another number, has not failed yet.
func FailureOf(carrier metav1.Object, number int64) *Failure {
	text := carrier.GetAnnotations()[FailedMark]
	var f Failure
	if text == "" || json.Unmarshal([]byte(text), &f) != nil || f.Revision != number {
		return nil
	}
	return &f
}

// GoodAt says whether a revision was found good since it got its number.
func GoodAt(carrier metav1.Object, number int64) bool {
	return carrier.GetAnnotations()[GoodMark] == strconv.FormatInt(number, 10)
}

// LastGood is the newest revision that was ever found good and has not failed
// since.
func LastGood[T metav1.Object](all []T, number func(T) int64) (best T, ok bool) {
	for _, c := range all {
		if c.GetAnnotations()[GoodMark] == "" || FailureOf(c, number(c)) != nil || c.GetDeletionTimestamp() != nil {
			continue
		}
		if !ok || cmp.Compare(number(c), number(best)) > 0 {
			best, ok = c, true
		}
	}
	return best, ok
}

// Held says which revision stands in for the one that a workload asks for: one
// that failed under the policy to roll back is not rolled out again, whoever
// writes it, as long as there is a good one.
func Held[T metav1.Object](workload metav1.Object, asked T, all []T, number func(T) int64) (instead T, held bool) {
	var none T
	p, on := Read(workload.GetAnnotations())
	if !on || p.Action != Rollback || FailureOf(asked, number(asked)) == nil {
		return none, false
	}
	return LastGood(all, number)
}

// Undone is what UndoneMark says.
func Undone(workload metav1.Object) (from, to string) {
	from, to, _ = strings.Cut(workload.GetAnnotations()[UndoneMark], " to ")
	return from, to
}

// UndoneText is a value of UndoneMark.
func UndoneText(from, to string) string { return from + " to " + to }
