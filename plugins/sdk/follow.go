package sdk

import (
	"log/slog"
	"strings"
	"sync"

	"github.com/tunneld/tunneld/internal/follow"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// Follow calls read, which reads what the paths hold, and returns its error. If there is
// none, read is called again each time that a file has changed, until the upstream is
// closed; a folder counts with its names and the files directly in it. A change counts
// once the files have been still for a second. If read then fails, it is to leave what it
// made before in use: its error, which must show no secret, is logged, and
// "tunneld status" and the metric tunneld_upstream_file_problem report it until a call
// succeeds. Calls come one at a time; none is under way once the upstream's Close is
// called.
//
// The files of a tls block need none of this.
func (e *Env) Follow(read func() error, paths ...string) error {
	if e.follows == nil {
		return read() // of an Env that an author's test made
	}
	return e.follows.add(read, paths)
}

// follows are the files that an upstream follows by itself, while it is in use.
type follows struct {
	follower *follow.Follower
	log      *slog.Logger
	changed  func() // what state returns may have changed

	quit    chan struct{}
	running sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	problems map[*followed]string // why what the files hold now is not in use
}

// followed are the files of one call of Follow.
type followed struct {
	paths []string
	read  func() error
}

func newFollows(by *follow.Follower, log *slog.Logger, changed func()) *follows {
	return &follows{follower: by, log: log, changed: changed, quit: make(chan struct{}), problems: map[*followed]string{}}
}

func (f *follows) add(read func() error, paths []string) error {
	files := follow.Look(paths...) // before they are read: what changes in between is a change
	if err := read(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.running.Go(func() { f.run(&followed{paths, read}, files) })
	}
	return nil
}

// run follows the files anew after each change, since other files may be in a folder.
func (f *follows) run(w *followed, files []follow.File) {
	log := f.log.With("files", strings.Join(w.paths, ", "))
	for {
		wake := make(chan struct{}, 1)
		watch, err := f.follower.Follow(files, func() {
			select {
			case wake <- struct{}{}:
			default: // it will wake anyway
			}
		})
		if err != nil {
			log.Warn("files are not followed: what they hold now stays in use", "err", err)
			return
		}
		select {
		case <-f.quit:
			watch.Stop()
			return
		case <-wake:
			watch.Stop()
		}
		files = follow.Look(w.paths...)
		if err := w.read(); err != nil {
			log.Warn("files have changed and cannot be used: what they held before stays in use", "err", err)
			f.tell(w, err.Error())
		} else {
			log.Info("files have changed, and are in use")
			f.tell(w, "")
		}
	}
}

func (f *follows) tell(w *followed, problem string) {
	f.mu.Lock()
	delete(f.problems, w)
	if problem != "" {
		f.problems[w] = problem
	}
	f.mu.Unlock()
	f.changed()
}

// state adds to an upstream's state what is known of the files.
func (f *follows) state(to *pluginv1.UpstreamStatus) {
	f.mu.Lock()
	defer f.mu.Unlock()
	addProblems(to, f.problems)
}

// close ends the following.
func (f *follows) close() {
	f.mu.Lock()
	if !f.closed {
		f.closed = true
		close(f.quit)
	}
	f.mu.Unlock()
	f.running.Wait()
}
