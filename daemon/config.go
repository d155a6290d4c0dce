// Package daemon is the composition root: it builds the parts of a role and
// runs them as one ordered lifecycle. It alone reads the clock, the host and
// the environment, and hands them to the parts.
package daemon

import (
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net/netip"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"

	"hansa.dev/hansa/agent/logs"
	"hansa.dev/hansa/agent/settings"
	"hansa.dev/hansa/apiserver/request/alloc"
	"hansa.dev/hansa/store/encryption"
)

// Config is what a role is made of. The command line fills it in and has
// checked it.
type Config struct {
	DataDir          string // absolute, symbolic links resolved
	Listen           string // ADDRESS:PORT of the API
	AdvertiseAddress netip.Addr
	NodeName         string
	NodeIP           netip.Addr // zero: that of the default route
	NodeLabels       map[string]string
	NodeTaints       []corev1.Taint
	ClusterCIDR      netip.Prefix
	ServiceCIDR      netip.Prefix
	ClusterDomain    string
	EtcdEndpoints    []string // empty: embedded
	EtcdFiles        EtcdFiles
	EtcdPrefix       string // of objects in an etcd elsewhere
	Tokens           Tokens
	NodePorts        alloc.PortRange    // zero: Kubernetes' own
	ExternalName     string             // by which others reach the API; "": the advertised address
	ForbidPrivileged bool               // refuse privileged containers
	NoEndpoints      bool               // leave those of the service "kubernetes" to somebody else
	RuntimeEndpoint  string             // empty: the carried containerd
	Node             *settings.Settings // nil: the defaults
	GoneLogs         logs.Limits        // of pods that are gone
	LogLevel         slog.Level
	Flags            map[string]string // of the command line with their values, to be shown; none is secret
	Auth             Auth
	AdmissionPlugins []string           // names of those that are on, in order
	AdmissionFiles   map[string][]byte  // configurations of plugins by their names
	Audit            *Audit             // nil: nothing is noted
	Encryption       *encryption.Config // nil: values are stored as they are
	EncryptionFile   string             // read again whenever it changes; "": never
	// Fairness lets requests take turns by FlowSchema and priority level, all
	// levels together having the seats of both limits; without it each of the
	// limits holds by itself, zero being none.
	Fairness            bool
	MaxRequests         int
	MaxMutatingRequests int

	// DetectMutations ends the process, naming the object, when some part of it
	// wrote to an object that all share. For tests: it costs an encoding of every
	// object written.
	DetectMutations bool
}

// EtcdFiles are what is shown to an etcd elsewhere, and whom to believe there.
// All empty: certificates of the cluster's own authority for etcd.
type EtcdFiles struct{ CA, Cert, Key string }

// Tokens says what is special about the tokens of service accounts.
type Tokens struct {
	Issuer       string   // "": the API's name in the cluster's domain
	OtherIssuers []string // whose tokens are taken as well
	MaxLifetime  time.Duration
	JWKSURI      string // where their keys are; "": on this server
}

// instance names everything on the host that belongs to one data directory.
type instance struct {
	id  string // 8 hex of the data directory's path
	dir string
}

func (c Config) instance() instance {
	sum := sha256.Sum256([]byte(c.DataDir))
	return instance{id: hex.EncodeToString(sum[:4]), dir: c.DataDir}
}

func (i instance) runDir() string          { return filepath.Join("/run/hansa", i.id) }
func (i instance) cgroup() string          { return "/hansa/" + i.id }
func (i instance) kubeconfig() string      { return filepath.Join(i.dir, "kubeconfig") }
func (i instance) lockFile() string        { return filepath.Join(i.dir, "lock") }
func (i instance) ledgerFile() string      { return filepath.Join(i.dir, "ledger") }
func (i instance) path(name string) string { return filepath.Join(i.dir, name) }
func (i instance) network() string         { return "hansa-" + i.id }
func (i instance) cniSocket() string       { return filepath.Join(i.runDir(), "cni.sock") }
