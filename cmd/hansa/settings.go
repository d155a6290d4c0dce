package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
	kubeletapis "k8s.io/kubelet/pkg/apis"
	"sigs.k8s.io/yaml"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"hansa.dev/hansa/agent/logs"
	"hansa.dev/hansa/apiserver/admission"
	"hansa.dev/hansa/apiserver/request/audit"
	"hansa.dev/hansa/daemon"
	"hansa.dev/hansa/store/encryption"
)

const defaultConfigFile = "/etc/hansa/config.yaml"

// detectVariable, set to 1, makes the daemon look for writes to shared objects.
// It is for the project's own tests and so no flag.
const detectVariable = "HANSA_DETECT_MUTATIONS"

// settings are the common flags as text, the form that flags, environment and
// file share.
type settings struct {
	config           string
	dataDir          string
	listen           string
	advertiseAddress string
	nodeName         string
	nodeIP           string
	nodeLabels       []string
	nodeTaints       []string
	clusterCIDR      string
	serviceCIDR      string
	clusterDomain    string
	etcdEndpoints    []string
	etcd             daemon.EtcdFiles
	etcdPrefix       string
	runtimeEndpoint  string
	keepLogs         time.Duration
	keepLogsSize     string
	encryption       string
	reloadEncryption bool
	auth             authFlags
	auditPolicy      string
	audit            daemon.Audit
	enablePlugins    []string
	disablePlugins   []string
	admissionConfig  string
	featureGates     []string
	fairness         bool
	maxRequests      int
	maxMutating      int
	logLevel         string
	kubelet          kubeletFlags
}

// aliases are settings by the names that the kubelet has for them.
var aliases = map[string]string{"hostname-override": "node-name", "node-labels": "node-label", "root-dir": "data-dir"}

// ownName is the name of a setting that may be given by the kubelet's.
func ownName(name string) string { return cmp.Or(aliases[name], name) }

// variable finds the environment variable that sets a flag, by either name.
func variable(flag string) (name, value string, ok bool) {
	for _, other := range append([]string{flag}, slices.Sorted(maps.Keys(aliases))...) {
		if ownName(other) != flag {
			continue
		}
		name = "HANSA_" + strings.ToUpper(strings.ReplaceAll(other, "-", "_"))
		if value, ok = os.LookupEnv(name); ok {
			return name, value, true
		}
	}
	return "", "", false
}

// dataDirFlags are those of every command; clusterFlags those of one that runs
// a cluster.
func (s *settings) dataDirFlags(f *pflag.FlagSet) {
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName { return pflag.NormalizedName(ownName(name)) })
	f.StringVar(&s.config, "config", defaultConfigFile, "configuration file; its keys are the names of flags")
	f.StringVar(&s.dataDir, "data-dir", "/var/lib/hansa", "where everything that must last is kept")
}

func (s *settings) clusterFlags(f *pflag.FlagSet) {
	s.dataDirFlags(f)
	f.StringVar(&s.listen, "listen", "0.0.0.0:6443", "address and port of the API")
	f.StringVar(&s.advertiseAddress, "advertise-address", "", "address at which others reach the API (default: the node's)")
	f.StringVar(&s.nodeName, "node-name", "", "name of this node (default: the host's name)")
	f.StringVar(&s.nodeIP, "node-ip", "", "address of this node (default: that of the default route)")
	f.StringSliceVar(&s.nodeLabels, "node-label", nil, "label of this node, KEY=VALUE; may be repeated")
	f.StringSliceVar(&s.nodeTaints, "node-taint", nil, "taint of this node, KEY=VALUE:EFFECT; may be repeated")
	f.StringVar(&s.clusterCIDR, "cluster-cidr", "10.42.0.0/16", "addresses of pods")
	f.StringVar(&s.serviceCIDR, "service-cidr", "10.43.0.0/16", "addresses of services")
	f.StringVar(&s.clusterDomain, "cluster-domain", "cluster.local", "DNS domain of the cluster")
	f.StringSliceVar(&s.etcdEndpoints, "etcd-endpoints", nil, "an etcd cluster to use instead of the embedded one")
	s.etcdFlags(f)
	f.StringVar(&s.runtimeEndpoint, "container-runtime-endpoint", "", "a CRI socket to use instead of the carried containerd")
	f.DurationVar(&s.keepLogs, "keep-logs", 24*time.Hour, "how long the node keeps the logs of pods that are gone, for hansa logs; 0 keeps none")
	f.StringVar(&s.keepLogsSize, "keep-logs-size", "1Gi", "how much of the disk those logs may take; the oldest go first")
	f.StringVar(&s.logLevel, "log-level", "warn", "debug, info, warn or error")
	s.kubelet.add(f)
	s.apiFlags(f)
}

