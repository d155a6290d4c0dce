package controller_test

import (
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
)

func aClaimTemplate(name string) corev1.PersistentVolumeClaim {
	return corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kind": "disk"}},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}
}

// data is that of a revision of no template.
func (w *world) data() runtime.RawExtension { return runtime.RawExtension{Raw: []byte(`{}`)} }

func (w *world) volumeClaim(name string) *corev1.PersistentVolumeClaim {
	return get[*corev1.PersistentVolumeClaim](w, "default", name)
}

// Documentation: "StatefulSets", "Stable Storage".
func TestClaimTemplates(t *testing.T) {
	w := stateful(t)
	set := aStatefulSet("web", 2)
	set.Spec.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{aClaimTemplate("data"), aClaimTemplate("log")}
	set.Spec.Template.Spec.Volumes = []corev1.Volume{
		{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		{Name: "log", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
	}
	create(w, set)
	w.live()
	w.updated("web", 2)
	claim := w.volumeClaim("data-web-1")
	if claim == nil || claim.Labels["kind"] != "disk" || claim.Labels["app"] != "web" || len(claim.OwnerReferences) != 0 || w.volumeClaim("log-web-0") == nil {
		t.Fatalf("the claim is %+v", claim)
	}
	w.said("Normal SuccessfulCreate Create Claim data-web-0 Pod web-0 in StatefulSet web success")
	volumes := map[string]string{}
	for _, v := range w.pod("web-1").Spec.Volumes {
		if v.PersistentVolumeClaim != nil {
			volumes[v.Name] = v.PersistentVolumeClaim.ClaimName
		} else {
			volumes[v.Name] = ""
		}
	}
	if len(volumes) != 3 || volumes["data"] != "data-web-1" || volumes["log"] != "log-web-1" || volumes["tmp"] != "" {
		t.Errorf("volumes = %v", volumes)
	}
	w.rests()

	// They stay by default, and serve the pod that has the ordinal again.
	w.change(func(spec *appsv1.StatefulSetSpec) { spec.Replicas = ptr.To[int32](1) })
	w.live()
	w.change(func(spec *appsv1.StatefulSetSpec) { spec.Replicas = ptr.To[int32](2) })
	w.live()
	if w.volumeClaim("data-web-1").UID != claim.UID {
		t.Error("the claim is another one")
	}
	remove(w, w.statefulSet("web"), metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationForeground)})
	w.live()
	if n := len(all[*corev1.PersistentVolumeClaim](w, "default")); n != 4 {
		t.Errorf("%d claims are left, want 4", n)
	}
}

// Documentation: "StatefulSets", "PersistentVolumeClaim retention".
func TestClaimRetention(t *testing.T) {
	const keep, drop = appsv1.RetainPersistentVolumeClaimRetentionPolicyType, appsv1.DeletePersistentVolumeClaimRetentionPolicyType
	for _, c := range []struct {
		deleted, scaled      appsv1.PersistentVolumeClaimRetentionPolicyType
		owner                string // of a claim whose pod stays
		afterScale, afterAll int    // claims left of 2
	}{
		{keep, keep, "", 2, 2},
		{drop, keep, "StatefulSet", 2, 0},
		{keep, drop, "", 1, 1},
		{drop, drop, "StatefulSet", 1, 0},
	} {
		t.Run(string(c.deleted+c.scaled), func(t *testing.T) {
			w := stateful(t)
			set := aStatefulSet("web", 2)
			set.Spec.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{aClaimTemplate("data")}
			set.Spec.PersistentVolumeClaimRetentionPolicy = &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{WhenDeleted: c.deleted, WhenScaled: c.scaled}
			create(w, set)
			w.live()
			claims := func() int { return len(all[*corev1.PersistentVolumeClaim](w, "default")) }
			owner := ""
			if ref := metav1.GetControllerOf(w.volumeClaim("data-web-1")); ref != nil {
				owner = ref.Kind
			}
			if owner != c.owner {
				t.Errorf("the owner is %q, want %q", owner, c.owner)
			}
			w.rests()
			w.change(func(spec *appsv1.StatefulSetSpec) { spec.Replicas = ptr.To[int32](1) })
			w.live()
			if claims() != c.afterScale {
				t.Errorf("%d claims once the set shrank, want %d", claims(), c.afterScale)
			}
			w.rests()
			remove(w, w.statefulSet("web"), metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationForeground)})
			w.live()
			if claims() != c.afterAll {
				t.Errorf("%d claims without the set, want %d", claims(), c.afterAll)
			}
			w.rests()
		})
	}
}

// A claim that goes with the pod that had it is not taken over by the next one.
func TestClaimOfEarlierPod(t *testing.T) {
	w := stateful(t)
	set := aStatefulSet("web", 2)
	set.Spec.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{aClaimTemplate("data")}
	set.Spec.PersistentVolumeClaimRetentionPolicy = &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{WhenScaled: appsv1.DeletePersistentVolumeClaimRetentionPolicyType}
	create(w, set)
	w.live()
	was := w.volumeClaim("data-web-1")
	w.change(func(spec *appsv1.StatefulSetSpec) { spec.Replicas = ptr.To[int32](1) })
	loop, gc := w.loops[0], w.loops[1]
	for len(loop.ready) > 0 {
		loop.step()
	}
	if ref := metav1.GetControllerOf(w.volumeClaim("data-web-1")); ref == nil || ref.Kind != "Pod" {
		t.Fatalf("the claim is %+v", w.volumeClaim("data-web-1").ObjectMeta)
	}
	w.gone(w.pod("web-1"))
	w.change(func(spec *appsv1.StatefulSetSpec) { spec.Replicas = ptr.To[int32](2) })
	for len(loop.ready) > 0 {
		loop.step()
	}
	if w.pod("web-1") != nil {
		t.Fatal("the pod was made before its claim is gone")
	}
	for len(gc.ready) > 0 {
		gc.step()
	}
	w.live()
	w.updated("web", 2)
	if w.volumeClaim("data-web-1").UID == was.UID {
		t.Error("the claim is the same")
	}
	w.rests()
}

// A claim that somebody else controls is not touched.
func TestClaimOfSomebodyElse(t *testing.T) {
	w := stateful(t)
	owner := create(w, aPod("owner", template(map[string]string{"app": "x"}, "one")))
	claim := aClaimTemplate("data-web-0")
	claim.Namespace = "default"
	claim.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(owner, corev1.SchemeGroupVersion.WithKind("Pod"))}
	create(w, &claim)
	set := aStatefulSet("web", 1)
	set.Spec.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{aClaimTemplate("data")}
	set.Spec.PersistentVolumeClaimRetentionPolicy = &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{WhenDeleted: appsv1.DeletePersistentVolumeClaimRetentionPolicyType}
	set = create(w, set)
	w.live()
	if refs := w.volumeClaim("data-web-0").OwnerReferences; len(refs) != 1 || refs[0].Name != "owner" {
		t.Errorf("owners = %+v", refs)
	}
	w.rests()
	update(w, w.volumeClaim("data-web-0"), "", func(c *corev1.PersistentVolumeClaim) {
		c.OwnerReferences = append(c.OwnerReferences, metav1.OwnerReference{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "web", UID: set.UID})
	})
	w.live()
	if refs := w.volumeClaim("data-web-0").OwnerReferences; len(refs) != 1 || slices.ContainsFunc(refs, func(r metav1.OwnerReference) bool { return r.Kind == "StatefulSet" }) {
		t.Errorf("owners = %+v", refs)
	}
	w.said("Warning ConflictingController PersistentVolumeClaim data-web-0 has another controller")
	w.rests()
}
