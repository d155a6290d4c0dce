// Package dependency says what workloads and pods wait for, by their annotations:
// how that is written, whether it is so, which waits form a circle, and who stops
// before whom. It decides nothing and writes nothing: admission holds pods back by
// it, and loops let them go. design/dependencies.md has the model.
package dependency

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/internal/podstate"
)

// The annotations of whatever depends on something.
const (
	DependsOn = "hansa.dev/depends-on"
	// OnFailure says what becomes of pods that run when a dependency fails.
	OnFailure = "hansa.dev/on-dependency-failure"
	// Grace is for how long a dependency has to be lost to have failed.
	Grace = "hansa.dev/dependency-grace"
	// StopOrder is Reverse where dependants stop before what they depend on.
	StopOrder = "hansa.dev/stop-order"
	// Completed is written by the loop: what is done for good, so that it counts
	// once its object is gone.
	Completed = "hansa.dev/completed-dependencies"
)

// The values of OnFailure, the first being the default, and those of StopOrder.
const (
	Wait     = "wait"
	Stop     = "stop"
	Restart  = "restart"
	Reverse  = "reverse"
	Parallel = "parallel"
)

const (
	// Finalizer keeps an object with a part in a stop order until its turn.
	Finalizer = "hansa.dev/stop-order"
	// GatePrefix begins the names of our scheduling gates.
	GatePrefix = "depends-on.hansa.dev/"
	// Failed is the condition of a pod that runs without what it depends on: True
	// when that has failed, and the pod is restarted once it is back. Of a pod whose
	// revision is monitored it is Unknown as soon as a dependency is lost, and False
	// since it is back.
	Failed corev1.PodConditionType = "hansa.dev/DependencyFailed"
	// Unheld is in the words by which a pod is refused that has to wait and cannot.
	Unheld = "names its node, so that nothing can hold it back"
	// DefaultGrace is what a dependency may be lost for without having failed.
	DefaultGrace = 30 * time.Second
	// most is how many dependencies one annotation may have.
	most = 64
)

// View is what the package reads.
type View interface {
	Get(r *api.Resource, key api.Key) api.Object
	List(r *api.Resource, namespace string) iter.Seq[api.Object]
	ByIndex(r *api.Resource, index, value string) iter.Seq[api.Object]
}

// Target is an object that may be waited for. Targets of the same object are equal.
type Target struct {
	// Kind is the resource's singular name, with its group behind it where that has
	// a dot: "deployment", "database.example.com".
	Kind, Namespace, Name string
}

// TargetOf names an object.
func TargetOf(r *api.Resource, obj api.Object) Target {
	return Target{KindName(r), obj.GetNamespace(), obj.GetName()}
}

func (t Target) String() string { return t.Kind + "/" + t.Name }

// Dependency is one thing that is waited for: that a condition holds of an object.
type Dependency struct {
	Target
	Condition string
}

func (d Dependency) String() string { return d.Target.String() + ":" + d.Condition }

// Once says that what has come to hold holds for good.
func (d Dependency) Once() bool {
	return slices.Contains([]string{complete, "Completed", "Succeeded", failed}, d.Condition)
}

// Gate is the name of the scheduling gate that waits for an object. The part behind
// the prefix may have 63 characters: a longer one is cut and told apart by a hash.
func (t Target) Gate() string {
	const longest, digits = 63, 8
	name := t.Kind + "." + t.Name
	if len(name) > longest {
		sum := sha256.Sum256([]byte(name))
		name = strings.TrimRight(name[:longest-digits-1], "-.") + "-" + hex.EncodeToString(sum[:digits/2])
	}
	return GatePrefix + name
}

// Gates are those of our gates that a pod has.
func Gates(p *corev1.Pod) []string {
	var names []string
	for _, g := range p.Spec.SchedulingGates {
		if strings.HasPrefix(g.Name, GatePrefix) {
			names = append(names, g.Name)
		}
	}
	return names
}

// Waits says whether a pod waits for what it depends on, or runs without it.
func Waits(p *corev1.Pod) bool {
	c := podstate.Condition(p, Failed)
	return len(Gates(p)) > 0 || c != nil && c.Status != corev1.ConditionFalse
}

// Back is since when nothing is lost any more of what a pod depends on, to the second;
// zero if nothing was, or is still.
func Back(p *corev1.Pod) time.Time {
	if c := podstate.Condition(p, Failed); c != nil && c.Status == corev1.ConditionFalse {
		return c.LastTransitionTime.Time
	}
	return time.Time{}
}

// Parse reads the value of DependsOn: KIND[.GROUP]/NAME[:CONDITION], divided by
// commas. It answers with all that it understands, each once, and an error about
// the first that it does not.
func Parse(reg *api.Registry, namespace, text string) (list []Dependency, err error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	for _, item := range strings.Split(text, ",") {
		d, bad := parseOne(reg, namespace, strings.TrimSpace(item))
		switch {
		case bad != nil && err == nil:
			err = bad
		case bad == nil && len(list) == most:
			return list, fmt.Errorf("there may be at most %d dependencies", most)
		case bad == nil && !slices.Contains(list, d):
			list = append(list, d)
		}
	}
	return list, err
}

const form = `write KIND/NAME:CONDITION, as in "deployment/db:Ready"`

func parseOne(reg *api.Registry, namespace, item string) (Dependency, error) {
	if item == "" {
		return Dependency{}, fmt.Errorf("a dependency is empty; take the comma away, or %s", form)
	}
	kind, name, ok := strings.Cut(item, "/")
	if !ok || kind == "" {
		return Dependency{}, fmt.Errorf("%q names no object; %s", item, form)
	}
	condition, given := "", false
	if i := strings.LastIndex(name, ":"); i >= 0 {
		name, condition, given = name[:i], name[i+1:], true
	}
	switch {
	case name == "":
		return Dependency{}, fmt.Errorf("%q has no name; %s", item, form)
	case strings.Contains(name, "/"):
		return Dependency{}, fmt.Errorf("%q is in a namespace of its own; dependencies are in that of the dependant: %s", item, form)
	case given && condition == "":
		return Dependency{}, fmt.Errorf("%q ends with a colon; name a condition behind it, or leave it out", item)
	}
	r := find(reg, kind)
	switch {
	case r == nil:
		return Dependency{}, fmt.Errorf("%q: no kind %q is served; %s", item, kind, form)
	case !r.Namespaced:
		return Dependency{}, fmt.Errorf("%q: a %s is in no namespace; only objects of the dependant's own can be waited for", item, r.Singular)
	}
	if why := nameRule(r, name); why != "" {
		return Dependency{}, fmt.Errorf("%q: no %s can have the name %q: %s", item, r.Singular, name, why)
	}
	known, open := conditionsOf(r)
	if !given {
		condition = known[0]
	}
	if !slices.Contains(known, condition) && (!open || !conditionName.MatchString(condition)) {
		return Dependency{}, fmt.Errorf("%q: a %s has no condition %q; use one of %s", item, r.Singular, condition, strings.Join(known, ", "))
	}
	return Dependency{Target{KindName(r), namespace, name}, condition}, nil
}
