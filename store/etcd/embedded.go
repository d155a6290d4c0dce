package etcd

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/config"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/features"
	"go.etcd.io/etcd/server/v3/storage/mvcc"

	"hansa.dev/hansa/store"
)

// DefaultQuota is how much data an embedded server takes by default, in bytes.
const DefaultQuota = 8 << 30

// Options of Embedded.
type Options struct {
	// Dir is where etcd keeps its files. It is made, readable by its owner
	// alone, if it does not exist.
	Dir string
	// Quota in bytes; 0 is DefaultQuota. What counts is the space in use.
	Quota int64
	// Logger is slog.Default when nil. etcd's warnings are logged at level
	// debug, its errors as they are.
	Logger *slog.Logger
}

// Settings of the embedded server. Since a transaction holds many writes, the
// log is cut after fewer entries than usual. In memory raft holds those that are
// left for others to catch up, of whom there are none, and up to a hundred more.
// The election timeout serves to notice that others are dead: the only member
// has it as short as raft allows, since it is most of the time that a start takes
// (100 to 200 ms). Shorter ticks would make that less, and cost a quarter percent
// of a core each time they are halved. Files of the log that are no longer needed
// are read by each start all the same, 64 MiB each, so few are kept.
const (
	member           = "hansa"
	snapshotEntries  = 1000
	catchUpEntries   = 50
	tickMilliseconds = 100
	electionTicks    = 2
	maxRequestBytes  = 4 << 20
	maxTxnOps        = 128
	keptFiles        = 2
	slowApply        = 100 * time.Millisecond
	slowRequest      = 300 * time.Millisecond
)

// Embedded is an etcd server in this process with one member and no listener:
// nobody else can reach it, or change its membership.
type Embedded struct {
	shared
	server *etcdserver.EtcdServer
	quota  int64
	once   sync.Once
	closed chan struct{}
}

