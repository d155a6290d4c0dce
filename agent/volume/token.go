package volume

import (
	"context"
	"fmt"
	"io/fs"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// maxTokenAge is after how long a token is renewed, however long it lives.
const maxTokenAge = 24 * time.Hour

// renewAt is when a token is due for renewal: at four fifths of its life, and
// after a day at the latest ("Service account token volume projection").
func renewAt(issued, expires time.Time) time.Time {
	return issued.Add(min(expires.Sub(issued)*4/5, maxTokenAge))
}

// token is one in use; it is kept so that a refresh for another reason asks for
// none. It is good from its issue until it expires. Its times are times of day, as
// those that whoever checks it goes by.
type token struct {
	value                string
	issued, renew, until time.Time
}

// due says that it is time for another one. A token from the future is one: the
// clock was set back, and nobody would take it.
func (t token) due(now time.Time) bool { return !now.Before(t.renew) || now.Before(t.issued) }

// addToken adds a token of the pod's service account. When it cannot be
// renewed, the old one serves until it expires.
func (m *Manager) addToken(ctx context.Context, out payload, p *v1.Pod, src *v1.ServiceAccountTokenProjection, mode fs.FileMode) (next time.Time, err error) {
	tok, err := m.token(ctx, p, src.Audience, "", ptr.Deref(src.ExpirationSeconds, hour))
	if err != nil {
		return time.Time{}, err
	}
	out[strings.TrimPrefix(src.Path, "/")] = privateFile(p, []byte(tok.value), mode)
	return tok.renew, nil
}

// hour is how long a token lives of which nothing is said, in seconds.
const hour = 3600

// PodToken is a token of the pod's service account for an audience, bound to the
// pod; the account has to be the one of that UID. It may be called from any
// goroutine.
func (m *Manager) PodToken(ctx context.Context, p *v1.Pod, audience string, account types.UID) (string, error) {
	tok, err := m.token(ctx, p, audience, account, hour)
	return tok.value, err
}

// token is the one in use, or a new one when it is due.
func (m *Manager) token(ctx context.Context, p *v1.Pod, audience string, account types.UID, seconds int64) (token, error) {
	key := fmt.Sprintf("%s\x00%s\x00%d", audience, account, seconds)
	now := m.Clock.Now().Round(0) // time of day, not time that passed
	tok := m.tokens.get(p.UID, key)
	if !tok.due(now) {
		return tok, nil
	}
	fresh, err := m.request(ctx, p, audience, account, seconds, now)
	switch {
	case err == nil:
		tok = fresh
	case now.Before(tok.until):
		tok.issued, tok.renew = now, now.Add(time.Minute)
	default:
		return token{}, fmt.Errorf("failed to fetch token: %w", err)
	}
	m.tokens.put(p.UID, key, tok)
	return tok, nil
}

func (m *Manager) request(ctx context.Context, p *v1.Pod, audience string, account types.UID, seconds int64, now time.Time) (token, error) {
	req := &authenticationv1.TokenRequest{ObjectMeta: metav1.ObjectMeta{UID: account}, Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &seconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: p.Name, UID: p.UID},
	}}
	if audience != "" {
		req.Spec.Audiences = []string{audience}
	}
	got, err := m.Objects.Token(ctx, p, req)
	if err != nil {
		return token{}, err
	}
	until := got.Status.ExpirationTimestamp.Time
	return token{value: got.Status.Token, issued: now, renew: renewAt(now, until), until: until}, nil
}
