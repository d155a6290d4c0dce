// Package pod gives pods their network on one node: an address from the
// node's range, a routed veth pair without a bridge, host ports, and the rules
// that let pod traffic in and out of the host.
//
// # How a pod is connected
//
// The host end of a pod's link is named hansa + 10 hex digits; its alias names
// instance and pod. The pod's end is eth0 with one /32 address. The pod sends
// everything to 169.254.1.1, an address nobody has: a permanent neighbour
// entry in the pod gives it the host end's hardware address, as one on the
// host does for the pod's address, so nobody resolves addresses on the link
// and no bridge, ARP proxy or gateway address is needed. The host has one /32
// route per pod.
//
//	pod: eth0 10.42.0.7/32          host: hansa0123456789
//	  default via 169.254.1.1  <-->   10.42.0.7 dev hansa0123456789
//
// A packet from a pod is dropped unless its source is routed back over the
// link it came by.
//
// # What is on the host
//
// One link named hansa-INSTANCE (a bridge that never gets ports; a dummy link
// would do, but not every kernel has them). It carries the node's own address
// in the pod network, the first of the node's range, and the route for service
// addresses, which gives a host without a default route a source address
// towards services. One nftables table hansa-INSTANCE. Forwarding switched on,
// its former state kept in a file. One accept rule in each foreign chain that
// would drop forwarded pod traffic (see accept.go).
//
// # What survives
//
// Every attachment has a file DIR/CONTAINERID.json (type Record), written and
// synced before anything is made for it. A Manager that starts reads the files
// and nothing else; attachments without a network namespace are removed, and
// those without their link are connected again under the same address.
package pod
