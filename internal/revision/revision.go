// Package revision keeps the history of pod templates of an object as
// ControllerRevisions, in the format of Kubernetes, so that kubectl's rollout
// history and undo understand it. Its functions are pure; they never write to
// what they are given.
//
// A revision's data is a strategic merge patch that puts the template back:
//
//	{"spec":{"template":{"$patch":"replace", …}}}
//
// So to undo is to patch the owner with Data.Raw as it is.
package revision

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/rand"

	"hansa.dev/hansa/internal/onfailure"
)

// Labels with a revision's hash: that of StatefulSets' revisions, and that of
// DaemonSets', which the pods of a DaemonSet carry, too. Pods of a StatefulSet
// carry the name of their revision under the second one.
const (
	HashLabel    = "controller.kubernetes.io/hash"
	PodHashLabel = appsv1.ControllerRevisionHashLabelKey
)

// Owner is an object whose templates are kept.
type Owner struct {
	Object     metav1.Object
	Kind       schema.GroupVersionKind
	Template   *corev1.PodTemplateSpec
	HashLabel  string // HashLabel or PodHashLabel
	Collisions *int32 // status.collisionCount: how often a name was taken by another template
	// Default fills in a template what the API would; nil: it is left as it is. A
	// revision of before a default was introduced is still the same one.
	Default func(*corev1.PodTemplateSpec)
}

// Data is the patch that puts a template back.
func Data(t *corev1.PodTemplateSpec) ([]byte, error) {
	b, err := json.Marshal(t)
	if err != nil {
		return nil, fmt.Errorf("encode pod template: %w", err)
	}
	var template map[string]any
	if err := utiljson.Unmarshal(b, &template); err != nil {
		return nil, fmt.Errorf("decode pod template: %w", err)
	}
	template["$patch"] = "replace"
	return json.Marshal(map[string]any{"spec": map[string]any{"template": template}})
}

// Template is the template that a revision keeps.
func Template(r *appsv1.ControllerRevision) (*corev1.PodTemplateSpec, error) {
	var data struct {
		Spec struct {
			Template *corev1.PodTemplateSpec `json:"template"`
		} `json:"spec"`
	}
	err := json.Unmarshal(r.Data.Raw, &data)
	if err == nil && data.Spec.Template == nil {
		err = errors.New("there is no pod template in it")
	}
	if err != nil {
		return nil, fmt.Errorf("data of controller revision %s/%s: %w", r.Namespace, r.Name, err)
	}
	return data.Spec.Template, nil
}

// Hash names data; collisions makes it another one.
func Hash(data []byte, collisions *int32) string {
	h := fnv.New32()
	h.Write(data)
	if collisions != nil {
		h.Write(strconv.AppendInt(nil, int64(*collisions), 10))
	}
	return rand.SafeEncodeString(strconv.FormatUint(uint64(h.Sum32()), 10))
}

// longestPrefix is how much of its owner's name a revision's name has, in bytes:
// the whole is a label of the pods of a StatefulSet, so it may have 63.
const longestPrefix = 52

// draft is a new revision with data.
func (o Owner) draft(data []byte, number int64) *appsv1.ControllerRevision {
	hash, name := Hash(data, o.Collisions), o.Object.GetName()
	labels := maps.Clone(o.Template.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[o.HashLabel] = hash
	annotations := maps.Clone(o.Object.GetAnnotations())
	for _, mark := range onfailure.Marks {
		delete(annotations, mark)
	}
	return &appsv1.ControllerRevision{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: o.Object.GetNamespace(), Name: name[:min(len(name), longestPrefix)] + "-" + hash,
			Labels: labels, Annotations: annotations,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(o.Object, o.Kind)},
		},
		Data:     runtime.RawExtension{Raw: data},
		Revision: number,
	}
}

