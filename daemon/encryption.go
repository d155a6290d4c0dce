package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"

	"hansa.dev/hansa/api"
	"hansa.dev/hansa/internal/dirwatch"
	"hansa.dev/hansa/store"
	"hansa.dev/hansa/store/encryption"
)

// encrypted puts encryption at rest before the engine, which is closed when that
// fails. Where the configuration is to be followed, a part does so.
func encrypted(l *lifecycle, c Config, engine store.Engine, reg *api.Registry, metrics *prometheus.Registry, log *slog.Logger) (store.Engine, error) {
	warnUnknown(c.Encryption, reg, log)
	e := encryption.Wrap(engine, reg, c.Encryption)
	if c.EncryptionFile == "" {
		return e, nil
	}
	r := &reloader{file: c.EncryptionFile, config: c.Encryption, engine: e, reg: reg, log: log, reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "apiserver_encryption_config_controller_automatic_reloads_total",
		Help: "Total number of reload successes and failures of encryption configuration.",
	}, []string{"status"}), last: prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "apiserver_encryption_config_controller_automatic_reload_last_timestamp_seconds",
		Help: "Timestamp of the last successful or failed automatic reload of encryption configuration.",
	}, []string{"status"})}
	metrics.MustRegister(r.reloads, r.last)
	if err := r.watch(); err != nil {
		return nil, errors.Join(fmt.Errorf("follow the encryption configuration: %w", err), e.Close())
	}
	l.run("encryption configuration", r.run)
	return e, nil
}

func warnUnknown(c *encryption.Config, reg *api.Registry, log *slog.Logger) {
	if unknown := c.Unknown(reg); len(unknown) > 0 {
		log.Warn("the encryption configuration names resources that are not known", "resources", unknown)
	}
}

// reloader has the engine go on with what the configuration file has become.
type reloader struct {
	file    string
	engine  *encryption.Engine
	reg     *api.Registry
	log     *slog.Logger
	dirs    *dirwatch.Watch
	config  *encryption.Config // in use
	refused []byte             // the text that was refused last
	reloads *prometheus.CounterVec
	last    *prometheus.GaugeVec
}

// watch watches the folder of the file's name, and of the file itself if the
// name is a link.
func (r *reloader) watch() (err error) {
	if r.dirs == nil {
		if r.dirs, err = dirwatch.New(dirwatch.Files, filepath.Dir(r.file)); err != nil {
			return err
		}
	}
	target, err := filepath.EvalSymlinks(r.file)
	if err != nil {
		return nil //nolint:nilerr // it is not there for a moment, or for good: the reading says so
	}
	return r.dirs.Add(filepath.Dir(target))
}

func (r *reloader) run(ctx context.Context) error {
	defer r.dirs.Close()
	// It may have changed since it was read.
	for {
		if err := r.watch(); err != nil {
			r.log.Error("follow the encryption configuration", "error", err)
		}
		r.look(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-r.dirs.Changed:
		}
	}
}

// look reads the file, and goes on with it if it is another one.
func (r *reloader) look(ctx context.Context) {
	data, err := os.ReadFile(r.file)
	if err == nil {
		if r.config.Is(data) || bytes.Equal(data, r.refused) {
			return
		}
		err = r.reload(ctx, data)
	}
	if ctx.Err() != nil {
		return
	}
	status := "success"
	if err != nil {
		status, r.refused = "failure", data
		r.log.Error("the encryption configuration stays as it was", "file", r.file, "error", err)
	} else {
		r.refused = nil
		r.log.Info("the encryption configuration was loaded anew", "file", r.file)
	}
	r.reloads.WithLabelValues(status).Inc()
	r.last.WithLabelValues(status).SetToCurrentTime()
}

func (r *reloader) reload(ctx context.Context, data []byte) error {
	c, err := encryption.Parse(data)
	if err != nil {
		return err
	}
	warnUnknown(c, r.reg, r.log)
	if err := r.engine.Reload(ctx, c); err != nil {
		return err
	}
	r.config = c
	return nil
}
