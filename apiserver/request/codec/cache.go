package codec

import (
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"hansa.dev/hansa/api"
)

// cacheKey names one encoding of one frozen object. Holding the object keeps
// its address from being used again.
type cacheKey struct {
	obj   api.Object
	gv    schema.GroupVersion
	of    *api.Version
	media MediaType
}

// cache keeps the encodings that were used last, in two generations: when the
// young one is full it becomes the old one, and what was in the old one is
// forgotten. What is found in the old one moves to the young one.
//
// Invariant: size and oldSize are what young and old cost, each at most limit/2.
type cache struct {
	mu            sync.Mutex
	limit         int
	size, oldSize int
	young, old    map[cacheKey]Body
}

// entryOverhead is about what an entry costs beside its bytes.
const entryOverhead = 128

// maxShare is the part of the cache that one object may take: a larger one
// would push out too many.
const maxShare = 16

func newCache(limit int) *cache {
	return &cache{limit: limit, young: map[cacheKey]Body{}, old: map[cacheKey]Body{}}
}

func (c *cache) get(key cacheKey) (Body, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if body, ok := c.young[key]; ok {
		return body, true
	}
	body, ok := c.old[key]
	if ok {
		c.add(key, body)
	}
	return body, ok
}

func (c *cache) put(key cacheKey, body Body) {
	if len(body) > c.limit/maxShare {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.young[key]; !ok {
		c.add(key, body)
	}
}

func (c *cache) add(key cacheKey, body Body) {
	if c.size+len(body)+entryOverhead > c.limit/2 {
		c.old, c.young = c.young, c.old
		clear(c.young) // it keeps its room, which the next generation needs again
		c.oldSize, c.size = c.size, 0
	}
	c.young[key] = body
	c.size += len(body) + entryOverhead
}

// CacheBytes is about what the encodings remembered cost.
func (c *Codec) CacheBytes() int {
	c.cache.mu.Lock()
	defer c.cache.mu.Unlock()
	return c.cache.size + c.cache.oldSize
}

// Forget drops the encodings remembered: whoever asks again has them made again.
func (c *Codec) Forget() { c.cache.forget() }

func (c *cache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.young, c.old = map[cacheKey]Body{}, map[cacheKey]Body{}
	c.size, c.oldSize = 0, 0
}
