// Package pod knows what a pod means as data: it fills in what a client left
// out, says what is wrong with a pod or a pod template, and decides which parts
// of it a writer may change. It does no I/O, reads no clock and keeps no state.
//
// The rules, the error types, the field paths and the texts are those of
// Kubernetes 1.37 with its default feature gates, because clients show and
// match them; where upstream reports an odd path (spec.HostPID, a list without
// its index), the odd path is the contract and is kept. Fields whose gate is
// off by default are removed by PrepareCreate and PrepareTemplate, as upstream
// does.
//
// The order of calls for a write is Default, admission, Prepare… (which defaults
// again), Validate…, Warnings. Validation expects a defaulted object and never
// panics on any other. Metadata
// that all kinds share (name, labels, owner references, resource version) is
// the server's to check; what annotations mean for a pod is checked here.
//
// Updates are judged against the old object: a value that an older release let
// in stays allowed while it is unchanged (see leniency).
//
// testdata/invalid holds the refusals as a table, which other packages' tests
// load too; its README describes the format.
package pod
