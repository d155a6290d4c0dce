// Command peer is the API server that Hansa's is compared with: custom resources
// as the API machinery of Kubernetes serves them, over etcd in the same process.
// It is a module of its own, so that Hansa's needs nothing of it; bench/api
// builds it when it is asked for.
//
// In the folder given it expects ca.crt, which client certificates are signed
// with, and server.crt and server.key; etcd keeps its files there. It listens on
// 127.0.0.1 and prints one line when it serves.
//
// Options are upstream's defaults, as far as they do not ask for another API
// server: there is no delegation, no aggregator, no admission, and whoever is
// in system:masters may do everything.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"golang.org/x/sys/unix"
	"k8s.io/apiextensions-apiserver/pkg/apiserver"
	"k8s.io/apiextensions-apiserver/pkg/cmd/server/options"
	generatedopenapi "k8s.io/apiextensions-apiserver/pkg/generated/openapi"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	genericapiserver "k8s.io/apiserver/pkg/server"
	genericoptions "k8s.io/apiserver/pkg/server/options"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/kubernetes/scheme"
)

func main() {
	dir := flag.String("dir", "", "`folder` of certificates and data")
	port := flag.Int("port", 0, "`number` of the port to listen at")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	err := run(ctx, *dir, *port)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir string, port int) error {
	endpoint, stop, err := startEtcd(ctx, dir)
	if err != nil {
		return err
	}
	defer stop()
	config, err := configure(dir, port, endpoint)
	if err != nil {
		return err
	}
	server, err := config.Complete().New(genericapiserver.NewEmptyDelegate())
	if err != nil {
		return err
	}
	server.GenericAPIServer.AddPostStartHookOrDie("say-ready", func(hook genericapiserver.PostStartHookContext) error {
		go sayReady(hook, server)
		return nil
	})
	return server.GenericAPIServer.PrepareRun().RunWithContext(ctx)
}

// sayReady prints the line once the server knows its custom resources. Before,
// it answers for them that it does not know yet.
func sayReady(hook genericapiserver.PostStartHookContext, server *apiserver.CustomResourceDefinitions) {
	synced := server.Informers.Apiextensions().V1().CustomResourceDefinitions().Informer().HasSynced
	for !synced() {
		select {
		case <-hook.Done():
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
	fmt.Println("ready")
}

// startEtcd starts etcd with its defaults, reached by a socket.
func startEtcd(ctx context.Context, dir string) (endpoint string, stop func(), err error) {
	cfg := embed.NewConfig()
	cfg.Dir = filepath.Join(dir, "etcd")
	cfg.LogLevel = "error"
	client := url.URL{Scheme: "unix", Path: filepath.Join(dir, "etcd.sock")}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	peer := url.URL{Scheme: "unix", Path: filepath.Join(dir, "peer.sock")}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	server, err := embed.StartEtcd(cfg)
	if err != nil {
		return "", nil, fmt.Errorf("start etcd: %w", err)
	}
	select {
	case <-server.Server.ReadyNotify():
		return client.String(), server.Close, nil
	case err := <-server.Err():
		server.Close()
		return "", nil, fmt.Errorf("start etcd: %w", err)
	case <-ctx.Done():
		server.Close()
		return "", nil, ctx.Err()
	}
}

// configure makes of upstream's options what a server of custom resources needs
// that stands alone.
func configure(dir string, port int, endpoint string) (*apiserver.Config, error) {
	o := options.NewCustomResourceDefinitionsServerOptions(os.Stdout, os.Stderr)
	r := o.RecommendedOptions
	r.Etcd.StorageConfig.Transport.ServerList = []string{endpoint}
	r.SecureServing.BindAddress, r.SecureServing.BindPort = net.IPv4(127, 0, 0, 1), port
	r.SecureServing.ServerCert.CertKey = genericoptions.CertKey{
		CertFile: filepath.Join(dir, "server.crt"), KeyFile: filepath.Join(dir, "server.key"),
	}
	r.Authentication.ClientCert.ClientCA = filepath.Join(dir, "ca.crt")
	r.Authentication.RemoteKubeConfigFileOptional = true
	r.Authentication.SkipInClusterLookup = true
	r.Authorization.RemoteKubeConfigFileOptional = true
	r.CoreAPI, r.Admission = nil, nil
	// Fairness reads its rules from a core API. Without it the limits on
	// requests in flight hold.
	r.Features.EnablePriorityAndFairness = false
	if err := o.Complete(); err != nil {
		return nil, err
	}
	generic := genericapiserver.NewRecommendedConfig(apiserver.Codecs)
	if err := errors.Join(
		o.ServerRunOptions.ApplyTo(&generic.Config),
		r.ApplyTo(generic),
		o.APIEnablement.ApplyTo(&generic.Config, apiserver.DefaultAPIResourceConfigSource(), apiserver.Scheme),
	); err != nil {
		return nil, err
	}
	namer := openapinamer.NewDefinitionNamer(apiserver.Scheme, scheme.Scheme)
	generic.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(generatedopenapi.GetOpenAPIDefinitions, namer)
	return &apiserver.Config{
		GenericConfig: generic,
		ExtraConfig: apiserver.ExtraConfig{
			CRDRESTOptionsGetter: options.NewCRDRESTOptionsGetter(*r.Etcd, generic.ResourceTransformers, generic.StorageObjectCountTracker),
			ServiceResolver:      noServices{},
			AuthResolverWrapper:  webhook.NewDefaultAuthenticationInfoResolverWrapper(nil, nil, generic.LoopbackClientConfig, nil),
		},
	}, nil
}

// noServices finds no webhook: nothing here converts by one.
type noServices struct{}

func (noServices) ResolveEndpoint(namespace, name string, _ int32) (*url.URL, error) {
	return nil, fmt.Errorf("there is no service %s/%s", namespace, name)
}
