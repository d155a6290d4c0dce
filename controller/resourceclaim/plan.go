package resourceclaim

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/internal/podstate"
)

// world is what a pod's plan looks at, in its namespace.
type world interface {
	claim(name string) *resourcev1.ResourceClaim
	template(name string) *resourcev1.ResourceClaimTemplate
	// generated is the claim that was made for an entry of the pod, or nil.
	generated(p *corev1.Pod, entry string) *resourcev1.ResourceClaim
}

// podPlan is what is to be done for a pod.
type podPlan struct {
	create  map[string]*resourcev1.ResourceClaim // by entry of the pod
	found   map[string]string                    // claims that the pod's status does not tell of, by entry
	missing []string                             // why entries have no claim, for people
	reserve []*resourcev1.ResourceClaim
}

// planPod goes through the entries of a pod that may run yet.
func planPod(p *corev1.Pod, w world) podPlan {
	plan := podPlan{create: map[string]*resourcev1.ResourceClaim{}, found: map[string]string{}}
	for _, entry := range p.Spec.ResourceClaims {
		name, needed := nameOf(p, entry)
		if !needed {
			continue
		}
		claim := w.claim(name)
		if t := entry.ResourceClaimTemplateName; t != nil && (claim == nil || !metav1.IsControlledBy(claim, p)) {
			// A claim may be there without the status telling of it.
			if claim = w.generated(p, entry.Name); claim != nil {
				plan.found[entry.Name] = claim.Name
			} else if template := w.template(*t); template != nil {
				plan.create[entry.Name] = fromTemplate(template, p, entry.Name)
			} else {
				plan.missing = append(plan.missing, fmt.Sprintf("PodResourceClaim %s: resource claim template %q: resourceclaimtemplate.resource.k8s.io %q not found", entry.Name, *t, *t))
			}
		}
		// Until a pod has its node, the scheduler reserves.
		if claim != nil && p.Spec.NodeName != "" && claim.Status.Allocation != nil && !reserved(claim, p) &&
			len(claim.Status.ReservedFor) < resourcev1.ResourceClaimReservedForMaxSize {
			plan.reserve = append(plan.reserve, claim)
		}
	}
	return plan
}

// nameOf is the name of an entry's claim, empty when it has yet to be made. The
// status may say that none is needed.
func nameOf(p *corev1.Pod, entry corev1.PodResourceClaim) (name string, needed bool) {
	if entry.ResourceClaimName != nil {
		return *entry.ResourceClaimName, true
	}
	for _, s := range p.Status.ResourceClaimStatuses {
		if s.Name != entry.Name {
			continue
		}
		if s.ResourceClaimName == nil {
			return "", false
		}
		return *s.ResourceClaimName, true
	}
	return "", entry.ResourceClaimTemplateName != nil
}

// longestBase leaves room in a name for its random end.
const longestBase = 57

// fromTemplate is the claim for a pod's entry.
func fromTemplate(t *resourcev1.ResourceClaimTemplate, p *corev1.Pod, entry string) *resourcev1.ResourceClaim {
	base := p.Name + "-" + entry + "-"
	if n := len(base); n > longestBase {
		// Both parts are shortened alike, so that neither is lost.
		base = p.Name[:len(p.Name)*longestBase/n] + "-" + entry[:len(entry)*longestBase/n]
	}
	annotations := map[string]string{}
	maps.Copy(annotations, t.Spec.Annotations)
	annotations[resourcev1.PodResourceClaimAnnotation] = entry
	controller := true
	return &resourcev1.ResourceClaim{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: p.Namespace, GenerateName: base, Annotations: annotations, Labels: maps.Clone(t.Spec.Labels),
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: p.Name, UID: p.UID, Controller: &controller}},
		},
		Spec: *t.Spec.Spec.DeepCopy(),
	}
}

func reserved(c *resourcev1.ResourceClaim, p *corev1.Pod) bool {
	return slices.ContainsFunc(c.Status.ReservedFor, func(r resourcev1.ResourceClaimConsumerReference) bool { return r.UID == p.UID })
}

// claimPlan is what is to be done about a claim.
type claimPlan struct {
	reservedFor []resourcev1.ResourceClaimConsumerReference // who stays
	status      bool                                        // to be written, with them
	deallocate  bool                                        // along with it
	release     bool                                        // take the finalizer away
	remove      bool                                        // its pod will not run any more
}

// planClaim decides about a claim; pods are those by name that it is reserved
// for or belongs to, as they are now.
func planClaim(c *resourcev1.ResourceClaim, pods map[string]*corev1.Pod) claimPlan {
	var plan claimPlan
	for _, r := range c.Status.ReservedFor {
		p := pods[r.Name]
		// Of others than pods nothing is known, so they stay.
		if !isPod(r) || p != nil && p.UID == r.UID && !done(p) {
			plan.reservedFor = append(plan.reservedFor, r)
		}
	}
	freed, unused := len(plan.reservedFor) < len(c.Status.ReservedFor), len(plan.reservedFor) == 0
	kept := slices.Contains(c.Finalizers, resourcev1.Finalizer)
	switch {
	case freed:
		// The last to go takes the allocation along, so that whoever comes next
		// is not bound to the place that it was for.
		plan.status, plan.deallocate = true, unused && kept && c.Status.Allocation != nil
		plan.release = kept && (plan.deallocate || c.Status.Allocation == nil)
	case kept && c.DeletionTimestamp != nil && unused:
		plan.deallocate = c.Status.Allocation != nil
		plan.status, plan.release = plan.deallocate, true
	}
	if name, uid := podOf(c); unused && name != "" && c.DeletionTimestamp == nil {
		// If there is no such pod, the garbage collector has the last word.
		p := pods[name]
		plan.remove = p != nil && (string(p.UID) != uid || done(p))
	}
	return plan
}

func isPod(r resourcev1.ResourceClaimConsumerReference) bool {
	return r.APIGroup == "" && r.Resource == "pods"
}

// podOf is the pod that a claim was generated for.
func podOf(c *resourcev1.ResourceClaim) (name, uid string) {
	if ref := metav1.GetControllerOfNoCopy(c); ref != nil && ref.APIVersion == "v1" && ref.Kind == "Pod" {
		return ref.Name, string(ref.UID)
	}
	return "", ""
}

// done says that a pod needs its claims no more: it has ended, or was deleted
// before it got a node.
func done(p *corev1.Pod) bool {
	return podstate.Finished(p) || p.DeletionTimestamp != nil && p.Spec.NodeName == ""
}
