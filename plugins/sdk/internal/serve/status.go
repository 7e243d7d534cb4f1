package serve

import (
	"cmp"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// statusBoard holds the newest state of each instance and tells those who
// watch. A report costs a lock and no wait; a slow watcher misses states, never
// the last one.
type statusBoard struct {
	mu       sync.Mutex
	entries  map[*instance]*statusEntry
	watchers map[*watcher]struct{}
}

type statusEntry struct {
	latest *pluginv1.UpstreamStatus
	// published is false until the generation that brought the instance is
	// whole: nobody has heard of the upstream before.
	published bool
}

type watcher struct {
	changed map[*instance]struct{}
	wake    chan struct{} // capacity 1
}

// add makes room for the reports of an instance.
func (b *statusBoard) add(i *instance) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.entries == nil {
		b.entries = make(map[*instance]*statusEntry)
		b.watchers = make(map[*watcher]struct{})
	}
	b.entries[i] = &statusEntry{latest: &pluginv1.UpstreamStatus{
		Name:       i.key.name,
		ConfigHash: i.key.hash,
		Health:     pluginv1.Health_HEALTH_UNKNOWN,
	}}
}

// publish shows the instance to the watchers.
func (b *statusBoard) publish(i *instance) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.entries[i]; e != nil {
		e.published = true
		b.tell(i)
	}
}

// remove forgets the instance; later reports of it are dropped.
func (b *statusBoard) remove(i *instance) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.entries, i)
}

// report replaces the instance's state.
func (b *statusBoard) report(i *instance, st *pluginv1.UpstreamStatus) {
	st.Name, st.ConfigHash = i.key.name, i.key.hash
	st.Message = clean(st.GetMessage())
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entries[i]
	if e == nil || proto.Equal(e.latest, st) {
		return
	}
	e.latest = st
	if e.published {
		b.tell(i)
	}
}

// tell is called with mu held.
func (b *statusBoard) tell(i *instance) {
	for w := range b.watchers {
		w.changed[i] = struct{}{}
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// watch registers a watcher for which everything has changed.
func (b *statusBoard) watch() *watcher {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := &watcher{changed: make(map[*instance]struct{}), wake: make(chan struct{}, 1)}
	for i := range b.entries {
		w.changed[i] = struct{}{}
	}
	if b.watchers == nil {
		b.entries = make(map[*instance]*statusEntry)
		b.watchers = make(map[*watcher]struct{})
	}
	b.watchers[w] = struct{}{}
	return w
}

func (b *statusBoard) unwatch(w *watcher) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.watchers, w)
}

// take returns what has changed for w since the last call, by name. A state is
// replaced and never written to, so that it can be sent without a copy.
func (b *statusBoard) take(w *watcher) []*pluginv1.UpstreamStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []*pluginv1.UpstreamStatus
	for i := range w.changed {
		if e := b.entries[i]; e != nil && e.published {
			out = append(out, e.latest)
		}
	}
	clear(w.changed)
	slices.SortFunc(out, func(x, y *pluginv1.UpstreamStatus) int {
		return cmp.Or(cmp.Compare(x.GetName(), y.GetName()), cmp.Compare(x.GetConfigHash(), y.GetConfigHash()))
	})
	return out
}

// WatchStatus streams the states: all of them first, also where there are
// none, then what changes.
func (s *Server) WatchStatus(_ *pluginv1.WatchStatusRequest, stream grpc.ServerStreamingServer[pluginv1.WatchStatusResponse]) error {
	w := s.status.watch()
	defer s.status.unwatch(w)
	first := true
	for {
		if ups := s.status.take(w); first || len(ups) > 0 {
			if err := stream.Send(&pluginv1.WatchStatusResponse{Upstreams: ups}); err != nil {
				return err
			}
			first = false
		}
		select {
		case <-w.wake:
		case <-stream.Context().Done():
			return nil
		case <-s.ctx.Done():
			return errStopping
		}
	}
}
