package daemon

import (
	"context"
	"io"
	"log/slog"

	"hansa.dev/hansa/store/etcd"
)

// Etcd runs etcd for others until the context ends, and logs to logs.
func Etcd(ctx context.Context, o etcd.ServerOptions, level slog.Level, logs io.Writer) error {
	o.Logger = slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: level}))
	return etcd.Serve(ctx, o, func() { o.Logger.Info("etcd serves", "clients", o.ListenClient) })
}
