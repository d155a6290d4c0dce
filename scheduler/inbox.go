package scheduler

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"hansa.dev/hansa/api"
)

// inbox collects, from any goroutine, what the scheduler's own is to look at.
type inbox struct {
	wake chan struct{} // has a value when there is something

	mu        sync.Mutex
	noted     map[change]bool
	changes   []change // in the order of their first note
	results   []result
	questions []func()
}

// change names an object that is not what it was.
type change struct {
	resource *api.Resource
	key      api.Key
}

// result is what became of a binding, or of evictions.
type result struct {
	key     api.Key
	uid     types.UID
	node    string
	evicted bool
	err     error
}

func (b *inbox) init() {
	b.wake = make(chan struct{}, 1)
	b.noted = map[change]bool{}
}

func (b *inbox) note(r *api.Resource, key api.Key) {
	b.put(func() {
		if c := (change{r, key}); !b.noted[c] {
			b.noted[c] = true
			b.changes = append(b.changes, c)
		}
	})
}

func (b *inbox) answer(r result) { b.put(func() { b.results = append(b.results, r) }) }

func (b *inbox) ask(f func()) { b.put(func() { b.questions = append(b.questions, f) }) }

func (b *inbox) put(f func()) {
	b.mu.Lock()
	f()
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// take empties the inbox.
func (b *inbox) take() ([]change, []result, []func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c, r, q := b.changes, b.results, b.questions
	b.changes, b.results, b.questions = nil, nil, nil
	if len(c) > 0 {
		b.noted = map[change]bool{} // a cleared map would stay as large as it ever was
	}
	return c, r, q
}
