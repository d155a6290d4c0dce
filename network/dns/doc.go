// Package dns answers the names of a cluster and forwards all others.
//
// The cluster's zone holds what the Kubernetes DNS specification, version
// 1.1.0, says of services, endpoints and pods; section numbers in comments are
// that document's. Its data comes as the proxy's does, service by service and
// slice by slice; a change touches the entries of one service. Reverse zones of
// the cluster's own address ranges belong to it too, so that no question about
// them leaves the cluster.
//
// Other names go to the upstream servers, through a cache that holds answers as
// long as they allow (RFC 2308 for those that say no). Equal questions that
// come while one is under way wait for it.
//
// A Server is fed and asked at the same time. Asking takes a read lock for two
// map look-ups; everything else of an answer is made from immutable values.
package dns
