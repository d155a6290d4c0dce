// Package core decides where pods run. It is pure: it links no client, reads no
// clock and draws no chance; what it answers follows from the Cluster that it is
// given and from nothing else.
//
// The semantics are those of the Kubernetes default profile: the filters and
// scores below, in upstream's order and with upstream's weights and words.
//
// # Model
//
// A Cluster holds nodes as columns: a node is a slot, and each quantity (memory
// that is free, the value of one label) is a slice over the slots; sets of nodes
// are bitsets. Pods that cannot be told apart by any filter or score form a
// class, and a class shares its work: which nodes it may use, what they score,
// how its topology domains are filled. A class follows the cluster by a log of
// placements and catches up with what it missed when it is next used, so that
// pods placed by somebody else cost it one step each and nobody counts from
// scratch.
//
// Nothing here may be called from two goroutines at once.
package core

// Filter is one of the reasons for which a node cannot take a pod.
type Filter uint16

// The filters, in the order in which they are asked; the first that refuses is
// the one that is named.
const (
	NodeUnschedulable Filter = 1 << iota
	NodeName
	TaintToleration
	NodeAffinity
	NodePorts
	NodeResourcesFit
	VolumeBinding
	PodTopologySpread
	InterPodAffinity
)

var filterNames = map[Filter]string{
	NodeUnschedulable: "NodeUnschedulable",
	NodeName:          "NodeName",
	TaintToleration:   "TaintToleration",
	NodeAffinity:      "NodeAffinity",
	NodePorts:         "NodePorts",
	NodeResourcesFit:  "NodeResourcesFit",
	VolumeBinding:     "VolumeBinding",
	PodTopologySpread: "PodTopologySpread",
	InterPodAffinity:  "InterPodAffinity",
}

// String is the name of the upstream plugin.
func (f Filter) String() string { return filterNames[f] }

// The words in which filters refuse, which users and their tools know from
// upstream.
const (
	reasonUnschedulable   = "node(s) were unschedulable"
	reasonNodeName        = "node(s) didn't match the requested node name"
	reasonTaint           = "node(s) had untolerated taint(s)"
	reasonAffinity        = "node(s) didn't match Pod's node affinity/selector"
	reasonNotNamed        = "node(s) didn't satisfy plugin(s) [NodeAffinity]"
	reasonNamesConflict   = "pod affinity terms conflict"
	reasonPorts           = "node(s) didn't have free ports for the requested pod ports"
	reasonTooManyPods     = "Too many pods"
	reasonInsufficient    = "Insufficient "
	reasonSpread          = "node(s) didn't match pod topology spread constraints"
	reasonSpreadLabel     = "node(s) didn't match pod topology spread constraints (missing required label)"
	reasonPodAffinity     = "node(s) didn't match pod affinity rules"
	reasonPodAntiAffinity = "node(s) didn't match pod anti-affinity rules"
	reasonExistingAnti    = "node(s) didn't satisfy existing pods anti-affinity rules"
	reasonNoVictims       = "No preemption victims found for incoming pod"
	reasonNotHelpful      = "Preemption is not helpful for scheduling"
)

// Weights of the scores in the default profile; each score is between 0 and
// maxScore.
const (
	weightFit      = 1
	weightBalanced = 1
	weightImage    = 1
	weightTaint    = 3
	weightAffinity = 2
	weightSpread   = 2
	weightInterPod = 2

	maxScore = 100
)
