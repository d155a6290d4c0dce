package pod

import (
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ValidateTolerations checks tolerations that pods are to be given.
func ValidateTolerations(list []corev1.Toleration, path *field.Path) field.ErrorList {
	c := &checker{}
	c.tolerations(path, list)
	return c.errs
}

func (c *checker) tolerations(at *field.Path, list []corev1.Toleration) {
	for i := range list {
		c.toleration(at.Index(i), &list[i])
	}
}

func (c *checker) toleration(at *field.Path, t *corev1.Toleration) {
	operator := at.Child("operator")
	if t.Key != "" {
		c.add(metavalidation.ValidateLabelName(t.Key, at.Child("key"))...)
	} else if t.Operator != corev1.TolerationOpExists {
		c.invalid(operator, t.Operator, "operator must be Exists when `key` is empty, which means \"match all values and all keys\"")
	}
	if t.TolerationSeconds != nil && t.Effect != corev1.TaintEffectNoExecute {
		c.invalid(at.Child("effect"), t.Effect, "effect must be 'NoExecute' when `tolerationSeconds` is set")
	}
	switch t.Operator {
	case corev1.TolerationOpEqual, "":
		if flaws := validation.IsValidLabelValue(t.Value); len(flaws) > 0 {
			c.invalid(operator, t.Value, strings.Join(flaws, ";"))
		}
	case corev1.TolerationOpExists:
		if t.Value != "" {
			c.invalid(operator, t.Value, "value must be empty when `operator` is 'Exists'")
		}
	case corev1.TolerationOpLt, corev1.TolerationOpGt:
		c.comparing(at, t)
	default:
		oneOf(c, operator, t.Operator, corev1.TolerationOpEqual, corev1.TolerationOpExists)
	}
	if t.Effect != "" {
		oneOf(c, at.Child("effect"), t.Effect, corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute)
	}
}

// comparing: operators that compare numbers are behind a gate that is off; a
// pod that has one keeps it. (The message lists them all the same.)
func (c *checker) comparing(at *field.Path, t *corev1.Toleration) {
	if !c.comparingTolerations {
		c.add(field.NotSupported(at.Child("operator"), t.Operator, []corev1.TolerationOperator{
			corev1.TolerationOpEqual, corev1.TolerationOpExists, corev1.TolerationOpLt, corev1.TolerationOpGt,
		}))
		return
	}
	c.reasons(at.Child("value"), t.Value, content.IsDecimalInteger(t.Value))
	if _, err := strconv.ParseInt(t.Value, 10, 64); err != nil {
		c.invalid(at.Child("value"), t.Value, err.Error())
	}
}
