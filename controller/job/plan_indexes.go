package job

import (
	"slices"
	"strconv"
	"strings"
)

// indexes is a set of completion indexes: runs in increasing order that neither
// overlap nor touch.
type indexes []run

// run is consecutive indexes, both ends included.
type run struct{ first, last int }

// parseIndexes reads the text of a status or a rule, such as "1,3-5,7". Indexes
// of n or more, and what is no index, are left out.
func parseIndexes(text string, n int) indexes {
	var runs indexes
	for _, part := range strings.Split(text, ",") {
		from, to, ranged := strings.Cut(part, "-")
		first, err := strconv.Atoi(from)
		if err != nil || first < 0 || first >= n {
			continue
		}
		last := first
		if ranged {
			if last, err = strconv.Atoi(to); err != nil || last < first {
				continue
			}
		}
		runs = runs.union(indexes{{first, min(last, n-1)}})
	}
	return runs
}

// String is the form that statuses have: three or more consecutive indexes are
// written as a range.
func (x indexes) String() string {
	var b strings.Builder
	for _, r := range x {
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(r.first))
		switch {
		case r.last == r.first+1:
			b.WriteByte(',')
			b.WriteString(strconv.Itoa(r.last))
		case r.last > r.first:
			b.WriteByte('-')
			b.WriteString(strconv.Itoa(r.last))
		}
	}
	return b.String()
}

// total is how many indexes there are.
func (x indexes) total() int {
	n := 0
	for _, r := range x {
		n += r.last - r.first + 1
	}
	return n
}

func (x indexes) has(i int) bool {
	_, ok := slices.BinarySearchFunc(x, i, func(r run, i int) int {
		switch {
		case r.last < i:
			return -1
		case r.first > i:
			return 1
		}
		return 0
	})
	return ok
}

// with adds single indexes, in any order.
func (x indexes) with(more ...int) indexes {
	if len(more) == 0 {
		return x
	}
	slices.Sort(more)
	runs := make(indexes, 0, len(more))
	for _, i := range more {
		runs = append(runs, run{i, i})
	}
	return x.union(runs)
}

// union merges two sorted lists of runs; those of y may touch or repeat.
func (x indexes) union(y indexes) indexes {
	all := make(indexes, 0, len(x)+len(y))
	for len(x) > 0 || len(y) > 0 {
		var next run
		if len(y) == 0 || len(x) > 0 && x[0].first <= y[0].first {
			next, x = x[0], x[1:]
		} else {
			next, y = y[0], y[1:]
		}
		if n := len(all); n > 0 && next.first <= all[n-1].last+1 {
			all[n-1].last = max(all[n-1].last, next.last)
		} else {
			all = append(all, next)
		}
	}
	return all
}

// missing are the first indexes below n that are not in the set, at most count.
func (x indexes) missing(n, count int) []int {
	var out []int
	next := 0
	for _, r := range append(slices.Clone(x), run{n, n}) {
		for ; next < min(r.first, n) && len(out) < count; next++ {
			out = append(out, next)
		}
		next = max(next, r.last+1)
	}
	return out
}

// common is how many indexes are in both sets.
func (x indexes) common(y indexes) int {
	n := 0
	for len(x) > 0 && len(y) > 0 {
		if first, last := max(x[0].first, y[0].first), min(x[0].last, y[0].last); first <= last {
			n += last - first + 1
		}
		if x[0].last < y[0].last {
			x = x[1:]
		} else {
			y = y[1:]
		}
	}
	return n
}
