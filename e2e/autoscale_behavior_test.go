package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestAutoscalerBehavior is about how fast autoscalers follow. Their metric is
// memory, of which sleepers use much more than a byte and much less than a
// gigabyte: the target says which way to go. A policy's period is longer than a test.
func TestAutoscalerBehavior(t *testing.T) {
	t.Parallel()
	for _, r := range []row{
		{"an autoscaler's policies: select Max, Min and Disabled, by pods and percent", scalesByPolicies},
		{"an autoscaler's stabilisation windows", scalesWhenStable},
		{"an autoscaler's tolerance", scalesBeyondTolerance},
		{"an autoscaler's conditions: disabled, without metrics, without a target", saysWhyNot},
	} {
		t.Run(r.noun, func(t *testing.T) {
			t.Parallel()
			r.check(newSpace(t, shared))
		})
	}
}

const (
	moreThanAll  = "1" // bytes for each pod
	lessThanEver = "1Gi"
)

// behaving is a Deployment of sleepers and its autoscaler.
func behaving(name string, replicas int, target, behavior string) string {
	return sleepers("Deployment", name, "one", replicas, "") + fmt.Sprintf(`
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: %[1]s}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: %[1]s}
  minReplicas: 1
  maxReplicas: 9
  metrics: [{type: Resource, resource: {name: memory, target: {type: AverageValue, averageValue: %[2]q}}}]
  behavior: %[3]s
---`, name, target, behavior)
}

// autoscaler waits until the loop has seen an autoscaler as it is, and its conditions
// begin with such words: "AbleToScale True ReadyForNewScale".
func (s *space) autoscaler(name string, replicas int32, words ...string) *autoscalingv2.HorizontalPodAutoscaler {
	s.t.Helper()
	var h *autoscalingv2.HorizontalPodAutoscaler
	await(s.t, fmt.Sprintf("autoscaler %s wants %d and says %q", name, replicas, words), func() (err error) {
		if h, err = s.client.AutoscalingV2().HorizontalPodAutoscalers(s.name).Get(s.t.Context(), name, metav1.GetOptions{}); err != nil {
			return err
		}
		status, err := json.Marshal(h.Status)
		if err != nil {
			return err
		}
		var said []string
		for _, c := range h.Status.Conditions {
			said = append(said, fmt.Sprint(c.Type, " ", c.Status, " ", c.Reason, ": ", c.Message))
		}
		for _, w := range words {
			if !strings.Contains("\n"+strings.Join(said, "\n"), "\n"+w) {
				return fmt.Errorf("status %s", status)
			}
		}
		if seen := h.Status.ObservedGeneration; seen == nil || *seen != h.Generation || h.Status.DesiredReplicas != replicas {
			return fmt.Errorf("generation %d, status %s", h.Generation, status)
		}
		return nil
	})
	return h
}

// changeScaler patches an autoscaler's target, or how it behaves.
func (s *space) changeScaler(name, target, behavior string) {
	s.t.Helper()
	s.kubectl("patch", "hpa", name, "--type=merge", "-p", fmt.Sprintf(`{"spec": {"behavior": %s, "metrics": [{"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": %q}}}]}}`, behavior, target))
}

// Documentation: "Horizontal Pod Autoscaling", "Scaling policies".
func scalesByPolicies(s *space) {
	const policies = `policies: [{type: Pods, value: 1, periodSeconds: 1800}, {type: Percent, value: 200, periodSeconds: 1800}]`
	s.apply(behaving("max", 1, moreThanAll, "{scaleUp: {selectPolicy: Max, "+policies+"}}") +
		behaving("min", 1, moreThanAll, "{scaleUp: {selectPolicy: Min, "+policies+"}}") +
		behaving("disabled", 1, moreThanAll, "{scaleUp: {selectPolicy: Disabled, "+policies+"}}") +
		behaving("down", 4, lessThanEver, "{scaleDown: {stabilizationWindowSeconds: 0, policies: [{type: Percent, value: 25, periodSeconds: 1800}]}}"))
	const tooFast = "ScalingLimited True ScaleUpLimit: the desired replica count is increasing faster than the maximum scale rate"
	s.autoscaler("max", 3, tooFast)
	s.autoscaler("min", 2, tooFast)
	s.autoscaler("disabled", 1, tooFast, "AbleToScale True ReadyForNewScale", "ScalingActive True ValidMetricFound")
	s.autoscaler("down", 3, "ScalingLimited True ScaleDownLimit: the desired replica count is decreasing faster than the maximum scale rate")
	for app, n := range map[string]int{"max": 3, "min": 2, "disabled": 1, "down": 3} {
		s.readyPods(app, n)
	}
	s.event("max", "Normal SuccessfulRescale: New size: 3; reason: memory resource above target")
}