// apiFlags are those about the API alone, which kube-apiserver has by the same
// names.
func (s *settings) apiFlags(f *pflag.FlagSet) {
	f.StringVar(&s.encryption, "encryption-provider-config", "", "file that says how which resources are stored encrypted (EncryptionConfiguration)")
	f.BoolVar(&s.reloadEncryption, "encryption-provider-config-automatic-reload", false, "go on with that file whenever it changes, without a restart")
	s.auth.add(f)
	f.StringVar(&s.auditPolicy, "audit-policy-file", "", "file that says what is noted of which requests (audit.k8s.io/v1 Policy)")
	f.StringVar(&s.audit.Path, "audit-log-path", "", "file to which it is noted; - is standard output")
	f.IntVar(&s.audit.MaxSize, "audit-log-maxsize", 100, "megabytes at which the audit log is set aside; 0 is never")
	f.IntVar(&s.audit.MaxBackups, "audit-log-maxbackup", 100, "audit logs set aside that are kept; 0 is all")
	f.IntVar(&s.audit.MaxAge, "audit-log-maxage", 366, "days for which audit logs set aside are kept; 0 is for ever")
	f.StringSliceVar(&s.enablePlugins, "enable-admission-plugins", nil, "admission plugins to have beside those that are on by default; may be repeated, their order does not matter")
	f.StringSliceVar(&s.disablePlugins, "disable-admission-plugins", nil, "admission plugins to do without although they are on by default; may be repeated")
	f.StringVar(&s.admissionConfig, "admission-control-config-file", "", "file that configures admission plugins (AdmissionConfiguration)")
	f.StringSliceVar(&s.featureGates, "feature-gates", nil, "features to switch, NAME=true|false; may be repeated")
	f.BoolVar(&s.fairness, "enable-priority-and-fairness", true, "let requests take turns by FlowSchema and PriorityLevelConfiguration")
	f.IntVar(&s.maxRequests, "max-requests-inflight", byProcessors, "requests that read served at once, 0 for any number; with priority and fairness this and --max-mutating-requests-inflight are added up to what all levels share; -1 is 20 a processor with priority and fairness, at least 40 and at most 400, and without it 400")
	f.IntVar(&s.maxMutating, "max-mutating-requests-inflight", byProcessors, "requests that write served at once, see --max-requests-inflight; -1 is half of what it is for that one")
}

// load fills in, for each flag that the command line left alone, the value from
// the environment (HANSA_DATA_DIR) or else from the configuration file.
func (s *settings) load(cmd *cobra.Command) error {
	if v, ok := os.LookupEnv("HANSA_CONFIG"); ok && !cmd.Flags().Changed("config") {
		if err := cmd.Flags().Set("config", v); err != nil {
			return usageError{fmt.Errorf("HANSA_CONFIG: %w", err)}
		}
	}
	file, err := s.readFile(cmd)
	if err != nil {
		return err
	}
	var failed error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		// A command's own flags say what to do now: nobody's environment says --purge.
		if failed != nil || f.Changed || !isSetting(f.Name) {
			return
		}
		if name, v, ok := variable(f.Name); ok {
			if err := cmd.Flags().Set(f.Name, v); err != nil {
				failed = usageError{fmt.Errorf("%s: %w", name, err)}
			}
		} else if v, ok := file[f.Name]; ok {
			if err := cmd.Flags().Set(f.Name, v); err != nil {
				failed = usageError{fmt.Errorf("%s: %s: %w", s.config, f.Name, err)}
			}
		}
	})
	return failed
}

