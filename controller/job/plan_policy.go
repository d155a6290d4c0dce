package job

import (
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// verdict is what a pod failure policy says of one failed pod.
type verdict struct {
	action  batchv1.PodFailurePolicyAction // "" when no rule matches
	message string                         // of FailJob
}

// counts says whether the failure counts towards backoffLimit.
func (v verdict) counts() bool { return v.action != batchv1.PodFailurePolicyActionIgnore }

// judge finds the first rule of the job's pod failure policy that matches a pod.
func judge(j *batchv1.Job, p *corev1.Pod) verdict {
	if j.Spec.PodFailurePolicy == nil {
		return verdict{}
	}
	for i, rule := range j.Spec.PodFailurePolicy.Rules {
		var why string
		switch {
		case rule.OnExitCodes != nil:
			c := matchExitCode(&p.Status, rule.OnExitCodes)
			if c == nil {
				continue
			}
			why = fmt.Sprintf("Container %s for pod %s/%s failed with exit code %d matching %s rule at index %d",
				c.Name, p.Namespace, p.Name, c.State.Terminated.ExitCode, rule.Action, i)
		case len(rule.OnPodConditions) > 0:
			c := matchCondition(&p.Status, rule.OnPodConditions)
			if c == nil {
				continue
			}
			why = fmt.Sprintf("Pod %s/%s has condition %s matching %s rule at index %d", p.Namespace, p.Name, c.Type, rule.Action, i)
		default:
			continue
		}
		switch rule.Action {
		case batchv1.PodFailurePolicyActionFailJob:
			return verdict{rule.Action, why}
		case batchv1.PodFailurePolicyActionIgnore, batchv1.PodFailurePolicyActionFailIndex, batchv1.PodFailurePolicyActionCount:
			return verdict{action: rule.Action}
		}
		// An action of the future: the rule is skipped.
	}
	return verdict{}
}

// matchExitCode finds a container that ended with a failure that the
// requirement names.
func matchExitCode(s *corev1.PodStatus, r *batchv1.PodFailurePolicyOnExitCodesRequirement) *corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{s.ContainerStatuses, s.InitContainerStatuses} {
		for i := range list {
			c := &list[i]
			if c.State.Terminated == nil || c.State.Terminated.ExitCode == 0 || r.ContainerName != nil && *r.ContainerName != c.Name {
				continue
			}
			listed := slices.Contains(r.Values, c.State.Terminated.ExitCode)
			if r.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn && listed || r.Operator == batchv1.PodFailurePolicyOnExitCodesOpNotIn && !listed {
				return c
			}
		}
	}
	return nil
}

func matchCondition(s *corev1.PodStatus, patterns []batchv1.PodFailurePolicyOnPodConditionsPattern) *corev1.PodCondition {
	for i := range s.Conditions {
		for _, want := range patterns {
			if c := &s.Conditions[i]; c.Type == want.Type && c.Status == want.Status {
				return c
			}
		}
	}
	return nil
}

// succeedsEarly says whether a rule of the job's success policy is met, and
// which.
func succeedsEarly(j *batchv1.Job, completed indexes) (message string, ok bool) {
	if j.Spec.SuccessPolicy == nil || len(completed) == 0 {
		return "", false
	}
	for i, rule := range j.Spec.SuccessPolicy.Rules {
		have := completed.total()
		want := 0
		switch {
		case rule.SucceededIndexes != nil:
			listed := parseIndexes(*rule.SucceededIndexes, completions(j))
			have, want = completed.common(listed), listed.total()
		case rule.SucceededCount == nil:
			continue
		}
		if rule.SucceededCount != nil {
			want = int(*rule.SucceededCount)
		}
		if have >= want {
			return fmt.Sprintf("Matched rules at index %d", i), true
		}
	}
	return "", false
}
