package limitranger_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/admission/admissiontest"
	"hansa.dev/hansa/apiserver/admission/limitranger"
	"hansa.dev/hansa/apiserver/auth/authtest"
)

// amounts reads "cpu=1 memory=2Gi".
func amounts(text string) corev1.ResourceList {
	list := corev1.ResourceList{}
	for _, pair := range strings.Fields(text) {
		name, value, _ := strings.Cut(pair, "=")
		list[corev1.ResourceName(name)] = resource.MustParse(value)
	}
	return list
}

func container(name, requests, limits string) corev1.Container {
	c := corev1.Container{Name: name}
	if requests != "" {
		c.Resources.Requests = amounts(requests)
	}
	if limits != "" {
		c.Resources.Limits = amounts(limits)
	}
	return c
}

func pod(containers ...corev1.Container) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"}, Spec: corev1.PodSpec{Containers: containers}}
}

func limit(items ...corev1.LimitRangeItem) *corev1.LimitRange {
	return &corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "l"}, Spec: corev1.LimitRangeSpec{Limits: items}}
}

// Kubernetes' page "Limit Ranges".
func TestDefaults(t *testing.T) {
	view := authtest.New(t, limit(corev1.LimitRangeItem{Type: corev1.LimitTypeContainer, DefaultRequest: amounts("cpu=100m memory=1Gi"), Default: amounts("cpu=1")}))
	p := limitranger.New(view.Registry, view)
	made := pod(container("a", "", ""), container("b", "cpu=200m memory=2Gi", "cpu=2"))
	made.Spec.InitContainers = []corev1.Container{container("i", "cpu=1", "")}
	admissiontest.Expect(t, "create", p, admissiontest.Create(view.Registry, nil, made), 0, "")
	const want = "LimitRanger plugin set: cpu, memory request for container a; cpu limit for container a; memory request for init container i; cpu limit for init container i"
	if got := made.Annotations["kubernetes.io/limit-ranger"]; got != want {
		t.Errorf("annotated with %q", got)
	}
	a, b := made.Spec.Containers[0].Resources, made.Spec.Containers[1].Resources
	if a.Requests.Cpu().String() != "100m" || a.Requests.Memory().String() != "1Gi" || a.Limits.Cpu().String() != "1" || b.Requests.Cpu().String() != "200m" || b.Limits.Cpu().String() != "2" {
		t.Errorf("resources are %v and %v", a, b)
	}
	elsewhere := pod(container("a", "", ""))
	elsewhere.Namespace = "other"
	admissiontest.Expect(t, "elsewhere", p, admissiontest.Create(view.Registry, nil, elsewhere), 0, "")
	if elsewhere.Spec.Containers[0].Resources.Requests != nil || elsewhere.Annotations != nil {
		t.Errorf("in another namespace: %+v", elsewhere)
	}
}

func TestLimits(t *testing.T) {
	view := authtest.New(t, limit(
		corev1.LimitRangeItem{Type: corev1.LimitTypeContainer, Min: amounts("cpu=100m"), Max: amounts("cpu=2"), MaxLimitRequestRatio: amounts("cpu=4")},
		corev1.LimitRangeItem{Type: corev1.LimitTypePod, Max: amounts("cpu=3")},
		corev1.LimitRangeItem{Type: corev1.LimitTypePersistentVolumeClaim, Min: amounts("storage=1Gi"), Max: amounts("storage=5Gi")},
	))
	p := limitranger.New(view.Registry, view)
	sidecar := container("i", "cpu=500m", "cpu=1500m")
	sidecar.RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways)
	withInit := func(pod *corev1.Pod, init ...corev1.Container) *corev1.Pod {
		pod.Spec.InitContainers = init
		return pod
	}
	const begin = `pods "p" is forbidden: `
	for _, c := range []struct {
		name string
		pod  *corev1.Pod
		want string
	}{
		{"within", pod(container("a", "cpu=500m", "cpu=2")), ""},
		{"nothing said", pod(container("a", "", "")), begin + "[minimum cpu usage per Container is 100m.  No request is specified, maximum cpu usage per Container is 2.  No limit is specified, cpu max limit to request ratio per Container is 4, but no request is specified or request is 0, maximum cpu usage per Pod is 3.  No limit is specified]"},
		{"too little", pod(container("a", "cpu=50m", "cpu=100m")), begin + "minimum cpu usage per Container is 100m, but request is 50m"},
		{"too much", pod(container("a", "cpu=1", "cpu=2500m")), begin + "maximum cpu usage per Container is 2, but limit is 2500m"},
		{"too far apart", pod(container("a", "cpu=200m", "cpu=1")), begin + "cpu max limit to request ratio per Container is 4, but provided ratio is 5.000000"},
		{"too much together", pod(container("a", "cpu=500m", "cpu=2"), container("b", "cpu=500m", "cpu=2")), begin + "maximum cpu usage per Pod is 3, but limit is 4"},
		{"one after the other", withInit(pod(container("a", "cpu=500m", "cpu=2")), container("i", "cpu=500m", "cpu=2")), ""},
		{"a sidecar beside", withInit(pod(container("a", "cpu=500m", "cpu=2")), sidecar), begin + "maximum cpu usage per Pod is 3, but limit is 3500m"},
		{"a sidecar before", withInit(pod(container("a", "cpu=500m", "cpu=1")), sidecar, container("j", "cpu=500m", "cpu=2")), begin + "maximum cpu usage per Pod is 3, but limit is 3500m"},
	} {
		admissiontest.Expect(t, c.name, p, admissiontest.Create(view.Registry, nil, c.pod), 403, c.want)
	}
	small := pod(container("a", "cpu=1m", ""))
	admissiontest.Expect(t, "an update", p, admissiontest.Update(view.Registry, nil, small, small), 0, "")
	resize := admissiontest.Update(view.Registry, nil, pod(container("a", "cpu=50m", "cpu=100m")), small)
	resize.Subresource = "resize"
	admissiontest.Expect(t, "a resize", p, resize, 403, begin+"minimum cpu usage per Container is 100m, but request is 50m")
	claim := func(storage string) *admission.Attributes {
		return admissiontest.Create(view.Registry, nil, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "c"}, Spec: corev1.PersistentVolumeClaimSpec{
			Resources: corev1.VolumeResourceRequirements{Requests: amounts("storage=" + storage)},
		}})
	}
	admissiontest.Expect(t, "a claim", p, claim("2Gi"), 0, "")
	admissiontest.Expect(t, "a small claim", p, claim("1Mi"), 403, `persistentvolumeclaims "c" is forbidden: minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi`)
	admissiontest.Expect(t, "a large claim", p, claim("6Gi"), 403, `persistentvolumeclaims "c" is forbidden: maximum storage usage per PersistentVolumeClaim is 5Gi, but request is 6Gi`)
}
