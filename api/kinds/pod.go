package kinds

import (
	"fmt"
	"maps"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/pod"
)

// pods is the row; what a pod means is in package pod.
func pods() *api.Resource {
	gv := corev1.SchemeGroupVersion
	shapes := pod.NewShapes()
	return stored[corev1.Pod, *corev1.Pod, corev1.PodList](gv, &api.Resource{
		Plural:         "pods",
		Singular:       "pod",
		Kind:           "Pod",
		ShortNames:     []string{"po"},
		Categories:     []string{"all"},
		Namespaced:     true,
		Prefix:         "pods",
		ChecksBase:     true,
		Default:        on(pod.Default),
		PrepareCreate:  on(pod.PrepareCreate),
		PrepareUpdate:  onUpdate(pod.PrepareUpdate),
		Validate:       validates(pod.Validate),
		ValidateUpdate: validatesUpdate(pod.ValidateUpdate),
		Warnings:       warns(pod.Warnings),
		SentWarnings:   func(obj api.Object) []string { return pod.SentWarnings(obj.(*corev1.Pod)) },
		Review: func(obj api.Object) ([]string, field.ErrorList) {
			return shapes.Review(obj.(*corev1.Pod))
		},
		ResetFields: resets(gv, "status"),
		GracePeriod: func(obj api.Object, opts *metav1.DeleteOptions) int64 {
			return pod.GracePeriod(obj.(*corev1.Pod), opts)
		},
		AllowUnconditionalUpdate: true,
		Table:                    podTable(),
		FieldLabels: []string{
			"spec.nodeName", "spec.host", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName",
			"spec.hostNetwork", "status.phase", "status.podIP", "status.podIPs", "status.nominatedNodeName",
		},
		Fields: selects(podFields),
		Indexes: []api.Index{
			{
				Name:   api.IndexNode,
				Values: func(obj api.Object) []string { return []string{obj.(*corev1.Pod).Spec.NodeName} },
			},
			orphanIndex(),
		},
		Common: &api.Part{
			Number: 2,
			Of:     func(obj api.Object) interface{ Unmarshal([]byte) error } { return &obj.(*corev1.Pod).Spec },
		},
		Subresources: podSubresources(gv),
	})
}

// podFields includes spec.host, an old name of spec.nodeName, and status.podIPs,
// which Kubernetes knows, and gives no value.
func podFields(p *corev1.Pod) fields.Set {
	first := ""
	if len(p.Status.PodIPs) > 0 {
		first = p.Status.PodIPs[0].IP
	}
	return fields.Set{
		"spec.nodeName":            p.Spec.NodeName,
		"spec.host":                p.Spec.NodeName,
		"spec.restartPolicy":       string(p.Spec.RestartPolicy),
		"spec.schedulerName":       p.Spec.SchedulerName,
		"spec.serviceAccountName":  p.Spec.ServiceAccountName,
		"spec.hostNetwork":         strconv.FormatBool(p.Spec.HostNetwork),
		"status.phase":             string(p.Status.Phase),
		"status.podIP":             first,
		"status.podIPs":            "",
		"status.nominatedNodeName": p.Status.NominatedNodeName,
	}
}

