package request_test

import (
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/apiserver/request/requesttest"
)

// API concepts, "Dry-run": the answer is that of the real request, but for what
// only that can know. A list that is empty is stored as none; labels that a Job has
// of its template are one with those.
func TestDryRunsAnswerAsIfStored(t *testing.T) {
	f := newFixture(t, nil)
	dry := []string{metav1.DryRunAll}
	rules := func(name string, opts *metav1.CreateOptions) *rbacv1.Role {
		t.Helper()
		role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: []rbacv1.PolicyRule{}}
		out, err := f.Create(t.Context(), requesttest.Info("create", "rbac.authorization.k8s.io/v1", "roles", "default", ""), request.Body{Object: role}, opts)
		if err != nil {
			t.Fatal(err)
		}
		return out.(*rbacv1.Role)
	}
	if stored, tried := rules("a", &metav1.CreateOptions{}), rules("b", &metav1.CreateOptions{DryRun: dry}); stored.Rules != nil || tried.Rules != nil {
		t.Errorf("a role without rules is stored with %#v and tried with %#v", stored.Rules, tried.Rules)
	}
	out, _, err := f.Patch(t.Context(), requesttest.Info("patch", "rbac.authorization.k8s.io/v1", "roles", "default", "a"), types.MergePatchType,
		func() ([]byte, error) { return []byte(`{"rules":[],"metadata":{"labels":{"a":"b"}}}`), nil }, &metav1.PatchOptions{DryRun: dry})
	if err != nil {
		t.Fatal(err)
	}
	if role := out.(*rbacv1.Role); role.Rules != nil || role.Labels["a"] != "b" || role.ResourceVersion == "" {
		t.Errorf("a patch is tried with %+v", role)
	}
	job := func(name string, opts *metav1.CreateOptions) *batchv1.Job {
		t.Helper()
		j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}},
			Spec:       corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c", Image: "i"}}},
		}}}
		out, err := f.Create(t.Context(), requesttest.Info("create", "batch/v1", "jobs", "default", ""), request.Body{Object: j}, opts)
		if err != nil {
			t.Fatal(err)
		}
		return out.(*batchv1.Job)
	}
	for _, j := range []*batchv1.Job{job("stored", &metav1.CreateOptions{}), job("tried", &metav1.CreateOptions{DryRun: dry})} {
		if j.Labels[batchv1.JobNameLabel] != j.Name || j.Labels["a"] != "b" {
			t.Errorf("%s has labels %v", j.Name, j.Labels)
		}
	}
}
