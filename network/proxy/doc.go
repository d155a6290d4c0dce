// Package proxy makes Services work on a node: it translates connections to a
// service's addresses into connections to one of its endpoints, with one
// nftables table, hansa-INSTANCE-svc.
//
// # A packet's way
//
// All first packets, routed or from the host itself, meet the chain services.
// Two verdict maps decide in one lookup whether a packet is for a service:
// service-ips by address, protocol and port, and nodeports by protocol and port
// for packets to the host's own addresses. They lead to the chains of one
// service port:
//
//	fw/…  source ranges of load balancer addresses
//	 ↓
//	ext/… traffic from outside: marked for masquerading, or, under
//	 ↓    externalTrafficPolicy Local, kept with its source on local endpoints
//	svc/… one of the endpoints in the map ep/…, by random index; with session
//	 ↓    affinity, the one whose set clients/… has the client's address
//	to/…  one endpoint, with session affinity only: notes the client
//
// (svc-local/… and ep-local/… are the same for endpoints of this node only.)
// A service port without endpoints is in no-endpoints or no-endpoint-nodeports
// instead, and its packets are rejected or dropped at the filter hooks.
//
// Connections under way stay with their endpoint whatever changes here: the
// kernel's connection tracking holds them, and only UDP flows to an endpoint
// that went are made to forget it.
//
// # State and changes
//
// A Proxy is told of services and endpoint slices. Per service, a pure function
// plans the service's part of the table and what it claims of the shared maps;
// Flush compares the plans of services that changed with what is committed and
// sends the difference as one transaction. Two services may claim the same
// address and port (external IPs); the one first in namespace and name has it,
// whatever the order they came in.
//
// Invariants: committed is what the kernel holds, as long as programmed is set;
// any failure clears it, and the next Flush writes the whole table anew, in one
// transaction without a gap.
package proxy
