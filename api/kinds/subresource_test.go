package kinds_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/api/kinds"
)

func TestScale(t *testing.T) {
	meta := metav1.ObjectMeta{Name: "a", Namespace: "default", UID: "u", ResourceVersion: "7", CreationTimestamp: metav1.NewTime(now), Labels: map[string]string{"x": "z"}}
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}
	for resource, obj := range map[string]api.Object{
		"replicationcontrollers": &corev1.ReplicationController{ObjectMeta: meta, Spec: corev1.ReplicationControllerSpec{Replicas: ptr.To[int32](3), Selector: selector.MatchLabels}, Status: corev1.ReplicationControllerStatus{Replicas: 2}},
		"statefulsets":           &appsv1.StatefulSet{ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{Replicas: ptr.To[int32](3), Selector: selector}, Status: appsv1.StatefulSetStatus{Replicas: 2}},
		"deployments":            &appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{Replicas: ptr.To[int32](3), Selector: selector}, Status: appsv1.DeploymentStatus{Replicas: 2}},
		"replicasets":            &appsv1.ReplicaSet{ObjectMeta: meta, Spec: appsv1.ReplicaSetSpec{Replicas: ptr.To[int32](3), Selector: selector}, Status: appsv1.ReplicaSetStatus{Replicas: 2}},
	} {
		sub := kinds.Registry().Of(obj).Subresources["scale"]
		got, err := sub.Get(obj)
		if err != nil {
			t.Fatal(err)
		}
		want := &autoscalingv1.Scale{
			ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "default", UID: "u", ResourceVersion: "7", CreationTimestamp: metav1.NewTime(now)},
			Spec:       autoscalingv1.ScaleSpec{Replicas: 3},
			Status:     autoscalingv1.ScaleStatus{Replicas: 2, Selector: "a=b"},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", resource, diff)
		}
		want.Spec.Replicas, want.ResourceVersion = 5, "6"
		if err := sub.Put(obj, want, now); err != nil {
			t.Fatal(err)
		}
		if got, err = sub.Get(obj); err != nil || !cmp.Equal(want, got) {
			t.Errorf("%s: scaled (%v): %s", resource, err, cmp.Diff(want, got))
		}
		if err := sub.Put(obj, &corev1.Pod{}, now); !apierrors.IsBadRequest(err) {
			t.Errorf("%s: scaled by a pod: %v", resource, err)
		}
	}
}

func TestTokenRequest(t *testing.T) {
	tr := &authenticationv1.TokenRequest{}
	kinds.DefaultTokenRequest(tr)
	if *tr.Spec.ExpirationSeconds != 3600 {
		t.Errorf("expires after %d s", *tr.Spec.ExpirationSeconds)
	}
	for seconds, want := range map[int64]string{
		599: "may not specify a duration less than 10 minutes", 600: "", 1 << 32: "",
		1<<32 + 1: "may not specify a duration larger than 2^32 seconds",
	} {
		tr.Spec.ExpirationSeconds = &seconds
		got := ""
		if errs := kinds.ValidateTokenRequest(tr); len(errs) > 0 {
			got = errs[0].Detail
		}
		if got != want {
			t.Errorf("%d s: %q, want %q", seconds, got, want)
		}
	}
}

func TestSystemPriorityClasses(t *testing.T) {
	row := kinds.Registry().Must("scheduling.k8s.io", "priorityclasses")
	for _, pc := range kinds.SystemPriorityClasses() {
		row.Default(pc)
		if errs := row.Validate(pc); len(errs) > 0 {
			t.Errorf("%s: %v", pc.Name, errs)
		}
	}
}

func TestEventFieldLabels(t *testing.T) {
	row := kinds.Registry().Must("", "events")
	e := &corev1.Event{
		InvolvedObject:      corev1.ObjectReference{Kind: "Pod", Name: "p", Namespace: "n", UID: "u", APIVersion: "v1", ResourceVersion: "7", FieldPath: "f"},
		Reason:              "r",
		Type:                "Normal",
		ReportingController: "c",
	}
	set := row.Fields(e)
	if set["source"] != "c" {
		t.Errorf("source is %q", set["source"])
	}
	for label, hub := range row.Versions[1].FieldLabels {
		if _, ok := set[hub]; !ok {
			t.Errorf("%s stands for %s, which is no field", label, hub)
		}
	}
	for label, want := range map[string]string{
		"regarding.kind": "Pod", "regarding.name": "p", "regarding.namespace": "n", "regarding.uid": "u", "regarding.apiVersion": "v1",
		"regarding.resourceVersion": "7", "regarding.fieldPath": "f", "reason": "r", "type": "Normal", "reportingController": "c",
	} {
		if got := set[row.Versions[1].FieldLabels[label]]; got != want {
			t.Errorf("%s is %q, want %q", label, got, want)
		}
	}
}

func TestLimitRangeIsNamed(t *testing.T) {
	row := kinds.Registry().Must("", "limitranges")
	for given, want := range map[string]string{"": "a-uid", "mine": "mine"} {
		l := &corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Name: given, UID: "a-uid"}}
		if row.PrepareCreate(l); l.Name != want {
			t.Errorf("%q became %q, want %q", given, l.Name, want)
		}
	}
}

func TestParseSchedule(t *testing.T) {
	from := time.Date(2026, time.March, 1, 12, 30, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"0 * * * *":        "2026-03-01T13:00:00Z",
		"*/20 2-4 * * 1,3": "2026-03-02T02:00:00Z",
		"0 0 31 * *":       "2026-03-31T00:00:00Z",
		"0 0 1 JAN *":      "2027-01-01T00:00:00Z",
		"@weekly":          "2026-03-08T00:00:00Z",
		"@every 90m":       "2026-03-01T14:00:00Z",
		"0 0 30 2 *":       "0001-01-01T00:00:00Z", // never
	} {
		schedule, err := kinds.ParseSchedule(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := schedule.Next(from).Format(time.RFC3339); got != want {
			t.Errorf("%s comes next at %s, want %s", text, got, want)
		}
	}
	for _, text := range []string{"", "TZ=0", "CRON_TZ=", "* * * *", "@sometimes", "a b c d e"} {
		if schedule, err := kinds.ParseSchedule(text); err == nil {
			t.Errorf("%q is taken: %v", text, schedule)
		}
	}
}
