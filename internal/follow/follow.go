// Package follow reports when files that a user named have changed: in place, by
// replacement, by the swap of a symbolic link as in Kubernetes, removed, or back. A
// change counts once the files have been still for a second.
//
// On Linux inotify says when to look; on file systems without events, such as those of
// a network, and on other systems it looks every second. Only the content counts: a
// touched file has not changed. The package keeps no contents, and the caller decides
// what to do about a change.
package follow

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tunneld/tunneld/internal/userfile"
)

const (
	// defaultSettle is for how long files have to be still. A certificate and its key
	// are written one after the other.
	defaultSettle = time.Second
	// pollEvery is how often files are looked at of which no event tells.
	pollEvery = time.Second
	// checkEvery is how often all are looked at whatever the events tell: a folder
	// further up may have been replaced, or mounted over.
	checkEvery = 10 * time.Second
	// calm is how long an event waits for others: a folder may hold a busy log, too.
	calm = 100 * time.Millisecond
	// maxFiles bounds what one Follower looks at.
	maxFiles = 4096
	// maxSize bounds a file, in bytes; a larger one counts as one that cannot be read.
	maxSize = 4 << 20
	// maxNames bounds a folder.
	maxNames = 4096
	// leaveAfter is for how long Stop waits for what a file system holds up.
	leaveAfter = time.Second
)

// Follower follows files. The zero Follower is ready for use. It has a goroutine as
// long as it has a Watch.
type Follower struct {
	// Settle is for how long files have to be still; zero: a second. It is not
	// changed once there is a Watch.
	Settle time.Duration
	// polls: there are no events, as on a system that has none. leave, if it is not 0,
	// stands for leaveAfter, and look, if it is not nil, for stampOf. They are the tests'.
	polls bool
	leave time.Duration
	look  func(path string) userfile.Stamp

	mu      sync.Mutex
	watches map[*Watch]struct{}
	files   int
	wake    chan struct{} // of capacity 1: there is a new Watch
	cancel  context.CancelFunc
	done    chan struct{} // the goroutine has ended
}

// File is a file to follow. For a folder, the names in it are its content.
type File struct {
	// Path is absolute, or starts from the working directory.
	Path string
	// Sum is that of the content that the caller knows; the zero Sum stands for
	// none. A folder's is that of FolderSum.
	Sum userfile.Sum
}

// Watch is a set of files that are followed together.
type Watch struct {
	follower *Follower
	changed  func()
	files    int
	set      set // the goroutine's alone

	calling chan struct{} // of capacity 1: full while there is a call
	stopped atomic.Bool
}

// Follow calls changed when at least one of the files holds something else than
// its Sum says, and then each time that their contents are others than at the last
// call. The calls come one at a time from a goroutine that serves the Follower's other
// Watches, too: they should be short, and must not call Stop. A failure says that there
// are too many files.
func (f *Follower) Follow(files []File, changed func()) (*Watch, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.files+len(files) > maxFiles {
		return nil, fmt.Errorf("more than %d files cannot be followed", maxFiles)
	}
	f.files += len(files)
	w := &Watch{follower: f, changed: changed, files: len(files), set: newSet(files), calling: make(chan struct{}, 1)}
	if f.look != nil {
		w.set.stamp = f.look
	}
	if f.cancel == nil {
		var ctx context.Context
		ctx, f.cancel = context.WithCancel(context.Background())
		f.watches = map[*Watch]struct{}{}
		f.wake = make(chan struct{}, 1)
		f.done = make(chan struct{})
		go f.run(ctx, f.wake, f.done)
	}
	f.watches[w] = struct{}{}
	select {
	case f.wake <- struct{}{}:
	default: // it will wake anyway
	}
	return w, nil
}

// Stop ends the Watch: no call comes after it. It waits for one that is under way, and the
// last Watch's for the goroutine; but for no more than a second, since a network's file
// system may hold either up for as long as it likes. What is left then is left: see run.
// Stop may be called more than once.
func (w *Watch) Stop() {
	f := w.follower
	f.mu.Lock()
	var ended chan struct{}
	if _, ours := f.watches[w]; ours {
		delete(f.watches, w)
		f.files -= w.files
		if len(f.watches) == 0 {
			f.cancel()
			f.cancel = nil
			ended = f.done
		}
	}
	f.mu.Unlock()
	w.stopped.Store(true)
	enough := time.NewTimer(cmp.Or(f.leave, leaveAfter))
	defer enough.Stop()
	select {
	case w.calling <- struct{}{}:
		<-w.calling
	case <-enough.C:
		return
	}
	if ended == nil {
		return
	}
	select {
	case <-ended:
	case <-enough.C:
	}
}

// call calls changed, unless the Watch has been stopped.
func (w *Watch) call() {
	w.calling <- struct{}{}
	defer func() { <-w.calling }()
	if !w.stopped.Load() {
		w.changed()
	}
}

// run is the goroutine. Its owner is the Follower, whose last Watch ends it and waits for
// it. Where it hangs in a file system, which nothing can break off, it is left behind: it
// has no Watch any more and calls nobody, and ends when the file system answers, or with
// the process.
func (f *Follower) run(ctx context.Context, wake <-chan struct{}, done chan<- struct{}) {
	defer close(done)
	var events events
	if !f.polls {
		events = newEvents()
		defer events.close()
	}
	settle := f.Settle
	if settle == 0 {
		settle = defaultSettle
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	next := time.Now() // when the timer ends
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
			next = time.Now()
		case <-events.c:
			if soon := time.Now().Add(calm); soon.Before(next) {
				next = soon
			}
		case <-timer.C:
			var over bool
			if next, over = f.lookAtAll(ctx, &events, settle); over {
				return
			}
		}
		timer.Reset(time.Until(next))
	}
}

// lookAtAll looks at all files, calls those whose have changed, and says when to look
// again; over: not any more.
func (f *Follower) lookAtAll(ctx context.Context, events *events, settle time.Duration) (next time.Time, over bool) {
	f.mu.Lock()
	if ctx.Err() != nil { // what is followed now is another goroutine's
		f.mu.Unlock()
		return time.Time{}, true
	}
	watches := make([]*Watch, 0, len(f.watches))
	for w := range f.watches {
		watches = append(watches, w)
	}
	f.mu.Unlock()
	// First the events, then the files, so that a change in between is seen.
	folders := map[string]bool{}
	for _, w := range watches {
		w.set.folders(folders)
	}
	pause := pollEvery
	if events.watch(folders) {
		pause = checkEvery
	}
	now := time.Now()
	next = now.Add(pause)
	for _, w := range watches {
		changed, again := w.set.look(now, settle)
		if !again.IsZero() && again.Before(next) {
			next = again
		}
		if changed {
			w.call()
		}
	}
	return next, false
}
