package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"hansa.dev/hansa/bench/internal/rig"
)

// The sorts of floods. Of the first one each connection creates, gets a list of
// a hundred and deletes in turn.
var floodSorts = []string{"mixed", "lists", "creates", "watches"}

// floodVariable is set, to the data directory of the cluster, for the process
// that floods; the sort and the token are its arguments.
const floodVariable = "HANSA_BENCH_FLOOD"

// startFlooders starts a process that floods. stop ends it and says how many
// requests were answered and refused.
func startFlooders(dir, sort, token string) (stop func() (answered, refused int64, err error), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, sort, token)
	cmd.Env = append(os.Environ(), floodVariable+"="+dir)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() (answered, refused int64, err error) {
		err = cmd.Process.Signal(unix.SIGTERM)
		_, scanErr := fmt.Fscan(out, &answered, &refused)
		return answered, refused, errors.Join(err, scanErr, cmd.Wait())
	}, nil
}

// floodMain is the main function of the process that floods, until SIGTERM.
func floodMain(dir, sort, token string) {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	target, err := (&rig.Cluster{Dir: dir}).Target()
	if err == nil {
		target.TLS.Certificates, target.TLS.GetClientCertificate = nil, nil
		target.Token = token
		f := &flooding{target: target, sort: sort}
		err = f.run(ctx)
		fmt.Println(f.answered.Load(), f.refused.Load())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "flood:", err)
		os.Exit(1)
	}
}

type flooding struct {
	target            rig.Target
	sort              string
	answered, refused atomic.Int64
}

func (f *flooding) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	for i := range flooders {
		c := f.target.Connect()
		defer c.Close()
		all.Go(func() {
			if err := f.rush(ctx, c, i); err != nil {
				cancel(err)
			}
		})
	}
	all.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// rush asks for one thing after the other until the context ends.
func (f *flooding) rush(ctx context.Context, c *rig.Client, who int) error {
	for i := 0; ctx.Err() == nil; i++ {
		err := f.ask(ctx, c, who, i)
		switch {
		case err == nil:
			f.answered.Add(1)
		case rig.IsRefusal(err, http.StatusTooManyRequests):
			f.refused.Add(1)
		case ctx.Err() == nil && !rig.IsRefusal(err, http.StatusNotFound):
			return err
		}
	}
	return nil
}

func (f *flooding) ask(ctx context.Context, c *rig.Client, who, i int) error {
	path, listed := configMaps.collection(floodNamespace), configMaps.collection(floodListed)
	create := func(name string) error {
		_, err := c.Discard(ctx, http.MethodPost, path, rig.JSON, fmt.Appendf(nil, `{"metadata":{"name":"%s"},"data":{"payload":"%s"}}`, name, payload))
		return err
	}
	get := func(path string) error {
		_, err := c.Discard(ctx, http.MethodGet, path, "", nil)
		return err
	}
	switch f.sort {
	case "lists":
		return get(listed)
	case "creates":
		return create(fmt.Sprintf("only-%d-%d", who, i))
	case "watches":
		return firstOf(ctx, c, listed) // the client goes when it has seen the first
	}
	name := fmt.Sprintf("cm-%d-%d", who, i/3)
	switch i % 3 {
	case 0:
		return create(name)
	case 1:
		return get(path + "?limit=100")
	}
	_, err := c.Discard(ctx, http.MethodDelete, path+"/"+name, "", nil)
	return err
}
