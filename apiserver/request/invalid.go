package request

import (
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/internal/gonames"
)

// tellsTwice are the groups of which Kubernetes tells a cause as often as it was
// found, as it does of custom resources.
var tellsTwice = sets.New("apiextensions.k8s.io", "apiregistration.k8s.io")

// invalid is the refusal of an object. What Kubernetes declares beside the fields of
// a version, marked as beta, it tells after all else.
func (i *Info) invalid(name string, errs field.ErrorList) error {
	errs = gonames.Show(errs)
	slices.SortStableFunc(errs, func(a, b *field.Error) int {
		switch {
		case a.IsBeta() == b.IsBeta():
			return 0
		case b.IsBeta():
			return -1
		}
		return 1
	})
	if i.row().View == nil && !tellsTwice.Has(i.row().Group) {
		errs = api.Distinct(errs)
	}
	return apierrors.NewInvalid(i.kind(), name, errs)
}
