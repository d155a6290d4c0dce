package daemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hansa.dev/hansa/api"
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
	if err := follow(l, "encryption configuration", r.file, log, r.look); err != nil {
		return nil, errors.Join(err, e.Close())
	}
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
	config  *encryption.Config // in use
	refused []byte             // the text that was refused last
	reloads *prometheus.CounterVec
	last    *prometheus.GaugeVec
}

// look reads the file, and goes on with it if it is another one.
func (r *reloader) look(ctx context.Context) time.Duration {
	data, err := os.ReadFile(r.file)
	if err == nil {
		if r.config.Is(data) || bytes.Equal(data, r.refused) {
			return 0
		}
		err = r.reload(ctx, data)
	}
	if ctx.Err() != nil {
		return 0
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
	return 0
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
