package custom

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// converter is the way between the versions of a definition.
type converter interface {
	// to gives an open object in another version. The result is open as well and
	// belongs to the caller; it may share the tree of o, which is not used again.
	to(v *version, o *Object) (*Object, error)
}

// sameTree is the conversion "None": versions differ in their names only.
type sameTree struct{}

func (sameTree) to(v *version, o *Object) (*Object, error) {
	out := &Object{TypeMeta: metav1.TypeMeta{}, ObjectMeta: o.ObjectMeta}
	out.content = &content{kind: o.content.kind, version: v.Name, tree: o.open()}
	return out, nil
}
