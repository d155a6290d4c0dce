// Package pki holds the certificate authorities of a cluster and what they
// sign: three separate ones, for the API (servers and clients), for the front
// proxy and for etcd, and beside them the keys that sign service-account
// tokens.
//
// Only authorities and token keys are kept on disk. A leaf lives 30 days, in
// memory, and is replaced on the first handshake after two thirds of its life:
// nothing has to run for it and nothing restarts. The one leaf that is also in
// a file is the administrator's, in the kubeconfig.
//
// The directory comes into being whole: it is written beside its place and
// renamed, so that a crash leaves either all of it or nothing.
package pki
