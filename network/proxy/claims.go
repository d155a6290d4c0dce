package proxy

import (
	"slices"

	"hansa.dev/hansa/network/internal/nft"
)

// claims holds who wants which element of the shared sets. The first in the
// order of keys has it.
type claims map[ref][]claim

type claim struct {
	by   Key
	data nft.Datum
}

// winner returns what the kernel should hold for an element.
func (c claims) winner(r ref) (nft.Datum, bool) {
	if l := c[r]; len(l) > 0 {
		return l[0].data, true
	}
	return nft.Datum{}, false
}

// replace swaps a service's claims and calls touched with each element that
// either has, before any changes.
func (c claims) replace(by Key, old, new map[ref]nft.Datum, touched func(ref)) {
	for r := range old {
		touched(r)
	}
	for r := range new {
		if _, ok := old[r]; !ok {
			touched(r)
		}
	}
	for r := range old {
		l := slices.DeleteFunc(c[r], func(x claim) bool { return x.by == by })
		if len(l) == 0 {
			delete(c, r)
		} else {
			c[r] = l
		}
	}
	for r, d := range new {
		i, _ := slices.BinarySearchFunc(c[r], by, func(x claim, k Key) int { return x.by.Compare(k) })
		c[r] = slices.Insert(c[r], i, claim{by, d})
	}
}
