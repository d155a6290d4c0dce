package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
)

// Engine keeps raw keys and values with one revision that grows by one with
// every transaction that changes something, as etcd does. There are two:
// store/etcd and store/memory; storetest.Run is what both must pass. All
// methods may be called from any goroutine.
type Engine interface {
	// Range reads keys in byte order, as of now or of an earlier revision.
	Range(ctx context.Context, r RangeRequest) (RangeResponse, error)

	// Txn does all steps in one transaction. All conditions of all steps are
	// compared first, against the state before the transaction; then the steps
	// whose conditions hold are written, in order. No two steps may write the
	// same key, and none may write what another one compares.
	Txn(ctx context.Context, steps []Step) (TxnResponse, error)

	// Watch streams every change of every key from a revision on (that one
	// included). With prev, events carry the value that was replaced. The
	// stream ends with the context, or when closed.
	Watch(ctx context.Context, from int64, prev bool) (Stream, error)

	// CurrentRevision is linearizable: it is at least the revision of every
	// write that was answered, by anybody, before the call. Concurrent callers
	// share the work.
	CurrentRevision(ctx context.Context) (int64, error)

	// Compact forgets the history before a revision. Compacting what is
	// compacted already is no error.
	Compact(ctx context.Context, revision int64) error

	// Grant makes a lease. Keys written with it are deleted when it ends.
	Grant(ctx context.Context, ttlSeconds int64) (lease int64, err error)

	Status(ctx context.Context) (Status, error)

	// Close ends all streams. For a local engine everything acknowledged is on
	// disk already.
	Close() error
}

// KV is a key with its value.
type KV struct {
	Key            string
	Value          []byte // not to be written to
	CreateRevision int64
	ModRevision    int64
	// Stale says that the value is not kept as it would be written now: its next
	// write has to be carried out even if it changes nothing.
	Stale bool
}

// Outdater is an Engine that may come to keep values in another way while it
// runs. Then values that it has given out before are stale though they did not
// say so.
type Outdater interface {
	// Outdated is the revision up to which the value of a key may not be kept as
	// it would be written now; 0 is none.
	Outdated(key string) int64
}

// RangeRequest asks for [Start, End), or for Start alone when End is empty.
type RangeRequest struct {
	Start, End string
	Revision   int64 // 0: now, linearizable
	Limit      int64 // 0: all
	CountOnly  bool  // answer Count and no keys
}

// RangeResponse answers a RangeRequest. Revision is the engine's at the time;
// Count is how many keys there are in the range, whatever the limit.
type RangeResponse struct {
	KVs      []KV
	More     bool
	Count    int64
	Revision int64
}

// Pages reads what r asks for, r.Limit keys at a time and all as of one revision:
// r's, or that of the first page. An error is the last there is.
func Pages(ctx context.Context, e Engine, r RangeRequest) iter.Seq2[RangeResponse, error] {
	return pages(ctx, e, r, func(RangeResponse) int64 { return r.Limit })
}

// PagesBySize is Pages with a limit that follows from the page before, so that a
// page has about size bytes where values are alike: for a range of many keys, all
// the rest of which etcd goes through for each page, to count them. A limit grows
// to twice the last, and to maxPage, at most: values may become larger.
func PagesBySize(ctx context.Context, e Engine, r RangeRequest, size int64) iter.Seq2[RangeResponse, error] {
	return pages(ctx, e, r, func(last RangeResponse) int64 {
		n, had := int64(len(last.KVs)), int64(1)
		for _, kv := range last.KVs {
			had += int64(len(kv.Value))
		}
		return max(min(n*size/had, 2*n, maxPage), 1)
	})
}

const maxPage = 4000

func pages(ctx context.Context, e Engine, r RangeRequest, next func(last RangeResponse) (limit int64)) iter.Seq2[RangeResponse, error] {
	return func(yield func(RangeResponse, error) bool) {
		r := r
		for {
			resp, err := e.Range(ctx, r)
			if !yield(resp, err) || err != nil || !resp.More {
				return
			}
			r.Start = resp.KVs[len(resp.KVs)-1].Key + "\x00"
			r.Limit = next(resp)
			if r.Revision == 0 {
				r.Revision = resp.Revision
			}
		}
	}
}

// Step is one guarded write of a transaction.
type Step struct {
	If   []Condition
	Then []Put
}

// Condition holds when the key has that modification revision (0: absent), or
// with Create that create revision.
type Condition struct {
	Key      string
	Revision int64
	Create   bool
}

// Put writes a key, or deletes it.
type Put struct {
	Key    string
	Value  []byte
	Lease  int64
	Delete bool
}

// TxnResponse answers a transaction.
type TxnResponse struct {
	// Revision is that of the transaction, or of the state it met if nothing
	// was written.
	Revision int64
	Steps    []StepResult
}

// StepResult says whether a step was written; if not, Found has what its
// conditions met, in their order, without values (and without Key where the
// key is absent).
type StepResult struct {
	OK    bool
	Found []KV
}

// Stream is a running watch, for one goroutine.
type Stream interface {
	// Next blocks for events. Events of one revision come in one batch and in
	// the order of writing. The error is a *CompactedError if history needed
	// is gone; any other may be answered by watching again from where the
	// stream ended.
	Next(ctx context.Context) ([]RawEvent, error)
	Close()
}

// RawEvent is a change of one key. Of a deletion only Key and ModRevision (the
// revision of the deletion) are set.
type RawEvent struct {
	KV
	Delete bool
	Prev   *KV
}

// Status of an engine. Quota 0 means that there is none or that it is unknown.
type Status struct {
	DBSize int64 // bytes of the file
	InUse  int64 // bytes of it that hold data
	Quota  int64 // bytes
}

// CompactedError says that a revision is no longer in the history.
type CompactedError struct {
	Compacted int64 // the oldest revision that can be read, if known
}

func (e *CompactedError) Error() string {
	return fmt.Sprintf("history is compacted up to revision %d", e.Compacted)
}

// ValueError says that the value of a key is there and cannot be made sense of.
// Trying again does not mend it.
type ValueError struct {
	Key string
	Err error
}

func (e *ValueError) Error() string { return fmt.Sprintf("the value of %s: %v", e.Key, e.Err) }
func (e *ValueError) Unwrap() error { return e.Err }

// Errors of engines.
var (
	ErrNoSpace        = errors.New("the database has reached its space quota")
	ErrTooLarge       = errors.New("the transaction is too large")
	ErrClosed         = errors.New("the engine is closed")
	ErrFutureRevision = errors.New("the revision is in the future")
	// ErrLeaseGone: a transaction was refused because a lease in it has ended.
	ErrLeaseGone = errors.New("the lease has ended")
	// ErrUnknownOutcome: the transaction may or may not have happened.
	ErrUnknownOutcome = errors.New("no answer in time; the write may have happened")
)
