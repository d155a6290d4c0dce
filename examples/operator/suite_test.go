package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlconfig "sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/webhook"

	v1 "hansa.dev/hansa/examples/operator/api/v1"
	"hansa.dev/hansa/examples/operator/api/v1beta1"
)

// namespace is the operator's own in these tests.
const namespace = "default"

var (
	env    *envtest.Environment
	config *rest.Config
	admin  client.Client
)

// TestMain starts a control plane and the operator. KUBEBUILDER_ASSETS says which:
// here the folder that `hansa envtest` has laid out.
func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "operator:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	ctrl.SetLogger(klog.Background())
	env = &envtest.Environment{
		Scheme:                scheme(),
		CRDDirectoryPaths:     []string{"manifests/crd"},
		WebhookInstallOptions: envtest.WebhookInstallOptions{Paths: []string{"manifests/webhook"}},
		ErrorIfCRDPathMissing: true,
	}
	if config, err = env.Start(); err != nil {
		return 1, err
	}
	defer func() {
		if stopErr := env.Stop(); err == nil {
			err = stopErr
		}
	}()
	if admin, err = client.New(config, client.Options{Scheme: scheme()}); err != nil {
		return 1, err
	}
	ctx, stop := context.WithCancel(context.Background())
	ended, err := start(ctx)
	if err != nil {
		stop()
		return 1, err
	}
	code = m.Run()
	stop()
	return code, <-ended
}

// start runs the operator until the context ends, and returns when its webhooks
// serve.
func start(ctx context.Context) (ended <-chan error, err error) {
	o := env.WebhookInstallOptions
	m, err := newManager(config, namespace, ctrl.Options{
		WebhookServer: webhook.NewServer(webhook.Options{Host: o.LocalServingHost, Port: o.LocalServingPort, CertDir: o.LocalServingCertDir}),
		// Two operators of one test have a controller of the same name each.
		Controller:             ctrlconfig.Controller{SkipNameValidation: new(true)},
		HealthProbeBindAddress: "0",
	})
	if err != nil {
		return nil, err
	}
	done := make(chan error, 1)
	go func() { done <- m.Start(ctx) }()
	started := m.GetWebhookServer().StartedChecker()
	return done, wait.PollUntilContextTimeout(ctx, pollInterval, patience, true, func(context.Context) (bool, error) {
		return started(nil) == nil, nil
	})
}

const (
	pollInterval = 20 * time.Millisecond
	patience     = 30 * time.Second
)

// eventually waits until check finds nothing wrong.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	var last error
	if err := wait.PollUntilContextTimeout(t.Context(), pollInterval, patience, true, func(context.Context) (bool, error) {
		last = check()
		return last == nil, nil
	}); err != nil {
		t.Fatalf("%v: %v", err, last)
	}
}

// create creates a Greeter, and has it deleted after the test.
func create(t *testing.T, g client.Object) {
	t.Helper()
	if err := admin.Create(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.IgnoreNotFound(admin.Delete(context.Background(), g)); err != nil {
			t.Error(err)
		}
	})
}

func named(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name}
}

func TestDefaults(t *testing.T) {
	g := &v1.Greeter{ObjectMeta: named("defaults"), Spec: v1.GreeterSpec{Text: "hello"}}
	create(t, g)
	if g.Spec.Replicas == nil || *g.Spec.Replicas != 1 || g.Spec.Image != defaultImage {
		t.Errorf("the spec is %+v", g.Spec)
	}
}

