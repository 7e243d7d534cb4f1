package engine

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/tunneld/tunneld/core/internal/config"
	"github.com/tunneld/tunneld/internal/follow"
	"github.com/tunneld/tunneld/internal/userfile"
)

// followed are the files that the daemon follows: those that file() has read in the
// bodies of upstreams and listeners, and with daemon.watch the configuration's own.
// Its goroutine handles the changes.
type followed struct {
	engine   *Engine
	follower follow.Follower
	wake     chan struct{} // of capacity 1
	cancel   context.CancelFunc
	done     chan struct{} // the goroutine has ended

	mu       sync.Mutex
	bodies   map[string]*followedBody // by block ID; changed with turn held
	dirty    map[string]bool          // block IDs
	ownDirty bool

	// own are the configuration's files, as the last try found them, and values those
	// that file() has read in its bodies, where it failed: what mends it may be written
	// there. All are touched with turn held alone.
	own, values map[string]userfile.Sum
	ownWatch    *follow.Watch // nil: they are not followed
}

// followedBody is a body of the configuration in force.
type followedBody struct {
	files   map[string]userfile.Sum
	watch   *follow.Watch
	problem string // why what the files hold now is not in force; empty where it is
}

func newFollowed(e *Engine) *followed {
	ctx, cancel := context.WithCancel(context.Background())
	f := &followed{
		engine: e,
		wake:   make(chan struct{}, 1),
		cancel: cancel,
		done:   make(chan struct{}),
		bodies: map[string]*followedBody{},
		dirty:  map[string]bool{},
	}
	go f.run(ctx)
	return f
}

// close ends the goroutine and waits for it: it changes the configuration no more.
func (f *followed) close() {
	f.cancel()
	<-f.done
}

// forget ends the following of all files. It comes after close, when nobody else changes
// the configuration any more.
func (f *followed) forget() {
	f.follow(nil)
	f.watch(attempt{}, false)
}

func (f *followed) run(ctx context.Context) {
	defer close(f.done)
	tried := map[string]bool{} // bodies that are to be tried again
	pause := leastRetry
	var retry <-chan time.Time // nil while there are none
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.wake:
			pause = leastRetry
		case <-retry:
			pause = min(2*pause, mostRetry)
		}
		f.mu.Lock()
		for id := range f.dirty {
			delete(tried, id)
		}
		bodies := slices.Sorted(maps.Keys(f.dirty))
		bodies = slices.AppendSeq(bodies, maps.Keys(tried))
		clear(f.dirty)
		own := f.ownDirty
		f.ownDirty = false
		f.mu.Unlock()
		if own {
			f.engine.reloadChanged(ctx)
		}
		if len(bodies) == 0 {
			continue
		}
		again := f.engine.reread(ctx, bodies, tried)
		clear(tried)
		retry = nil
		for _, id := range again {
			tried[id], retry = true, time.After(pause)
		}
	}
}

// leastRetry and mostRetry bound the pause before a body is tried again; it doubles.
const (
	leastRetry = time.Second
	mostRetry  = time.Minute
)

// mark notes that something has changed, and wakes the goroutine.
func (f *followed) mark(note func()) {
	f.mu.Lock()
	note()
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default: // it will wake anyway
	}
}

// follow makes the bodies of the configuration that is now in force those whose files
// are followed; nil: none. It is called with turn held.
func (f *followed) follow(cfg *config.Config) {
	wanted := map[string]map[string]userfile.Sum{}
	if cfg != nil {
		wanted = cfg.ValueFiles()
	}
	next, gone := map[string]*followedBody{}, []*follow.Watch(nil)
	for id, b := range f.bodies {
		if files, ok := wanted[id]; ok && maps.Equal(files, b.files) {
			next[id] = b
		} else if b.watch != nil {
			gone = append(gone, b.watch)
		}
	}
	for _, w := range gone {
		w.Stop()
	}
	for id, files := range wanted {
		if next[id] != nil {
			continue
		}
		watch, err := f.follower.Follow(filesOf(files), func() { f.mark(func() { f.dirty[id] = true }) })
		if err != nil {
			f.engine.log.Warn("the files of a block are not followed: a reload is needed when they change", named(id, "err", err)...)
		}
		next[id] = &followedBody{files: files, watch: watch}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bodies = next
}

// watch makes the configuration's own files, as the attempt found them, those that are
// followed, where the configuration in force wants that, and where it failed the files of
// its values, too; without a configuration: none. It is called with turn held.
func (f *followed) watch(a attempt, failed bool) {
	if f.ownWatch != nil {
		f.ownWatch.Stop()
		f.ownWatch = nil
	}
	if a.cfg == nil {
		return
	}
	f.own, f.values = a.cfg.Files(), nil
	if failed {
		f.values = valuesOf(a.cfg)
	}
	if !f.engine.current.Load().cfg.Daemon.Watch {
		return
	}
	files := append(filesOf(f.own), filesOf(f.values)...)
	path := f.engine.opts.ConfigPath
	if _, ok := f.own[path]; !ok { // a folder, or nothing that can be read
		files = append(files, follow.File{Path: path, Sum: a.names})
	}
	var err error
	if f.ownWatch, err = f.follower.Follow(files, func() { f.mark(func() { f.ownDirty = true }) }); err != nil {
		f.engine.log.Warn("the configuration is not followed: a reload is needed when it changes", "err", err)
	}
}

// knows says whether the last try was of the same files. It is called with turn held.
func (f *followed) knows(cfg *config.Config) bool {
	return maps.Equal(cfg.Files(), f.own) && (f.values == nil || maps.Equal(valuesOf(cfg), f.values))
}

// valuesOf are the files that file() has read in the bodies of a configuration.
func valuesOf(cfg *config.Config) map[string]userfile.Sum {
	all := map[string]userfile.Sum{}
	for _, read := range cfg.ValueFiles() {
		maps.Copy(all, read)
	}
	return all
}

func filesOf(sums map[string]userfile.Sum) (out []follow.File) {
	for path, sum := range sums {
		out = append(out, follow.File{Path: path, Sum: sum})
	}
	return out
}

// tell sets why what a body's files hold now is not in force, and returns what it was.
func (f *followed) tell(id, problem string) (before string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if b := f.bodies[id]; b != nil {
		before, b.problem = b.problem, problem
	}
	return before
}

// read notes that all bodies have been evaluated just now.
func (f *followed) read() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range f.bodies {
		b.problem = ""
	}
}

// problem is what tell has set last.
func (f *followed) problem(id string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if b := f.bodies[id]; b != nil {
		return b.problem
	}
	return ""
}
