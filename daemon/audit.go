package daemon

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	"gopkg.in/natefinch/lumberjack.v2"

	"hansa.dev/hansa/apiserver/request/audit"
)

// Audit says what is noted of requests to the API, and where.
type Audit struct {
	Policy audit.Policy
	// Doubt is what the policy has that is not known, nil for nothing.
	Doubt error
	Path  string // "-": standard output
	// The file is set aside at MaxSize megabytes, and such files are removed when
	// there are more than MaxBackups of them or they are older than MaxAge days.
	// 0: never.
	MaxSize, MaxBackups, MaxAge int
}

// startAudit opens the audit log; nil when there is none.
func startAudit(l *lifecycle, a *Audit, metrics *prometheus.Registry, log *slog.Logger) (*audit.Log, error) {
	if a == nil {
		return nil, nil
	}
	if a.Doubt != nil {
		log.Warn("the audit policy has what is not known, and it is passed over", "error", a.Doubt)
	}
	out, err := a.open()
	if err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	l.cleanup("audit log", out.Close)
	return audit.New(audit.Options{Policy: a.Policy, Out: out, Logger: log, Metrics: metrics}), nil
}

// kept is standard output, which is not ours to close.
type kept struct{ io.Writer }

func (kept) Close() error { return nil }

func (a *Audit) open() (io.WriteCloser, error) {
	if a.Path == "-" {
		return kept{os.Stdout}, nil
	}
	if err := os.MkdirAll(filepath.Dir(a.Path), 0o700); err != nil {
		return nil, err
	}
	// Opened here at once, so that a file that cannot be written is no surprise.
	f, err := os.OpenFile(a.Path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil || a.MaxSize == 0 {
		return f, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	return &lumberjack.Logger{Filename: a.Path, MaxSize: a.MaxSize, MaxBackups: a.MaxBackups, MaxAge: a.MaxAge}, nil
}
