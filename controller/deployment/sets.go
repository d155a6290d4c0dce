package deployment

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/utils/ptr"

	"hansa.dev/hansa/controller"
	"hansa.dev/hansa/internal/onfailure"
)

// Annotations that Deployments and their ReplicaSets carry; kubectl reads them.
const (
	revisionAnnotation        = "deployment.kubernetes.io/revision"
	revisionHistoryAnnotation = "deployment.kubernetes.io/revision-history"
	desiredAnnotation         = "deployment.kubernetes.io/desired-replicas"
	maxAnnotation             = "deployment.kubernetes.io/max-replicas"
)

// notCopied are annotations that a set does not take over from its deployment.
var notCopied = map[string]bool{
	corev1.LastAppliedConfigAnnotation: true,
	revisionAnnotation:                 true,
	revisionHistoryAnnotation:          true,
	desiredAnnotation:                  true,
	maxAnnotation:                      true,
	appsv1.DeprecatedRollbackTo:        true,
	onfailure.GoodMark:                 true,
	onfailure.FailedMark:               true,
	onfailure.UndoneMark:               true,
	onfailure.PausedMark:               true,
	onfailure.StrategyMark:             true,
}

// split finds the set that has the deployment's template, the oldest of several,
// and all others, the oldest first.
func split(d *appsv1.Deployment, sets []*appsv1.ReplicaSet) (current *appsv1.ReplicaSet, old []*appsv1.ReplicaSet) {
	slices.SortStableFunc(sets, controller.ByAge)
	for _, rs := range sets {
		if current == nil && controller.SameTemplate(&rs.Spec.Template, &d.Spec.Template) {
			current = rs
		} else {
			old = append(old, rs)
		}
	}
	return current, old
}

// templateHash names a template; collisions is how often the name was taken by
// another one.
func templateHash(t *corev1.PodTemplateSpec, collisions *int32) (string, error) {
	b, err := json.Marshal(t)
	if err != nil {
		return "", fmt.Errorf("encode pod template: %w", err)
	}
	h := fnv.New32a()
	h.Write(b)
	if collisions != nil {
		fmt.Fprintf(h, "/%d", *collisions)
	}
	return rand.SafeEncodeString(strconv.FormatUint(uint64(h.Sum32()), 10)), nil
}

// newSet is the set for the deployment's present template, without replicas yet.
func newSet(d *appsv1.Deployment, revision int64) (*appsv1.ReplicaSet, error) {
	hash, err := templateHash(&d.Spec.Template, d.Status.CollisionCount)
	if err != nil {
		return nil, err
	}
	template := d.Spec.Template.DeepCopy()
	template.Labels = withHash(template.Labels, hash)
	selector := d.Spec.Selector.DeepCopy()
	selector.MatchLabels = withHash(selector.MatchLabels, hash)
	room := validation.DNS1123SubdomainMaxLength - len(hash) - 1
	rs := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Name: d.Name[:min(len(d.Name), room)] + "-" + hash, Namespace: d.Namespace,
			OwnerReferences: []metav1.OwnerReference{*controller.OwnerRef(d, kind)},
			Labels:          template.Labels,
		},
		Spec: appsv1.ReplicaSetSpec{
			Replicas: ptr.To[int32](0), MinReadySeconds: d.Spec.MinReadySeconds,
			Selector: selector, Template: *template,
		},
	}
	annotate(rs, d, revision)
	return rs, nil
}

func withHash(m map[string]string, hash string) map[string]string {
	m = maps.Clone(m)
	if m == nil {
		m = map[string]string{}
	}
	m[appsv1.DefaultDeploymentUniqueLabelKey] = hash
	return m
}

// annotate brings a set's annotations up to date with its deployment and its
// revision. It says whether anything changed; rs is written to.
func annotate(rs *appsv1.ReplicaSet, d *appsv1.Deployment, revision int64) bool {
	before := maps.Clone(rs.Annotations)
	if rs.Annotations == nil {
		rs.Annotations = map[string]string{}
	}
	for k, v := range d.Annotations {
		if !notCopied[k] {
			rs.Annotations[k] = v
		}
	}
	if had := revisionOf(rs); had < revision {
		if had > 0 {
			rs.Annotations[revisionHistoryAnnotation] = remember(rs.Annotations[revisionHistoryAnnotation], strconv.FormatInt(had, 10))
		}
		rs.Annotations[revisionAnnotation] = strconv.FormatInt(revision, 10)
	}
	return !maps.Equal(before, rs.Annotations)
}

// longestHistory bounds the revisions that a set once was, in characters.
const longestHistory = 2000

// remember adds a revision to a list of them, and forgets the oldest ones that
// no longer fit.
func remember(history, revision string) string {
	if history == "" {
		return revision
	}
	history += "," + revision
	for len(history) > longestHistory {
		_, history, _ = strings.Cut(history, ",")
	}
	return history
}

// sized notes on a set what the deployment's size was when it was last scaled:
// by that a later change of size is told from a rollout.
func sized(rs *appsv1.ReplicaSet, d *appsv1.Deployment) bool {
	if hasSize(rs, d) {
		return false
	}
	if rs.Annotations == nil {
		rs.Annotations = map[string]string{}
	}
	rs.Annotations[desiredAnnotation] = strconv.Itoa(int(replicas(d)))
	rs.Annotations[maxAnnotation] = strconv.Itoa(int(replicas(d) + surge(d)))
	return true
}

// hasSize says whether that is noted already.
func hasSize(rs *appsv1.ReplicaSet, d *appsv1.Deployment) bool {
	desired, ok := intAnnotation(rs, desiredAnnotation)
	most, also := intAnnotation(rs, maxAnnotation)
	return ok && also && desired == replicas(d) && most == replicas(d)+surge(d)
}

func revisionOf(o metav1.Object) int64 {
	n, err := strconv.ParseInt(o.GetAnnotations()[revisionAnnotation], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func lastRevision(sets []*appsv1.ReplicaSet) int64 {
	last := int64(0)
	for _, rs := range sets {
		last = max(last, revisionOf(rs))
	}
	return last
}

func intAnnotation(rs *appsv1.ReplicaSet, name string) (int32, bool) {
	n, err := strconv.ParseInt(rs.Annotations[name], 10, 32)
	return int32(n), err == nil
}

func size(rs *appsv1.ReplicaSet) int32 { return ptr.Deref(rs.Spec.Replicas, 1) }

func sum(sets []*appsv1.ReplicaSet, f func(*appsv1.ReplicaSet) int32) int32 {
	n := int32(0)
	for _, rs := range sets {
		n += f(rs)
	}
	return n
}

func active(sets []*appsv1.ReplicaSet) []*appsv1.ReplicaSet {
	var out []*appsv1.ReplicaSet
	for _, rs := range sets {
		if size(rs) > 0 {
			out = append(out, rs)
		}
	}
	return out
}
