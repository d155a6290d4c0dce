package informers

import (
	"k8s.io/client-go/informers"
	"k8s.io/client-go/informers/flowcontrol"
)

// groups has client-go's way to informers and listers, by group, for those
// groups that a library has asked for; all come back to InformerFor. Whoever
// needs another adds it here: all of them together are seven megabytes of
// program, and one that is missing is a nil pointer at the first start.
type groups struct {
	informers.SharedInformerFactory // nil
	own                             *Factory
}

func (g groups) Flowcontrol() flowcontrol.Interface { return flowcontrol.New(g.own, "", nil) }
