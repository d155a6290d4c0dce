package fields

import (
	"bytes"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// set is FieldsV1 that has been read.
type set struct {
	*fieldpath.Set
	// fields is what the library would write of it, frozen.
	fields *metav1.FieldsV1
	// usual says that a Tracker knows what to do with it.
	usual bool
}

// sets remembers sets by their FieldsV1, which are the same in all objects that
// were written alike, in two generations as the cache of encodings does.
type sets struct {
	mu         sync.Mutex
	size       int // of what is in young
	young, old map[setKey]*set
}

// setKey says what of, too: what a set means depends on the type.
type setKey struct {
	of     *Tracker
	fields string
}

// Of the FieldsV1 in a generation, and of one that is worth being remembered.
// Sets are about ten times as large.
const (
	maxGeneration = 256 << 10
	maxFields     = 16 << 10
)

// get reads FieldsV1. It keeps nothing of raw.
func (s *sets) get(of *Tracker, raw []byte) *set {
	s.mu.Lock()
	known, ok := s.young[setKey{of, string(raw)}]
	if !ok {
		if known, ok = s.old[setKey{of, string(raw)}]; ok {
			s.add(setKey{of, string(raw)}, known)
		}
	}
	s.mu.Unlock()
	if ok {
		return known
	}
	known = of.read(raw)
	s.put(of, raw, known)
	return known
}

func (s *sets) put(of *Tracker, raw []byte, known *set) {
	if len(raw) > maxFields {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(setKey{of, string(raw)}, known)
}

func (s *sets) add(key setKey, known *set) {
	if s.young == nil || s.size+len(key.fields) > maxGeneration {
		s.old, s.young, s.size = s.young, map[setKey]*set{}, 0
	}
	if _, ok := s.young[key]; !ok {
		s.size += len(key.fields)
	}
	s.young[key] = known
}

// write makes the FieldsV1 of what was computed from sets.
func (s *sets) write(of *Tracker, fields *fieldpath.Set) (*set, error) {
	raw, err := fields.ToJSON()
	if err != nil {
		return nil, err
	}
	made := &set{Set: fields, fields: fieldsV1(raw), usual: true}
	s.put(of, raw, made)
	return made, nil
}

// read decodes FieldsV1 as the library does at each write.
func (t *Tracker) read(raw []byte) *set {
	made := &set{Set: &fieldpath.Set{}}
	if err := made.FromJSON(bytes.NewReader(raw)); err != nil || made.Empty() || !made.Intersection(unowned).Empty() {
		return made
	}
	reconciled, err := t.reconcile(made.Set)
	if err != nil || reconciled != nil {
		return made
	}
	canonical, err := made.ToJSON()
	made.fields, made.usual = fieldsV1(canonical), err == nil
	return made
}

func fieldsV1(raw []byte) *metav1.FieldsV1 {
	f := &metav1.FieldsV1{}
	f.SetRawBytes(raw)
	return f
}
