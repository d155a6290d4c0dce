package dns

import (
	"container/list"
	"sync"
	"time"

	mdns "github.com/miekg/dns"
)

// How long answers of upstream servers are kept at most, by kind. A failure is
// kept for the least time that RFC 9520 allows.
const (
	maxPositive = time.Hour
	maxNegative = 5 * time.Minute
	failure     = time.Second
)

// A cacheKey is what an upstream's answer depends on.
type cacheKey struct {
	name  string // lower case
	qtype uint16
	do    bool // DNSSEC records were asked for
	cd    bool // checking was disabled
}

// cache keeps the most recently used answers. It may be used concurrently.
// Messages in it are not written to.
type cache struct {
	mu    sync.Mutex
	max   int
	order *list.List // of *cached, the latest used first
	items map[cacheKey]*list.Element
}

type cached struct {
	key        cacheKey
	msg        *mdns.Msg
	stored, to time.Time
}

func newCache(max int) *cache {
	return &cache{max: max, order: list.New(), items: map[cacheKey]*list.Element{}}
}

// get returns an answer of its own with the time that passed taken off.
func (c *cache) get(k cacheKey, now time.Time) *mdns.Msg {
	c.mu.Lock()
	e := c.items[k]
	if e == nil {
		c.mu.Unlock()
		return nil
	}
	item := e.Value.(*cached)
	if !now.Before(item.to) {
		c.order.Remove(e)
		delete(c.items, k)
		c.mu.Unlock()
		return nil
	}
	c.order.MoveToFront(e)
	c.mu.Unlock()
	m := item.msg.Copy()
	age := uint32(now.Sub(item.stored) / time.Second)
	for _, section := range [][]mdns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			if h := rr.Header(); h.Ttl > age {
				h.Ttl -= age
			} else {
				h.Ttl = 0
			}
		}
	}
	return m
}

// put keeps an answer for as long as it allows; m is the cache's from now on.
func (c *cache) put(k cacheKey, m *mdns.Msg, now time.Time) {
	life := lifetime(m)
	if life <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.items[k]; e != nil {
		c.order.Remove(e)
	}
	c.items[k] = c.order.PushFront(&cached{key: k, msg: m, stored: now, to: now.Add(life)})
	for len(c.items) > c.max {
		last := c.order.Back()
		c.order.Remove(last)
		delete(c.items, last.Value.(*cached).key)
	}
}

// lifetime is how long an answer may be kept (RFC 2308, section 5, for answers
// that say no); 0 is not at all.
func lifetime(m *mdns.Msg) time.Duration {
	if m.Truncated {
		return 0
	}
	switch m.Rcode {
	case mdns.RcodeServerFailure:
		return failure
	case mdns.RcodeSuccess, mdns.RcodeNameError:
	default:
		return 0
	}
	if m.Rcode == mdns.RcodeNameError || !answers(m) {
		for _, rr := range m.Ns {
			if soa, ok := rr.(*mdns.SOA); ok {
				return min(time.Duration(min(soa.Hdr.Ttl, soa.Minttl))*time.Second, maxNegative)
			}
		}
		return 0
	}
	life := maxPositive
	for _, section := range [][]mdns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			life = min(life, time.Duration(rr.Header().Ttl)*time.Second)
		}
	}
	return life
}

// answers reports whether an answer has what was asked for, or at least where
// to look further.
func answers(m *mdns.Msg) bool {
	if len(m.Question) == 0 {
		return len(m.Answer) > 0
	}
	t := m.Question[0].Qtype
	for _, rr := range m.Answer {
		if got := rr.Header().Rrtype; got == t || t == mdns.TypeANY {
			return true
		}
	}
	return false
}
