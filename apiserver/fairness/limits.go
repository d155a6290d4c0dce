package fairness

import "context"

// Limits are the plain ones: so many requests that read and so many that write
// at once. The members of system:masters are served also beyond them.
type Limits struct {
	reading, writing chan struct{}
}

var _ Limiter = (*Limits)(nil)

// NewLimits makes limits; zero stands for none.
func NewLimits(reading, writing int) *Limits {
	seats := func(n int) chan struct{} {
		if n == 0 {
			return nil
		}
		return make(chan struct{}, n)
	}
	return &Limits{seats(reading), seats(writing)}
}

// Serve serves the request or refuses it at once.
func (l *Limits) Serve(_ context.Context, r Request) Verdict {
	seats := l.reading
	if r.Mutating() {
		seats = l.writing
	}
	if seats == nil {
		r.Serve()
		return Verdict{}
	}
	select {
	case seats <- struct{}{}:
		defer func() { <-seats }()
	default:
		if !privileged(r.User()) {
			return Verdict{Refused: true, RetryAfter: 1}
		}
	}
	r.Serve()
	return Verdict{}
}

// Begin lets every watch through: the plain limits are about requests that end.
func (l *Limits) Begin(context.Context, Request) (started, ended func(), v Verdict) {
	return func() {}, func() {}, Verdict{}
}
