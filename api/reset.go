package api

import "sigs.k8s.io/structured-merge-diff/v6/fieldpath"

// AllBut is a filter for ResetFields that takes out some fields with all below
// them, and says which.
type AllBut struct{ *fieldpath.Set }

// Filter implements fieldpath.Filter.
func (a AllBut) Filter(s *fieldpath.Set) *fieldpath.Set { return s.RecursiveDifference(a.Set) }
