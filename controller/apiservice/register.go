// Package apiservice has the two loops about APIServices: one keeps those of the
// group-versions that the server answers for itself, the other finds out whether
// the servers of all others are available.
package apiservice

import (
	"context"
	"fmt"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/controller"
)

// RegistrationName is the name of the loop that keeps local APIServices.
const RegistrationName = "autoregister"

// Registration keeps the APIServices of what the server answers for itself. It has
// one key: all are looked at together, and what is to be done is written in few
// transactions.
type Registration struct {
	client                client.Interface
	services, definitions *api.Resource
	builtin               map[string]schema.GroupVersion // by name of the APIService
	had, done             map[string]bool                // had is nil before the first step
}

// NewRegistration makes the loop; it acts as the client's identity.
func NewRegistration(c client.Interface) *Registration {
	l := &Registration{
		client:      c,
		services:    c.Registry().Must(apiregistrationv1.GroupName, "apiservices"),
		definitions: c.Registry().Must(apiextensionsv1.GroupName, "customresourcedefinitions"),
		builtin:     map[string]schema.GroupVersion{},
		done:        map[string]bool{},
	}
	for _, s := range c.Registry().Served() {
		// The group of APIServices has none: it is there in any case.
		if gv := s.Version.GroupVersion; s.View == nil && gv.Group != apiregistrationv1.GroupName && !kinds.Yields(gv) {
			l.builtin[kinds.APIServiceName(gv)] = gv
		}
	}
	return l
}

// Name is the loop's name.
func (l *Registration) Name() string { return RegistrationName }

// Sources are APIServices that are kept, definitions, and in the beginning
// kube-system, which is there when neither is.
func (l *Registration) Sources() []controller.Source {
	all := []api.Key{{Name: RegistrationName}}
	wake := func(_, _ api.Object) []api.Key { return all }
	return []controller.Source{
		{Resource: l.services, Keys: wake},
		{Resource: l.definitions, Keys: func(old, new api.Object) []api.Key {
			was, _ := old.(*apiextensionsv1.CustomResourceDefinition)
			is, _ := new.(*apiextensionsv1.CustomResourceDefinition)
			if was != nil && is != nil && was.Generation == is.Generation {
				return nil
			}
			return all
		}},
		{Resource: l.client.Registry().Must("", "namespaces"), Keys: func(old, new api.Object) []api.Key {
			if old == nil && new.GetName() == metav1.NamespaceSystem {
				return all
			}
			return nil
		}},
	}
}

// Step brings all of them in order.
func (l *Registration) Step(ctx context.Context, _ api.Key, _ time.Time) (time.Duration, error) {
	have := map[string]*apiregistrationv1.APIService{}
	for o := range l.client.View().List(l.services, "") {
		have[o.GetName()] = o.(*apiregistrationv1.APIService)
	}
	if l.had == nil {
		l.had = map[string]bool{}
		for name := range have {
			l.had[name] = true
		}
	}
	want := l.wanted()
	names := map[string]bool{}
	for name := range want {
		names[name] = true
	}
	for name, s := range have {
		if managedBy(s) != "" {
			names[name] = true
		}
	}
	var writes []client.Write
	var about []string
	var failed error
	for name := range names {
		a := register(want[name], have[name], l.had[name], l.done[name])
		switch {
		case a.create != nil:
			writes, about = append(writes, client.Write{Resource: l.services, Create: a.create}), append(about, name)
		case a.update != nil:
			writes, about = append(writes, client.Write{Resource: l.services, Update: a.update}), append(about, name)
		case a.remove != nil:
			if err := l.remove(ctx, a.remove); err != nil {
				failed = err
				continue
			}
			fallthrough
		default:
			l.inOrder(name)
		}
	}
	for i, r := range l.client.Batch(ctx, writes) {
		switch {
		case r.Err == nil:
			l.inOrder(about[i])
		case apierrors.IsAlreadyExists(r.Err), apierrors.IsConflict(r.Err), apierrors.IsNotFound(r.Err):
			// Somebody was faster, and that wakes us.
		default:
			failed = fmt.Errorf("write APIService %s: %w", about[i], r.Err)
		}
	}
	return 0, failed
}

// inOrder notes that one is as it should be, if that is ever asked.
func (l *Registration) inOrder(name string) {
	if _, ok := l.builtin[name]; ok || l.had[name] {
		l.done[name] = true
	}
}

// wanted are those that there should be, by name.
func (l *Registration) wanted() map[string]*apiregistrationv1.APIService {
	want := map[string]*apiregistrationv1.APIService{}
	for o := range l.client.View().List(l.definitions, "") {
		defined(o.(*apiextensionsv1.CustomResourceDefinition), func(gv schema.GroupVersion) {
			want[kinds.APIServiceName(gv)] = wanted(gv, always)
		})
	}
	for name, gv := range l.builtin {
		want[name] = wanted(gv, onStart)
	}
	return want
}

func (l *Registration) remove(ctx context.Context, s *apiregistrationv1.APIService) error {
	err := l.client.Delete(ctx, api.RefTo(l.services, s), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &s.UID}})
	if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return fmt.Errorf("delete APIService %s: %w", s.Name, err)
}
