package authn

import (
	"crypto/x509"
	"runtime"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"
)

// What is known of a certificate goes with the last connection that has it.
func TestCertificatesAreForgotten(t *testing.T) {
	roots := x509.NewCertPool()
	c := NewCertificates(roots, clocktesting.NewFakePassiveClock(time.Time{}))
	leaf := &x509.Certificate{Raw: []byte("leaf")}
	c.remember(leaf, &verified{}, roots)
	c.remember(leaf, &verified{}, roots)
	known := func() int {
		c.mu.RLock()
		defer c.mu.RUnlock()
		return len(c.known)
	}
	runtime.GC()
	if n := known(); n != 1 {
		t.Fatalf("%d are known while one is in use", n)
	}
	runtime.KeepAlive(leaf)
	for known() > 0 { // the cleanup runs some time after the collection
		runtime.GC()
	}
}
