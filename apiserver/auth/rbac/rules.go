package rbac

import (
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// Rules are the rules of one role, arranged by what they are about. They share
// memory with the role and are never written to.
type Rules struct {
	source    []rbacv1.PolicyRule
	resources map[target][]permission
	paths     []pathPermission
}

// target is what a resource rule names. "*" as group stands for every group, as
// resource for every resource with that subresource; "*" as both resource and
// subresource for everything.
type target struct{ group, resource, subresource string }

type permission struct {
	verbs verbSet
	names []string // empty: all
}

type pathPermission struct {
	verbs verbSet
	path  string // without the final "*"
	below bool   // everything that begins with path
}

// Compile arranges rules for asking.
func Compile(rules []rbacv1.PolicyRule) *Rules {
	c := &Rules{source: rules, resources: map[target][]permission{}}
	for i := range rules {
		r := &rules[i]
		verbs := newVerbSet(r.Verbs)
		for _, path := range r.NonResourceURLs {
			prefix, below := strings.CutSuffix(path, "*")
			c.paths = append(c.paths, pathPermission{verbs: verbs, path: strings.TrimRight(prefix, "*"), below: below})
		}
		for _, group := range r.APIGroups {
			for _, resource := range r.Resources {
				t := newTarget(group, resource)
				c.resources[t] = append(c.resources[t], permission{verbs: verbs, names: r.ResourceNames})
			}
		}
	}
	return c
}

// Allow says whether one of the rules allows a request.
func (c *Rules) Allow(a authorizer.Attributes) bool {
	q := newQuestion(a)
	return c.allow(&q)
}

func (c *Rules) allow(q *question) bool {
	for _, t := range q.targets[:q.targetCount] {
		for i := range c.resources[t] {
			p := &c.resources[t][i]
			if p.verbs.has(q) && (len(p.names) == 0 || slices.Contains(p.names, q.name)) {
				return true
			}
		}
	}
	if q.resourceRequest {
		return false
	}
	for i := range c.paths {
		p := &c.paths[i]
		if !p.verbs.has(q) {
			continue
		}
		if p.path == q.path || p.below && strings.HasPrefix(q.path, p.path) {
			return true
		}
	}
	return false
}

func newTarget(group, resource string) target {
	if resource == rbacv1.ResourceAll {
		return target{group, "*", "*"}
	}
	resource, subresource, _ := strings.Cut(resource, "/")
	return target{group, resource, subresource}
}

// question is a request, prepared once for all roles that are asked.
type question struct {
	verb            string
	verbBit         uint16
	name            string
	path            string
	resourceRequest bool
	// targets are all under which a rule that allows the request may stand.
	targets     [6]target
	targetCount int
}

func newQuestion(a authorizer.Attributes) question {
	q := question{verb: a.GetVerb(), resourceRequest: a.IsResourceRequest()}
	q.verbBit = verbBit(q.verb)
	if !q.resourceRequest {
		q.path = a.GetPath()
		return q
	}
	q.name = a.GetName()
	group, subresource := a.GetAPIGroup(), a.GetSubresource()
	exact := target{group, a.GetResource(), subresource}
	if subresource == "" {
		exact = newTarget(group, a.GetResource())
	}
	q.ask(exact)
	q.ask(target{group, "*", "*"})
	if subresource != "" {
		q.ask(target{group, "*", subresource})
	}
	for _, t := range q.targets[:q.targetCount] {
		t.group = rbacv1.APIGroupAll
		q.ask(t)
	}
	return q
}

func (q *question) ask(t target) {
	q.targets[q.targetCount] = t
	q.targetCount++
}

// verbSet keeps the usual verbs as bits.
type verbSet struct {
	bits   uint16
	others []string
}

// allVerbs stands for "*".
const allVerbs = 1 << 15

var verbBits = map[string]uint16{
	"get": 1 << 0, "list": 1 << 1, "watch": 1 << 2, "create": 1 << 3, "update": 1 << 4,
	"patch": 1 << 5, "delete": 1 << 6, "deletecollection": 1 << 7, "post": 1 << 8, "put": 1 << 9,
}

func verbBit(verb string) uint16 { return verbBits[verb] }

func newVerbSet(verbs []string) verbSet {
	var s verbSet
	for _, verb := range verbs {
		switch bit := verbBit(verb); {
		case verb == rbacv1.VerbAll:
			s.bits |= allVerbs
		case bit != 0:
			s.bits |= bit
		default:
			s.others = append(s.others, verb)
		}
	}
	return s
}

func (s *verbSet) has(q *question) bool {
	return s.bits&(allVerbs|q.verbBit) != 0 || q.verbBit == 0 && slices.Contains(s.others, q.verb)
}
