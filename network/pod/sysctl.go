package pod

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// procSys is where the kernel's settings are; net/ below it is that of the
// process's own network namespace.
const procSys = "/proc/sys"

const ipForward = "net/ipv4/ip_forward"

func readSysctl(key string) (string, error) {
	b, err := os.ReadFile(filepath.Join(procSys, key))
	return strings.TrimSpace(string(b)), err
}

func writeSysctl(key, value string) error {
	if err := os.WriteFile(filepath.Join(procSys, key), []byte(value), 0o644); err != nil {
		return fmt.Errorf("set sysctl %s to %s: %w", strings.ReplaceAll(key, "/", "."), value, err)
	}
	return nil
}

// setting is one setting and the value it had.
type setting struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// forwardingSettings lists what a write to ip_forward changes, in the order in
// which writing the old values back restores them: the switch itself, which
// resets the others to the defaults of a host or of a router (RFC 1122, RFC
// 1812), then the others.
func forwardingSettings() ([]setting, error) {
	keys := []string{ipForward, "net/ipv4/conf/all/accept_redirects"}
	links, err := filepath.Glob(filepath.Join(procSys, "net/ipv4/conf/*/forwarding"))
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		key, err := filepath.Rel(procSys, l)
		if err != nil {
			return nil, err
		}
		if key != "net/ipv4/conf/all/forwarding" { // the same switch again
			keys = append(keys, key)
		}
	}
	out := make([]setting, 0, len(keys))
	for _, k := range keys {
		v, err := readSysctl(k)
		if err != nil {
			return nil, fmt.Errorf("read sysctl %s: %w", k, err)
		}
		out = append(out, setting{k, v})
	}
	return out, nil
}

// enableForwarding switches forwarding on. If it was off, the former values
// are in the file path before anything changes.
func enableForwarding(path string, ledger func(kind, name string) error) error {
	now, err := readSysctl(ipForward)
	if err != nil {
		return fmt.Errorf("read sysctl ip_forward: %w", err)
	}
	if now == "1" {
		return nil
	}
	// After a reboot the file is there and forwarding is off again: the values
	// of this boot are the ones to go back to.
	before, err := forwardingSettings()
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(before, "", "  ")
	if err != nil {
		return fmt.Errorf("encode former sysctls: %w", err)
	}
	if err := ledger("sysctl", "net.ipv4.ip_forward"); err != nil {
		return err
	}
	if err := keep(path, b); err != nil {
		return err
	}
	return writeSysctl(ipForward, "1")
}

// restoreForwarding brings back what enableForwarding kept in the file path,
// and removes the file. Settings of links that are gone are left out.
func restoreForwarding(path string) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read former sysctls: %w", err)
	}
	var before []setting
	if err := json.Unmarshal(b, &before); err != nil {
		return fmt.Errorf("decode former sysctls in %s: %w", path, err)
	}
	var errs []error
	for _, s := range before {
		if now, err := readSysctl(s.Key); errors.Is(err, fs.ErrNotExist) || now == s.Value {
			continue
		}
		errs = append(errs, writeSysctl(s.Key, s.Value))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove former sysctls: %w", err)
	}
	return nil
}
