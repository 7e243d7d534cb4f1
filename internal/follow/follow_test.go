package follow

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tunneld/tunneld/internal/userfile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// soon is a Follower that need not be waited for long.
func soon(polls bool) *Follower { return &Follower{Settle: 10 * time.Millisecond, polls: polls} }

func called(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(30 * time.Second):
		t.Fatal("the change was not told")
	}
}

func TestFollower(t *testing.T) {
	for _, polls := range []bool{false, true} {
		t.Run(fmt.Sprintf("polls %v", polls), func(t *testing.T) {
			t.Parallel()
			f := soon(polls)
			path := filepath.Join(t.TempDir(), "f")
			write(t, path, "one")
			changes := make(chan struct{}, 9)
			w, err := f.Follow([]File{{path, sumOf("zero")}}, func() { changes <- struct{}{} })
			if err != nil {
				t.Fatal(err)
			}
			called(t, changes)
			replace(t, path, "two")
			called(t, changes)
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			called(t, changes)
			write(t, path, "three")
			called(t, changes)
			w.Stop()
			w.Stop()
			// One that was stopped, and another after the last.
			other := make(chan struct{}, 9)
			w, err = f.Follow([]File{{path, sumOf("one")}}, func() { other <- struct{}{} })
			if err != nil {
				t.Fatal(err)
			}
			defer w.Stop()
			called(t, other)
			if len(changes) > 0 {
				t.Error("a Watch that was stopped is called")
			}
		})
	}
}

// TestCallsComeOneAtATime, also those of several Watches; Stop waits for them.
func TestCallsComeOneAtATime(t *testing.T) {
	f := soon(true)
	f.leave = time.Hour
	path := filepath.Join(t.TempDir(), "f")
	write(t, path, "one")
	var inside atomic.Int32
	began := make(chan struct{}, 9)
	release := make(chan struct{})
	var watches []*Watch
	for range 3 {
		w, err := f.Follow([]File{{Path: path}}, func() {
			if inside.Add(1) > 1 {
				t.Error("two calls at once")
			}
			began <- struct{}{}
			<-release
			inside.Add(-1)
		})
		if err != nil {
			t.Fatal(err)
		}
		watches = append(watches, w)
	}
	called(t, began)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for _, w := range watches {
			w.Stop()
		}
		if inside.Load() != 0 {
			t.Error("Stop has not waited for a call")
		}
	}()
	close(release)
	<-stopped
}

// hung is a file system that does not answer until it is mended.
type hung struct {
	asked  chan struct{} // of capacity 1
	mended chan struct{}
}

func newHung(t *testing.T) hung {
	h := hung{make(chan struct{}, 1), make(chan struct{})}
	t.Cleanup(func() { close(h.mended) })
	return h
}

func (h hung) answer() {
	select {
	case h.asked <- struct{}{}:
	default:
	}
	<-h.mended
}

// TestStopLeavesALookThatHangs: Stop returns, the Watch is not called any more, and the
// Follower goes on with others.
func TestStopLeavesALookThatHangs(t *testing.T) {
	h := newHung(t)
	dir := t.TempDir()
	f := soon(true)
	f.leave = time.Millisecond
	f.look = func(path string) userfile.Stamp {
		if filepath.Base(path) == "hangs" {
			h.answer()
		}
		return stampOf(path)
	}
	w, err := f.Follow([]File{{Path: filepath.Join(dir, "hangs")}}, func() { t.Error("it is called") })
	if err != nil {
		t.Fatal(err)
	}
	called(t, h.asked)
	w.Stop()
	w.Stop()
	path := filepath.Join(dir, "f")
	write(t, path, "one")
	changes := make(chan struct{}, 9)
	if w, err = f.Follow([]File{{Path: path}}, func() { changes <- struct{}{} }); err != nil {
		t.Fatal(err)
	}
	f.leave = time.Hour // its own goroutine does not hang
	called(t, changes)
	w.Stop()
}

// TestStopLeavesACallThatHangs: a call may read the files, too.
func TestStopLeavesACallThatHangs(t *testing.T) {
	h := newHung(t)
	path := filepath.Join(t.TempDir(), "f")
	write(t, path, "one")
	f := soon(true)
	f.leave = time.Millisecond
	w, err := f.Follow([]File{{Path: path}}, h.answer)
	if err != nil {
		t.Fatal(err)
	}
	called(t, h.asked)
	w.Stop()
}

func TestTooManyFiles(t *testing.T) {
	f := soon(true)
	if _, err := f.Follow(make([]File, maxFiles+1), func() {}); err == nil || !strings.Contains(err.Error(), "more than 4096 files") {
		t.Errorf("%v", err)
	}
	path := filepath.Join(t.TempDir(), "f")
	all := make([]File, maxFiles)
	for i := range all {
		all[i].Path = path
	}
	w, err := f.Follow(all, func() {})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Follow(all[:1], func() {}); err == nil {
		t.Error("one more is followed")
	}
	w.Stop()
	if w, err = f.Follow(all, func() {}); err != nil {
		t.Fatalf("after the first were stopped: %v", err)
	}
	w.Stop()
}
