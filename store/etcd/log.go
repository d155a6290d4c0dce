package etcd

import (
	"context"
	"log/slog"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// zapTo gives etcd a logger that writes to ours. etcd warns of what is normal
// on a small machine, so its warnings are for debugging only.
func zapTo(l *slog.Logger) *zap.Logger {
	return zap.New(&bridge{l})
}

type bridge struct{ to *slog.Logger }

// passing are errors that etcd itself gets over a moment later: this one comes
// when the cluster's version is decided before the first term is on disk.
var passing = map[string]bool{"failed to update storage version": true}

func (b *bridge) level(l zapcore.Level, message string) slog.Level {
	if l >= zapcore.ErrorLevel && !passing[message] {
		return slog.LevelError
	}
	return slog.LevelDebug
}

// Enabled implements zapcore.Core.
func (b *bridge) Enabled(l zapcore.Level) bool {
	return l >= zapcore.WarnLevel && b.to.Enabled(context.Background(), b.level(l, ""))
}

// With implements zapcore.Core.
func (b *bridge) With(fields []zapcore.Field) zapcore.Core {
	return &bridge{b.to.With(attributes(fields)...)}
}

// Check implements zapcore.Core.
func (b *bridge) Check(e zapcore.Entry, c *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if b.Enabled(e.Level) {
		return c.AddCore(e, b)
	}
	return c
}

// Write implements zapcore.Core.
func (b *bridge) Write(e zapcore.Entry, fields []zapcore.Field) error {
	b.to.Log(context.Background(), b.level(e.Level, e.Message), "etcd: "+e.Message, attributes(fields)...)
	return nil
}

// Sync implements zapcore.Core.
func (b *bridge) Sync() error { return nil }

func attributes(fields []zapcore.Field) []any {
	enc := zapcore.NewMapObjectEncoder()
	var out []any
	for _, f := range fields {
		f.AddTo(enc)
	}
	for k, v := range enc.Fields {
		out = append(out, slog.Any(k, v))
	}
	return out
}
