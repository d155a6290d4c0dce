package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	gohttp "net/http"
	_ "net/http/pprof"
	"os"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"hansa.dev/hansa/api/kinds"
	"hansa.dev/hansa/api/openapi"
	apihttp "hansa.dev/hansa/apiserver/http"
	"hansa.dev/hansa/apiserver/request"
	"hansa.dev/hansa/apiserver/request/alloc"
	"hansa.dev/hansa/apiserver/request/codec"
	"hansa.dev/hansa/store"
	"hansa.dev/hansa/store/etcd"
	"hansa.dev/hansa/store/memory"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:16443", "")
	dir := flag.String("etcd", "", "")
	prof := flag.String("pprof", "", "")
	flag.Parse()
	if *prof != "" {
		go gohttp.ListenAndServe(*prof, nil)
	}
	ctx := context.Background()
	var e store.Engine = memory.New(memory.Options{})
	if *dir != "" {
		var err error
		e, err = etcd.Start(ctx, etcd.Options{Dir: *dir})
		if err != nil {
			panic(err)
		}
	}
	
	reg := kinds.Registry()
	st, err := store.Open(ctx, e, reg, store.Options{})
	if err != nil {
		panic(err)
	}
	go st.Run(ctx)
	al, err := alloc.New(st, reg, alloc.Config{Addresses: []netip.Prefix{netip.MustParsePrefix("10.43.0.0/16")}})
	if err != nil {
		panic(err)
	}
	h, err := request.New(request.Config{
		Allocators: map[schema.GroupResource]request.Allocator{{Resource: "services"}: al},
		Store: st, Registry: reg, Codec: codec.New(reg, 16<<20),
		Authorizer: authorizer.AuthorizerFunc(func(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
			return authorizer.DecisionAllow, "", nil
		}),
		Converter: func() managedfields.TypeConverter {
			c, err := openapi.TypeConverter(reg.Scheme())
			if err != nil {
				panic(err)
			}
			return c
		},
	})
	if err != nil {
		panic(err)
	}
	s, err := apihttp.New(apihttp.Config{
		Requests: h,
		Authenticator: authenticator.RequestFunc(func(r *gohttp.Request) (*authenticator.Response, bool, error) {
			return &authenticator.Response{User: &user.DefaultInfo{Name: "admin", Groups: []string{"system:masters"}}}, true, nil
		}),
		Version: version.Info{Major: "1", Minor: "37", GitVersion: "v1.37.2+hansa.0"},
		Address: *addr,
		OpenAPI: &apihttp.OpenAPI{V2JSON: openapi.V2JSON, V2Proto: openapi.V2Proto, V3: openapi.V3},
	})
	if err != nil {
		panic(err)
	}
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour * 24), IPAddresses: []net.IP{net.ParseIP("127.0.0.1")}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	cert := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	l, err := net.Listen("tcp", *addr)
	if err != nil {
		panic(err)
	}
	fmt.Fprintln(os.Stderr, "listening", *addr)
	slog.SetLogLoggerLevel(slog.LevelDebug)
	err = s.Serve(ctx, l, apihttp.TLS{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil }}, time.Second)
	fmt.Println(err)
}
