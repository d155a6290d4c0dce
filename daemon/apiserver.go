package daemon

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
)

// APIServer runs the API alone until the context ends, as kube-apiserver does:
// its state is in an etcd elsewhere, its keys are in files, and nothing but the
// loops that are parts of the API runs in it. It keeps nothing of its own, and
// logs to logs.
func APIServer(ctx context.Context, c Config, given GivenKeys, logs io.Writer) (err error) {
	log := slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: c.LogLevel}))
	quietLibraries(log)
	listener, err := freePort(c.Listen, "secure-port")
	if err != nil {
		return err
	}
	l := newLifecycle(ctx)
	defer func() {
		if ctx.Err() != nil {
			err = nil // whoever is asked to end in the middle of a start does not fail at it
		}
		err = errors.Join(err, l.stop())
	}()
	if !c.AdvertiseAddress.IsValid() {
		c.AdvertiseAddress = advertised(c.Listen, log)
	}
	k, err := given.read(c, bindAddress(c.Listen))
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	p, err := startControlPlane(l.ctx, l, c, k, listener, log)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	if err := p.begin(l.ctx, c, listener); err != nil {
		return err
	}
	newLoops(l, p, log).startServer(c.ServiceCIDR)
	return l.wait()
}

// bindAddress is the address part of ADDRESS:PORT; zero for none.
func bindAddress(listen string) netip.Addr {
	host, _, _ := net.SplitHostPort(listen) //nolint:errcheck // checked by the command line
	a, _ := netip.ParseAddr(host)           //nolint:errcheck // as above
	return a
}

// advertised is the address at which others reach an API server that was told
// none: the one it is bound to, or else that of this host. A host without any
// network has none, and the service "kubernetes" no endpoints: nobody else is
// there to use them.
func advertised(listen string, log *slog.Logger) netip.Addr {
	bind := bindAddress(listen)
	if bind.IsValid() && !bind.IsUnspecified() && !bind.IsLoopback() {
		return bind
	}
	a, err := defaultAddress()
	if err != nil {
		log.Info("nobody else can reach this server; give an address with --advertise-address", "error", err)
	}
	return a
}
