package pod

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func (c *checker) topologySpread(at *field.Path, list []corev1.TopologySpreadConstraint) {
	for i := range list {
		t, p := &list[i], at.Index(i)
		c.positive(p.Child("maxSkew"), t.MaxSkew)
		if t.TopologyKey == "" {
			c.required(p.Child("topologyKey"), "can not be empty")
		}
		oneOf(c, p.Child("whenUnsatisfiable"), t.WhenUnsatisfiable, corev1.DoNotSchedule, corev1.ScheduleAnyway)
		c.spreadNotRepeated(p, t, list[i+1:])
		if t.MinDomains != nil {
			c.positive(p.Child("minDomains"), *t.MinDomains)
			if t.WhenUnsatisfiable != corev1.DoNotSchedule {
				c.invalid(p.Child("minDomains"), *t.MinDomains,
					fmt.Sprintf("can only use minDomains if whenUnsatisfiable=%s, not %s", corev1.DoNotSchedule, t.WhenUnsatisfiable))
			}
		}
		optionalOneOf(c, p.Child("nodeAffinityPolicy"), t.NodeAffinityPolicy, corev1.NodeInclusionPolicyHonor, corev1.NodeInclusionPolicyIgnore)
		optionalOneOf(c, p.Child("nodeTaintsPolicy"), t.NodeTaintsPolicy, corev1.NodeInclusionPolicyHonor, corev1.NodeInclusionPolicyIgnore)
		if !c.spreadMatchLabelKeys {
			c.matchLabelKeys(p, t.MatchLabelKeys, nil, t.LabelSelector)
		} else {
			c.labelKeys(p.Child("matchLabelKeys"), t.MatchLabelKeys, t.LabelSelector)
		}
		if !c.spreadSelectors {
			c.spreadSelector(p, t)
		}
	}
}

func (c *checker) positive(at *field.Path, n int32) {
	if n <= 0 {
		c.invalid(at, n, "must be greater than zero")
	}
}

func (c *checker) spreadSelector(at *field.Path, t *corev1.TopologySpreadConstraint) {
	c.add(metavalidation.ValidateLabelSelector(t.LabelSelector, metavalidation.LabelSelectorValidationOptions{}, at.Child("labelSelector"))...)
}

// spreadNotRepeated: topologyKey and whenUnsatisfiable together are the key of
// the list.
func (c *checker) spreadNotRepeated(at *field.Path, t *corev1.TopologySpreadConstraint, rest []corev1.TopologySpreadConstraint) {
	for _, o := range rest {
		if o.TopologyKey == t.TopologyKey && o.WhenUnsatisfiable == t.WhenUnsatisfiable {
			c.duplicate(at.Child("{topologyKey, whenUnsatisfiable}"), fmt.Sprintf("{%v, %v}", t.TopologyKey, t.WhenUnsatisfiable))
			return
		}
	}
}