// Documentation: "Horizontal Pod Autoscaling", "Stabilization window".
func scalesWhenStable(s *space) {
	const slowUp = "{scaleUp: {stabilizationWindowSeconds: 1800}}"
	s.apply(behaving("up", 1, lessThanEver, slowUp) + behaving("down", 2, moreThanAll, "{scaleUp: {selectPolicy: Disabled}}"))
	s.autoscaler("up", 1, "ScalingActive True")
	s.autoscaler("down", 2, "ScalingActive True")
	s.changeScaler("up", moreThanAll, `{"scaleUp": {"stabilizationWindowSeconds": 1800}}`)
	s.changeScaler("down", lessThanEver, `{}`)
	s.autoscaler("up", 1, "AbleToScale True ScaleUpStabilized: recent recommendations were lower than current one, applying the lowest recent recommendation")
	s.autoscaler("down", 2, "AbleToScale True ScaleDownStabilized: recent recommendations were higher than current one, applying the highest recent recommendation")
	s.changeScaler("up", moreThanAll, `{"scaleUp": {"stabilizationWindowSeconds": 0, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 1800}]}}`)
	s.changeScaler("down", lessThanEver, `{"scaleDown": {"stabilizationWindowSeconds": 0}}`)
	s.readyPods("up", 2)
	s.readyPods("down", 1)
}

// KEP-4951: a metric that is off by less than the tolerance changes nothing, each way
// with its own.
func scalesBeyondTolerance(s *space) {
	const alloc = `{name: main, image: "hansa.local/testimage:1", args: [alloc, "24"]}`
	sleeping := `{name: main, image: hansa.local/busybox:1, command: [sleep, "1000"], env: [{name: WORD, value: one}]}`
	s.apply(strings.Replace(behaving("web", 1, lessThanEver, "{}"), sleeping, alloc, 1))
	var used int64
	await(s.t, "what it uses is measured", func() error {
		used = s.autoscaler("web", 1, "ScalingActive True").Status.CurrentMetrics[0].Resource.Current.AverageValue.Value()
		if used < 24<<20 {
			return fmt.Errorf("%d bytes", used)
		}
		return nil
	})
	less := fmt.Sprint(used * 3 / 4) // what is used is a third more
	s.changeScaler("web", less, `{"scaleUp": {"tolerance": "500m"}}`)
	s.autoscaler("web", 1, "AbleToScale True ReadyForNewScale", "ScalingLimited False DesiredWithinRange")
	s.changeScaler("web", less, `{"scaleUp": {"tolerance": "100m", "policies": [{"type": "Pods", "value": 1, "periodSeconds": 1800}]}}`)
	s.readyPods("web", 2)
	s.changeScaler("web", fmt.Sprint(used*5/2), `{"scaleUp": {"tolerance": "0"}, "scaleDown": {"stabilizationWindowSeconds": 0, "tolerance": "900m"}}`)
	h := s.autoscaler("web", 2, "AbleToScale True ReadyForNewScale")
	if got := h.Spec.Behavior.ScaleDown.Tolerance.String(); got != "900m" {
		s.t.Errorf("tolerance %s", got)
	}
	s.changeScaler("web", fmt.Sprint(used*5/2), `{"scaleDown": {"stabilizationWindowSeconds": 0, "tolerance": "100m"}}`)
	s.readyPods("web", 1)
}

// Documentation: "HorizontalPodAutoscaler Walkthrough", "Appendix: Horizontal Pod
// Autoscaler Status Conditions".
func saysWhyNot(s *space) {
	target, scaler, _ := strings.Cut(behaving("lost", 1, lessThanEver, "{}"), "---")
	s.apply(behaving("zero", 0, moreThanAll, "{}") + scaler +
		strings.Replace(behaving("bare", 1, "1", "{}"), `memory, target: {type: AverageValue, averageValue: "1"}`, "cpu, target: {type: Utilization, averageUtilization: 50}", 1))
	s.autoscaler("zero", 0, "AbleToScale True SucceededGetScale", "ScalingActive False ScalingDisabled: scaling is disabled since the replica count of the target is zero")
	s.autoscaler("bare", 0, "ScalingActive False FailedGetResourceMetric: the HPA was unable to compute the replica count: failed to get cpu utilization: missing request for cpu in container main of Pod bare-")
	s.event("bare", "Warning FailedGetResourceMetric: failed to get cpu utilization: missing request for cpu in container main of Pod bare-")
	says := func(want string) {
		s.t.Helper()
		await(s.t, "it says "+want, func() error {
			if got := s.field("hpa/lost", `.status.conditions[?(@.type=="AbleToScale")].status} {.status.conditions[?(@.type=="AbleToScale")].reason`); got != want {
				return errors.New(got)
			}
			return nil
		})
	}
	says("False FailedGetScale")
	s.event("lost", `Warning FailedGetScale: deployments.apps "lost" not found`)
	// It finds its target at the next look.
	s.apply(target)
	says("True ReadyForNewScale")
}
