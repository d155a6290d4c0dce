package kinds

import (
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hansa.dev/hansa/api"
)

func node() *api.Resource {
	gv := corev1.SchemeGroupVersion
	status, info := corev1.NodeStatus{}.SwaggerDoc(), corev1.NodeSystemInfo{}.SwaggerDoc()
	return stored[corev1.Node, *corev1.Node, corev1.NodeList](gv, &api.Resource{
		Plural:     "nodes",
		Singular:   "node",
		Kind:       "Node",
		ShortNames: []string{"no"},
		Prefix:     "minions",
		ChecksBase: true,
		Default:    on(defaultNode),
		// A node registers itself together with its status.
		PrepareCreate: on(func(n *corev1.Node) {
			n.Status.Config = nil
			dropDisabledNodeFields(n, &corev1.Node{})
		}),
		PrepareUpdate: onUpdate(func(n, old *corev1.Node) {
			n.Status = *old.Status.DeepCopy()
			dropDisabledNodeFields(n, old)
		}),
		Validate: validates(validateNode),
		ValidateUpdate: validatesUpdate(func(n, old *corev1.Node) field.ErrorList {
			return append(validateNode(n), validateNodeUpdate(n, old)...)
		}),
		Warnings:                 warns(warnNode),
		ResetFields:              resets(gv, "status"),
		AllowUnconditionalUpdate: true,
		Table: &api.Table{
			Columns: []metav1.TableColumnDefinition{
				nameColumn(),
				column("Status", "string", "The status of the node"),
				column("Roles", "string", "The roles of the node"),
				ageColumn(),
				column("Version", "string", info["kubeletVersion"]),
				wideColumn("Internal-IP", "string", status["addresses"]),
				wideColumn("External-IP", "string", status["addresses"]),
				wideColumn("OS-Image", "string", info["osImage"]),
				wideColumn("Kernel-Version", "string", info["kernelVersion"]),
				wideColumn("Container-Runtime", "string", info["containerRuntimeVersion"]),
			},
			Row: cells(nodeCells),
		},
		FieldLabels: []string{"spec.unschedulable"},
		Fields: selects(func(n *corev1.Node) fields.Set {
			return fields.Set{"spec.unschedulable": strconv.FormatBool(n.Spec.Unschedulable)}
		}),
		Subresources: map[string]*api.Subresource{
			"status": {
				Verbs:      updateVerbs,
				ChecksBase: true,
				PrepareUpdate: onUpdate(func(n, old *corev1.Node) {
					n.Spec = *old.Spec.DeepCopy()
					if old.Status.Config == nil {
						n.Status.Config = nil
					}
				}),
				ValidateUpdate: validatesUpdate(validateNodeUpdate),
				ResetFields:    resets(gv, "spec"),
			},
			"proxy": proxySubresource("NodeProxyOptions", func() runtime.Object { return &corev1.NodeProxyOptions{} }),
		},
	})
}

// proxySubresource is a door to the HTTP server behind an object.
func proxySubresource(kind string, options func() runtime.Object) *api.Subresource {
	return &api.Subresource{
		Verbs:   []string{"create", "delete", "get", "patch", "update"},
		Kind:    corev1.SchemeGroupVersion.WithKind(kind),
		New:     options,
		Connect: true,
	}
}

// dropDisabledNodeFields removes a configuration that is no more, and what is
// behind the gate InPlacePodVerticalScalingSchedulerPreemption, unless the
// stored object has it.
func dropDisabledNodeFields(n, old *corev1.Node) {
	if old.Spec.ConfigSource == nil {
		n.Spec.ConfigSource = nil
	}
	if old.Spec.PodPreemptionPolicy == nil {
		n.Spec.PodPreemptionPolicy = nil
	}
}

// defaultNode makes all capacity allocatable, and keeps podCIDR and podCIDRs in
// step: a client that knows the former only has the last word on it.
func defaultNode(n *corev1.Node) {
	if n.Status.Allocatable == nil && n.Status.Capacity != nil {
		n.Status.Allocatable = n.Status.Capacity.DeepCopy()
	}
	roundToMilli(n.Status.Capacity)
	roundToMilli(n.Status.Allocatable)
	switch {
	case n.Spec.PodCIDR != "" && (len(n.Spec.PodCIDRs) == 0 || n.Spec.PodCIDRs[0] != n.Spec.PodCIDR):
		n.Spec.PodCIDRs = []string{n.Spec.PodCIDR}
	case n.Spec.PodCIDR == "" && len(n.Spec.PodCIDRs) > 0:
		n.Spec.PodCIDR = n.Spec.PodCIDRs[0]
	}
}

func warnNode(n, _ *corev1.Node) []string {
	var warnings []string
	if n.Spec.ConfigSource != nil {
		warnings = append(warnings, "spec.configSource: the feature is removed")
	}
	if n.Spec.DoNotUseExternalID != "" {
		warnings = append(warnings, "spec.externalID: this field is deprecated, and is unused by Kubernetes")
	}
	for i, cidr := range n.Spec.PodCIDRs {
		warnings = append(warnings, validation.GetWarningsForCIDR(field.NewPath("spec", "podCIDRs").Index(i), cidr)...)
	}
	return warnings
}

func nodeCells(n *corev1.Node, now time.Time) []any {
	state := "Unknown"
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			state = "NotReady"
			if c.Status == corev1.ConditionTrue {
				state = "Ready"
			}
		}
	}
	if n.Spec.Unschedulable {
		state += ",SchedulingDisabled"
	}
	info := &n.Status.NodeInfo
	return []any{
		n.Name, state, orDefault(strings.Join(nodeRoles(n), ","), unset),
		age(n.CreationTimestamp, now), info.KubeletVersion,
		nodeAddress(n, corev1.NodeInternalIP), nodeAddress(n, corev1.NodeExternalIP),
		orDefault(info.OSImage, unknown), orDefault(info.KernelVersion, unknown), orDefault(info.ContainerRuntimeVersion, unknown),
	}
}

func nodeAddress(n *corev1.Node, kind corev1.NodeAddressType) string {
	for _, a := range n.Status.Addresses {
		if a.Type == kind {
			return a.Address
		}
	}
	return unset
}

// nodeRoles are named by the labels node-role.kubernetes.io/ROLE and, of old,
// kubernetes.io/role=ROLE.
func nodeRoles(n *corev1.Node) []string {
	roles := sets.New[string]()
	for key, value := range n.Labels {
		if role, ok := strings.CutPrefix(key, "node-role.kubernetes.io/"); ok && role != "" {
			roles.Insert(role)
		}
		if key == "kubernetes.io/role" && value != "" {
			roles.Insert(value)
		}
	}
	return slices.Sorted(slices.Values(roles.UnsortedList()))
}
