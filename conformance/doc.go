// Package conformance tests bin/hansa from outside, through the clients that
// people use: kubectl, client-go, and plain HTTP where the wire matters. Tests
// are named after the documented behaviour and cite their rule; "API concepts"
// is https://kubernetes.io/docs/reference/using-api/api-concepts/.
//
// One cluster serves nearly all tests; each works in namespaces of its own.
// Tests that kill or misuse a daemon start clusters of their own. Everything
// runs in a network namespace that goes with the test process, so that ports
// and links meet nobody else's. Build with `make build` before; root is needed.
package conformance