func podSubresources(gv schema.GroupVersion) map[string]*api.Subresource {
	// stream is served by the node's agent through the server.
	stream := func(kind string, options func() runtime.Object) *api.Subresource {
		return &api.Subresource{
			Verbs:   []string{"create", "get"},
			Kind:    gv.WithKind(kind),
			New:     options,
			Connect: true,
		}
	}
	return map[string]*api.Subresource{
		"status": {
			Verbs:          updateVerbs,
			PrepareUpdate:  onUpdate(pod.PrepareStatusUpdate),
			ValidateUpdate: validatesUpdate(pod.ValidateStatusUpdate),
			Warnings:       warns(func(p, _ *corev1.Pod) []string { return pod.StatusWarnings(p) }),
			ResetFields:    resets(gv, "spec", "metadata.deletionTimestamp", "metadata.ownerReferences"),
		},
		"ephemeralcontainers": {
			Verbs:          updateVerbs,
			PrepareUpdate:  onUpdate(pod.PrepareEphemeralContainersUpdate),
			ValidateUpdate: validatesUpdate(pod.ValidateEphemeralContainersUpdate),
			ChecksBase:     true,
		},
		"resize": {
			Verbs:          updateVerbs,
			PrepareUpdate:  onUpdate(pod.PrepareResize),
			ValidateUpdate: validatesUpdate(pod.ValidateResize),
			ChecksBase:     true,
		},
		"binding": {
			Verbs: []string{"create"},
			Kind:  gv.WithKind("Binding"),
			New:   func() runtime.Object { return &corev1.Binding{} },
			Put:   bind,
			// Binding is the one writer that may set spec.nodeName; bind has
			// made sure of all that must hold.
			PrepareUpdate:  onUpdate(func(_, _ *corev1.Pod) {}),
			ValidateUpdate: validatesUpdate(func(_, _ *corev1.Pod) field.ErrorList { return nil }),
		},
		"eviction": {
			Verbs:   []string{"create"},
			Kind:    policyv1.SchemeGroupVersion.WithKind("Eviction"),
			New:     func() runtime.Object { return &policyv1.Eviction{} },
			Connect: true,
		},
		"log": {
			Verbs: []string{"get"},
			New:   func() runtime.Object { return &corev1.PodLogOptions{} },
			ValidateOptions: func(options runtime.Object) field.ErrorList {
				return pod.ValidateLogOptions(options.(*corev1.PodLogOptions))
			},
			Connect: true,
		},
		"attach":      stream("PodAttachOptions", func() runtime.Object { return &corev1.PodAttachOptions{} }),
		"exec":        stream("PodExecOptions", func() runtime.Object { return &corev1.PodExecOptions{} }),
		"portforward": stream("PodPortForwardOptions", func() runtime.Object { return &corev1.PodPortForwardOptions{} }),
		"proxy":       proxySubresource("PodProxyOptions", func() runtime.Object { return &corev1.PodProxyOptions{} }),
	}
}

// bind gives a pod to the node that a Binding names.
func bind(obj api.Object, body runtime.Object, now time.Time) error {
	p := obj.(*corev1.Pod)
	b, ok := body.(*corev1.Binding)
	if !ok {
		return apierrors.NewBadRequest(fmt.Sprintf("not a Binding object: %T", body))
	}
	if b.Name != "" && b.Name != p.Name {
		return apierrors.NewBadRequest("name in URL does not match name in Binding object")
	}
	if errs := pod.ValidateBinding(b); len(errs) > 0 {
		return errs.ToAggregate() // Kubernetes does not make a status of it
	}
	var refusal error
	switch {
	case b.UID != "" && b.UID != p.UID:
		refusal = fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: %v", b.UID, p.UID)
	case p.DeletionTimestamp != nil:
		refusal = fmt.Errorf("pod %s is being deleted, cannot be assigned to a host", p.Name)
	case p.Spec.NodeName != "":
		refusal = fmt.Errorf("pod %v is already assigned to node %q", p.Name, p.Spec.NodeName)
	case len(p.Spec.SchedulingGates) > 0:
		refusal = fmt.Errorf("pod %v has non-empty .spec.schedulingGates", p.Name)
	}
	if refusal != nil {
		return apierrors.NewConflict(schema.GroupResource{Resource: "pods/binding"}, p.Name, refusal)
	}
	if b.ResourceVersion != "" {
		p.ResourceVersion = b.ResourceVersion
	}
	p.Spec.NodeName = b.Target.Name
	p.Status.NominatedNodeName = ""
	if len(b.Annotations) > 0 && p.Annotations == nil {
		p.Annotations = map[string]string{}
	}
	maps.Copy(p.Annotations, b.Annotations)
	if len(b.Labels) > 0 && p.Labels == nil {
		p.Labels = map[string]string{}
	}
	maps.Copy(p.Labels, b.Labels)
	setScheduled(&p.Status, metav1.NewTime(now))
	return nil
}

func setScheduled(s *corev1.PodStatus, now metav1.Time) {
	scheduled := corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: now}
	for i := range s.Conditions {
		if c := &s.Conditions[i]; c.Type == corev1.PodScheduled {
			if c.Status == corev1.ConditionTrue {
				scheduled.LastTransitionTime = c.LastTransitionTime
			}
			*c = scheduled
			return
		}
	}
	s.Conditions = append(s.Conditions, scheduled)
}
