package pod

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// leniency says which rules are suspended because the stored object breaks them
// already: rules that came after objects had been let in without them. The zero
// value, for new objects, suspends nothing.
type leniency struct {
	deletionCost                 bool // pod-deletion-cost that is no number
	affinityLabelValues          bool // label values in pod affinity selectors
	nodeAffinityLabelValues      bool // label values in required node affinity
	spreadSelectors              bool // label selectors of topology spread
	spreadMatchLabelKeys         bool // matchLabelKeys of topology spread
	hugePageMultiples            bool // huge pages that are no multiple of the page
	tokenPaths                   bool // token paths outside of the volume
	hostSysctls                  bool // sysctls of a namespace shared with the host
	hostNetworkWithUserNamespace bool
	devicesWithUserNamespace     bool
	comparingTolerations         bool // operators Lt and Gt
	initResizeRestart            bool // RestartContainer for init containers that end
	emptyImageReference          bool // image volumes without an image
	claimSelector                bool // label values in the selector of a claim
	claimGroups                  bool // API groups of what a claim is filled from
}

// leniencyFor reads off an old spec which of the newer rules it breaks. meta
// may be nil.
func leniencyFor(old *corev1.PodSpec, meta *metav1.ObjectMeta) leniency {
	var l leniency
	if meta != nil {
		_, l.deletionCost = deletionCostFlaw(meta.Annotations)
	}
	strict := func(check func(*checker)) bool {
		c := &checker{}
		check(c)
		return len(c.errs) > 0
	}
	root := field.NewPath("spec")
	l.affinityLabelValues = strict(func(c *checker) {
		eachAffinityTerm(old.Affinity, func(t *corev1.PodAffinityTerm) { c.affinitySelectors(root, t) })
	})
	l.nodeAffinityLabelValues = strict(func(c *checker) { c.requiredNodeLabelValues(root, old.Affinity) })
	l.spreadSelectors = strict(func(c *checker) {
		for i := range old.TopologySpreadConstraints {
			c.spreadSelector(root, &old.TopologySpreadConstraints[i])
		}
	})
	l.spreadMatchLabelKeys = strict(func(c *checker) {
		for i := range old.TopologySpreadConstraints {
			t := &old.TopologySpreadConstraints[i]
			c.matchLabelKeys(root, t.MatchLabelKeys, nil, t.LabelSelector)
		}
	})
	l.hugePageMultiples = usesPartialHugePages(old)
	l.hostSysctls = strict(func(c *checker) { c.hostSysctlsUnused(root, old) })
	private := old.HostUsers != nil && !*old.HostUsers
	l.hostNetworkWithUserNamespace = private && old.HostNetwork
	eachContainer(old, root, func(ctr *corev1.Container, _ *field.Path) {
		l.devicesWithUserNamespace = l.devicesWithUserNamespace || private && len(ctr.VolumeDevices) > 0
	})
	for _, t := range old.Tolerations {
		if t.Operator == corev1.TolerationOpLt || t.Operator == corev1.TolerationOpGt {
			l.comparingTolerations = true
		}
	}
	for i := range old.InitContainers {
		if isSidecar(&old.InitContainers[i]) {
			continue
		}
		for _, p := range old.InitContainers[i].ResizePolicy {
			l.initResizeRestart = l.initResizeRestart || p.RestartPolicy == corev1.RestartContainer
		}
	}
	for _, v := range old.Volumes {
		l.emptyImageReference = l.emptyImageReference || v.Image != nil && v.Image.Reference == ""
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			if t := s.ServiceAccountToken; t != nil {
				l.tokenPaths = l.tokenPaths || strict(func(c *checker) { c.plainRelativePath(root, t.Path) })
			}
		}
	}
	return l
}

// usesPartialHugePages looks for huge page amounts that are no whole pages.
func usesPartialHugePages(spec *corev1.PodSpec) bool {
	lists := []corev1.ResourceList{spec.Overhead}
	for _, ctrs := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range ctrs {
			lists = append(lists, ctrs[i].Resources.Limits, ctrs[i].Resources.Requests)
		}
	}
	for _, list := range lists {
		for name, q := range list {
			if isHugePage(name) && !wholePages(name, q) {
				return true
			}
		}
	}
	return false
}
