package servicecidr

import (
	"net/netip"
	"slices"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api/kinds"
)

// Finalizer keeps a ServiceCIDR as long as services have its addresses.
const Finalizer = "networking.k8s.io/service-cidr-finalizer"

// grace is how long a range that may go is kept, so that every API server knows
// by then that nothing is to be given from it.
const grace = 10 * time.Second

// actions are what is to be done about one ServiceCIDR.
type actions struct {
	protect   bool              // give it the finalizer
	condition *metav1.Condition // to be written
	release   bool              // take the finalizer away
	after     time.Duration
}

// plan decides about c, which is one of all; claims are the IPAddresses of
// services.
func plan(c *networkingv1.ServiceCIDR, all []*networkingv1.ServiceCIDR, claims []*networkingv1.IPAddress, now time.Time) actions {
	if c.DeletionTimestamp == nil {
		return actions{
			protect: !slices.Contains(c.Finalizers, Finalizer),
			condition: changed(c, metav1.Condition{
				Type: networkingv1.ServiceCIDRConditionReady, Status: metav1.ConditionTrue,
				Message: "Kubernetes Service CIDR is ready", LastTransitionTime: metav1.NewTime(now),
			}),
		}
	}
	if !slices.Contains(c.Finalizers, Finalizer) {
		return actions{} // somebody else keeps it
	}
	if !contained(c, all) && needed(c, all, claims) {
		return actions{condition: changed(c, metav1.Condition{
			Type: networkingv1.ServiceCIDRConditionReady, Status: metav1.ConditionFalse, Reason: networkingv1.ServiceCIDRReasonTerminating,
			Message:            "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR",
			LastTransitionTime: metav1.NewTime(now),
		})}
	}
	if left := c.DeletionTimestamp.Add(grace).Sub(now); left > 0 {
		return actions{after: left}
	}
	return actions{release: true}
}

// changed is the condition, unless c has it already.
func changed(c *networkingv1.ServiceCIDR, want metav1.Condition) *metav1.Condition {
	have := meta.FindStatusCondition(c.Status.Conditions, want.Type)
	if have != nil && have.Status == want.Status && have.Reason == want.Reason && have.Message == want.Message {
		return nil
	}
	return &want
}

// contained says whether others have all the addresses of c.
func contained(c *networkingv1.ServiceCIDR, all []*networkingv1.ServiceCIDR) bool {
	return !slices.ContainsFunc(prefixes(c), func(p netip.Prefix) bool {
		return !slices.ContainsFunc(all, func(other *networkingv1.ServiceCIDR) bool {
			return other.Name != c.Name && slices.ContainsFunc(prefixes(other), func(o netip.Prefix) bool {
				return o.Overlaps(p) && o.Bits() <= p.Bits()
			})
		})
	})
}

// needed says whether a claim is to an address of c that no other range has.
func needed(c *networkingv1.ServiceCIDR, all []*networkingv1.ServiceCIDR, claims []*networkingv1.IPAddress) bool {
	return slices.ContainsFunc(claims, func(claim *networkingv1.IPAddress) bool {
		ip, err := netip.ParseAddr(claim.Name)
		return err == nil && has(c, ip) && !slices.ContainsFunc(all, func(other *networkingv1.ServiceCIDR) bool {
			return other.Name != c.Name && has(other, ip)
		})
	})
}

func has(c *networkingv1.ServiceCIDR, ip netip.Addr) bool {
	return slices.ContainsFunc(prefixes(c), func(p netip.Prefix) bool { return kinds.RangeContains(p, ip) })
}

func prefixes(c *networkingv1.ServiceCIDR) []netip.Prefix {
	var all []netip.Prefix
	for _, text := range c.Spec.CIDRs {
		if p, err := netip.ParsePrefix(text); err == nil {
			all = append(all, p)
		}
	}
	return all
}
