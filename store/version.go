package store

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hansa.dev/hansa/api"
)

// slots is how many resource versions one revision has.
const slots = 128

// versionOf is the resource version of a write.
func versionOf(revision int64, slot int) int64 { return revision*slots + int64(slot) }

// lastOf is the last resource version of a revision, the one that lists answer.
func lastOf(revision int64) int64 { return revision*slots + slots - 1 }

func formatVersion(rv int64) string { return strconv.FormatInt(rv, 10) }

// parseVersion reads a client's resource version; "" and "0" are 0.
func parseVersion(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	rv, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		// Kubernetes makes no status of it.
		return 0, &apierrors.StatusError{ErrStatus: metav1.Status{
			Status: metav1.StatusFailure, Code: http.StatusInternalServerError,
			Message: fmt.Sprintf("resourceVersion: Invalid value: %q: %v", s, err),
		}}
	}
	return int64(min(rv, math.MaxInt64)), nil //nolint:gosec // it fits
}

// parseSlot reads what a stored object has as its resource version. Anything
// that we did not write counts as slot 0.
func parseSlot(s string) int {
	slot, err := strconv.Atoi(s)
	if err != nil || slot < 0 || slot >= slots {
		return 0
	}
	return slot
}

func formatSlot(slot int) string {
	if slot == 0 {
		return ""
	}
	return strconv.Itoa(slot)
}

func errNotFound(ref api.Ref) error {
	return apierrors.NewNotFound(ref.Resource.GroupResource(), ref.Name)
}

func errExists(ref api.Ref) error {
	return apierrors.NewAlreadyExists(ref.Resource.GroupResource(), ref.Name)
}

// Causes in the details of Conflict errors that are not about the object itself.
const (
	// CauseFenced: the fence of the write no longer holds.
	CauseFenced metav1.CauseType = "Fenced"
	// CauseSide: a side key was not at the expected revision.
	CauseSide metav1.CauseType = "SideModified"
)

func conflictBecause(ref api.Ref, cause metav1.CauseType, message string) error {
	err := apierrors.NewConflict(ref.Resource.GroupResource(), ref.Name, errors.New(message))
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: cause, Message: message}}
	return err
}

// IsFenced says that a write was refused because its fence no longer holds:
// the writer was deposed as leader.
func IsFenced(err error) bool { return apierrors.HasStatusCause(err, CauseFenced) }

// IsSideConflict says that a write was refused because a side key had changed;
// whoever computed the side reads it anew and tries again.
func IsSideConflict(err error) bool { return apierrors.HasStatusCause(err, CauseSide) }

// errTooOld is for versions below what history has.
func errTooOld(asked, oldest int64) error {
	return apierrors.NewResourceExpired(fmt.Sprintf("too old resource version: %d (%d)", asked, oldest))
}

// errTooLarge is for versions that did not come in time.
func errTooLarge(asked, current int64) error {
	err := apierrors.NewTimeoutError(fmt.Sprintf("Too large resource version: %d, current: %d", asked, current), 1)
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{
		Type:    metav1.CauseTypeResourceVersionTooLarge,
		Message: "Too large resource version",
	}}
	return err
}

// errFull is 507 Insufficient Storage.
func errFull(what string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure,
		Code:   http.StatusInsufficientStorage,
		Reason: "InsufficientStorage",
		Message: fmt.Sprintf("%s: the cluster's database is nearly full; "+
			"delete objects that are no longer needed, or raise its quota", what),
	}}
}

// errWrite explains why a transaction failed as a whole.
func errWrite(ref api.Ref, err error) error {
	switch {
	case errors.Is(err, ErrNoSpace):
		return errFull(fmt.Sprintf("cannot write %s", ref))
	case errors.Is(err, ErrTooLarge):
		return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("%s is too large to be stored", ref))
	case errors.Is(err, ErrUnknownOutcome):
		return apierrors.NewTimeoutError(fmt.Sprintf("write %s: %v", ref, err), 0)
	case errors.Is(err, ErrClosed):
		return apierrors.NewServiceUnavailable("the store is closed")
	}
	return apierrors.NewInternalError(fmt.Errorf("write %s: %w", ref, err))
}

// errRead explains why a read of the engine failed.
func errRead(what string, err error) error {
	switch {
	case errors.Is(err, ErrClosed):
		return apierrors.NewServiceUnavailable("the store is closed")
	case errors.Is(err, ErrUnknownOutcome):
		return apierrors.NewTimeoutError(fmt.Sprintf("%s: the database did not answer in time", what), 1)
	}
	return apierrors.NewInternalError(fmt.Errorf("%s: %w", what, err))
}
