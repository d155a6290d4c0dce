package garbage

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"hansa.dev/hansa/api"
)

// ownerState is what has become of an owner that a reference names.
type ownerState int

const (
	solid   ownerState = iota // it is there
	waiting                   // it is being deleted and waits for its dependents
	absent                    // it is gone, or another object has its name
)

// owner is one reference with what it leads to.
type owner struct {
	ref   metav1.OwnerReference
	state ownerState
}

// dependent is an object with an owner reference to the one looked at.
type dependent struct {
	resource *api.Resource
	obj      api.Object
	blocks   bool // the owner's deletion waits for it
}

// action is the one thing that a step does to the object looked at.
type action int

const (
	nothing action = iota
	// orphanDependents takes the object out of its dependents' references, and
	// then lets it go.
	orphanDependents
	// deleteDependents looks at those of an object that is deleted in the
	// foreground: they go with it unless they have another owner.
	deleteDependents
	// letGo removes the finalizer foregroundDeletion.
	letGo
	// dropReferences removes references that lead nowhere.
	dropReferences
	// deleteForeground, deleteBackground and deleteOrphan delete the object
	// itself, since all its owners are gone or going.
	deleteForeground
	deleteBackground
	deleteOrphan
)

// plan decides what is to be done about an object, by the rules of Kubernetes'
// garbage collector (documentation: "Garbage Collection", "Cascading deletion").
func plan(obj api.Object, owners []owner, dependents []dependent) action {
	if obj.GetDeletionTimestamp() != nil {
		switch {
		case has(obj, metav1.FinalizerOrphanDependents):
			return orphanDependents
		case has(obj, metav1.FinalizerDeleteDependents):
			if slices.ContainsFunc(dependents, func(d dependent) bool { return d.blocks }) {
				return nothing // until they are gone
			}
			return letGo
		}
		return nothing
	}
	if len(owners) == 0 {
		return nothing
	}
	is := func(s ownerState) func(owner) bool { return func(o owner) bool { return o.state == s } }
	some := func(s ownerState) bool { return slices.ContainsFunc(owners, is(s)) }
	switch {
	case some(solid) && (some(absent) || some(waiting)):
		return dropReferences
	case some(solid):
		return nothing
	case some(waiting) && len(dependents) > 0:
		return deleteForeground
	case has(obj, metav1.FinalizerOrphanDependents):
		return deleteOrphan
	case has(obj, metav1.FinalizerDeleteDependents):
		return deleteForeground
	}
	return deleteBackground
}

func has(obj api.Object, finalizer string) bool {
	return slices.Contains(obj.GetFinalizers(), finalizer)
}

// dangling are the uids of the references that dropReferences removes.
func dangling(owners []owner) []types.UID {
	var uids []types.UID
	for _, o := range owners {
		if o.state != solid {
			uids = append(uids, o.ref.UID)
		}
	}
	return uids
}
