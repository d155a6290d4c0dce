package request

import (
	"context"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// Impersonated is as whom a request goes on.
type Impersonated struct {
	User user.Info
	// Constraint is the verb that gave leave ("impersonate:user-info"), "" for
	// the verb of old, which is good for all requests alike.
	Constraint string
}

// mode is one of the ways to get leave to act as somebody else. All but the last
// ask two things: whether a user may act as that other one (verb
// "impersonate:MODE"), and whether he may do what he asks for when he acts so
// (verb "impersonate-on:MODE:VERB"). The last is what Kubernetes always had: a
// user may "impersonate" another one and then do all that this one may.
// https://kubernetes.io/docs/reference/access-authn-authz/user-impersonation/
type mode struct {
	name string
	// fits says whether by may act as the other one in this way at all.
	fits func(as *user.DefaultInfo, by user.Info) bool
}

const unconstrained = "legacy"

// modes are in the order in which they are tried.
var modes = []mode{
	{"associated-node", func(as *user.DefaultInfo, by user.Info) bool {
		// A service account acts as the node on which its pod runs.
		name, isNode := nodeName(as)
		_, _, err := serviceaccount.SplitUsername(by.GetName())
		on := by.GetExtra()[serviceaccount.NodeNameKey]
		return isNode && err == nil && len(on) == 1 && on[0] == name
	}},
	{"arbitrary-node", func(as *user.DefaultInfo, _ user.Info) bool {
		_, isNode := nodeName(as)
		return isNode
	}},
	{"serviceaccount", func(as *user.DefaultInfo, _ user.Info) bool {
		_, _, err := serviceaccount.SplitUsername(as.Name)
		return err == nil && nameOnly(as)
	}},
	{"user-info", func(as *user.DefaultInfo, _ user.Info) bool {
		_, _, err := serviceaccount.SplitUsername(as.Name)
		return err != nil && !isNodeName(as.Name)
	}},
	{unconstrained, func(*user.DefaultInfo, user.Info) bool { return true }},
}

// remembered bounds the users of whom it is known in which way they act as others.
const remembered = 10_000

// Impersonate answers as whom a request goes on that a.User makes and that wants
// to be taken for as: by the first mode that gives leave, beginning with the one
// that last did. Without leave the error is that of the first one.
func (h *Handler) Impersonate(ctx context.Context, a *authorizer.AttributesRecord, as *user.DefaultInfo) (*Impersonated, error) {
	if as.Name == "" {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("requested %#v without impersonating a user name", as))
	}
	began := h.Clock.Now()
	mode, u, err := h.anyMode(ctx, a, as)
	took := h.Clock.Since(began).Seconds()
	if err != nil {
		h.impersonation.attempt("", "denied", took)
		return nil, err
	}
	h.impersonation.attempt(mode, "allowed", took)
	out := &Impersonated{User: u}
	if mode != unconstrained {
		out.Constraint = "impersonate:" + mode
	}
	return out, nil
}

func (h *Handler) anyMode(ctx context.Context, a *authorizer.AttributesRecord, as *user.DefaultInfo) (string, user.Info, error) {
	first := -1
	if i, known := h.impersonation.last.Get(a.User.GetName()); known {
		first = i.(int)
	}
	var refused error
	try := func(i int) (user.Info, bool) {
		m := &modes[i]
		if !m.fits(as, a.User) {
			return nil, false
		}
		u, err := h.leave(ctx, m.name, a, as)
		if err != nil && refused == nil {
			refused = err
		}
		return u, err == nil
	}
	if first >= 0 {
		if u, ok := try(first); ok {
			return modes[first].name, u, nil
		}
	}
	for i := range modes {
		if i == first {
			continue
		}
		if u, ok := try(i); ok {
			h.impersonation.last.Add(a.User.GetName(), i)
			return modes[i].name, u, nil
		}
	}
	return "", nil, refused // the last mode fits everybody
}

// leave asks all that a mode has to ask, and answers with the whole identity.
func (h *Handler) leave(ctx context.Context, mode string, a *authorizer.AttributesRecord, as *user.DefaultInfo) (user.Info, error) {
	q := questions{h: h, ctx: ctx, mode: mode, by: a.User}
	if mode == "associated-node" {
		q.by = &anyNode{a.User}
	}
	if mode != unconstrained {
		on := *a
		on.User, on.Verb = q.by, "impersonate-on:"+mode+":"+a.Verb
		if err := q.ask(&on); err != nil {
			return nil, err
		}
	}
	for _, ask := range []func(*user.DefaultInfo) error{q.name, q.uid, q.groups, q.extra} {
		if err := ask(as); err != nil {
			return nil, err
		}
	}
	return identity(mode, as), nil
}

// identity is the other one with the groups that follow from his name.
func identity(mode string, as *user.DefaultInfo) *user.DefaultInfo {
	out := *as
	out.Groups = slices.Clip(out.Groups)
	if namespace, _, err := serviceaccount.SplitUsername(as.Name); err == nil && len(as.Groups) == 0 {
		out.Groups = serviceaccount.MakeGroupNames(namespace)
	} else if mode != unconstrained && isNodeName(as.Name) {
		out.Groups = []string{user.NodesGroup}
	}
	everybody := user.AllAuthenticated
	switch {
	case as.Name == user.Anonymous:
		everybody = user.AllUnauthenticated
	case slices.Contains(out.Groups, user.AllUnauthenticated):
		return &out
	}
	if !slices.Contains(out.Groups, everybody) {
		out.Groups = append(out.Groups, everybody)
	}
	return &out
}

func nameOnly(as *user.DefaultInfo) bool {
	return as.UID == "" && len(as.Groups) == 0 && len(as.Extra) == 0
}

const nodePrefix = "system:node:"

func isNodeName(name string) bool {
	node, ok := strings.CutPrefix(name, nodePrefix)
	return ok && validNodeName(node)
}

// nodeName is the node that somebody is, if that is all that is said of him.
func nodeName(as *user.DefaultInfo) (string, bool) {
	return strings.TrimPrefix(as.Name, nodePrefix), nameOnly(as) && isNodeName(as.Name)
}

// anyNode is a service account of which it is known that it is on the node as
// which it acts. The question is the same on all nodes: what else is known of it
// is told by its keys alone.
type anyNode struct{ user.Info }

func (u *anyNode) GetExtra() map[string][]string {
	return map[string][]string{"authentication.kubernetes.io/associated-node-keys": sortedKeys(u.Info.GetExtra())}
}
