// Command operator is an example of an operator on controller-runtime, deployed
// into Hansa by its manifests and tested on Hansa by envtest (suite_test.go).
//
//	operator             run the operator
//	operator greet TEXT  answer every request with a text: what it deploys
package main

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	v1 "hansa.dev/hansa/examples/operator/api/v1"
	"hansa.dev/hansa/examples/operator/api/v1beta1"
)

// leaderID is the lease by which one of several operators leads.
const leaderID = "greeters.example.com"

func main() {
	namespace := flag.String("namespace", os.Getenv("POD_NAMESPACE"), "the operator's own")
	certs := flag.String("certs", "/tmp/certs", "`folder` for the certificate of the webhooks")
	flag.Parse()
	ctx := ctrl.SetupSignalHandler()
	var err error
	if flag.Arg(0) == "greet" {
		err = greet(ctx, flag.Arg(1))
	} else {
		err = operate(ctx, *namespace, *certs)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "operator:", err)
		os.Exit(1)
	}
}

// operate runs the operator: webhooks in every copy, the controller in the one
// that leads.
func operate(ctx context.Context, namespace, certs string) error {
	ctrl.SetLogger(klog.Background())
	config, err := ctrl.GetConfig()
	if err != nil {
		return err
	}
	if err := ensureCertificate(ctx, config, namespace, certs); err != nil {
		return fmt.Errorf("certificate of the webhooks: %w", err)
	}
	m, err := newManager(config, namespace, ctrl.Options{
		HealthProbeBindAddress: ":8081",
		WebhookServer:          webhook.NewServer(webhook.Options{Port: 9443, CertDir: certs}),
	})
	if err != nil {
		return err
	}
	if err := m.AddReadyzCheck("webhooks", m.GetWebhookServer().StartedChecker()); err != nil {
		return err
	}
	if err := m.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return err
	}
	return m.Start(ctx)
}

// newManager puts the operator together; what differs between a pod and a test is
// in o.
func newManager(config *rest.Config, namespace string, o ctrl.Options) (ctrl.Manager, error) {
	o.Scheme = scheme()
	o.LeaderElection, o.LeaderElectionID, o.LeaderElectionNamespace = true, leaderID, namespace
	o.LeaderElectionReleaseOnCancel = true
	o.Metrics = metricsserver.Options{BindAddress: "0"}
	m, err := ctrl.NewManager(config, o)
	if err != nil {
		return nil, err
	}
	if err := addController(m, namespace); err != nil {
		return nil, err
	}
	return m, addWebhooks(m)
}

func scheme() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, apiextensionsv1.AddToScheme, v1.AddToScheme, v1beta1.AddToScheme} {
		if err := add(s); err != nil {
			panic(err)
		}
	}
	return s
}

// greet answers every request with a text, until the context ends.
func greet(ctx context.Context, text string) error {
	server := &http.Server{Addr: fmt.Sprintf(":%d", port), ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, text)
	})}
	stopped := context.AfterFunc(ctx, func() { server.Close() }) //nolint:errcheck // nobody is left to tell
	defer stopped()
	if err := server.ListenAndServe(); ctx.Err() == nil {
		return err
	}
	return nil
}
