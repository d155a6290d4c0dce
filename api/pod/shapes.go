package pod

import (
	"crypto/sha256"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// maxShapes is how many shapes are remembered: the templates that pods are being
// made from at a time.
const maxShapes = 512

// Shapes remembers of which shapes pods have been found valid, and what there was
// to warn of. Pods of one template have one shape, so that all but the first of
// them are looked at no more. Safe for concurrent use.
type Shapes struct {
	mu    sync.Mutex
	known map[shape][]string // warnings
	order []shape            // a ring of what is known, the oldest at next
	next  int
}

// shape is a digest of all that validity and warnings may depend on.
type shape [sha256.Size]byte

// NewShapes gives an empty memory.
func NewShapes() *Shapes { return &Shapes{known: map[shape][]string{}} }

// Review says what is wrong with a new, defaulted pod, as Validate does; of a
// valid one it gives the Warnings.
func (s *Shapes) Review(p *corev1.Pod) (warnings []string, errs field.ErrorList) {
	// What is looked at has nothing but what the digest covers, so nothing else
	// can decide.
	meta := metav1.ObjectMeta{Labels: p.Labels, Annotations: p.Annotations}
	if claimsByName(&p.Spec) {
		meta.Name = p.Name
	}
	key, ok := shapeOf(&meta, &p.Spec)
	if ok {
		warnings, ok = s.find(key)
	}
	if !ok {
		only := &corev1.Pod{ObjectMeta: meta, Spec: p.Spec}
		if errs := Validate(only); len(errs) > 0 {
			return nil, errs
		}
		warnings = shapeWarnings(only)
		s.keep(key, warnings)
	}
	return append(nameWarnings(p.Name), warnings...), nil
}

func (s *Shapes) find(key shape) (warnings []string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	warnings, ok = s.known[key]
	return warnings, ok
}

func (s *Shapes) keep(key shape, warnings []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.known[key]; ok {
		return
	}
	if len(s.order) < maxShapes {
		s.order = append(s.order, key)
	} else {
		delete(s.known, s.order[s.next])
		s.order[s.next] = key
		s.next = (s.next + 1) % maxShapes
	}
	s.known[key] = warnings
}

// claimsByName says whether the pod's name is part of what is checked: claims of
// its ephemeral volumes are named after it.
func claimsByName(spec *corev1.PodSpec) bool {
	return slices.ContainsFunc(spec.Volumes, func(v corev1.Volume) bool { return v.Ephemeral != nil })
}

var shapeBuffers = sync.Pool{New: func() any { return new([]byte) }}

// shapeOf encodes both parts, the first with its length before it.
func shapeOf(meta *metav1.ObjectMeta, spec *corev1.PodSpec) (key shape, ok bool) {
	head, body := meta.Size(), spec.Size()
	buf := shapeBuffers.Get().(*[]byte)
	defer shapeBuffers.Put(buf)
	b := slices.Grow((*buf)[:0], head+body+4)[:head+body+4]
	*buf = b
	b[0], b[1], b[2], b[3] = byte(head), byte(head>>8), byte(head>>16), byte(head>>24)
	if _, err := meta.MarshalToSizedBuffer(b[4 : 4+head]); err != nil {
		return key, false
	}
	if _, err := spec.MarshalToSizedBuffer(b[4+head:]); err != nil {
		return key, false
	}
	return sha256.Sum256(b), true
}