func TestValidation(t *testing.T) {
	for name, c := range map[string]struct {
		spec v1.GreeterSpec
		want string
	}{
		"silent":  {v1.GreeterSpec{}, "spec.text: Required value: a greeter must have something to say"},
		"too-big": {v1.GreeterSpec{Text: "x", Replicas: new(int32(11))}, "spec.replicas: Invalid value: 11: must be between 0 and 10"},
	} {
		err := admin.Create(t.Context(), &v1.Greeter{ObjectMeta: named(name), Spec: c.spec})
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	g := &v1.Greeter{ObjectMeta: named("valid"), Spec: v1.GreeterSpec{Text: "hello"}}
	create(t, g)
	eventually(t, func() error { // the operator may write between reading and writing
		if err := admin.Get(t.Context(), client.ObjectKeyFromObject(g), g); err != nil {
			return err
		}
		g.Spec.Text = ""
		err := admin.Update(t.Context(), g)
		if !apierrors.IsInvalid(err) {
			return fmt.Errorf("an update that silences it: %w", err)
		}
		return nil
	})
}

// What is written in one version reads as the same in the other.
func TestConversion(t *testing.T) {
	old := &v1beta1.Greeter{ObjectMeta: named("converted"), Spec: v1beta1.GreeterSpec{Message: "hello", Count: new(int32(2)), Image: "i"}}
	create(t, old)
	g := &v1.Greeter{}
	if err := admin.Get(t.Context(), client.ObjectKeyFromObject(old), g); err != nil {
		t.Fatal(err)
	}
	if g.Spec.Text != "hello" || *g.Spec.Replicas != 2 || g.Spec.Image != "i" {
		t.Errorf("as v1 it is %+v", g.Spec)
	}
	// The webhooks for v1 were asked as well.
	err := admin.Create(t.Context(), &v1beta1.Greeter{ObjectMeta: named("converted-2"), Spec: v1beta1.GreeterSpec{Message: "x", Count: new(int32(11))}})
	if !apierrors.IsInvalid(err) {
		t.Errorf("too many in the old version: %v", err)
	}
	list := &v1beta1.GreeterList{}
	if err := admin.List(t.Context(), list, client.InNamespace(namespace)); err != nil {
		t.Fatal(err)
	}
	for _, item := range list.Items {
		if item.Name == old.Name && (item.Spec.Message != "hello" || *item.Spec.Count != 2) {
			t.Errorf("back in v1beta1 it is %+v", item.Spec)
		}
	}
}

// owned says whether an object is the Greeter's.
func owned(g *v1.Greeter, o client.Object) error {
	if !metav1.IsControlledBy(o, g) {
		return fmt.Errorf("%s is not the greeter's: %v", o.GetName(), o.GetOwnerReferences())
	}
	return nil
}

func TestDeploymentAndService(t *testing.T) {
	g := &v1.Greeter{ObjectMeta: named("owner"), Spec: v1.GreeterSpec{Text: "hello", Replicas: new(int32(3))}}
	create(t, g)
	d, s := &appsv1.Deployment{}, &corev1.Service{}
	for _, o := range []client.Object{d, s} {
		eventually(t, func() error {
			if err := admin.Get(t.Context(), client.ObjectKeyFromObject(g), o); err != nil {
				return err
			}
			return owned(g, o)
		})
	}
	if c := d.Spec.Template.Spec.Containers[0]; *d.Spec.Replicas != 3 || c.Image != defaultImage || strings.Join(c.Args, " ") != "greet hello" {
		t.Errorf("the deployment is %+v", d.Spec)
	}
	if s.Spec.Ports[0].Port != 80 || s.Spec.Selector["greeter"] != g.Name {
		t.Errorf("the service is %+v", s.Spec)
	}
	// What others change is put right, and a change of the Greeter is followed.
	s.Spec.Selector = map[string]string{"greeter": "another"}
	if err := admin.Update(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if err := admin.Get(t.Context(), client.ObjectKeyFromObject(g), s); err != nil || s.Spec.Selector["greeter"] == g.Name {
			return err
		}
		return fmt.Errorf("the service selects %v", s.Spec.Selector)
	})
	if err := admin.Patch(t.Context(), g, client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"replicas":1}}`))); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if err := admin.Get(t.Context(), client.ObjectKeyFromObject(g), d); err != nil || *d.Spec.Replicas == 1 {
			return err
		}
		return fmt.Errorf("%d replicas are wanted", *d.Spec.Replicas)
	})
}

// condition waits for the condition Ready.
func condition(t *testing.T, g *v1.Greeter, status metav1.ConditionStatus, reason string) {
	t.Helper()
	eventually(t, func() error {
		if err := admin.Get(t.Context(), client.ObjectKeyFromObject(g), g); err != nil {
			return err
		}
		c := meta.FindStatusCondition(g.Status.Conditions, v1.ConditionReady)
		if c == nil || c.Status != status || c.Reason != reason || c.ObservedGeneration != g.Generation {
			return fmt.Errorf("the conditions are %+v", g.Status.Conditions)
		}
		return nil
	})
}

// No controllers run here but those of the API: the test says what a deployment
// has become.
func TestStatus(t *testing.T) {
	g := &v1.Greeter{ObjectMeta: named("status"), Spec: v1.GreeterSpec{Text: "hello", Replicas: new(int32(2))}}
	create(t, g)
	condition(t, g, metav1.ConditionFalse, "Progressing")
	d := &appsv1.Deployment{}
	if err := admin.Get(t.Context(), client.ObjectKeyFromObject(g), d); err != nil {
		t.Fatal(err)
	}
	d.Status = appsv1.DeploymentStatus{ObservedGeneration: d.Generation, Replicas: 2, ReadyReplicas: 2, AvailableReplicas: 2}
	if err := admin.Status().Update(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	condition(t, g, metav1.ConditionTrue, "AllReady")
	if g.Status.ReadyReplicas != 2 {
		t.Errorf("the status is %+v", g.Status)
	}
	if err := admin.Patch(t.Context(), g, client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"replicas":3}}`))); err != nil {
		t.Fatal(err)
	}
	condition(t, g, metav1.ConditionFalse, "Progressing")
}

