package request

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/managedfields"

	"hansa.dev/hansa/api"
)

// Tracked sets obj's managers as writes do. It says whether this was done
// without the library.
func (h *Handler) Tracked(info *Info, obj, live api.Object, manager string) (alone bool, err error) {
	m, err := h.managerOf(info)
	if err != nil || m.tracker == nil {
		return false, err
	}
	return m.tracker.Update(live, obj, manager, metav1.NewTime(h.Clock.Now())), nil
}

// Library is what does the same slowly.
func (h *Handler) Library(info *Info) (*managedfields.FieldManager, error) {
	m, err := h.managerOf(info)
	if err != nil {
		return nil, err
	}
	return m.library, nil
}
