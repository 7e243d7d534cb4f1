package tlsconf

import (
	"bytes"
	"crypto/tls"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// lines are those of a key log, in any order.
func lines(b []byte) []string {
	all := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	slices.Sort(all)
	return all
}

// TestKeyLog: the file holds, of each connection, what the server's own log does, also where
// the server would resume a session.
func TestKeyLog(t *testing.T) {
	t.Setenv(KeyLogEnv, "1")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "keys.log")
			var servers bytes.Buffer
			server := strictServer(t, newAuthority(t), "far.example", version)
			server.ClientAuth, server.KeyLogWriter = tls.NoClientCert, &servers
			c := NewClient(ClientOptions{InsecureSkipVerify: true, KeyLogFile: file})
			followed(t, c)
			for range 2 {
				if s, err := meet(t, c.must(t, "far.example"), server); err != nil || s.client.DidResume {
					t.Fatalf("resumed %v, %v", s.client.DidResume, err)
				}
			}
			got, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if want := lines(servers.Bytes()); len(want) < 2 || !slices.Equal(lines(got), want) {
				t.Errorf("%d lines, want %d: %s", len(lines(got)), len(want), got)
			}
			if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%v, %v", info.Mode(), err)
			}
		})
	}
}

// TestKeyLogIsAskedForTwice: nothing is written by the option alone.
func TestKeyLogIsAskedForTwice(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.log")
	o := ClientOptions{InsecureSkipVerify: true, KeyLogFile: file}
	for _, value := range []string{"", "0", "true"} {
		t.Setenv(KeyLogEnv, value)
		ps := o.Problems()
		if len(ps) != 1 || ps[0].Warning || ps[0].Option != "key_log_file" || !strings.Contains(ps[0].Detail, KeyLogEnv+"=1") {
			t.Errorf("%q: %+v", value, ps)
		}
		if config, err := NewClient(o).Config("x"); err == nil {
			t.Errorf("%q: %v", value, config)
		}
	}
	t.Setenv(KeyLogEnv, "1")
	if ps := o.Problems(); len(ps) != 1 || !ps[0].Warning || ps[0].Option != "key_log_file" {
		t.Errorf("%+v", ps)
	}
	if _, err := os.Lstat(file); !os.IsNotExist(err) {
		t.Errorf("the file is there: %v", err)
	}
}

// TestKeyLogThatOthersCouldRead: what a file would open to others is not written, is told
// of before, and ends the handshake.
func TestKeyLogThatOthersCouldRead(t *testing.T) {
	t.Setenv(KeyLogEnv, "1")
	server := strictServer(t, newAuthority(t), "far.example", tls.VersionTLS13)
	server.ClientAuth = tls.NoClientCert
	chmod := func(t *testing.T, name string, mode os.FileMode) {
		t.Helper()
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	giveAway := func(t *testing.T, name string) {
		t.Helper()
		if os.Geteuid() != 0 {
			t.Skip("only root gives a folder to another user")
		}
		if err := os.Chown(name, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	create := func(t *testing.T, name string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		chmod(t, name, mode)
	}
	for name, tt := range map[string]struct {
		prepare func(t *testing.T, folder, file string)
		want    string // "": it is written
	}{
		"a new file":               {func(*testing.T, string, string) {}, ""},
		"a file of before":         {func(t *testing.T, _, file string) { create(t, file, 0o600) }, ""},
		"a folder like /tmp":       {func(t *testing.T, folder, _ string) { chmod(t, folder, os.ModeSticky|0o777) }, ""},
		"a folder of all":          {func(t *testing.T, folder, _ string) { chmod(t, folder, 0o777) }, "other users can write to its folder"},
		"a folder of the group":    {func(t *testing.T, folder, _ string) { chmod(t, folder, 0o770) }, "other users can write to its folder"},
		"a folder of another user": {func(t *testing.T, folder, _ string) { giveAway(t, folder) }, "other users can write to its folder"},
		"no folder":                {func(t *testing.T, folder, _ string) { _ = os.Remove(folder) }, "no such file"},
		"a file that all read":     {func(t *testing.T, _, file string) { create(t, file, 0o604) }, "others than its owner can read or write it"},
		"a file that some write":   {func(t *testing.T, _, file string) { create(t, file, 0o620) }, "others than its owner can read or write it"},
		"a symbolic link":          {func(t *testing.T, folder, file string) { _ = os.Symlink(filepath.Join(folder, "else"), file) }, "it is a symbolic link"},
		"a folder in its place":    {func(t *testing.T, _, file string) { _ = os.Mkdir(file, 0o700) }, "directory|not a regular file"},
		"a FIFO that nobody reads": {func(t *testing.T, _, file string) { _ = syscall.Mkfifo(file, 0o600) }, "no such device|not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			folder := filepath.Join(t.TempDir(), "keys")
			if err := os.Mkdir(folder, 0o700); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(folder, "keys.log")
			tt.prepare(t, folder, file)
			o := ClientOptions{InsecureSkipVerify: true, KeyLogFile: file}
			ps := o.Problems()
			_, err := meet(t, NewClient(o).must(t, "far.example"), server)
			if tt.want == "" {
				if len(ps) != 1 || !ps[0].Warning || err != nil {
					t.Errorf("%+v, %v", ps, err)
				}
				return
			}
			says := func(text string) bool {
				return slices.ContainsFunc(strings.Split(tt.want, "|"), func(want string) bool { return strings.Contains(text, want) })
			}
			if len(ps) != 1 || ps[0].Warning || !says(ps[0].Summary) || err == nil || !strings.Contains(err.Error(), "key_log_file: ") || !says(err.Error()) {
				t.Errorf("%+v, %v; want %q", ps, err, tt.want)
			}
			if b, err := os.ReadFile(filepath.Join(folder, "else")); err == nil {
				t.Errorf("%d bytes were written elsewhere", len(b))
			}
		})
	}
}

// TestKeyLogOfManySessions: lines of handshakes side by side do not mix.
func TestKeyLogOfManySessions(t *testing.T) {
	t.Setenv(KeyLogEnv, "1")
	file := filepath.Join(t.TempDir(), "keys.log")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			line := []byte(strings.Repeat(string(rune('a'+i)), 200) + "\n")
			for range 50 {
				if _, err := keyLog(file).Write(line); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	all := lines(b)
	for _, line := range all {
		if len(line) != 200 || strings.Trim(line, line[:1]) != "" {
			t.Fatalf("%q", line)
		}
	}
	if len(all) != 400 {
		t.Errorf("%d lines", len(all))
	}
}
