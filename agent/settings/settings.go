// Package settings is a node's configuration: a KubeletConfiguration
// (kubelet.config.k8s.io/v1beta1) from a file, a directory of additions and the
// kubelet's own flags, with all defaults, checked.
//
// What each field does here is in the table of fields.go. A field that does
// nothing is said by name (Warnings); one whose effect somebody would miss is
// refused.
package settings

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubelet "k8s.io/kubelet/config/v1beta1"
	strict "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"hansa.dev/hansa/agent/evict"
	"hansa.dev/hansa/agent/pod"
)

// Settings are a node's. They are not written to once made.
type Settings struct {
	// KubeletConfiguration is what /configz shows: all defaults filled in.
	kubelet.KubeletConfiguration
	// Reserved is kept from pods: kubeReserved and systemReserved together;
	// KubeReserved and SystemReserved are each by itself.
	Reserved, KubeReserved, SystemReserved v1.ResourceList
	// Thresholds are those of node-pressure eviction.
	Thresholds []evict.Threshold
	// LogMaxSize is containerLogMaxSize in bytes.
	LogMaxSize int64
	// MemoryQoS says that memory.min, memory.low and memory.high are kept
	// (feature gate MemoryQoS).
	MemoryQoS bool
	// Keep says which ended runs of a container stay, MaxEnded how many of all
	// containers; negative is any number.
	Keep     pod.Keep
	MaxEnded int
	// ProviderConfig and ProviderDir are where credential providers for images
	// are; empty for none.
	ProviderConfig, ProviderDir string
	// Warnings name the fields that are given and do nothing here, and why.
	Warnings []string
}

// Sources are where settings come from; each may be empty.
type Sources struct {
	// File is a KubeletConfiguration, Dir a directory whose files *.conf are
	// merged over it in the order of their names.
	File, Dir string
	// Flags are the texts of the kubelet's flags by name (Flags lists them);
	// they come last.
	Flags map[string]string
}

// Default are the settings of a node that is given none.
func Default() *Settings {
	s, err := Parse(nil, nil)
	if err != nil {
		panic(err) // of constants only
	}
	return s
}

// Load reads settings. Errors name the file and the field.
func Load(from Sources) (*Settings, error) {
	tree := map[string]any{}
	if from.File != "" {
		data, err := os.ReadFile(from.File)
		if err != nil {
			return nil, fmt.Errorf("read kubelet configuration: %w", err)
		}
		if tree, err = parseFile(from.File, data); err != nil {
			return nil, err
		}
	}
	if from.Dir != "" {
		if err := loadDir(tree, from.Dir); err != nil {
			return nil, err
		}
	}
	return Parse(tree, from.Flags)
}

// loadDir merges the files of a drop-in directory over a tree ("Kubelet
// configuration: drop-in directory").
func loadDir(tree map[string]any, dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("read directory of kubelet configurations: %w", err)
		}
		if d.IsDir() || filepath.Ext(path) != ".conf" {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read kubelet configuration: %w", err)
		}
		over, err := parseFile(path, data)
		if err != nil {
			return err
		}
		merge(tree, over)
		return nil
	})
}

// parseFile decodes one file strictly: a field that the type does not have, or
// has twice, is an error.
func parseFile(name string, data []byte) (map[string]any, error) {
	wrong := func(err error) error { return fmt.Errorf("kubelet configuration %s: %w", name, err) }
	text, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return nil, wrong(err)
	}
	var kind metav1.TypeMeta
	if err := json.Unmarshal(text, &kind); err != nil {
		return nil, wrong(err)
	}
	if kind.APIVersion != kubelet.SchemeGroupVersion.String() || kind.Kind != "KubeletConfiguration" {
		return nil, wrong(fmt.Errorf("apiVersion %q, kind %q: it has to be %s, KubeletConfiguration", kind.APIVersion, kind.Kind, kubelet.SchemeGroupVersion))
	}
	if err := decode(text, &kubelet.KubeletConfiguration{}); err != nil {
		return nil, wrong(err)
	}
	tree := map[string]any{}
	if err := strict.UnmarshalCaseSensitivePreserveInts(text, &tree); err != nil {
		return nil, wrong(err)
	}
	return tree, nil
}

func decode(text []byte, into *kubelet.KubeletConfiguration) error {
	unknown, err := strict.UnmarshalStrict(text, into)
	return errors.Join(append(unknown, err)...)
}

