package sdk

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/follow"
	"github.com/tunneld/tunneld/plugins/sdk/internal/serve"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// lettered is an upstream that reads a folder of letters.
type lettered struct {
	noDial `tunneld:"-"`
	Folder string `tunneld:"folder" path:"folder"`

	read   chan string
	closed bool
}

// Start begins to follow the folder.
func (l *lettered) Start(env *Env) error {
	l.read = make(chan string, 99)
	return env.Follow(func() error {
		var all string
		names, err := filepath.Glob(filepath.Join(l.Folder, "*"))
		if err != nil || len(names) == 0 {
			return errors.Join(err, errors.New("no letter in the folder"))
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			all += string(text)
		}
		l.read <- all
		return nil
	}, l.Folder)
}

// Close is called once no read is under way.
func (l *lettered) Close() error { l.closed = true; return nil }

func letter(t *testing.T, folder, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestFilesOfAnUpstreamAreFollowed: one that is added counts with its later contents, too,
// and what cannot be used is told in log and state until it can.
func TestFilesOfAnUpstreamAreFollowed(t *testing.T) {
	folder := t.TempDir()
	letter(t, folder, "a", "A")
	s := &started{t: t, reports: make(chan *pluginv1.UpstreamStatus, 99), log: make(chan string, 99)}
	i, l := newLettered(t, folder)
	err := i.Start(serve.Env{Upstream: "x", Log: slog.New(slog.NewTextHandler(s, nil)), Report: func(st *pluginv1.UpstreamStatus) { s.reports <- st }})
	if err != nil {
		t.Fatal(err)
	}
	reads := func(want string) {
		t.Helper()
		s.await(func(st *pluginv1.UpstreamStatus) bool { return st.GetFileProblem() == "" })
		if got := <-l.read; got != want {
			t.Errorf("it read %q, want %q", got, want)
		}
		s.logged("INFO", "files have changed, and are in use", folder)
	}
	if got := <-l.read; got != "A" {
		t.Errorf("at first it read %q", got)
	}
	letter(t, folder, "b", "B")
	reads("AB")
	letter(t, folder, "b", "C")
	reads("AC")
	for _, name := range []string{"a", "b"} {
		if err := os.Remove(filepath.Join(folder, name)); err != nil {
			t.Fatal(err)
		}
	}
	s.await(func(st *pluginv1.UpstreamStatus) bool { return st.GetFileProblem() == "no letter in the folder" })
	s.logged("WARN", "files have changed and cannot be used", folder, "no letter")
	letter(t, folder, "a", "D")
	reads("D")
	if err := i.Close(); err != nil || !l.closed {
		t.Errorf("close: %v", err)
	}
	letter(t, folder, "a", "E")
	if len(l.read) > 0 {
		t.Errorf("after Close it reads %q", <-l.read)
	}
}

// newLettered returns an upstream of the folder that has not started.
func newLettered(t *testing.T, folder string) (*instance, *lettered) {
	t.Helper()
	built, err := Plugin{Name: "lettered", Version: "1", New: func() Dialer { return new(lettered) }}.build()
	if err != nil {
		t.Fatal(err)
	}
	i := built.New().(*instance)
	i.follower = &follow.Follower{Settle: 10 * time.Millisecond}
	l := i.dialer.(*lettered)
	l.Folder = folder
	return i, l
}

// TestFollowOfAnUpstreamThatDoesNotStart leaves nothing that follows.
func TestFollowOfAnUpstreamThatDoesNotStart(t *testing.T) {
	i, _ := newLettered(t, t.TempDir())
	err := i.Start(serve.Env{Log: slog.New(slog.DiscardHandler), Report: func(*pluginv1.UpstreamStatus) {}})
	if err == nil || !strings.Contains(err.Error(), "no letter") {
		t.Errorf("start: %v", err)
	}
}

// TestFollowOfAnAuthorsTest reads once.
func TestFollowOfAnAuthorsTest(t *testing.T) {
	read := 0
	if err := new(Env).Follow(func() error { read++; return context.Canceled }, "/nowhere"); !errors.Is(err, context.Canceled) || read != 1 {
		t.Errorf("%d reads, %v", read, err)
	}
}
