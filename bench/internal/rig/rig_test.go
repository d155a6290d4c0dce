package rig

import (
	"bytes"
	"strings"
	"testing"
)

// What etcd's file is mapped to counts as private, and is told apart.
func TestReadMemory(t *testing.T) {
	const smaps = `00400000-00800000 r-xp 00000000 08:01 123    /usr/bin/hansa
Rss:                 400 kB
Private_Clean:       100 kB
Private_Dirty:         0 kB
VmFlags: rd ex mr mw me
7f0000000000-7f0280000000 r--s 00000000 08:01 456    /tmp/x/etcd/member/snap/db
Shared_Clean:         50 kB
Private_Clean:      1000 kB
Private_Dirty:         8 kB
c000000000-c000400000 rw-p 00000000 00:00 0
Private_Dirty:        30 kB
Private_Hugetlb:       0 kB
`
	got, err := readMemory(strings.NewReader(smaps))
	if want := (Memory{Private: 1138 << 10, Database: 1008 << 10}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

// Of rounds the medians are printed, in the order of the first round; what
// comes afterwards is printed as it comes.
func TestRounds(t *testing.T) {
	var out bytes.Buffer
	r := &Rig{figures: &figures{out: &out, series: map[string]*series{}}}
	values := []float64{3, 1, 200, 2}
	if err := r.Rounds(4, func() error {
		r.Figure("b", values[0], "1/s")
		r.Figure("a", 2*values[0], "ms")
		values = values[1:]
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	b, ok := r.Median("b")
	if !ok || b != 2.5 {
		t.Errorf("the median is %v, %v", b, ok)
	}
	r.Figure("c", 1, "s")
	if _, ok := r.Median("d"); ok {
		t.Error("there is a median of nothing")
	}
	if want := "b 2.50 1/s\na 5.00 ms\nc 1.00 s\n"; out.String() != want {
		t.Errorf("printed\n%s, want\n%s", out.String(), want)
	}
}