// values are the flags of a command with what they are set to, by whatever.
func values(f *pflag.FlagSet) map[string]string {
	all := map[string]string{}
	f.VisitAll(func(f *pflag.Flag) { all[f.Name] = f.Value.String() })
	return all
}

// readFile reads the configuration file; that the default one is missing is no
// error. A key that is no flag of any command is refused.
func (s *settings) readFile(cmd *cobra.Command) (map[string]string, error) {
	b, err := os.ReadFile(s.config)
	if errors.Is(err, fs.ErrNotExist) && !cmd.Flags().Changed("config") {
		return nil, nil
	}
	if err != nil {
		return nil, usageError{fmt.Errorf("read configuration file: %w", err)}
	}
	var content any
	if err := yaml.UnmarshalStrict(b, &content); err != nil {
		return nil, usageError{fmt.Errorf("configuration file %s: %w", s.config, err)}
	}
	raw, ok := content.(map[string]any)
	if !ok && content != nil {
		return nil, usageError{fmt.Errorf("configuration file %s: settings are expected, each as NAME: VALUE", s.config)}
	}
	values := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(raw)) {
		if !isSetting(key) {
			return nil, usageError{fmt.Errorf("configuration file %s: %q is not a setting", s.config, key)}
		}
		v := raw[key]
		if _, twice := raw[ownName(key)]; twice && key != ownName(key) {
			return nil, usageError{fmt.Errorf("configuration file %s: %q and %q are the same setting; give one", s.config, key, ownName(key))}
		}
		list, ok := v.([]any)
		if !ok {
			list = []any{v}
		}
		parts := make([]string, len(list))
		for i := range list {
			if parts[i], ok = scalar(list[i]); !ok {
				return nil, usageError{fmt.Errorf("configuration file %s: %s: a text, number or list of them is expected", s.config, key)}
			}
		}
		values[ownName(key)] = strings.Join(parts, ",")
	}
	return values, nil
}

// isSetting tells whether a name is one that flags, environment and file share.
func isSetting(name string) bool {
	known := pflag.NewFlagSet("known", pflag.ContinueOnError)
	new(settings).clusterFlags(known)
	return name != "config" && known.Lookup(name) != nil
}

// scalar is a value of the file as the flag would have it; false for nothing at
// all, lists and maps.
func scalar(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case float64: // 12345678 is a host's name, 1.2345678e+07 is not
		return strconv.FormatFloat(v, 'f', -1, 64), true
	}
	return "", false
}

// dataConfig is the part of the configuration that names a data directory.
func (s *settings) dataConfig() (daemon.Config, error) {
	dir, err := filepath.Abs(s.dataDir)
	if err != nil {
		return daemon.Config{}, usageError{fmt.Errorf("--data-dir: %w", err)}
	}
	if resolved, err := filepath.EvalSymlinks(dir); err == nil {
		dir = resolved
	}
	return daemon.Config{DataDir: dir}, nil
}

// byProcessors lets the number of processors say how many requests are served
// at once.
const byProcessors = -1

// The seats that a processor is worth, and the most there are: Kubernetes'
// defaults. What waits for its turn costs others nothing, what runs does. Fewer
// than two processors' seats leave too few to a level that has lent most of its
// own. Without priority and fairness nothing can wait, so many are let in.
const (
	fewestProcessors          = 2
	readingSeats, mostReading = 20, 400
	writingSeats, mostWriting = 10, 200
)

// seats are the requests served at once that a setting stands for.
func seats(setting, processors, each, most int, fairness bool) int {
	switch {
	case setting != byProcessors:
		return setting
	case fairness:
		return min(max(processors, fewestProcessors)*each, most)
	}
	return most
}