// Start starts a server on a directory and returns when it serves.
func Start(ctx context.Context, opts Options) (*Embedded, error) {
	if opts.Quota == 0 {
		opts.Quota = DefaultQuota
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	if err := os.MkdirAll(opts.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	cfg, err := serverConfig(opts)
	if err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	server, err := etcdserver.NewServer(cfg)
	if err != nil {
		return nil, fmt.Errorf("start etcd in %s: %w", opts.Dir, err)
	}
	server.Start()
	e := &Embedded{server: server, quota: opts.Quota, closed: make(chan struct{})}
	e.shared = shared{metered{server, opts.Quota}}
	select {
	case <-server.ReadyNotify():
		return e, nil
	case <-server.StopNotify():
		return nil, fmt.Errorf("start etcd in %s: it stopped by itself", opts.Dir)
	case <-ctx.Done():
		server.HardStop()
		return nil, fmt.Errorf("start etcd in %s: %w", opts.Dir, ctx.Err())
	}
}

func serverConfig(opts Options) (config.ServerConfig, error) {
	// Members are known by a peer address even if, as here, it is never used.
	peer, err := types.NewURLs([]string{"http://127.0.0.1:2380"})
	if err != nil {
		return config.ServerConfig{}, err
	}
	client := types.URLs{url.URL{Scheme: "unix", Path: filepath.Join(opts.Dir, "none")}}
	logger := zapTo(opts.Logger)
	return config.ServerConfig{
		Name:                   member,
		DataDir:                opts.Dir,
		PeerURLs:               peer,
		ClientURLs:             client,
		InitialPeerURLsMap:     types.URLsMap{member: peer},
		InitialClusterToken:    member,
		NewCluster:             true,
		SnapshotCount:          snapshotEntries,
		SnapshotCatchUpEntries: catchUpEntries,
		MaxSnapFiles:           keptFiles,
		MaxWALFiles:            keptFiles,
		TickMs:                 tickMilliseconds,
		ElectionTicks:          electionTicks,
		PreVote:                true,
		MaxTxnOps:              maxTxnOps,
		MaxRequestBytes:        maxRequestBytes,
		// etcd's own quota counts free pages as used, and refuses a write only
		// after doing it. metered refuses before.
		QuotaBackendBytes:           -1,
		BackendFreelistType:         bolt.FreelistMapType,
		StrictReconfigCheck:         true,
		WarningApplyDuration:        slowApply,
		WarningUnaryRequestDuration: slowRequest,
		BcryptCost:                  10, // of passwords, which nobody has here
		V2Deprecation:               config.V2DeprDefault,
		ServerFeatureGate:           features.NewDefaultServerFeatureGate(member, logger),
		Logger:                      logger,
	}, nil
}

// metered refuses writes that would go over the quota. Deletions pass.
type metered struct {
	*etcdserver.EtcdServer
	quota int64
}

// spaceOfKey is about what a key takes beyond its name and value.
const spaceOfKey = 256

func (m metered) Txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	cost := int64(0)
	for _, step := range r.Success {
		for _, op := range step.GetRequestTxn().GetSuccess() {
			if put := op.GetRequestPut(); put != nil {
				cost += spaceOfKey + int64(len(put.Key)+len(put.Value))
			}
		}
	}
	if cost > 0 && m.Backend().SizeInUse()+cost > m.quota {
		return nil, store.ErrNoSpace
	}
	return m.EtcdServer.Txn(ctx, r)
}

// CurrentRevision implements store.Engine. A single member answers a write only
// after it has applied it, so what is applied includes all that was answered:
// there is nobody to agree with.
func (e *Embedded) CurrentRevision(ctx context.Context) (int64, error) {
	select {
	case <-e.closed:
		return 0, store.ErrClosed
	default:
		return e.server.KV().Rev(), ctx.Err()
	}
}

// Status implements store.Engine.
func (e *Embedded) Status(ctx context.Context) (store.Status, error) {
	be := e.server.Backend()
	return store.Status{DBSize: be.Size(), InUse: be.SizeInUse(), Quota: e.quota}, ctx.Err()
}

// Close implements store.Engine.
func (e *Embedded) Close() error {
	e.once.Do(func() {
		close(e.closed)
		e.server.HardStop()
	})
	return nil
}

// Watch implements store.Engine.
func (e *Embedded) Watch(ctx context.Context, from int64, prev bool) (store.Stream, error) {
	s := &localStream{engine: e, watch: e.server.Watchable().NewWatchStream(), prev: prev, closed: make(chan struct{})}
	// From the first possible key to the last.
	if _, err := s.watch.Watch(ctx, 0, []byte{0}, []byte{}, from); err != nil {
		s.watch.Close()
		return nil, fmt.Errorf("watch from revision %d: %w", from, translate(err))
	}
	s.release = context.AfterFunc(ctx, s.Close)
	return s, nil
}

// localStream reads the server's own watch channel.
type localStream struct {
	engine  *Embedded
	watch   mvcc.WatchStream
	prev    bool
	release func() bool
	once    sync.Once
	closed  chan struct{}
}

// enough is when a batch is full: what is there already is taken together.
const enough = 1000

// Next implements store.Stream.
func (s *localStream) Next(ctx context.Context) ([]store.RawEvent, error) {
	var events []store.RawEvent
	for {
		var resp mvcc.WatchResponse
		var ok bool
		if len(events) == 0 {
			select {
			case resp, ok = <-s.watch.Chan():
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-s.closed:
				return nil, store.ErrClosed
			case <-s.engine.server.StoppingNotify():
				return nil, store.ErrClosed
			}
		} else {
			select {
			case resp, ok = <-s.watch.Chan():
			default:
				return events, nil
			}
		}
		switch {
		case !ok:
			return nil, store.ErrClosed
		case resp.CompactRevision != 0:
			return nil, &store.CompactedError{Compacted: resp.CompactRevision}
		}
		for _, ev := range resp.Events {
			raw, err := s.event(ctx, ev)
			if err != nil {
				return nil, err
			}
			events = append(events, raw)
		}
		if len(events) >= enough {
			return events, nil
		}
	}
}

func (s *localStream) event(ctx context.Context, ev *mvccpb.Event) (store.RawEvent, error) {
	raw := store.RawEvent{KV: keyValue(ev.Kv), Delete: ev.Type == mvccpb.Event_DELETE}
	if !s.prev || ev.Kv.CreateRevision == ev.Kv.ModRevision {
		return raw, nil
	}
	before, err := s.engine.server.KV().Range(ctx, ev.Kv.Key, nil, mvcc.RangeOptions{Rev: ev.Kv.ModRevision - 1})
	if err != nil {
		return raw, fmt.Errorf("read what %s was before revision %d: %w", ev.Kv.Key, ev.Kv.ModRevision, translate(err))
	}
	if len(before.KVs) > 0 {
		kv := keyValue(before.KVs[0])
		raw.Prev = &kv
	}
	return raw, nil
}

// Close implements store.Stream.
func (s *localStream) Close() {
	s.once.Do(func() {
		close(s.closed)
		s.watch.Close()
	})
}
