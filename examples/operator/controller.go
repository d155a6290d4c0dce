package main

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	v1 "hansa.dev/hansa/examples/operator/api/v1"
)

// finalizer keeps a Greeter until it is taken out of the directory.
const finalizer = "example.com/directory"

// directoryName is that of the ConfigMap in the operator's namespace in which all
// Greeters are: NAMESPACE.NAME: URL.
const directoryName = "greeters"

// port is where a greeter listens.
const port = 8080

// reconciler makes what Greeters want. It looks at what is, never at what has
// happened.
type reconciler struct {
	client.Client
	namespace string // the operator's own
}

func addController(m ctrl.Manager, namespace string) error {
	return ctrl.NewControllerManagedBy(m).
		For(&v1.Greeter{}).Owns(&appsv1.Deployment{}).Owns(&corev1.Service{}).
		Complete(&reconciler{m.GetClient(), namespace})
}

// Reconcile implements reconcile.Reconciler.
func (r *reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	g := &v1.Greeter{}
	if err := r.Get(ctx, req.NamespacedName, g); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if g.DeletionTimestamp != nil {
		return ctrl.Result{}, r.end(ctx, g)
	}
	if controllerutil.AddFinalizer(g, finalizer) {
		if err := r.Update(ctx, g); err != nil {
			return ctrl.Result{}, err
		}
	}
	if err := r.enter(ctx, g, fmt.Sprintf("http://%s.%s", g.Name, g.Namespace)); err != nil {
		return ctrl.Result{}, err
	}
	d, err := r.deployment(ctx, g)
	if err != nil {
		return ctrl.Result{}, err
	}
	if err := r.service(ctx, g); err != nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{}, r.status(ctx, g, d)
}

// end takes a Greeter out of the directory, and lets it go. What it owns is the
// garbage collector's.
func (r *reconciler) end(ctx context.Context, g *v1.Greeter) error {
	if !controllerutil.ContainsFinalizer(g, finalizer) {
		return nil
	}
	if err := r.enter(ctx, g, ""); err != nil {
		return err
	}
	controllerutil.RemoveFinalizer(g, finalizer)
	return client.IgnoreNotFound(r.Update(ctx, g))
}

// enter writes where a Greeter answers into the directory; "" takes it out.
func (r *reconciler) enter(ctx context.Context, g *v1.Greeter, url string) error {
	directory := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: directoryName}}
	_, err := controllerutil.CreateOrUpdate(ctx, r.Client, directory, func() error {
		entry := g.Namespace + "." + g.Name
		if url == "" {
			delete(directory.Data, entry)
			return nil
		}
		if directory.Data == nil {
			directory.Data = map[string]string{}
		}
		directory.Data[entry] = url
		return nil
	})
	return err
}

func labels(g *v1.Greeter) map[string]string { return map[string]string{"greeter": g.Name} }

func (r *reconciler) deployment(ctx context.Context, g *v1.Greeter) (*appsv1.Deployment, error) {
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: g.Namespace, Name: g.Name}}
	_, err := controllerutil.CreateOrUpdate(ctx, r.Client, d, func() error {
		d.Spec.Replicas = g.Spec.Replicas
		d.Spec.Selector = &metav1.LabelSelector{MatchLabels: labels(g)}
		d.Spec.Template.Labels = labels(g)
		if len(d.Spec.Template.Spec.Containers) != 1 {
			d.Spec.Template.Spec.Containers = make([]corev1.Container, 1)
		}
		// Only our own fields: the others have their defaults, and stay.
		c := &d.Spec.Template.Spec.Containers[0]
		c.Name, c.Image = "greeter", g.Spec.Image
		c.Args = []string{"greet", g.Spec.Text}
		c.Ports = []corev1.ContainerPort{{Name: "http", ContainerPort: port, Protocol: corev1.ProtocolTCP}}
		if c.ReadinessProbe == nil {
			c.ReadinessProbe = &corev1.Probe{PeriodSeconds: 1}
			c.ReadinessProbe.HTTPGet = &corev1.HTTPGetAction{Path: "/", Port: intstr.FromString("http")}
		}
		return controllerutil.SetControllerReference(g, d, r.Scheme())
	})
	return d, err
}

func (r *reconciler) service(ctx context.Context, g *v1.Greeter) error {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: g.Namespace, Name: g.Name}}
	_, err := controllerutil.CreateOrUpdate(ctx, r.Client, s, func() error {
		s.Spec.Selector = labels(g)
		if len(s.Spec.Ports) != 1 {
			s.Spec.Ports = make([]corev1.ServicePort, 1)
		}
		s.Spec.Ports[0].Name, s.Spec.Ports[0].Port, s.Spec.Ports[0].TargetPort = "http", 80, intstr.FromString("http")
		return controllerutil.SetControllerReference(g, s, r.Scheme())
	})
	return err
}

// status says what there is, if that is not what was said last.
func (r *reconciler) status(ctx context.Context, g *v1.Greeter, d *appsv1.Deployment) error {
	before := g.DeepCopy()
	g.Status.ObservedGeneration, g.Status.ReadyReplicas = g.Generation, d.Status.ReadyReplicas
	ready := metav1.Condition{
		Type: v1.ConditionReady, Status: metav1.ConditionTrue, Reason: "AllReady", ObservedGeneration: g.Generation,
		Message: fmt.Sprintf("%d of %d replicas are ready", d.Status.ReadyReplicas, *g.Spec.Replicas),
	}
	if d.Status.ReadyReplicas < *g.Spec.Replicas || d.Status.ObservedGeneration < d.Generation {
		ready.Status, ready.Reason = metav1.ConditionFalse, "Progressing"
	}
	if !meta.SetStatusCondition(&g.Status.Conditions, ready) && before.Status.ObservedGeneration == g.Status.ObservedGeneration &&
		before.Status.ReadyReplicas == g.Status.ReadyReplicas {
		return nil
	}
	return r.Status().Patch(ctx, g, client.MergeFrom(before))
}

// key is the name of an object in its namespace.
func key(namespace, name string) types.NamespacedName {
	return types.NamespacedName{Namespace: namespace, Name: name}
}