// limits checks how many requests may be served at once. It answers with the
// wrong flag and why it is.
func (s *settings) limits(c *daemon.Config, processors int) (flag, why string) {
	reading := seats(s.maxRequests, processors, readingSeats, mostReading, s.fairness)
	writing := seats(s.maxMutating, processors, writingSeats, mostWriting, s.fairness)
	switch {
	case reading < 0:
		return "max-requests-inflight", fmt.Sprintf("%d is negative", reading)
	case writing < 0:
		return "max-mutating-requests-inflight", fmt.Sprintf("%d is negative", writing)
	case s.fairness && reading+writing == 0:
		return "max-requests-inflight", "priority and fairness need something to share: give this or --max-mutating-requests-inflight a number, or --enable-priority-and-fairness=false"
	}
	c.Fairness, c.MaxRequests, c.MaxMutatingRequests = s.fairness, reading, writing
	return "", ""
}

// clusterConfig checks every setting; the first wrong one is named with its flag.
func (s *settings) clusterConfig() (daemon.Config, error) {
	c, err := s.dataConfig()
	if err != nil {
		return c, err
	}
	bad := func(flag string, format string, args ...any) (daemon.Config, error) {
		return daemon.Config{}, usageError{fmt.Errorf("--%s: %s", flag, fmt.Sprintf(format, args...))}
	}
	host, port, err := net.SplitHostPort(s.listen)
	if err != nil {
		return bad("listen", "%q is not ADDRESS:PORT", s.listen)
	}
	if _, err := netip.ParseAddr(host); host != "" && err != nil {
		return bad("listen", "%q is not an address", host)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return bad("listen", "%q is not a port", port)
	}
	c.Listen = s.listen
	for _, a := range []struct {
		flag, text string
		to         *netip.Addr
	}{{"advertise-address", s.advertiseAddress, &c.AdvertiseAddress}, {"node-ip", s.nodeIP, &c.NodeIP}} {
		if a.text == "" {
			continue
		}
		if *a.to, err = netip.ParseAddr(a.text); err != nil {
			return bad(a.flag, "%q is not an address", a.text)
		}
		// Others reach the node and the API there, from pods with IPv4 addresses.
		if !a.to.Is4() || !a.to.IsGlobalUnicast() {
			return bad(a.flag, "%s is not an IPv4 address at which others reach this machine", a.text)
		}
	}
	for _, p := range []struct {
		flag, text string
		to         *netip.Prefix
	}{{"cluster-cidr", s.clusterCIDR, &c.ClusterCIDR}, {"service-cidr", s.serviceCIDR, &c.ServiceCIDR}} {
		if *p.to, err = netip.ParsePrefix(p.text); err != nil || *p.to != p.to.Masked() || !p.to.Addr().Is4() {
			return bad(p.flag, "%q is not an IPv4 range such as 10.42.0.0/16", p.text)
		}
	}
	if c.ClusterCIDR.Bits() > 24 {
		return bad("cluster-cidr", "a node needs a /24 of it, so %s is too small", c.ClusterCIDR)
	}
	if c.ServiceCIDR.Bits() > 24 {
		return bad("service-cidr", "%s is too small; use a /24 or larger", c.ServiceCIDR)
	}
	if c.ClusterCIDR.Overlaps(c.ServiceCIDR) {
		return bad("service-cidr", "%s overlaps the addresses of pods, %s", c.ServiceCIDR, c.ClusterCIDR)
	}
	c.NodeName = s.nodeName
	if c.NodeName == "" {
		if c.NodeName, err = os.Hostname(); err != nil {
			return daemon.Config{}, fmt.Errorf("find the host's name: %w; give one with --node-name", err)
		}
		c.NodeName = strings.ToLower(c.NodeName)
	}
	// It is a label of the node as well, kubernetes.io/hostname.
	if why := append(validation.IsDNS1123Subdomain(c.NodeName), validation.IsValidLabelValue(c.NodeName)...); len(why) > 0 {
		return bad("node-name", "%q: %s", c.NodeName, why[0])
	}
	if why := validation.IsDNS1123Subdomain(s.clusterDomain); len(why) > 0 {
		return bad("cluster-domain", "%q: %s", s.clusterDomain, why[0])
	}
	c.ClusterDomain = s.clusterDomain
	if c.NodeLabels, err = parseLabels(s.nodeLabels); err != nil {
		return bad("node-label", "%v", err)
	}
	if c.NodeTaints, err = parseTaints(s.nodeTaints); err != nil {
		return bad("node-taint", "%v", err)
	}
	if err := s.apiConfig(&c); err != nil {
		return daemon.Config{}, err
	}
	if err := s.etcdConfig(&c, "etcd-endpoints", s.etcdEndpoints); err != nil {
		return daemon.Config{}, err
	}
	c.RuntimeEndpoint = s.runtimeEndpoint
	if err := s.kubelet.read(&c); err != nil {
		return daemon.Config{}, usageError{err}
	}
	size, err := resource.ParseQuantity(s.keepLogsSize)
	if err != nil || size.Sign() < 0 {
		return bad("keep-logs-size", "%q is no number of bytes such as 1Gi", s.keepLogsSize)
	}
	if s.keepLogs < 0 {
		return bad("keep-logs", "%s is negative", s.keepLogs)
	}
	c.GoneLogs = logs.Limits{For: s.keepLogs, Bytes: size.Value()}
	if err := c.LogLevel.UnmarshalText([]byte(s.logLevel)); err != nil || c.LogLevel > slog.LevelError {
		return bad("log-level", "%q is not debug, info, warn or error", s.logLevel)
	}
	return c, nil
}

