package dependency

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/internal/podstate"
)

// State is how things stand with a dependency.
type State struct {
	Met bool
	// Lost says that nothing of it is left, of several replicas none: kept up for a
	// while that is a failure.
	Lost bool
	// Failed says that it has failed already and will not recover by itself.
	Failed bool
	// Why says what is missing, for people; empty if it is met.
	Why string
}

func met() State { return State{Met: true} }

func unmet(format string, args ...any) State {
	return State{Lost: true, Why: fmt.Sprintf(format, args...)}
}

// Look says how things stand with a dependency. A target that is being deleted is
// as good as gone.
func Look(reg *api.Registry, view View, d Dependency) State {
	r, obj := d.Object(reg, view)
	if r == nil {
		return unmet("no kind %q is served", d.Kind)
	}
	return LookAt(reg, view, d, obj)
}

// LookAt is Look with an object, or nil, taken for the target.
func LookAt(reg *api.Registry, view View, d Dependency, obj api.Object) State {
	switch {
	case obj == nil:
		return unmet("does not exist")
	case obj.GetDeletionTimestamp() != nil && !d.Once():
		return unmet("is being deleted")
	case d.Condition == exists:
		return met()
	}
	switch o := obj.(type) {
	case *appsv1.Deployment:
		return ofDeployment(o)
	case *appsv1.StatefulSet:
		return ofReplicas(o.Status.ReadyReplicas, ptr.Deref(o.Spec.Replicas, 1))
	case *appsv1.DaemonSet:
		return ofReplicas(o.Status.NumberReady, o.Status.DesiredNumberScheduled)
	case *appsv1.ReplicaSet:
		return ofReplicas(o.Status.ReadyReplicas, ptr.Deref(o.Spec.Replicas, 1))
	case *corev1.ReplicationController:
		return ofReplicas(o.Status.ReadyReplicas, ptr.Deref(o.Spec.Replicas, 1))
	case *corev1.Service:
		return ofService(reg, view, o)
	case *corev1.Pod:
		return ofPod(o, d.Condition)
	case *batchv1.Job:
		return ofJob(o, d.Condition)
	case *batchv1.CronJob:
		if o.Status.LastSuccessfulTime == nil {
			return unmet("has had no success yet")
		}
		return met()
	case *corev1.PersistentVolumeClaim:
		if o.Status.Phase != corev1.ClaimBound {
			return unmet("is not bound")
		}
		return met()
	}
	return ofConditions(obj, d.Condition)
}

func ofDeployment(d *appsv1.Deployment) State {
	s := ofReplicas(d.Status.ReadyReplicas, 1)
	if !s.Met {
		return s
	}
	for _, c := range d.Status.Conditions {
		if c.Type == appsv1.DeploymentAvailable && c.Status == corev1.ConditionTrue {
			return s
		}
	}
	return State{Why: "is not available"}
}

// ofReplicas: a workload that is scaled to nothing is not ready.
func ofReplicas(ready, wanted int32) State {
	switch {
	case ready == 0:
		return unmet("no replica is ready")
	case ready < wanted:
		return State{Why: "not all replicas are ready"}
	}
	return met()
}

func ofService(reg *api.Registry, view View, s *corev1.Service) State {
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		return met()
	}
	// Slices that the loop makes belong to the service; others, as those that mirror
	// Endpoints, only have its name.
	index, value := api.IndexOwner, string(s.UID)
	if len(s.Spec.Selector) == 0 {
		index, value = api.IndexLabel, discoveryv1.LabelServiceName+"="+s.Name
	}
	for o := range view.ByIndex(reg.Must(discoveryv1.GroupName, "endpointslices"), index, value) {
		slice, ok := o.(*discoveryv1.EndpointSlice)
		if !ok || slice.Namespace != s.Namespace || slice.Labels[discoveryv1.LabelServiceName] != s.Name {
			continue
		}
		for i := range slice.Endpoints {
			if ptr.Deref(slice.Endpoints[i].Conditions.Ready, true) {
				return met()
			}
		}
	}
	return unmet("has no ready endpoint")
}

func ofPod(p *corev1.Pod, condition string) State {
	switch {
	case condition == complete && p.Status.Phase == corev1.PodSucceeded,
		condition == failed && p.Status.Phase == corev1.PodFailed:
		return met()
	case podstate.Finished(p):
		return State{Lost: true, Failed: true, Why: "has ended: " + string(p.Status.Phase)}
	case condition == complete || condition == failed:
		return unmet("has not ended")
	}
	if c := podstate.Condition(p, corev1.PodConditionType(condition)); c == nil || c.Status != corev1.ConditionTrue {
		return unmet("is not %s", condition)
	}
	return met()
}

func ofJob(j *batchv1.Job, condition string) State {
	for _, c := range j.Status.Conditions {
		if c.Status != corev1.ConditionTrue || c.Type != batchv1.JobComplete && c.Type != batchv1.JobFailed {
			continue
		}
		if string(c.Type) == condition {
			return met()
		}
		if c.Type == batchv1.JobFailed {
			return State{Lost: true, Failed: true, Why: "has failed: " + c.Reason}
		}
		return State{Lost: true, Failed: true, Why: "has completed"}
	}
	if ptr.Deref(j.Spec.Suspend, false) {
		return unmet("is suspended")
	}
	return unmet("has not ended")
}

// ofConditions looks at the status.conditions of a custom resource.
func ofConditions(obj api.Object, condition string) State {
	if o, ok := obj.(interface{ Tree() map[string]any }); ok {
		status, _ := o.Tree()["status"].(map[string]any)
		list, _ := status["conditions"].([]any)
		for _, item := range list {
			if c, ok := item.(map[string]any); ok && c["type"] == condition && c["status"] == string(corev1.ConditionTrue) {
				return met()
			}
		}
	}
	return unmet("is not %s", condition)
}
