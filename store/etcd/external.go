package etcd

import (
	"context"
	"crypto/tls"
	"fmt"
	"math"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"hansa.dev/hansa/store"
)

// ExternalOptions of Connect.
type ExternalOptions struct {
	Endpoints []string
	TLS       *tls.Config // nil: without
	// Quota that the cluster was started with, in bytes; 0: what the cluster
	// itself says.
	Quota int64
}

// External is an etcd cluster that runs elsewhere.
type External struct {
	shared
	client *clientv3.Client
	quota  int64
	newest sharedRead
	once   sync.Once
}

// Connect makes a client and checks that the cluster answers.
func Connect(ctx context.Context, opts ExternalOptions) (*External, error) {
	client, err := clientv3.New(clientv3.Config{
		Endpoints:            opts.Endpoints,
		TLS:                  opts.TLS,
		DialTimeout:          5 * time.Second,
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 5 * time.Second,
		Logger:               zap.NewNop(),
	})
	if err != nil {
		return nil, fmt.Errorf("connect to etcd at %v: %w", opts.Endpoints, err)
	}
	e := &External{client: client, quota: opts.Quota}
	e.shared = shared{remote{clientv3.RetryKVClient(client), clientv3.RetryLeaseClient(client)}}
	e.newest.read = func(ctx context.Context) (int64, error) {
		resp, err := e.requests.Range(ctx, &pb.RangeRequest{Key: []byte{0}, CountOnly: true})
		if err != nil {
			return 0, translate(err)
		}
		return resp.Header.Revision, nil
	}
	if _, err := e.CurrentRevision(ctx); err != nil {
		return nil, fmt.Errorf("connect to etcd at %v: %w", opts.Endpoints, err)
	}
	return e, nil
}

// anySize lets answers be as long as pages of objects are.
var anySize = grpc.MaxCallRecvMsgSize(math.MaxInt32)

// remote makes requests of a client's connection.
type remote struct {
	kv    pb.KVClient
	lease pb.LeaseClient
}

func (r remote) Range(ctx context.Context, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	return r.kv.Range(ctx, req, anySize)
}

func (r remote) Txn(ctx context.Context, req *pb.TxnRequest) (*pb.TxnResponse, error) {
	return r.kv.Txn(ctx, req, anySize)
}

func (r remote) Compact(ctx context.Context, req *pb.CompactionRequest) (*pb.CompactionResponse, error) {
	return r.kv.Compact(ctx, req, anySize)
}

func (r remote) LeaseGrant(ctx context.Context, req *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	return r.lease.LeaseGrant(ctx, req)
}

// CurrentRevision implements store.Engine.
func (e *External) CurrentRevision(ctx context.Context) (int64, error) { return e.newest.get(ctx) }

// Status implements store.Engine.
func (e *External) Status(ctx context.Context) (store.Status, error) {
	endpoints := e.client.Endpoints()
	if len(endpoints) == 0 {
		return store.Status{}, fmt.Errorf("no etcd endpoints")
	}
	resp, err := e.client.Status(ctx, endpoints[0])
	if err != nil {
		return store.Status{}, translate(err)
	}
	s := store.Status{DBSize: resp.DbSize, InUse: resp.DbSizeInUse, Quota: e.quota}
	if s.Quota == 0 {
		s.Quota = resp.DbSizeQuota
	}
	return s, nil
}

// Close implements store.Engine.
func (e *External) Close() (err error) {
	e.once.Do(func() { err = e.client.Close() })
	if err != nil {
		return fmt.Errorf("disconnect from etcd: %w", err)
	}
	return nil
}

// Watch implements store.Engine. It fails, rather than being silent, while the
// server that it is connected to has no leader.
func (e *External) Watch(ctx context.Context, from int64, prev bool) (store.Stream, error) {
	life, end := context.WithCancel(clientv3.WithRequireLeader(ctx))
	opts := []clientv3.OpOption{clientv3.WithFromKey(), clientv3.WithRev(from)}
	if prev {
		opts = append(opts, clientv3.WithPrevKV())
	}
	return &remoteStream{events: e.client.Watch(life, "\x00", opts...), end: end, closed: e.client.Ctx().Done()}, nil
}

type remoteStream struct {
	events clientv3.WatchChan
	end    context.CancelFunc
	closed <-chan struct{}
}

// Next implements store.Stream.
func (s *remoteStream) Next(ctx context.Context) ([]store.RawEvent, error) {
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.closed:
			return nil, store.ErrClosed
		case resp, ok := <-s.events:
			switch {
			case !ok:
				return nil, store.ErrClosed
			case resp.CompactRevision != 0:
				return nil, &store.CompactedError{Compacted: resp.CompactRevision}
			case resp.Err() != nil:
				return nil, fmt.Errorf("watch etcd: %w", resp.Err())
			case len(resp.Events) == 0:
				continue
			}
			events := make([]store.RawEvent, len(resp.Events))
			for i, ev := range resp.Events {
				events[i] = store.RawEvent{KV: keyValue(ev.Kv), Delete: ev.Type == clientv3.EventTypeDelete}
				if ev.PrevKv != nil {
					kv := keyValue(ev.PrevKv)
					events[i].Prev = &kv
				}
			}
			return events, nil
		}
	}
}

// Close implements store.Stream.
func (s *remoteStream) Close() { s.end() }

// sharedRead lets concurrent callers share a read. Nobody shares one that began
// before the call: that would not be linearizable.
type sharedRead struct {
	read func(context.Context) (int64, error)

	mu      sync.Mutex
	running bool
	next    *sharedCall
}

type sharedCall struct {
	done  chan struct{}
	value int64
	err   error
}

// readTimeout bounds a shared read, which has no caller of its own.
const readTimeout = 10 * time.Second

func (r *sharedRead) get(ctx context.Context) (int64, error) {
	r.mu.Lock()
	if r.next == nil {
		r.next = &sharedCall{done: make(chan struct{})}
	}
	call := r.next
	if !r.running {
		r.running = true
		go r.run()
	}
	r.mu.Unlock()
	select {
	case <-call.done:
		return call.value, call.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (r *sharedRead) run() {
	for {
		r.mu.Lock()
		call := r.next
		r.next = nil
		r.running = call != nil
		r.mu.Unlock()
		if call == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
		call.value, call.err = r.read(ctx)
		cancel()
		close(call.done)
	}
}