// badFlag is wrong usage of a flag.
func badFlag(flag, format string, args ...any) error {
	return usageError{fmt.Errorf("--%s: %s", flag, fmt.Sprintf(format, args...))}
}

// apiConfig checks the settings of apiFlags.
func (s *settings) apiConfig(c *daemon.Config) error {
	if flag, why := s.limits(c, runtime.GOMAXPROCS(0)); why != "" {
		return badFlag(flag, "%s", why)
	}
	var err error
	if err := s.readAdmission(c); err != nil {
		return usageError{err}
	}
	for _, g := range s.featureGates {
		name, _, _ := strings.Cut(g, "=")
		return badFlag("feature-gates", "%q is not a feature of this version", name)
	}
	if err := s.readEncryption(c); err != nil {
		return usageError{err}
	}
	if c.Auth, err = s.auth.value(); err == nil {
		err = c.CheckAuth()
	}
	if err != nil {
		return usageError{err}
	}
	if c.Audit, err = s.readAudit(); err != nil {
		return usageError{err}
	}
	c.DetectMutations = os.Getenv(detectVariable) == "1"
	return nil
}

// readAdmission reads which plugins are on, and their configurations.
func (s *settings) readAdmission(c *daemon.Config) (err error) {
	if c.AdmissionPlugins, err = admission.Select(s.enablePlugins, s.disablePlugins); err != nil || s.admissionConfig == "" {
		return err
	}
	if c.AdmissionFiles, err = admission.ReadConfiguration(s.admissionConfig); err != nil {
		return fmt.Errorf("--admission-control-config-file: %w", err)
	}
	return nil
}

// readEncryption reads how values are stored, if that is said.
func (s *settings) readEncryption(c *daemon.Config) error {
	const flag = "--encryption-provider-config"
	if s.encryption == "" {
		if s.reloadEncryption {
			return fmt.Errorf("%s-automatic-reload: there is no %[1]s to reload", flag)
		}
		return nil
	}
	data, err := os.ReadFile(s.encryption)
	if err != nil {
		return fmt.Errorf("%s: %w", flag, err)
	}
	if c.Encryption, err = encryption.Parse(data); err != nil {
		return fmt.Errorf("%s: %s: %w", flag, s.encryption, err)
	}
	if !s.reloadEncryption {
		return nil
	}
	if c.EncryptionFile, err = filepath.Abs(s.encryption); err != nil {
		return fmt.Errorf("%s: %w", flag, err)
	}
	return nil
}

