// Package v1 is the version of Greeter that is stored, and that the others are
// converted to and from.
package v1

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is what the kinds here are served as.
var GroupVersion = schema.GroupVersion{Group: "example.com", Version: "v1"}

// AddToScheme adds the kinds to a scheme.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion, &Greeter{}, &GreeterList{})
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}

// Greeter answers requests with a text: by a Deployment and a Service that have
// its name.
type Greeter struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   GreeterSpec   `json:"spec"`
	Status GreeterStatus `json:"status,omitempty"`
}

// GreeterSpec is what is wanted. All but Text have defaults.
type GreeterSpec struct {
	Text     string `json:"text"`
	Replicas *int32 `json:"replicas,omitempty"`
	Image    string `json:"image,omitempty"`
}

// GreeterStatus is what there is.
type GreeterStatus struct {
	ObservedGeneration int64              `json:"observedGeneration,omitempty"`
	ReadyReplicas      int32              `json:"readyReplicas,omitempty"`
	Conditions         []metav1.Condition `json:"conditions,omitempty"`
}

// ConditionReady is true when as many replicas are ready as are wanted.
const ConditionReady = "Ready"

// GreeterList is a list of them.
type GreeterList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []Greeter `json:"items"`
}

// Hub marks the version that the others are converted to and from.
func (*Greeter) Hub() {}

// DeepCopy copies a Greeter.
func (g *Greeter) DeepCopy() *Greeter {
	c := *g
	g.ObjectMeta.DeepCopyInto(&c.ObjectMeta)
	if g.Spec.Replicas != nil {
		c.Spec.Replicas = new(*g.Spec.Replicas)
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