// Change is what a history needs so that its last revision is the owner's
// present template.
type Change struct {
	// Revision is the one of the template, as it is or is to be.
	Revision *appsv1.ControllerRevision
	// Create says that it is to be made. If its name is taken, by another template
	// or another owner, the owner's count of collisions is to go up.
	Create bool
	// Renumber says that it is there, and is to be written with the number that it
	// has now: the owner went back to it.
	Renumber bool
}

// Plan compares an owner's template with its history, which Sort has sorted.
func Plan(o Owner, history []*appsv1.ControllerRevision) (Change, error) {
	data, err := Data(o.Template)
	if err != nil {
		return Change{}, fmt.Errorf("%s %s/%s: %w", o.Kind.Kind, o.Object.GetNamespace(), o.Object.GetName(), err)
	}
	for i, r := range slices.Backward(history) {
		switch {
		case !o.keeps(r, data):
		case i == len(history)-1:
			return Change{Revision: r}, nil
		default:
			again := r.DeepCopy()
			again.Revision = Next(history)
			return Change{Revision: again, Renumber: true}, nil
		}
	}
	return Change{Revision: o.draft(data, Next(history)), Create: true}, nil
}

// Asked is the revision of an owner's template, nil if there is none, and whether
// it is the last of the history, which Sort has sorted.
func Asked(o Owner, history []*appsv1.ControllerRevision) (r *appsv1.ControllerRevision, last bool, err error) {
	c, err := Plan(o, history)
	if err != nil || c.Create {
		return nil, false, err
	}
	for _, r := range history {
		if r.UID == c.Revision.UID && r.Name == c.Revision.Name {
			return r, !c.Renumber, nil
		}
	}
	return nil, false, nil
}

// StandIn is the template that is rolled out instead of an owner's, where the
// revision of that one failed (design/rollback.md), and the name of that revision,
// which is to be kept as long.
func StandIn(o Owner, history []*appsv1.ControllerRevision) (instead *corev1.PodTemplateSpec, asked string, err error) {
	if _, on := onfailure.Read(o.Object.GetAnnotations()); !on {
		return nil, "", nil
	}
	r, _, err := Asked(o, history)
	if err != nil || r == nil {
		return nil, "", err
	}
	good, held := onfailure.Held(o.Object, r, history, func(r *appsv1.ControllerRevision) int64 { return r.Revision })
	if !held {
		return nil, "", nil
	}
	instead, err = Template(good)
	return instead, r.Name, err
}

// keeps says whether a revision is that of the owner's template, whose patch is
// data.
func (o Owner) keeps(r *appsv1.ControllerRevision, data []byte) bool {
	if bytes.Equal(r.Data.Raw, data) {
		return true
	}
	t, err := Template(r)
	if err != nil {
		return false // of another format: it puts nothing back that we know
	}
	if o.Default != nil {
		o.Default(t)
	}
	return equality.Semantic.DeepEqual(t, o.Template)
}

// Sort orders revisions by their numbers.
func Sort(history []*appsv1.ControllerRevision) {
	slices.SortStableFunc(history, func(a, b *appsv1.ControllerRevision) int {
		return cmp.Or(cmp.Compare(a.Revision, b.Revision), a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Name, b.Name))
	})
}

// Next is the number that a new revision gets.
func Next(history []*appsv1.ControllerRevision) int64 {
	last := int64(0)
	for _, r := range history {
		last = max(last, r.Revision)
	}
	return last + 1
}

// Surplus are the oldest of a sorted history, without those that are live, as far
// as they are more than the limit (revisionHistoryLimit; negative: no limit). A
// live one does not count.
func Surplus(history []*appsv1.ControllerRevision, limit int32, live func(*appsv1.ControllerRevision) bool) []*appsv1.ControllerRevision {
	var idle []*appsv1.ControllerRevision
	for _, r := range history {
		if !live(r) {
			idle = append(idle, r)
		}
	}
	if limit < 0 || len(idle) <= int(limit) {
		return nil
	}
	return idle[:len(idle)-int(limit)]
}
