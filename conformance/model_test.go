package conformance

import (
	"testing"

	"hansa.dev/hansa/apiserver/http/modeltest"
)

// The program does as the model does, over etcd and with its loops at work.
func TestModel(t *testing.T) {
	modeltest.Test(t, modeltest.Server{
		URL:       admin.config.Host,
		Client:    admin.http,
		Namespace: namespace(t),
		Loops:     true,
		Steps:     15,
	})
}
