package control

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core/status"
	"github.com/tunneld/tunneld/internal/nettest"
)

// newServer returns a server that is closed when the test ends.
func newServer(t *testing.T, d Daemon) *Server {
	t.Helper()
	s := NewServer(d, slog.New(slog.DiscardHandler))
	t.Cleanup(s.Close)
	return s
}

func (s *Server) mustMove(t *testing.T, address string) {
	t.Helper()
	commit, _, err := s.Prepare(address)
	if err != nil {
		t.Fatal(err)
	}
	commit()
}

func answers(t *testing.T, path string) bool {
	t.Helper()
	_, err := (&Client{path: path}).Status(t.Context())
	return err == nil
}

// wantGone expects no file.
func wantGone(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is there (%v)", path, err)
	}
}

func TestServerMoves(t *testing.T) {
	s := newServer(t, &fake{})
	dir := nettest.SocketDir(t)
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	s.mustMove(t, "") // nowhere to nowhere
	s.mustMove(t, a)
	before, err := os.Lstat(a)
	if err != nil || !answers(t, a) {
		t.Fatalf("it is not served: %v", err)
	}

	// The same again is the same socket.
	s.mustMove(t, a)
	if after, err := os.Lstat(a); err != nil || !os.SameFile(before, after) || !answers(t, a) {
		t.Errorf("another one is served: %v", err)
	}

	// An undone move leaves nothing.
	_, undo, err := s.Prepare(b)
	if err != nil {
		t.Fatal(err)
	}
	if !answers(t, a) {
		t.Error("the old one does not answer before the commit")
	}
	undo()
	wantFiles(t, dir, "a")

	s.mustMove(t, b)
	wantFiles(t, dir, "b")
	if !answers(t, b) {
		t.Error("the new one does not answer")
	}

	// One that cannot be made changes nothing.
	if err := os.WriteFile(a, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Prepare(a); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("onto a file: %v", err)
	}
	if !answers(t, b) {
		t.Error("it does not answer after a failure")
	}

	// One that somebody removed is made again.
	if err := os.Remove(b); err != nil {
		t.Fatal(err)
	}
	s.mustMove(t, b)
	if !answers(t, b) {
		t.Error("it was not made again")
	}

	s.mustMove(t, "")
	wantGone(t, b)
	s.mustMove(t, b)
	for range 2 {
		s.Close()
	}
	wantGone(t, b)
	if _, _, err := s.Prepare(b); !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("after the end: %v", err)
	}
}

// TestReloadMovesItsOwnSocket: the client that asked gets its answer from the
// old one.
func TestReloadMovesItsOwnSocket(t *testing.T) {
	dir := nettest.SocketDir(t)
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	var s *Server
	s = newServer(t, &fake{reload: func(ctx context.Context) status.Reload {
		commit, _, err := s.Prepare(b)
		if err != nil {
			return status.Reload{Error: err.Error()}
		}
		commit()
		wantFiles(t, dir, "b")
		return status.Reload{Generation: 2}
	}})
	s.mustMove(t, a)
	if r, err := (&Client{path: a}).Reload(t.Context(), status.ReloadOptions{}); err != nil || r.Generation != 2 {
		t.Errorf("%+v, %v", r, err)
	}
	if !answers(t, b) {
		t.Error("the new one does not answer")
	}
}

// TestCloseEndsWhatIsUnderWay: on the socket and on one that was moved away from.
func TestCloseEndsWhatIsUnderWay(t *testing.T) {
	dir := nettest.SocketDir(t)
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	began, ended := make(chan struct{}), make(chan struct{})
	s := newServer(t, &fake{reload: func(ctx context.Context) status.Reload {
		began <- struct{}{}
		<-ctx.Done()
		ended <- struct{}{}
		return status.Reload{}
	}})
	told := make(chan error, 2)
	for _, path := range []string{a, b} {
		s.mustMove(t, path)
		go func() {
			_, err := (&Client{path: path}).Reload(t.Context(), status.ReloadOptions{})
			told <- err
		}()
		<-began
	}
	s.Close()
	wantFiles(t, dir)
	for range 2 {
		if err := <-told; err == nil || !strings.Contains(err.Error(), "ended before it answered") {
			t.Errorf("reload: %v", err)
		}
		select {
		case <-ended:
		case <-time.After(patience):
			t.Fatal("a reload goes on")
		}
	}
}

// TestPreparedWhenClosed: a commit that comes too late leaves no socket.
func TestPreparedWhenClosed(t *testing.T) {
	dir := nettest.SocketDir(t)
	s := newServer(t, &fake{})
	commit, _, err := s.Prepare(filepath.Join(dir, "c"))
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	commit()
	wantFiles(t, dir)
}
