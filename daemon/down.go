package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/utils/clock"

	"hansa.dev/hansa/agent"
	"hansa.dev/hansa/agent/cgroup"
	"hansa.dev/hansa/network/pod"
	"hansa.dev/hansa/network/proxy"
	"hansa.dev/hansa/runtime/containerd"
)

// Down stops everything that a data directory started, the daemon too, and
// removes its traces from the host. With purge it removes the data as well. It
// may be repeated.
func Down(ctx context.Context, c Config, purge bool) error {
	if os.Geteuid() != 0 {
		return errors.New("hansa down needs root: use sudo")
	}
	if err := c.instance().mustExist(); err != nil {
		return err
	}
	held, err := stopDaemon(ctx, c.instance())
	if err != nil || held == nil {
		return err
	}
	if err := clearHost(ctx, c); err != nil {
		return errors.Join(err, held.release())
	}
	if purge {
		if err := os.RemoveAll(c.DataDir); err != nil {
			return fmt.Errorf("remove data directory: %w", err)
		}
	}
	return held.release()
}

// clearHost removes everything that an instance made on the host. It goes on
// after errors, so that a second try has less to do.
func clearHost(ctx context.Context, c Config) error {
	i := c.instance()
	errs := []error{
		containerd.Down(ctx, containerdConfig(c, ""), clock.RealClock{}),
		proxy.NewLinux(i.id).Teardown(),
		pod.Teardown(pod.Config{Instance: i.id, Dir: i.attachedDir(), Socket: i.cniSocket()}),
	}
	layout, err := cgroup.Detect("/sys/fs/cgroup")
	if err == nil {
		err = agent.Cleanup(c.DataDir, layout, i.cgroup())
	}
	errs = append(errs, err, removeResults(i))
	if err := os.Remove(filepath.Dir(i.runDir())); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
		errs = append(errs, fmt.Errorf("remove runtime directory: %w", err))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := os.Remove(i.ledgerFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("close ledger: %w", err)
	}
	return nil
}

// lookAgain is how often down looks whether a daemon has ended.
const lookAgain = 50 * time.Millisecond

// stopDaemon asks a running daemon to end and takes the lock, or waits for
// another down that has it. It answers with no lock when the data directory
// has gone meanwhile.
func stopDaemon(ctx context.Context, i instance) (*lock, error) {
	again := time.NewTicker(lookAgain)
	defer again.Stop()
	for asked := 0; ; {
		held, err := takeDownLock(i)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		var used errInUse
		if !errors.As(err, &used) {
			return held, err
		}
		if used.pid != 0 && used.pid != asked {
			if err := unix.Kill(used.pid, unix.SIGTERM); err != nil && !errors.Is(err, unix.ESRCH) {
				return nil, fmt.Errorf("stop hansa (process %d): %w", used.pid, err)
			}
			asked = used.pid
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for hansa (process %d) to stop: %w", used.pid, ctx.Err())
		}
	}
}
