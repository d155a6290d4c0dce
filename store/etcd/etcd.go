// Package etcd is the durable store engine: etcd v3, either embedded in this
// process (Embedded) or a cluster that runs elsewhere (External).
//
// The two differ in how a request gets to the server, and in how a watch comes
// back; the rest is shared and speaks etcd's own request types.
package etcd

import (
	"context"
	"errors"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	etcderrors "go.etcd.io/etcd/server/v3/etcdserver/errors"
	"go.etcd.io/etcd/server/v3/lease"
	"go.etcd.io/etcd/server/v3/storage/mvcc"

	"hansa.dev/hansa/store"
)

// requests is what an embedded server and a client's connection have in common.
type requests interface {
	Range(context.Context, *pb.RangeRequest) (*pb.RangeResponse, error)
	Txn(context.Context, *pb.TxnRequest) (*pb.TxnResponse, error)
	Compact(context.Context, *pb.CompactionRequest) (*pb.CompactionResponse, error)
	LeaseGrant(context.Context, *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error)
}

// shared is the part of the engine that is the same for both.
type shared struct{ requests requests }

// Range implements store.Engine.
func (e shared) Range(ctx context.Context, r store.RangeRequest) (store.RangeResponse, error) {
	req := &pb.RangeRequest{Key: []byte(r.Start), Revision: r.Revision, Limit: r.Limit, CountOnly: r.CountOnly}
	if r.End != "" {
		req.RangeEnd = []byte(r.End)
	}
	resp, err := e.requests.Range(ctx, req)
	if err != nil {
		return store.RangeResponse{}, translate(err)
	}
	out := store.RangeResponse{More: resp.More, Count: resp.Count, Revision: resp.Header.Revision, KVs: make([]store.KV, len(resp.Kvs))}
	for i, kv := range resp.Kvs {
		out.KVs[i] = keyValue(kv)
	}
	return out, nil
}

func keyValue(kv *mvccpb.KeyValue) store.KV {
	return store.KV{
		Key:            string(kv.Key),
		Value:          kv.Value,
		CreateRevision: kv.CreateRevision,
		ModRevision:    kv.ModRevision,
	}
}

// Txn implements store.Engine. Every step is a transaction nested in one that
// always succeeds; a step that fails reads what its conditions met.
func (e shared) Txn(ctx context.Context, steps []store.Step) (store.TxnResponse, error) {
	req := &pb.TxnRequest{Success: make([]*pb.RequestOp, len(steps))}
	for i, step := range steps {
		req.Success[i] = &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: nested(step)}}
	}
	resp, err := e.requests.Txn(ctx, req)
	if err != nil {
		return store.TxnResponse{}, translate(err)
	}
	out := store.TxnResponse{Revision: resp.Header.Revision, Steps: make([]store.StepResult, len(steps))}
	for i, r := range resp.Responses {
		txn := r.GetResponseTxn()
		out.Steps[i].OK = txn.Succeeded
		if txn.Succeeded {
			continue
		}
		for _, found := range txn.Responses {
			var kv store.KV
			if kvs := found.GetResponseRange().Kvs; len(kvs) > 0 {
				kv = keyValue(kvs[0])
			}
			out.Steps[i].Found = append(out.Steps[i].Found, kv)
		}
	}
	return out, nil
}

func nested(step store.Step) *pb.TxnRequest {
	txn := &pb.TxnRequest{}
	for _, c := range step.If {
		key := []byte(c.Key)
		cmp := &pb.Compare{
			Key:         key,
			Target:      pb.Compare_MOD,
			Result:      pb.Compare_EQUAL,
			TargetUnion: &pb.Compare_ModRevision{ModRevision: c.Revision},
		}
		if c.Create {
			cmp.Target = pb.Compare_CREATE
			cmp.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: c.Revision}
		}
		txn.Compare = append(txn.Compare, cmp)
		txn.Failure = append(txn.Failure, &pb.RequestOp{Request: &pb.RequestOp_RequestRange{
			RequestRange: &pb.RangeRequest{Key: key, KeysOnly: true},
		}})
	}
	for _, p := range step.Then {
		op := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{
			RequestPut: &pb.PutRequest{Key: []byte(p.Key), Value: p.Value, Lease: p.Lease},
		}}
		if p.Delete {
			op.Request = &pb.RequestOp_RequestDeleteRange{
				RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(p.Key)},
			}
		}
		txn.Success = append(txn.Success, op)
	}
	return txn
}

// Compact implements store.Engine.
func (e shared) Compact(ctx context.Context, revision int64) error {
	_, err := e.requests.Compact(ctx, &pb.CompactionRequest{Revision: revision})
	err = translate(err)
	var done *store.CompactedError
	if errors.As(err, &done) {
		return nil
	}
	return err
}

// Grant implements store.Engine. etcd makes very short times longer.
func (e shared) Grant(ctx context.Context, ttlSeconds int64) (int64, error) {
	resp, err := e.requests.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: ttlSeconds})
	if err != nil {
		return 0, translate(err)
	}
	return resp.ID, nil
}

// translate gives the engine's errors for etcd's, whichever way they came.
func translate(err error) error {
	if err == nil {
		return nil
	}
	remote := rpctypes.Error(err)
	is := func(targets ...error) bool {
		for _, t := range targets {
			if errors.Is(err, t) || errors.Is(remote, t) {
				return true
			}
		}
		return false
	}
	switch {
	case is(mvcc.ErrCompacted, rpctypes.ErrCompacted):
		return &store.CompactedError{}
	case is(mvcc.ErrFutureRev, rpctypes.ErrFutureRev):
		return store.ErrFutureRevision
	case is(etcderrors.ErrNoSpace, rpctypes.ErrNoSpace):
		return store.ErrNoSpace
	case is(etcderrors.ErrRequestTooLarge, rpctypes.ErrRequestTooLarge):
		return store.ErrTooLarge
	case is(lease.ErrLeaseNotFound, rpctypes.ErrLeaseNotFound):
		return store.ErrLeaseGone
	case is(etcderrors.ErrStopped, rpctypes.ErrStopped):
		return store.ErrClosed
	case is(context.DeadlineExceeded, context.Canceled,
		etcderrors.ErrTimeout, etcderrors.ErrCanceled, etcderrors.ErrLeaderChanged, etcderrors.ErrTimeoutWaitAppliedIndex,
		etcderrors.ErrTimeoutDueToLeaderFail, etcderrors.ErrTimeoutDueToConnectionLost,
		rpctypes.ErrTimeout, rpctypes.ErrLeaderChanged, rpctypes.ErrTimeoutDueToLeaderFail,
		rpctypes.ErrTimeoutDueToConnectionLost, rpctypes.ErrTimeoutWaitAppliedIndex):
		return errors.Join(store.ErrUnknownOutcome, err)
	}
	return err
}
