// Package v1beta1 is the older version of Greeter, which is still served: its
// fields have other names.
package v1beta1

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/conversion"

	v1 "hansa.dev/hansa/examples/operator/api/v1"
)

// GroupVersion is what the kinds here are served as.
var GroupVersion = schema.GroupVersion{Group: "example.com", Version: "v1beta1"}

// AddToScheme adds the kinds to a scheme.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion, &Greeter{}, &GreeterList{})
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}

// Greeter is v1.Greeter as it was.
type Greeter struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   GreeterSpec      `json:"spec"`
	Status v1.GreeterStatus `json:"status,omitempty"`
}

// GreeterSpec is what is wanted.
type GreeterSpec struct {
	Message string `json:"message"`
	Count   *int32 `json:"count,omitempty"`
	Image   string `json:"image,omitempty"`
}

// GreeterList is a list of them.
type GreeterList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []Greeter `json:"items"`
}

// ConvertTo implements conversion.Convertible.
func (g *Greeter) ConvertTo(hub conversion.Hub) error {
	to := hub.(*v1.Greeter)
	to.ObjectMeta, to.Status = g.ObjectMeta, g.Status
	to.Spec = v1.GreeterSpec{Text: g.Spec.Message, Replicas: g.Spec.Count, Image: g.Spec.Image}
	return nil
}

// ConvertFrom implements conversion.Convertible.
func (g *Greeter) ConvertFrom(hub conversion.Hub) error {
	from := hub.(*v1.Greeter)
	g.ObjectMeta, g.Status = from.ObjectMeta, from.Status
	g.Spec = GreeterSpec{Message: from.Spec.Text, Count: from.Spec.Replicas, Image: from.Spec.Image}
	return nil
}

// DeepCopy copies a Greeter.
func (g *Greeter) DeepCopy() *Greeter {
	c := *g
	g.ObjectMeta.DeepCopyInto(&c.ObjectMeta)
	if g.Spec.Count != nil {
		c.Spec.Count = new(*g.Spec.Count)
	}
	c.Status.Conditions = slices.Clone(g.Status.Conditions)
	return &c
}

// DeepCopyObject implements runtime.Object.
func (g *Greeter) DeepCopyObject() runtime.Object { return g.DeepCopy() }

// DeepCopyObject implements runtime.Object.
func (l *GreeterList) DeepCopyObject() runtime.Object {
	c := *l
	l.ListMeta.DeepCopyInto(&c.ListMeta)
	c.Items = make([]Greeter, len(l.Items))
	for i := range l.Items {
		c.Items[i] = *l.Items[i].DeepCopy()
	}
	return &c
}
