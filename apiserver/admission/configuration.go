package admission

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"sigs.k8s.io/yaml"
)

// configurable are the plugins that take a configuration.
var configurable = []string{
	"EventRateLimit", "MutatingAdmissionWebhook", "PodNodeSelector", "PodSecurity", "PodTolerationRestriction",
	"ResourceQuota", "ValidatingAdmissionWebhook",
}

// ReadConfiguration gives the configurations of plugins by their names: those in
// an AdmissionConfiguration, and in the files that it names, which are relative to
// it.
func ReadConfiguration(file string) (map[string][]byte, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var c struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Plugins    []struct {
			Name          string          `json:"name"`
			Path          string          `json:"path,omitempty"`
			Configuration json.RawMessage `json:"configuration,omitempty"`
		} `json:"plugins"`
	}
	if err := yaml.UnmarshalStrict(data, &c); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	switch c.APIVersion {
	case "apiserver.config.k8s.io/v1", "apiserver.k8s.io/v1alpha1":
	default:
		return nil, fmt.Errorf("%s: apiVersion is %q, want apiserver.config.k8s.io/v1", file, c.APIVersion)
	}
	if c.Kind != "AdmissionConfiguration" {
		return nil, fmt.Errorf("%s: kind is %q, want AdmissionConfiguration", file, c.Kind)
	}
	all := map[string][]byte{}
	for _, p := range c.Plugins {
		if !slices.Contains(configurable, p.Name) {
			return nil, fmt.Errorf("%s: plugin %q takes no configuration; those that do are %v", file, p.Name, configurable)
		}
		if _, twice := all[p.Name]; twice {
			return nil, fmt.Errorf("%s: plugin %q is configured twice", file, p.Name)
		}
		all[p.Name] = p.Configuration
		if p.Path == "" || len(p.Configuration) > 0 {
			continue
		}
		path := p.Path
		if !filepath.IsAbs(path) {
			path = filepath.Join(filepath.Dir(file), path)
		}
		if all[p.Name], err = os.ReadFile(path); err != nil {
			return nil, fmt.Errorf("%s: configuration of %s: %w", file, p.Name, err)
		}
	}
	return all, nil
}
