package volume

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"
)

// kept is what is remembered of pods while their volumes are there: values by
// pod and key. It may be asked from any goroutine.
type kept[T any] struct {
	mu    sync.Mutex
	byPod map[types.UID]map[string]T
}

func newKept[T any]() *kept[T] { return &kept[T]{byPod: map[types.UID]map[string]T{}} }

// get is zero for what is not known.
func (k *kept[T]) get(uid types.UID, key string) T {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.byPod[uid][key]
}

func (k *kept[T]) put(uid types.UID, key string, value T) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.byPod[uid] == nil {
		k.byPod[uid] = map[string]T{}
	}
	k.byPod[uid][key] = value
}

func (k *kept[T]) forget(uid types.UID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.byPod, uid)
}

// all goes through the values, which are not to be changed meanwhile.
func (k *kept[T]) all(yield func(T) bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, values := range k.byPod {
		for _, v := range values {
			if !yield(v) {
				return
			}
		}
	}
}
