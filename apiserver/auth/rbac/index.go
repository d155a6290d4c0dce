// Package rbac authorizes by the Role, ClusterRole, RoleBinding and
// ClusterRoleBinding objects of the cluster.
//
// An Index follows the four kinds in the store's view. A binding is found by
// whom it names and where it applies, a role's rules by what they are about, so
// that a request asks only the roles that its user has been given, and of those
// only the rules about its resource. Nothing is copied: compiled rules point
// into the frozen objects.
package rbac

import (
	"iter"
	"slices"
	"strings"
	"sync"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"

	"hansa.dev/hansa/api"
)

// View is what an Index needs of the store's view.
type View interface {
	Subscribe(r *api.Resource, f func(old, new api.Object)) (cancel func())
}

// Index answers what users may do. It is safe for use by any goroutine.
type Index struct {
	mu     sync.RWMutex
	roles  map[roleKey]*Rules
	grants map[subject][]*grant
	cancel []func()
}

// roleKey names a Role, or with an empty namespace a ClusterRole.
type roleKey struct{ namespace, name string }

// subject is somebody within the reach of some bindings: those of a namespace,
// or with an empty scope the cluster-wide ones. A service account is the user
// of its name.
type subject struct {
	scope string
	group bool
	name  string
}

// grant is a binding as one of its subjects sees it.
type grant struct {
	role    roleKey
	binding string // by which grants are in order
	reason  string
}

// New starts to follow the view. The index is complete when New returns, if the
// view is.
func New(reg *api.Registry, view View) *Index {
	x := &Index{roles: map[roleKey]*Rules{}, grants: map[subject][]*grant{}}
	for plural, follow := range map[string]func(old, new api.Object){
		"roles":               x.followRole,
		"clusterroles":        x.followRole,
		"rolebindings":        x.followBinding,
		"clusterrolebindings": x.followBinding,
	} {
		x.cancel = append(x.cancel, view.Subscribe(reg.Must(rbacv1.GroupName, plural), follow))
	}
	return x
}

// Close stops following. The index keeps answering what it last knew.
func (x *Index) Close() {
	for _, cancel := range x.cancel {
		cancel()
	}
}

func (x *Index) followRole(old, new api.Object) {
	obj := new
	if obj == nil {
		obj = old
	}
	key := roleKey{obj.GetNamespace(), obj.GetName()}
	var rules *Rules
	switch role := new.(type) {
	case *rbacv1.Role:
		rules = Compile(role.Rules)
	case *rbacv1.ClusterRole:
		rules = Compile(role.Rules)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if rules == nil {
		delete(x.roles, key)
	} else {
		x.roles[key] = rules
	}
}

func (x *Index) followBinding(old, new api.Object) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for s, g := range grantsOf(old) {
		x.grants[s] = slices.DeleteFunc(x.grants[s], func(other *grant) bool { return other.binding == g.binding })
		if len(x.grants[s]) == 0 {
			delete(x.grants, s)
		}
	}
	for s, g := range grantsOf(new) {
		at, twice := slices.BinarySearchFunc(x.grants[s], g.binding, func(g *grant, binding string) int {
			return strings.Compare(g.binding, binding)
		})
		if !twice {
			x.grants[s] = slices.Insert(x.grants[s], at, g)
		}
	}
}

// grantsOf is empty for a nil binding.
func grantsOf(obj api.Object) iter.Seq2[subject, *grant] {
	var ref *rbacv1.RoleRef
	var subjects []rbacv1.Subject
	var title string
	switch b := obj.(type) {
	case *rbacv1.RoleBinding:
		ref, subjects = &b.RoleRef, b.Subjects
		title = "RoleBinding \"" + b.Name + "/" + b.Namespace + "\""
	case *rbacv1.ClusterRoleBinding:
		ref, subjects = &b.RoleRef, b.Subjects
		title = "ClusterRoleBinding \"" + b.Name + "\""
	}
	return func(yield func(subject, *grant) bool) {
		for i := range subjects {
			s, display, ok := subjectOf(&subjects[i], obj.GetNamespace())
			if !ok {
				continue
			}
			g := &grant{
				role:    referenced(ref, obj.GetNamespace()),
				binding: obj.GetName(),
				reason:  "RBAC: allowed by " + title + " of " + ref.Kind + " \"" + ref.Name + "\" to " + display,
			}
			if !yield(s, g) {
				return
			}
		}
	}
}

func referenced(ref *rbacv1.RoleRef, namespace string) roleKey {
	if ref.Kind == "Role" {
		return roleKey{namespace, ref.Name}
	}
	return roleKey{"", ref.Name}
}

func subjectOf(s *rbacv1.Subject, scope string) (key subject, display string, ok bool) {
	switch s.Kind {
	case rbacv1.UserKind:
		return subject{scope: scope, name: s.Name}, `User "` + s.Name + `"`, true
	case rbacv1.GroupKind:
		return subject{scope: scope, group: true, name: s.Name}, `Group "` + s.Name + `"`, true
	case rbacv1.ServiceAccountKind:
		namespace := s.Namespace
		if namespace == "" {
			namespace = scope
		}
		name := serviceaccount.MakeUsername(namespace, s.Name)
		return subject{scope: scope, name: name}, `ServiceAccount "` + s.Name + "/" + namespace + `"`, namespace != ""
	}
	return subject{}, "", false
}

// visit goes through the grants that a user has, the cluster-wide ones and then
// those of the namespace, until f says that it has seen enough. The caller
// holds x.mu.
func (x *Index) visit(u user.Info, namespace string, f func(*grant) (more bool)) {
	visitScope := func(scope string) bool {
		for _, g := range x.grants[subject{scope: scope, name: u.GetName()}] {
			if !f(g) {
				return false
			}
		}
		for _, group := range u.GetGroups() {
			for _, g := range x.grants[subject{scope: scope, group: true, name: group}] {
				if !f(g) {
					return false
				}
			}
		}
		return true
	}
	if visitScope("") && namespace != "" {
		visitScope(namespace)
	}
}

// missing is the error of a binding whose role does not exist. kind is how the
// resource is called in it.
func missing(key roleKey, clusterKind, kind string) error {
	resource := clusterKind
	if key.namespace != "" {
		resource = kind
	}
	return apierrors.NewNotFound(schema.GroupResource{Group: rbacv1.GroupName, Resource: resource}, key.name)
}
