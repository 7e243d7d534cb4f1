package engine

import "sync"

// registry is what outlives generations, by what it was made from. The zero value is empty.
type registry[K comparable, V interface{ Stop() }] struct {
	mu    sync.Mutex
	byKey map[K]V
}

func (r *registry[K, V]) get(key K) (v V, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v, ok = r.byKey[key]
	return v, ok
}

func (r *registry[K, V]) put(key K, v V) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byKey == nil {
		r.byKey = map[K]V{}
	}
	r.byKey[key] = v
}

// retain stops what is not used any more; nil: all. It is called with turn held.
func (r *registry[K, V]) retain(used map[K]bool) {
	r.mu.Lock()
	var gone []V
	for key, v := range r.byKey {
		if !used[key] {
			delete(r.byKey, key)
			gone = append(gone, v)
		}
	}
	r.mu.Unlock()
	for _, v := range gone {
		v.Stop() // it waits for a call, which takes mu
	}
}
