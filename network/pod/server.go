package pod

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

const (
	// requestTime bounds reading a request and, separately, carrying it out.
	requestTime = time.Minute
	// maxRequest bounds a request's size in bytes.
	maxRequest = 1 << 20
)

// server answers one request per connection on a unix socket that only root
// can open.
type server struct {
	path     string
	listener net.Listener
	handle   func(context.Context, *Request) Response
	clock    clock.Clock
	log      *slog.Logger
	done     chan struct{} // closed when serve has returned
}

func listen(c Config, handle func(context.Context, *Request) Response) (*server, error) {
	path := c.Socket
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make directory of CNI socket: %w", err)
	}
	// A socket that a killed process left; who runs the instance holds its lock.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove old CNI socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("open CNI socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("protect CNI socket: %w", err), l.Close())
	}
	return &server{path: path, listener: l, handle: handle, clock: c.Clock, log: c.Log, done: make(chan struct{})}, nil
}

// serve accepts connections until close, and waits for requests under way.
func (s *server) serve(ctx context.Context) {
	var requests sync.WaitGroup
	defer close(s.done)
	defer requests.Wait()
	for {
		c, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.log.Warn("cannot accept a CNI request", "error", err)
			select {
			case <-ctx.Done():
				return
			case <-s.clock.After(100 * time.Millisecond): // out of files, most likely
				continue
			}
		}
		requests.Add(1)
		go func() {
			defer requests.Done()
			defer c.Close()
			s.answer(ctx, c)
		}()
	}
}

func (s *server) answer(ctx context.Context, c net.Conn) {
	if err := c.SetDeadline(s.clock.Now().Add(requestTime)); err != nil {
		return
	}
	var q Request
	if err := json.NewDecoder(&limited{c, maxRequest}).Decode(&q); err != nil {
		reply(c, Response{Error: fail(codeDecode, "cannot decode request", "%v", err)})
		return
	}
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	a := s.handle(ctx, &q)
	if err := c.SetDeadline(s.clock.Now().Add(requestTime)); err != nil {
		return
	}
	reply(c, a)
}

// reply sends the answer. If nobody takes it, the runtime sees its plugin fail
// and asks again.
func reply(c net.Conn, a Response) { _ = json.NewEncoder(c).Encode(a) }

// close stops accepting and waits for requests under way.
func (s *server) close() error {
	err := s.listener.Close()
	<-s.done
	if err != nil {
		return fmt.Errorf("close CNI socket: %w", err)
	}
	return nil
}

// limited reads at most n bytes and then fails.
type limited struct {
	c net.Conn
	n int
}

func (l *limited) Read(p []byte) (int, error) {
	if l.n <= 0 {
		return 0, fmt.Errorf("request is longer than %d bytes", maxRequest)
	}
	n, err := l.c.Read(p[:min(len(p), l.n)])
	l.n -= n
	return n, err
}
