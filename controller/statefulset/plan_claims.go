package statefulset

import (
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
)

var (
	kind    = appsv1.SchemeGroupVersion.WithKind("StatefulSet")
	podKind = corev1.SchemeGroupVersion.WithKind("Pod")
)

// claimName is that of the claim that a pod has by a template.
func claimName(template, pod string) string {
	return template + "-" + pod
}

// claimedBy says whether a claim is that of a pod of the set, by a template.
func claimedBy(set *appsv1.StatefulSet, template, claim string) bool {
	pod, ok := strings.CutPrefix(claim, template+"-")
	if !ok {
		return false
	}
	_, ok = ordinalOf(set, pod)
	return ok
}

// newClaims are the claims of a pod, as they are made of the set's templates.
func newClaims(set *appsv1.StatefulSet, pod string) []*corev1.PersistentVolumeClaim {
	var out []*corev1.PersistentVolumeClaim
	for i := range set.Spec.VolumeClaimTemplates {
		t := set.Spec.VolumeClaimTemplates[i].DeepCopy()
		claim := &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: set.Namespace, Name: claimName(t.Name, pod),
				Labels: t.Labels, Annotations: t.Annotations, Finalizers: t.Finalizers, OwnerReferences: t.OwnerReferences,
			},
			Spec: t.Spec,
		}
		if claim.Labels == nil {
			claim.Labels = map[string]string{}
		}
		maps.Copy(claim.Labels, set.Spec.Selector.MatchLabels)
		out = append(out, claim)
	}
	return out
}

// volumes are those of a template with one for each claim, in place of the
// template's own of that name.
func volumes(set *appsv1.StatefulSet, pod string, own []corev1.Volume) []corev1.Volume {
	var out []corev1.Volume
	for i := range set.Spec.VolumeClaimTemplates {
		name := set.Spec.VolumeClaimTemplates[i].Name
		out = append(out, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claimName(name, pod)},
		}})
	}
	for _, v := range own {
		if !slices.ContainsFunc(out, func(c corev1.Volume) bool { return c.Name == v.Name }) {
			out = append(out, v)
		}
	}
	return out
}

// retention says when claims go.
func retention(set *appsv1.StatefulSet) (whenDeleted, whenScaled bool) {
	p := set.Spec.PersistentVolumeClaimRetentionPolicy
	if p == nil {
		return false, false
	}
	remove := appsv1.DeletePersistentVolumeClaimRetentionPolicyType
	return p.WhenDeleted == remove, p.WhenScaled == remove
}

// awaitsClaims says whether a pod cannot be made yet, since a claim of the pod
// that had its name goes with that one.
func (s *snapshot) awaitsClaims(ordinal int) bool {
	_, whenScaled := retention(s.set)
	if !whenScaled {
		return false
	}
	name := podName(s.set, ordinal)
	for i := range s.set.Spec.VolumeClaimTemplates {
		claim := s.claims(claimName(s.set.Spec.VolumeClaimTemplates[i].Name, name))
		if claim != nil && slices.ContainsFunc(claim.OwnerReferences, func(ref metav1.OwnerReference) bool { return names(ref, podKind, name) }) {
			return true
		}
	}
	return false
}

func names(ref metav1.OwnerReference, kind schema.GroupVersionKind, name string) bool {
	return ref.APIVersion == kind.GroupVersion().String() && ref.Kind == kind.Kind && ref.Name == name
}

// retained is what owners a claim has to have for the set's retention policy
// (documentation: "StatefulSets", "PersistentVolumeClaim retention").
type retained struct {
	claim  *corev1.PersistentVolumeClaim
	owners []metav1.OwnerReference
	// conflict says that somebody else controls the claim, so that nothing of the
	// policy applies to it.
	conflict bool
}

// retain answers with the claims of the set's pods whose owners are not right.
func (s *snapshot) retain() []retained {
	var out []retained
	for at, members := range [][]member{s.inside, s.beyond} {
		for _, m := range members {
			for i := range s.set.Spec.VolumeClaimTemplates {
				claim := s.claims(claimName(s.set.Spec.VolumeClaimTemplates[i].Name, m.pod.Name))
				if claim == nil {
					continue
				}
				if r, change := owners(s.set, m.pod, claim, at == 1); change {
					out = append(out, r)
				}
			}
		}
	}
	return out
}

// owners plans the owner references of one claim: the set, if claims go with it,
// and the pod, if they go when the set shrinks and this one is beyond it. A claim
// with a reference to an earlier object of either name is about to be collected
// and is left alone.
func owners(set *appsv1.StatefulSet, pod *corev1.Pod, claim *corev1.PersistentVolumeClaim, beyond bool) (r retained, change bool) {
	whenDeleted, whenScaled := retention(set)
	wantPod := whenScaled && beyond
	wantSet := whenDeleted && !wantPod
	r = retained{claim: claim}
	var hasSet, hasPod, loose bool
	for _, ref := range claim.OwnerReferences {
		ofSet, ofPod := names(ref, kind, set.Name), names(ref, podKind, pod.Name)
		switch controls := ptr.Deref(ref.Controller, false); {
		case ofSet && ref.UID != set.UID, ofPod && ref.UID != pod.UID:
			return retained{}, false
		case ofSet || ofPod:
			hasSet, hasPod, loose = hasSet || ofSet, hasPod || ofPod, loose || !controls
		default:
			r.conflict = r.conflict || controls && (whenDeleted || whenScaled)
			r.owners = append(r.owners, ref)
		}
	}
	if r.conflict {
		return r, hasSet || hasPod
	}
	if hasSet == wantSet && hasPod == wantPod && !loose {
		return retained{}, false
	}
	if wantSet {
		r.owners = append(r.owners, *metav1.NewControllerRef(set, kind))
	}
	if wantPod {
		r.owners = append(r.owners, *metav1.NewControllerRef(pod, podKind))
	}
	return r, true
}
