// Package fairness bounds how many requests are served at once, and says whose
// turn it is. Its semantics are those of the apiserver library's flow control:
// FlowSchemas sort requests into flows of a priority level, levels share the
// server's seats, lend and borrow them, and flows of a level take turns. Limits
// is what holds without it.
//
// It knows nothing of answers: what a refusal looks like is package http's.
package fairness

import (
	"context"
	"net/url"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/user"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
)

// Limiter lets requests through when it is their turn. Its methods may be
// called from any goroutine.
type Limiter interface {
	// Serve has the request served when it is its turn, within the call, or
	// refuses it.
	Serve(ctx context.Context, r Request) Verdict
	// Begin is the turn of a watch, which takes a seat only until it has told of
	// what there was when it began: started gives the seat back, and ended says
	// that nobody watches any more. Both are to be called, in this order, unless
	// the watch is refused; then they are nil.
	Begin(ctx context.Context, r Request) (started, ended func(), v Verdict)
}

// Request is what is asked of a Limiter.
type Request interface {
	User() user.Info
	// Meaning is the request as FlowSchemas see it. The caller owns it. It is not
	// asked for when it does not matter.
	Meaning() *apirequest.RequestInfo
	// URL has the query, by which lists are estimated.
	URL() *url.URL
	// Mutating says which of the two plain limits counts.
	Mutating() bool
	// Patience is how long the request may wait for its turn.
	Patience() time.Duration
	// Classified tells where the request belongs, if that is known, before it is
	// served or refused.
	Classified(Class)
	// Serve answers the request. It is called at most once, and not for watches.
	Serve()
}

// Class is what a request was sorted into.
type Class struct {
	SchemaUID, LevelUID types.UID
}

// Verdict is how a request fared.
type Verdict struct {
	// Refused says that there are too many requests.
	Refused bool
	// RetryAfter is in how many seconds a refused client should try again.
	RetryAfter int64
}

// privileged says whether somebody is a member of system:masters, whose
// requests are always served.
func privileged(u user.Info) bool {
	return slices.Contains(u.GetGroups(), user.SystemPrivilegedGroup)
}
