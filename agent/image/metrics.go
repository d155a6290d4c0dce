package image

import (
	"encoding/hex"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics count what credential providers do, under the kubelet's names. A nil
// one counts nothing.
type metrics struct {
	failed *prometheus.CounterVec
	took   *prometheus.HistogramVec
	config *prometheus.GaugeVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	if r == nil {
		return nil
	}
	m := &metrics{
		failed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kubelet_credential_provider_plugin_errors_total", Help: "Number of errors from credential provider plugin",
		}, []string{"plugin_name"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kubelet_credential_provider_plugin_duration", Help: "Duration of execution in seconds for credential provider plugin",
		}, []string{"plugin_name"}),
		config: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kubelet_credential_provider_config_info", Help: "Information about the last applied credential provider configuration with hash as label",
		}, []string{"hash"}),
	}
	r.MustRegister(m.failed, m.took, m.config)
	return m
}

// ran counts one run of a provider's program.
func (m *metrics) ran(name string, took time.Duration, err error) {
	if m == nil {
		return
	}
	m.took.WithLabelValues(name).Observe(took.Seconds())
	if err != nil {
		m.failed.WithLabelValues(name).Inc()
	}
}

// configured says which configuration is in use, by its SHA-256.
func (m *metrics) configured(sum []byte) {
	if m != nil {
		m.config.WithLabelValues("sha256:" + hex.EncodeToString(sum)).Set(1)
	}
}
