// Package agent runs the pods of one node: the kubelet's job. It watches the
// node's pods through a client with the node's identity, and runs them through
// a container runtime.
//
//	view ──keys──► Agent ──► work.Worker (one goroutine a pod) ──► runtime
//	runtime ──events──┘          │
//	                             ├─► agent/pod: what to do next (pure)
//	                             └─► agent/status ──► API
//
// The Agent itself only distributes: to each pod its object, what the runtime
// says of it, and that something it shows has changed. There is one full look
// at the runtime at the start and after a reconnection; otherwise events.
package agent