// merge lays one tree over another: a JSON merge patch (RFC 7386).
func merge(tree, over map[string]any) {
	for key, v := range over {
		if v == nil {
			delete(tree, key)
			continue
		}
		below, ok := v.(map[string]any)
		if !ok {
			tree[key] = v
			continue
		}
		at, ok := tree[key].(map[string]any)
		if !ok {
			at = map[string]any{}
		}
		at = maps.Clone(at)
		merge(at, below)
		tree[key] = at
	}
}

// Parse makes settings of a decoded configuration and the texts of flags. The
// tree may be nil; it is written to.
func Parse(tree map[string]any, flags map[string]string) (*Settings, error) {
	if tree == nil {
		tree = map[string]any{}
	}
	s := &Settings{Keep: pod.DefaultKeep, MaxEnded: -1}
	for _, name := range slices.Sorted(maps.Keys(flags)) {
		if ok, err := s.setOnly(name, flags[name]); err != nil {
			return nil, fmt.Errorf("--%s: %w", name, err)
		} else if ok {
			continue
		}
		f := fieldOfFlag(name)
		if f == nil {
			return nil, fmt.Errorf("--%s: not a flag of the kubelet that applies here", name)
		}
		v, err := f.value(flags[name])
		if err != nil {
			return nil, fmt.Errorf("--%s: %w", name, err)
		}
		merge(tree, f.tree(v))
	}
	tree["apiVersion"], tree["kind"] = kubelet.SchemeGroupVersion.String(), "KubeletConfiguration"
	text, err := json.Marshal(tree)
	if err != nil {
		return nil, fmt.Errorf("merge kubelet configurations: %w", err)
	}
	if err := decode(text, &s.KubeletConfiguration); err != nil {
		return nil, fmt.Errorf("kubelet configuration: %w", err)
	}
	setDefaults(&s.KubeletConfiguration)
	if s.Warnings, err = without(tree, &s.KubeletConfiguration); err == nil {
		err = s.derive()
	}
	if err == nil {
		err = s.check()
	}
	if err != nil {
		return nil, fmt.Errorf("kubelet configuration: %w", err)
	}
	return s, nil
}

// positive says that a duration is one.
func positive(d metav1.Duration) bool { return d.Duration > 0 }

// Gates are the feature gates that switch something here, with their defaults
// in Kubernetes 1.37. The others that a node may be given are what they are.
var gates = map[string]bool{"MemoryQoS": true}

// fixedGates have effects that cannot be switched off.
var fixedGates = map[string]bool{
	"CPUCFSQuotaPeriod": true, "GracefulNodeShutdown": true, "GracefulNodeShutdownBasedOnPodPriority": true,
	"ImageMaximumGCAge": true, "ImageVolume": true, "InPlacePodVerticalScaling": true, "KubeletCrashLoopBackOffMax": true,
	"KubeletEnsureSecretPulledImages": true, "NodeSwap": true, "PodLevelResources": true, "PodReadyToStartContainersCondition": true,
	"RecursiveReadOnlyMounts": true, "RotateKubeletServerCertificate": true, "SidecarContainers": true,
	"SupplementalGroupsPolicy": true, "UserNamespacesSupport": true,
	"DefaultPodSysctls": false, "QOSReserved": false, "ReduceDefaultCrashLoopBackOffDecay": false,
}

func (s *Settings) readGates() error {
	s.MemoryQoS = gates["MemoryQoS"]
	for _, name := range slices.Sorted(maps.Keys(s.FeatureGates)) {
		on := s.FeatureGates[name]
		if _, ok := gates[name]; ok {
			s.MemoryQoS = on
			continue
		}
		is, known := fixedGates[name]
		switch {
		case !known:
			return fmt.Errorf("featureGates: %q: this node has no such switch; it has %s", name, strings.Join(slices.Sorted(maps.Keys(gates)), ", "))
		case is != on:
			return fmt.Errorf("featureGates: %q is always %t", name, is)
		}
	}
	return nil
}

// Grace is how long nodes wait at most for pods to end when the machine goes
// down; zero for no graceful shutdown.
func (s *Settings) Grace() time.Duration {
	if len(s.ShutdownGracePeriodByPodPriority) == 0 {
		return s.ShutdownGracePeriod.Duration
	}
	var sum time.Duration
	for _, p := range s.ShutdownGracePeriodByPodPriority {
		sum += time.Duration(p.ShutdownGracePeriodSeconds) * time.Second
	}
	return sum
}
