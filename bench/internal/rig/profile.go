package rig

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// profiled is the program that runs a cluster with profiles.
const profiled = ".cache/linked/profiled"

// Build links the program in a folder, which may be a module of its own, into a
// file.
func Build(ctx context.Context, folder, file string) error {
	file, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", file, ".")
	cmd.Dir, cmd.Env = folder, append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("link %s: %w", folder, err)
	}
	return nil
}

// buildProfiled links it and appends the carried programs of the last build.
func buildProfiled(ctx context.Context) error {
	if err := Build(ctx, "bench/internal/profiled", profiled); err != nil {
		return err
	}
	bundle, err := os.Open(".cache/carried/current/bundle")
	if err != nil {
		return err
	}
	defer bundle.Close()
	out, err := os.OpenFile(profiled, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer out.Close()
	_, err = io.Copy(out, bundle)
	return err
}

// upCommand is the command that runs a cluster on a data directory.
func (r *Rig) upCommand(dir string) (*exec.Cmd, error) {
	if r.Profiles == "" {
		return exec.Command(r.Binary, "up", "--data-dir", dir), nil
	}
	path, err := filepath.Abs(profiled)
	return exec.Command(path, "-data-dir", dir), err
}

// Profile takes a profile of the cluster's daemon into the folder given on the
// command line, if there is one, and a cluster: "cpu" during d, or "heap", "goroutine" and the like as
// of now. The file is called NAME.KIND.
func (r *Rig) Profile(ctx context.Context, c *Cluster, name, kind string, d time.Duration) error {
	if r.Profiles == "" || c == nil {
		return nil
	}
	path, q := "/debug/pprof/"+kind, url.Values{}
	switch kind {
	case "cpu":
		path = "/debug/pprof/profile"
		q.Set("seconds", strconv.Itoa(int(d.Seconds())))
	case "heap":
		q.Set("gc", "1")
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", c.Dir+".pprof.sock")
	}}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://hansa"+path+"?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("take profile: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("take profile: %s", resp.Status)
	}
	if err := os.MkdirAll(r.Profiles, 0o755); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(r.Profiles, name+"."+kind))
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(f, resp.Body)
	return err
}
