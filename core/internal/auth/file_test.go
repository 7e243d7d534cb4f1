package auth

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tunneld/tunneld/internal/follow"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestFileIsFollowed: what it holds counts, and nothing that it held: also where it is
// broken, or gone.
func TestFileIsFollowed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	r := NewGuard().Realm(NewOptions(nil, path))
	changes := make(chan State, 9)
	if err := r.Follow(&follow.Follower{Settle: 10 * time.Millisecond}, func() { changes <- r.State() }); err != nil {
		t.Fatal(err)
	}
	defer r.Stop()
	// becomes waits for a state; a file that is written in place may be seen empty before.
	becomes := func(users int, problem string) {
		t.Helper()
		late := time.After(30 * time.Second)
		for {
			s := r.State()
			if s.File == path && s.Users == users && strings.Contains(s.Text(), problem) && (problem == "") == (s.Text() == "") {
				return
			}
			select {
			case <-changes:
			case <-late:
				t.Fatalf("state %+v, want %d users and %q", s, users, problem)
			}
		}
	}
	right := func(user, password string) bool {
		t.Helper()
		ok, err := r.check(t.Context(), user, password) // which has no delay
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}

	becomes(0, path+": no such file or directory: none of its users can log in")
	write(t, path, "alice:"+ofAlice+"\n")
	becomes(1, "")
	if !right("alice", "p w") || right("alice", "geheim") {
		t.Error("the first content is not in use")
	}
	write(t, path, "alice:"+ofGrace+"\ngrace:"+ofGrace+"\n")
	becomes(2, "")
	if right("alice", "p w") || !right("alice", "geheim") || !right("grace", "geheim") {
		t.Error("a changed password is not in use")
	}
	write(t, path, "alice:"+ofMD5+"\ngrace:"+ofGrace)
	becomes(1, path+", line 1: its hash is MD5")
	if right("alice", "geheim") || !right("grace", "geheim") {
		t.Error("a line that is broken is not skipped alone")
	}
	write(t, path, "")
	becomes(0, "it has no user who can log in")
	if right("grace", "geheim") {
		t.Error("an empty file lets somebody in")
	}
	// As editors do it.
	write(t, path+".new", "alice:"+ofAlice)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	becomes(1, "")
	if !right("alice", "p w") {
		t.Error("a file that is mended is not in use")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	becomes(0, "no such file or directory")
	if right("alice", "p w") {
		t.Error("a file that is gone lets somebody in")
	}
	r.Stop()
}

// TestChangedBeforeFollow: what was changed since the Options were made is seen.
func TestChangedBeforeFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	write(t, path, "alice:"+ofGrace)
	r := NewGuard().Realm(NewOptions(nil, path))
	write(t, path, "alice:"+ofAlice)
	changes := make(chan struct{}, 9)
	if err := r.Follow(&follow.Follower{Settle: 10 * time.Millisecond}, func() { changes <- struct{}{} }); err != nil {
		t.Fatal(err)
	}
	defer r.Stop()
	select {
	case <-changes:
	case <-time.After(30 * time.Second):
		t.Fatal("the change was not told")
	}
	wants(t, r, from(1), "alice", "p w", true)
}

// TestWithoutAFile: there is nothing to follow.
func TestWithoutAFile(t *testing.T) {
	r := NewGuard().Realm(NewOptions(map[string]string{"alice": "a"}, ""))
	if err := r.Follow(&follow.Follower{}, func() {}); err != nil {
		t.Fatal(err)
	}
	if s := r.State(); s.File != "" || s.Text() != "" {
		t.Errorf("%+v", s)
	}
	r.Stop()
}