// A Greeter goes only when it is out of the directory.
func TestFinalizer(t *testing.T) {
	g := &v1.Greeter{ObjectMeta: named("final"), Spec: v1.GreeterSpec{Text: "hello"}}
	create(t, g)
	const entry = namespace + ".final"
	directory := &corev1.ConfigMap{}
	eventually(t, func() error {
		if err := admin.Get(t.Context(), key(namespace, directoryName), directory); err != nil {
			return err
		}
		if directory.Data[entry] != "http://final."+namespace {
			return fmt.Errorf("the directory is %v", directory.Data)
		}
		return nil
	})
	if err := admin.Delete(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if err := admin.Get(t.Context(), client.ObjectKeyFromObject(g), g); !apierrors.IsNotFound(err) {
			return fmt.Errorf("it is still there, with finalizers %v: %w", g.Finalizers, err)
		}
		return nil
	})
	if err := admin.Get(t.Context(), key(namespace, directoryName), directory); err != nil || directory.Data[entry] != "" {
		t.Errorf("the directory is %v, %v", directory.Data, err)
	}
}

// Of two operators one leads, and the other follows when it goes.
func TestLeaderElection(t *testing.T) {
	const leaders = "leaders"
	if err := admin.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: leaders}}); err != nil {
		t.Fatal(err)
	}
	type operator struct {
		ctrl.Manager
		stop  context.CancelFunc
		ended chan error
	}
	begin := func() *operator {
		retry := 50 * time.Millisecond
		m, err := newManager(config, leaders, ctrl.Options{
			WebhookServer: webhook.NewServer(webhook.Options{Host: "127.0.0.1", Port: freePort(t), CertDir: env.WebhookInstallOptions.LocalServingCertDir}),
			Controller:    ctrlconfig.Controller{SkipNameValidation: new(true)}, HealthProbeBindAddress: "0",
			RetryPeriod: &retry,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		o := &operator{m, stop, make(chan error, 1)}
		go func() { o.ended <- m.Start(ctx) }()
		t.Cleanup(stop)
		return o
	}
	lead := func(o *operator) {
		t.Helper()
		select {
		case <-o.Elected():
		case err := <-o.ended:
			t.Fatalf("it ended: %v", err)
		}
	}
	first := begin()
	lead(first)
	second := begin()
	eventually(t, func() error { return second.GetWebhookServer().StartedChecker()(nil) })
	select {
	case <-second.Elected():
		t.Error("two lead at once")
	default:
	}
	holder := func() string {
		l := &coordinationv1.Lease{}
		if err := admin.Get(t.Context(), key(leaders, leaderID), l); err != nil || l.Spec.HolderIdentity == nil {
			t.Fatalf("the lease is %+v, %v", l.Spec, err)
		}
		return *l.Spec.HolderIdentity
	}
	before := holder()
	first.stop()
	if err := <-first.ended; err != nil {
		t.Error(err)
	}
	lead(second)
	if now := holder(); now == before {
		t.Errorf("%s leads as before", now)
	}
	second.stop()
	if err := <-second.ended; err != nil {
		t.Error(err)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
