package pod

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"hansa.dev/hansa/internal/whole"
	"hansa.dev/hansa/network/internal/nft"
)

// A Record is what the node keeps of one attachment, as the JSON file
// DIR/CONTAINERID.json. The CNI plugin reads Link from it to remove the link
// when nobody answers at the socket.
type Record struct {
	ContainerID string       `json:"containerID"`
	Link        string       `json:"link"` // the host's end
	IPs         []netip.Addr `json:"ips"`
	Netns       string       `json:"netns"`
	IfName      string       `json:"ifname"`
	MAC         string       `json:"mac"` // of the pod's end
	Namespace   string       `json:"namespace"`
	Name        string       `json:"name"`
	UID         string       `json:"uid"`
	HostPorts   []HostPort   `json:"hostPorts,omitempty"`
}

// A HostPort sends a port of the host to one of the pod. An invalid or
// unspecified HostIP means every address of the host.
type HostPort struct {
	HostIP        netip.Addr `json:"hostIP,omitzero"`
	HostPort      uint16     `json:"hostPort"`
	ContainerPort uint16     `json:"containerPort"`
	Protocol      nft.Proto  `json:"protocol"`
}

// anyAddress reports whether the port is open on every address of the host.
func (p HostPort) anyAddress() bool { return !p.HostIP.IsValid() || p.HostIP.IsUnspecified() }

// podName is the record's pod for messages and aliases.
func (r *Record) podName() string {
	if r.Name == "" {
		return r.ContainerID
	}
	return r.Namespace + "/" + r.Name
}

// containerID is what may be a container's ID, and so a file's name (CNI
// specification, CNI_CONTAINERID). It cannot name host.json: that has a dot
// before no other ending.
var containerID = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$`)

const (
	recordSuffix = ".json"
	stateFile    = "host.state" // former sysctls; see sysctl.go
)

// files keeps records in a directory.
type files struct{ dir string }

func (f files) path(id string) string { return filepath.Join(f.dir, id+recordSuffix) }

// save writes a record so that it is there after a crash.
func (f files) save(r *Record) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode record of container %s: %w", r.ContainerID, err)
	}
	return keep(f.path(r.ContainerID), b)
}

// remove deletes a record; it is no error if there is none.
func (f files) remove(id string) error {
	if err := os.Remove(f.path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove record of container %s: %w", id, err)
	}
	return nil
}

// load reads all records. Files that cannot be read are reported and left.
func (f files) load() ([]*Record, error) {
	entries, err := os.ReadDir(f.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list pod network records: %w", err)
	}
	var out []*Record
	var errs []error
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), recordSuffix)
		if !ok || !containerID.MatchString(id) {
			continue
		}
		b, err := os.ReadFile(f.path(id))
		if err != nil {
			errs = append(errs, fmt.Errorf("read record of container %s: %w", id, err))
			continue
		}
		var r Record
		if err := json.Unmarshal(b, &r); err != nil || r.ContainerID != id {
			errs = append(errs, fmt.Errorf("decode record %s: not a record of container %s (%v)", f.path(id), id, err))
			continue
		}
		out = append(out, &r)
	}
	return out, errors.Join(errs...)
}

// keep replaces a file, which is there after a crash.
func keep(path string, text []byte) error {
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	if err == nil {
		err = whole.WriteSynced(path, append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
