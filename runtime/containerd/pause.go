package containerd

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	goruntime "runtime"
)

// PauseArchive is the sandbox image as a docker-archive tar: one layer with the
// carried pause program. The same program gives the same bytes.
func (c Config) PauseArchive() (io.Reader, error) {
	program, err := os.ReadFile(filepath.Join(c.BinDir, "pause"))
	if err != nil {
		return nil, fmt.Errorf("build sandbox image: %w", err)
	}
	layer, err := tarball(tarFile{"pause", 0o755, program})
	if err != nil {
		return nil, fmt.Errorf("build sandbox image: %w", err)
	}
	config, err := json.Marshal(map[string]any{
		"architecture": goruntime.GOARCH,
		"os":           "linux",
		"config":       map[string]any{"Entrypoint": []string{"/pause"}, "User": "65535:65535"},
		"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}},
	})
	if err != nil {
		return nil, fmt.Errorf("build sandbox image: %w", err)
	}
	manifest, err := json.Marshal([]map[string]any{{
		"Config": "config.json", "RepoTags": []string{PauseImage}, "Layers": []string{"layer.tar"},
	}})
	if err != nil {
		return nil, fmt.Errorf("build sandbox image: %w", err)
	}
	archive, err := tarball(
		tarFile{"config.json", 0o644, config},
		tarFile{"layer.tar", 0o644, layer},
		tarFile{"manifest.json", 0o644, manifest},
	)
	if err != nil {
		return nil, fmt.Errorf("build sandbox image: %w", err)
	}
	return bytes.NewReader(archive), nil
}

type tarFile struct {
	name string
	mode int64
	data []byte
}

func tarball(files ...tarFile) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.data)), Format: tar.FormatUSTAR}); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
