// Package bootstrap says which objects every cluster has from its first start:
// namespaces, priority classes, and the roles and bindings of Kubernetes 1.37
// that concern what is served. The rules of a role are all of Kubernetes', also
// about kinds that are not served: whoever administers a namespace may then
// give to others what charts written for Kubernetes ask for.
package bootstrap

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
)

// Objects makes all of them, in an order in which they can be created. The
// caller owns them.
func Objects() []api.Object {
	var objects []api.Object
	for _, name := range []string{metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease, metav1.NamespaceDefault} {
		objects = append(objects, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	for _, class := range kinds.SystemPriorityClasses() {
		objects = append(objects, class)
	}
	for _, role := range append(generalRoles(), controllerRoles()...) {
		objects = append(objects, role)
	}
	for _, binding := range append(generalBindings(), controllerBindings()...) {
		objects = append(objects, binding)
	}
	for _, role := range systemRoles() {
		objects = append(objects, role)
	}
	for _, binding := range systemBindings() {
		objects = append(objects, binding)
	}
	return objects
}

// meta marks an object as one of ours, to be kept up to date.
func meta(name string, labels ...string) metav1.ObjectMeta {
	m := metav1.ObjectMeta{
		Name:        name,
		Labels:      map[string]string{"kubernetes.io/bootstrapping": "rbac-defaults"},
		Annotations: map[string]string{rbacv1.AutoUpdateAnnotationKey: "true"},
	}
	for _, label := range labels {
		m.Labels[label] = "true"
	}
	return m
}

// role is a cluster role.
func role(name string, rules ...rbacv1.PolicyRule) *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{ObjectMeta: meta(name), Rules: rules}
}

// Verbs that come together, in the order in which rules name them.
const (
	read      = "get list watch"
	write     = "create delete deletecollection patch update"
	readWrite = "create delete deletecollection get list patch update watch"
)

// on is a rule: which verbs on which resources of which groups. Lists are
// divided by spaces; "core" is the group without a name.
func on(groups, resources, verbs string) rbacv1.PolicyRule {
	r := rbacv1.PolicyRule{APIGroups: strings.Fields(groups), Resources: strings.Fields(resources), Verbs: strings.Fields(verbs)}
	if i := slices.Index(r.APIGroups, "core"); i >= 0 {
		r.APIGroups[i] = ""
	}
	return r
}

// named is a rule about single objects.
func named(group, resource, names, verbs string) rbacv1.PolicyRule {
	r := on(group, resource, verbs)
	r.ResourceNames = strings.Fields(names)
	return r
}

// paths is a rule about what is not a resource.
func paths(verbs, urls string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{Verbs: strings.Fields(verbs), NonResourceURLs: strings.Fields(urls)}
}

// events is the rule of whoever reports what happened.
func events() rbacv1.PolicyRule { return on("core events.k8s.io", "events", "create patch update") }

func group(name string) rbacv1.Subject {
	return rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: name}
}

func user(name string) rbacv1.Subject {
	return rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}
}

// account is a service account of kube-system.
func account(name string) rbacv1.Subject {
	return rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: metav1.NamespaceSystem, Name: name}
}

// bind gives a cluster role, everywhere.
func bind(name, to string, subjects ...rbacv1.Subject) *rbacv1.ClusterRoleBinding {
	return &rbacv1.ClusterRoleBinding{
		ObjectMeta: meta(name),
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: to},
		Subjects:   subjects,
	}
}
