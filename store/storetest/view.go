package storetest

import (
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"hansa.dev/hansa/api"
)

func testView(s *suite) {
	s.create(colored("b", "x", "red"))
	view := s.View()
	type change struct{ old, new string }
	changes := make(chan change, 100)
	cancel := view.Subscribe(s.configmaps, func(old, new api.Object) {
		// Whoever hears of a change finds it in the view.
		if new != nil && view.Get(s.configmaps, types.NamespacedName{Namespace: new.GetNamespace(), Name: new.GetName()}) != new {
			s.Errorf("%s is announced but not there", new.GetName())
		}
		c := change{}
		if old != nil {
			c.old = old.GetName()
		}
		if new != nil {
			c.new = new.GetName()
		}
		changes <- c
	})
	s.create(colored("a", "y", "blue"))
	s.update("a", "y", "2")
	s.remove("a", "y")
	for _, want := range []change{{"", "x"}, {"", "y"}, {"y", "y"}, {"y", ""}} {
		select {
		case got := <-changes:
			if got != want {
				s.Errorf("told of %v, want %v", got, want)
			}
		case <-s.ctx.Done():
			s.Fatalf("not told of %v", want)
		}
	}
	cancel()
	_, before := view.Size(s.configmaps)
	s.create(colored("a", "z", "red"))
	if n, bytes := view.Size(s.configmaps); n != 2 || bytes != 2*before {
		// Both are of the same form; all names have one letter.
		s.Errorf("%d objects of %d bytes, want 2 of %d", n, bytes, 2*before)
	}
	if len(changes) != 0 {
		s.Errorf("told of %v after cancel", <-changes)
	}
	var names []string
	for obj := range view.List(s.configmaps, "") {
		names = append(names, obj.GetNamespace()+"/"+obj.GetName())
	}
	for obj := range view.ByIndex(s.configmaps, IndexColor, "red") {
		names = append(names, "red:"+obj.GetName())
	}
	for obj := range view.List(s.configmaps, "b") {
		names = append(names, "b:"+obj.GetName())
	}
	want := []string{"a/z", "b/x", "red:z", "red:x", "b:x"}
	if !slices.Equal(names, want) {
		s.Errorf("the view shows %q, want %q", names, want)
	}
	if view.Get(s.configmaps, types.NamespacedName{Namespace: "a", Name: "y"}) != nil {
		s.Error("the view shows what is deleted")
	}
}