// readAudit gives what is noted of requests, nil for nothing.
func (s *settings) readAudit() (*daemon.Audit, error) {
	a := s.audit
	for name, n := range map[string]int{"size": a.MaxSize, "backup": a.MaxBackups, "age": a.MaxAge} {
		if n < 0 {
			return nil, fmt.Errorf("--audit-log-max%s: %d is less than nothing", name, n)
		}
	}
	switch {
	case s.auditPolicy == "" && a.Path == "":
		return nil, nil
	case s.auditPolicy == "":
		return nil, errors.New("--audit-log-path: without --audit-policy-file nothing would be noted")
	case a.Path == "":
		return nil, errors.New("--audit-policy-file: without --audit-log-path nothing would be noted")
	}
	data, err := os.ReadFile(s.auditPolicy)
	if err != nil {
		return nil, fmt.Errorf("--audit-policy-file: %w", err)
	}
	if a.Policy, a.Doubt, err = audit.ParsePolicy(data); err != nil {
		return nil, fmt.Errorf("--audit-policy-file: %s: %w", s.auditPolicy, err)
	}
	return &a, nil
}

func parseLabels(list []string) (map[string]string, error) {
	labels := map[string]string{}
	for _, l := range list {
		key, value, ok := strings.Cut(l, "=")
		if !ok {
			return nil, fmt.Errorf("%q is not KEY=VALUE", l)
		}
		if why := validation.IsQualifiedName(key); len(why) > 0 {
			return nil, fmt.Errorf("%q: %s", key, why[0])
		}
		if reserved(key) {
			return nil, fmt.Errorf("a node may not give itself the label %q: use another prefix, or hansa kubectl label", key)
		}
		if why := validation.IsValidLabelValue(value); len(why) > 0 {
			return nil, fmt.Errorf("%q: %s", value, why[0])
		}
		labels[key] = value
	}
	return labels, nil
}

// reserved tells whether a label is Kubernetes' own and none of those that nodes
// set: NodeRestriction admission would refuse the node.
func reserved(key string) bool {
	prefix, _, ok := strings.Cut(key, "/")
	within := func(domain string) bool { return prefix == domain || strings.HasSuffix(prefix, "."+domain) }
	return ok && (within("kubernetes.io") || within("k8s.io")) &&
		(within(corev1.LabelNamespaceNodeRestriction) || !kubeletapis.IsKubeletLabel(key))
}

func parseTaints(list []string) ([]corev1.Taint, error) {
	var taints []corev1.Taint
	for _, t := range list {
		left, effect, ok := strings.Cut(t, ":")
		key, value, _ := strings.Cut(left, "=")
		if !ok {
			return nil, fmt.Errorf("%q is not KEY=VALUE:EFFECT", t)
		}
		if why := validation.IsQualifiedName(key); len(why) > 0 {
			return nil, fmt.Errorf("%q: %s", key, why[0])
		}
		if why := validation.IsValidLabelValue(value); len(why) > 0 {
			return nil, fmt.Errorf("%q: %s", value, why[0])
		}
		switch e := corev1.TaintEffect(effect); e {
		case corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute:
			if slices.ContainsFunc(taints, func(o corev1.Taint) bool { return o.Key == key && o.Effect == e }) {
				return nil, fmt.Errorf("%s:%s is given twice", key, e)
			}
			taints = append(taints, corev1.Taint{Key: key, Value: value, Effect: e})
		default:
			return nil, fmt.Errorf("effect %q is not NoSchedule, PreferNoSchedule or NoExecute", effect)
		}
	}
	return taints, nil
}
