// Package e2e holds the tests of Hansa on a real kernel with real containers.
// They are black-box: they run bin/hansa and look at it through the API,
// kubectl and the host, and import none of its parts.
//
// The tests run on a machine of their own: a set of namespaces (network,
// mounts, processes, names, IPC) that is made for the run and goes with it,
// whatever ends the run. A second network namespace, outside, plays the rest of
// the world: it answers DNS and calls from afar. Most tests share one cluster,
// each in a Kubernetes namespace of its own; what would disturb the others
// (restarts, taking down, a second Hansa) runs on a machine of its own again.
package e2e
