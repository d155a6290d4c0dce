package kinds

import (
	"fmt"
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
)

// ingressClassAnnotation named the class of an ingress before its field did.
const ingressClassAnnotation = "kubernetes.io/ingress.class"

func ingress() *api.Resource {
	gv := networkingv1.SchemeGroupVersion
	return stored[networkingv1.Ingress, *networkingv1.Ingress, networkingv1.IngressList](gv, &api.Resource{
		Plural:     "ingresses",
		Singular:   "ingress",
		Kind:       "Ingress",
		ShortNames: []string{"ing"},
		Namespaced: true,
		Prefix:     "ingress",
		ChecksBase: true,
		Inert:      "nothing routes traffic by it",
		PrepareCreate: on(func(i *networkingv1.Ingress) {
			i.Status = networkingv1.IngressStatus{}
			i.Generation = 1
		}),
		PrepareUpdate: onUpdate(func(i, old *networkingv1.Ingress) {
			i.Status = *old.Status.DeepCopy()
			countChange(i, old, i.Spec, old.Spec)
		}),
		Validate: validates(func(i *networkingv1.Ingress) field.ErrorList {
			return append(validateIngress(i, nil), validateIngressClassAnnotation(i)...)
		}),
		ValidateUpdate:           validatesUpdate(validateIngress),
		Warnings:                 warns(warnIngress),
		ResetFields:              resets(gv, "status"),
		AllowUnconditionalUpdate: true,
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				column("Class", "string", "The name of the IngressClass resource that should be used for additional configuration"),
				column("Hosts", "string", "Hosts that incoming requests are matched against before the ingress rule"),
				column("Address", "string", "Address is a list containing ingress points for the load-balancer"),
				column("Ports", "string", "Ports of TLS configurations that open"),
				ageColumn(),
			},
			Row: cells(ingressCells),
		},
		Subresources: map[string]*api.Subresource{
			"status": {
				Verbs:          updateVerbs,
				PrepareUpdate:  onUpdate(func(i, old *networkingv1.Ingress) { i.Spec = *old.Spec.DeepCopy() }),
				ValidateUpdate: validatesUpdate(validateIngressStatus),
				Warnings:       warns(warnIngressStatus),
				ResetFields:    resets(gv, "spec"),
			},
		},
	})
}

func warnIngress(i, old *networkingv1.Ingress) []string {
	if _, ok := i.Annotations[ingressClassAnnotation]; !ok || old != nil || i.Spec.IngressClassName != nil {
		return nil
	}
	return []string{fmt.Sprintf("annotation %q is deprecated, please use 'spec.ingressClassName' instead", ingressClassAnnotation)}
}

func warnIngressStatus(i, _ *networkingv1.Ingress) []string {
	var warnings []string
	path := field.NewPath("status", "loadBalancer", "ingress")
	for n, entry := range i.Status.LoadBalancer.Ingress {
		if entry.IP != "" {
			warnings = append(warnings, validation.GetWarningsForIP(path.Index(n), entry.IP)...)
		}
	}
	return warnings
}

func ingressCells(i *networkingv1.Ingress, now time.Time) []any {
	ports := "80"
	if len(i.Spec.TLS) > 0 {
		ports = "80, 443"
	}
	given := sets.New[string]()
	for _, entry := range i.Status.LoadBalancer.Ingress {
		if at := orDefault(entry.IP, entry.Hostname); at != "" {
			given.Insert(at)
		}
	}
	return []any{i.Name, ptr.Deref(i.Spec.IngressClassName, unset), hostsCell(i.Spec.Rules),
		strings.Join(sets.List(given), ","), ports, age(i.CreationTimestamp, now)}
}

// hostsCell shows up to three hosts. As in Kubernetes the number of those left
// out counts rules, with or without a host.
func hostsCell(rules []networkingv1.IngressRule) string {
	const most = 3
	var hosts []string
	more := false
	for _, rule := range rules {
		more = more || len(hosts) == most
		if !more && rule.Host != "" {
			hosts = append(hosts, rule.Host)
		}
	}
	shown := orDefault(strings.Join(hosts, ","), "*")
	if more {
		return fmt.Sprintf("%s + %d more...", shown, len(rules)-most)
	}
	return shown
}
