package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"hansa.dev/hansa/bench/internal/rig"
	"hansa.dev/hansa/internal/ocibuild"
)

// swarm is a Docker engine that manages a swarm of one, in a folder of its own.
type swarm struct {
	http   *http.Client
	daemon *exec.Cmd
}

// swarmImage is of a registry that refuses connections at once.
const swarmImage = "localhost:1/busybox:1"

// swarmTasks is the larger number of tasks that are started at once.
const swarmTasks = 50

// compare measures Docker Swarm as far as it has the same: tasks that run the
// command of our pods. It needs dockerd, containerd, docker and iptables in PATH.
func compare(ctx context.Context, r *rig.Rig) (err error) {
	dir, err := os.MkdirTemp("", "hansa-bench-swarm-")
	if err != nil {
		return err
	}
	s, err := startSwarm(ctx, dir)
	if err != nil {
		return fmt.Errorf("start a swarm: %w", err)
	}
	defer func() { err = errors.Join(err, s.stop(), unmountBelow(dir), os.RemoveAll(dir)) }()
	file, err := os.Open(rig.ImageFile(ocibuild.Busybox))
	if err != nil {
		return err
	}
	defer file.Close()
	if err := s.call(ctx, http.MethodPost, "/images/load?quiet=1", file, nil); err != nil {
		return err
	}
	// A worker asks the image's registry before it takes what it has.
	name := url.PathEscape(ocibuild.Busybox)
	if err := s.call(ctx, http.MethodPost, "/images/"+name+"/tag?repo=localhost:1/busybox&tag=1", nil, nil); err != nil {
		return err
	}
	if err := s.json(ctx, "/swarm/init", map[string]any{"ListenAddr": "127.0.0.1:2377", "AdvertiseAddr": "127.0.0.1"}, nil); err != nil {
		return err
	}
	var ones []time.Duration
	for i := range *single + 1 {
		d, err := s.service(ctx, fmt.Sprintf("single%d", i), 1)
		if err != nil {
			return err
		}
		if i > 0 { // the first finds nothing in memory
			ones = append(ones, d)
		}
	}
	r.Spread("swarm_task_running", ones)
	d, err := s.service(ctx, "many", swarmTasks)
	if err != nil {
		return err
	}
	r.Seconds(fmt.Sprintf("swarm_%d_tasks_running", swarmTasks), d)
	return nil
}

func startSwarm(ctx context.Context, dir string) (*swarm, error) {
	socket := filepath.Join(dir, "sock")
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command("dockerd", "--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"),
		"--pidfile", filepath.Join(dir, "pid"), "--host", "unix://"+socket)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &swarm{daemon: cmd, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}}
	limit, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for s.call(limit, http.MethodGet, "/_ping", nil, nil) != nil {
		if err := rig.Wait(limit, 50*time.Millisecond); err != nil {
			tail, _ := os.ReadFile(log.Name()) //nolint:errcheck // the error says enough
			return nil, errors.Join(fmt.Errorf("dockerd does not answer: %w: %s", err, tail[max(0, len(tail)-2000):]), s.stop())
		}
	}
	return s, nil
}

// stop ends the engine and what it runs.
func (s *swarm) stop() error {
	if err := s.daemon.Process.Signal(unix.SIGTERM); err != nil {
		return fmt.Errorf("stop dockerd: %w", err)
	}
	var exit *exec.ExitError
	if err := s.daemon.Wait(); err != nil && !errors.As(err, &exit) {
		return fmt.Errorf("stop dockerd: %w", err)
	}
	return nil
}

// unmountBelow takes away the network namespaces that dockerd leaves mounted.
func unmountBelow(dir string) error {
	mounts, err := filepath.Glob(filepath.Join(dir, "exec", "netns", "*"))
	for _, m := range mounts {
		err = errors.Join(err, unix.Unmount(m, unix.MNT_DETACH))
	}
	return err
}

func (s *swarm) json(ctx context.Context, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	return s.call(ctx, http.MethodPost, path, bytes.NewReader(body), out)
}

func (s *swarm) call(ctx context.Context, method, path string, body io.Reader, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://docker"+path, body)
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return err
	case resp.StatusCode >= 300:
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, answer)
	case out == nil:
		return nil
	}
	return json.Unmarshal(answer, out)
}

// service makes a service and says how long it took from then until all its tasks
// ran. It looks for them again and again, for there is no event about tasks. It
// removes the service.
func (s *swarm) service(ctx context.Context, name string, replicas int) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var made struct{ ID string }
	container := map[string]any{"Image": swarmImage, "Command": podSpec().Containers[0].Command}
	err := s.json(ctx, "/services/create", map[string]any{
		"Name":         name,
		"TaskTemplate": map[string]any{"ContainerSpec": container},
		"Mode":         map[string]any{"Replicated": map[string]any{"Replicas": replicas}},
	}, &made)
	if err != nil {
		return 0, err
	}
	accepted := time.Now()
	var took time.Duration
	filters := url.QueryEscape(fmt.Sprintf(`{"service":[%q]}`, made.ID))
	for {
		var tasks []struct{ Status struct{ State string } }
		if err := s.call(ctx, http.MethodGet, "/tasks?filters="+filters, nil, &tasks); err != nil {
			return 0, err
		}
		took = time.Since(accepted)
		tasks = slices.DeleteFunc(tasks, func(t struct{ Status struct{ State string } }) bool { return t.Status.State != "running" })
		if len(tasks) == replicas {
			break
		}
		if err := rig.Wait(ctx, 5*time.Millisecond); err != nil {
			return 0, fmt.Errorf("%d of %d tasks run: %w", len(tasks), replicas, err)
		}
	}
	return took, s.call(ctx, http.MethodDelete, "/services/"+made.ID, nil, nil)
}
