package core

import (
	"iter"
	"math/bits"
)

// bitset is a set of slots. All sets of one cluster have the same length, so
// that they combine word by word.
type bitset []uint64

func newBitset(slots int) bitset { return make(bitset, (slots+63)/64) }

func (b bitset) has(i int) bool { return b[i>>6]&(1<<(i&63)) != 0 }
func (b bitset) add(i int)      { b[i>>6] |= 1 << (i & 63) }
func (b bitset) remove(i int)   { b[i>>6] &^= 1 << (i & 63) }

func (b bitset) set(i int, in bool) {
	if in {
		b.add(i)
	} else {
		b.remove(i)
	}
}

func (b bitset) clone() bitset { return append(bitset(nil), b...) }

// grow makes room for slots.
func (b bitset) grow(slots int) bitset {
	for len(b) < (slots+63)/64 {
		b = append(b, 0)
	}
	return b
}

func (b bitset) or(o bitset) {
	for i := range b {
		b[i] |= o[i]
	}
}

func (b bitset) clear() {
	for i := range b {
		b[i] = 0
	}
}

func (b bitset) count() int {
	n := 0
	for _, w := range b {
		n += bits.OnesCount64(w)
	}
	return n
}

// all goes through the members in order. The set may lose the member it is at.
func (b bitset) all() iter.Seq[int] {
	return func(yield func(int) bool) {
		for i, w := range b {
			for ; w != 0; w &= w - 1 {
				if !yield(i<<6 + bits.TrailingZeros64(w)) {
					return
				}
			}
		}
	}
}
