package main

import (
	"net/url"
	"path"
	"strings"

	"github.com/spf13/pflag"

	"hansa.dev/hansa/daemon"
	"hansa.dev/hansa/store/etcd"
)

// etcdFlags are those about an etcd elsewhere.
func (s *settings) etcdFlags(f *pflag.FlagSet) {
	f.StringVar(&s.etcd.CA, "etcd-cafile", "", "certificates of the authorities that etcd elsewhere is to have its own of")
	f.StringVar(&s.etcd.Cert, "etcd-certfile", "", "certificate to show to etcd elsewhere")
	f.StringVar(&s.etcd.Key, "etcd-keyfile", "", "key of --etcd-certfile")
	f.StringVar(&s.etcdPrefix, "etcd-prefix", etcd.DefaultPrefix, "where in etcd elsewhere the objects are")
}

// etcdConfig checks where an etcd elsewhere is, which flag tells, and the settings
// of etcdFlags.
func (s *settings) etcdConfig(c *daemon.Config, flag string, endpoints []string) error {
	for _, e := range endpoints {
		u, err := url.Parse(e)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https" || u.Host == "") && (u.Scheme != "unix" || u.Path == "") {
			return badFlag(flag, "%q is not a URL such as https://192.0.2.1:2379", e)
		}
	}
	c.EtcdEndpoints, c.EtcdFiles, c.EtcdPrefix = endpoints, s.etcd, s.etcdPrefix
	for _, given := range []struct{ flag, value string }{{"etcd-cafile", s.etcd.CA}, {"etcd-certfile", s.etcd.Cert}, {"etcd-keyfile", s.etcd.Key}} {
		if given.value != "" && len(endpoints) == 0 {
			return badFlag(given.flag, "there is no --%s that it could be for", flag)
		}
	}
	switch {
	case (s.etcd.Cert == "") != (s.etcd.Key == ""):
		return badFlag("etcd-certfile", "it and --etcd-keyfile are given together or not at all")
	case len(endpoints) == 0 && s.etcdPrefix != etcd.DefaultPrefix:
		return badFlag("etcd-prefix", "there is no --%s that it could be for", flag)
	case path.Join("/", s.etcdPrefix) == "/" || strings.HasPrefix(path.Join("/", s.etcdPrefix)+"/", "/hansa.dev/"):
		return badFlag("etcd-prefix", "%q cannot be used; give one such as %s", s.etcdPrefix, etcd.DefaultPrefix)
	}
	c.EtcdPrefix = path.Join("/", s.etcdPrefix)
	return nil
}
