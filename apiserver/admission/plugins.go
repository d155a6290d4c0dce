package admission

import (
	"errors"
	"fmt"
	"slices"
)

// known is a name of a plugin of Kubernetes, or of ours.
type known struct {
	name string
	on   bool   // unless it is disabled
	lack string // what is missing for it, empty if nothing is
}

// ordered are Kubernetes' plugins in the order in which it calls them. Those that
// are on are the same, and NodeRestriction with them: without it a node could
// write to others.
var ordered = []known{
	{name: "AlwaysAdmit"},
	{name: "NamespaceAutoProvision"},
	{name: "NamespaceLifecycle", on: true},
	{name: "NamespaceExists"},
	{name: "LimitPodHardAntiAffinityTopology"},
	{name: "LimitRanger", on: true},
	{name: "ServiceAccount", on: true},
	{name: "NodeRestriction", on: true},
	{name: "TaintNodesByCondition", on: true},
	{name: "AlwaysPullImages"},
	{name: "ImagePolicyWebhook", lack: "no service reviews images; let a ValidatingWebhookConfiguration for pods do that"},
	{name: "PodSecurity", on: true},
	{name: "PodNodeSelector"},
	{name: "Priority", on: true},
	{name: "DefaultTolerationSeconds", on: true},
	{name: "PodTolerationRestriction"},
	{name: "EventRateLimit"},
	{name: "ExtendedResourceToleration"},
	{name: "DefaultStorageClass", on: true},
	{name: "StorageObjectInUseProtection", on: true, lack: "no loop takes its finalizers away again"},
	{name: "PodGroupProtection", on: true, lack: "the kind PodGroup is not served"},
	{name: "OwnerReferencesPermissionEnforcement"},
	{name: "PersistentVolumeClaimResize", on: true},
	{name: "RuntimeClass", on: true},
	{name: "CertificateApproval", on: true},
	{name: "CertificateSigning", on: true},
	{name: "ClusterTrustBundleAttest", on: true},
	{name: "CertificateSubjectRestriction", on: true},
	{name: "DefaultIngressClass", on: true},
	{name: "DenyServiceExternalIPs"},
	{name: "PodTopologyLabels", on: true},
	{name: "NodeDeclaredFeatureValidator", on: true, lack: "nodes declare no features"},
	{name: "PodResizeValidator", on: true},
	{name: "Dependencies", on: true}, // our own; webhooks see its gates
	{name: "MutatingAdmissionPolicy", on: true},
	{name: "MutatingAdmissionWebhook", on: true},
	{name: "ValidatingAdmissionPolicy", on: true},
	{name: "ValidatingAdmissionWebhook", on: true},
	{name: "ResourceQuota", on: true},
	{name: "AlwaysDeny"},
}

func find(name string) *known {
	for i := range ordered {
		if ordered[i].name == name {
			return &ordered[i]
		}
	}
	return nil
}

// Select gives the names of the plugins that are on, in order: those that are on
// by themselves and those to enable, without those to disable. Its errors are
// Kubernetes' own; that a plugin cannot be here is an error only for who asks for
// it.
func Select(enable, disable []string) ([]string, error) {
	var errs []error
	for _, list := range []struct {
		flag  string
		names []string
	}{{"enable", enable}, {"disable", disable}} {
		for _, name := range list.names {
			switch k := find(name); {
			case k == nil:
				errs = append(errs, fmt.Errorf("%s-admission-plugins plugin %q is unknown", list.flag, name))
			case k.lack != "" && list.flag == "enable":
				errs = append(errs, fmt.Errorf("enable-admission-plugins plugin %q cannot be used: %s", name, k.lack))
			}
		}
	}
	both := slices.DeleteFunc(slices.Clone(enable), func(name string) bool { return !slices.Contains(disable, name) })
	if len(both) > 0 {
		errs = append(errs, fmt.Errorf("%v in enable-admission-plugins and disable-admission-plugins overlapped", both))
	}
	var on []string
	for _, k := range ordered {
		if k.lack == "" && (k.on || slices.Contains(enable, k.name)) && !slices.Contains(disable, k.name) {
			on = append(on, k.name)
		}
	}
	return on, errors.Join(errs...)
}

// Pick puts the plugins with these names into their chain, in this order.
func Pick(names []string, plugins map[string]any) Chain {
	var c Chain
	for _, name := range names {
		if p, ok := plugins[name]; ok {
			c = append(c, Named{Name: name, Plugin: p})
		}
	}
	return c
}
