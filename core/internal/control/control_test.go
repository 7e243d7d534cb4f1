package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core/status"
	"github.com/tunneld/tunneld/internal/nettest"
)

const patience = 30 * time.Second

// fake is a daemon.
type fake struct {
	reload  func(ctx context.Context) status.Reload
	waiting chan struct{} // Status waits for it

	mu    sync.Mutex
	asked status.ReloadOptions // of the last reload
}

func (f *fake) Status() status.Status {
	if f.waiting != nil {
		<-f.waiting
	}
	return status.Status{
		Version: "1.2.3", PID: 812, Config: "/etc/tunneld", Generation: 4,
		Started:   time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Listeners: []status.Listener{{ID: "tcp.db", Address: "127.0.0.1:1", Connections: 2, Tunnels: map[string]int{"direct": 1}}},
		Upstreams: []status.Upstream{{ID: "direct.local", Health: "ok"}},
	}
}

func (f *fake) ReloadWith(ctx context.Context, o status.ReloadOptions) status.Reload {
	f.mu.Lock()
	f.asked = o
	f.mu.Unlock()
	return f.reload(ctx)
}

func (f *fake) RestartPlugin(_ context.Context, name string) status.Reload {
	return status.Reload{Generation: 7, Changes: []string{"restarted " + name}}
}

// serve serves until the test ends.
func serve(t *testing.T, ln net.Listener, d Daemon) {
	t.Helper()
	s := newHTTP(d, slog.New(slog.DiscardHandler))
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ln) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
}

// start serves d and returns a client and the socket's path.
func start(t *testing.T, d Daemon) (*Client, string) {
	t.Helper()
	path := filepath.Join(nettest.SocketDir(t), "c")
	serve(t, mustListen(t, path), d)
	c, err := NewClient("unix://" + path)
	if err != nil {
		t.Fatal(err)
	}
	return c, path
}

func TestStatus(t *testing.T) {
	d := &fake{}
	c, _ := start(t, d)
	got, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := d.Status(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestReload(t *testing.T) {
	for _, want := range []status.Reload{
		{Generation: 5, Duration: time.Second, Changes: []string{"a", "b"}, Diagnostics: "Warning: x"},
		{Generation: 6, Error: "the configuration is not valid", Invalid: true, Diagnostics: "Error: y"},
	} {
		c, _ := start(t, &fake{reload: func(context.Context) status.Reload { return want }})
		if got, err := c.Reload(t.Context(), status.ReloadOptions{}); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v; want %+v", got, err, want)
		}
	}
}

// TestRestartPlugin: the name arrives as it was given, whatever is in it.
func TestRestartPlugin(t *testing.T) {
	c, _ := start(t, &fake{})
	for _, name := range []string{"acme", "a/b", "../c?d", "é %2f"} {
		got, err := c.RestartPlugin(t.Context(), name)
		if err != nil || len(got.Changes) != 1 || got.Changes[0] != "restarted "+name {
			t.Errorf("%q: %+v, %v", name, got, err)
		}
	}
}

// TestReloadEndsWithItsClient: whoever leaves breaks it off.
func TestReloadEndsWithItsClient(t *testing.T) {
	began, ended := make(chan struct{}), make(chan struct{})
	c, path := start(t, &fake{reload: func(ctx context.Context) status.Reload {
		began <- struct{}{}
		<-ctx.Done()
		close(ended)
		return status.Reload{}
	}})
	ctx, leave := context.WithCancel(t.Context())
	go func() {
		<-began
		leave()
	}()
	_, err := c.Reload(ctx, status.ReloadOptions{})
	if want := fmt.Sprintf("the wait for the daemon at %s was interrupted", path); err == nil || err.Error() != want {
		t.Errorf("%v; want %s", err, want)
	}
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("it goes on")
	}
}

// exchange sends what is written and returns the answer.
func exchange(t *testing.T, path, request string) (code int, body string, header http.Header) {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b), resp.Header
}

func TestReloadOptions(t *testing.T) {
	d := &fake{reload: func(context.Context) status.Reload { return status.Reload{} }}
	c, _ := start(t, d)
	for _, want := range []status.ReloadOptions{{}, {AllowEmpty: true}} {
		if _, err := c.Reload(t.Context(), want); err != nil || d.asked != want {
			t.Errorf("asked %+v, %v; want %+v", d.asked, err, want)
		}
	}
}

func TestAnswers(t *testing.T) {
	_, path := start(t, &fake{reload: func(context.Context) status.Reload { return status.Reload{Error: "no"} }})
	tests := []struct {
		request string
		code    int
		body    string
	}{
		{"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n", 200, `"version":"1.2.3"`},
		{"GET /v1/status HTTP/1.0\r\n\r\n", 200, `"version":"1.2.3"`},
		{"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", 422, `"error":"no"`},
		{"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n" + strings.Repeat("x", 5000), 400, `"error":"the request cannot be read`},
		{"POST /v1/reload?allow_empty=yes HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 400, `"error":"allow_empty is neither`},
		{"GET /v1/reload HTTP/1.1\r\nHost: x\r\n\r\n", 405, `"hint":"allowed: POST"`},
		{"DELETE /v1/status HTTP/1.1\r\nHost: x\r\n\r\n", 405, `"hint":"allowed: GET, HEAD"`},
		{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 404, `"hint":"GET /v1/status, POST /v1/reload or POST /v1/plugins/NAME/restart"`},
		{"GET /v2/status HTTP/1.1\r\nHost: x\r\n\r\n", 404, `"error":"there is nothing here"`},
	}
	for _, tt := range tests {
		line, _, _ := strings.Cut(tt.request, "\r\n")
		t.Run(line, func(t *testing.T) {
			code, body, header := exchange(t, path, tt.request)
			if code != tt.code || !strings.Contains(body, tt.body) {
				t.Errorf("%d %s; want %d %s", code, body, tt.code, tt.body)
			}
			if !json.Valid([]byte(body)) || header.Get("Content-Type") != "application/json" {
				t.Errorf("not JSON: %s %s", header.Get("Content-Type"), body)
			}
		})
	}
	if code, _, _ := exchange(t, path, "GET /v1/status HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("x", 64<<10)+"\r\n\r\n"); code != 431 {
		t.Errorf("headers of 64 KiB: %d", code)
	}
}

// TestRequestsAreBounded: those beyond the bound are told so, and reloads that
// wait leave room for a status.
func TestRequestsAreBounded(t *testing.T) {
	began, proceed := make(chan struct{}), make(chan struct{})
	c, _ := start(t, &fake{reload: func(context.Context) status.Reload {
		began <- struct{}{}
		<-proceed
		return status.Reload{}
	}})
	ended := make(chan error, maxReloads)
	for range maxReloads {
		go func() {
			_, err := c.Reload(t.Context(), status.ReloadOptions{})
			ended <- err
		}()
	}
	for range maxReloads {
		<-began
	}
	if _, err := c.Reload(t.Context(), status.ReloadOptions{}); err == nil || !strings.Contains(err.Error(), "too many requests at a time: wait for those") {
		t.Errorf("one more: %v", err)
	}
	if _, err := c.Status(t.Context()); err != nil {
		t.Errorf("status: %v", err)
	}
	close(proceed)
	for range maxReloads {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// raw serves with something that is no daemon.
func raw(t *testing.T, serve func(c net.Conn)) string {
	t.Helper()
	path := filepath.Join(nettest.SocketDir(t), "c")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = http.ReadRequest(bufio.NewReader(c))
			serve(c)
			c.Close()
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		<-ended
	})
	return path
}

// TestClientSaysWhatToDo: each failure in a whole sentence.
func TestClientSaysWhatToDo(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	reply := func(text string) func(*testing.T) string {
		return func(t *testing.T) string {
			return raw(t, func(c net.Conn) { _, _ = io.WriteString(c, text) })
		}
	}
	tests := []struct {
		name string
		path func(t *testing.T) string
		want string // PATH stands for the path
		is   error
	}{
		{"nothing", func(t *testing.T) string { return filepath.Join(nettest.SocketDir(t), "c") },
			"there is no control socket at PATH: is tunneld running?", fs.ErrNotExist},
		{"a dead socket", func(t *testing.T) string {
			path := filepath.Join(nettest.SocketDir(t), "c")
			deadSocket(t, path)
			return path
		}, "nobody serves the control socket PATH: the tunneld that made it is gone; the next one replaces it", nil},
		{"a file", func(t *testing.T) string {
			path := filepath.Join(nettest.SocketDir(t), "c")
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return path
		}, "PATH is not a socket: give the address of the daemon's control socket", nil},
		{"it closes", reply(""), "the daemon at PATH ended before it answered", nil},
		{"it closes in the middle", reply("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"), "the daemon at PATH ended before it answered", nil},
		{"it is something else", reply("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"), "the answer of the server at PATH is not tunneld's: invalid character 'h' looking for beginning of value", nil},
		{"it is something else, and fails", reply("HTTP/1.1 500 Oh no\r\nContent-Length: 5\r\n\r\nhello"), "the server at PATH is not tunneld: it answers 500 Oh no to GET /v1/status", nil},
		{"it has something to say", reply("HTTP/1.1 503 X\r\nContent-Length: 35\r\n\r\n{\"error\":\"tired\",\"hint\":\"wait now\"}"), "the daemon at PATH: tired: wait now", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := tt.path(t)
			c, err := NewClient(path)
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.Status(t.Context())
			if want := strings.ReplaceAll(tt.want, "PATH", path); err == nil || err.Error() != want {
				t.Errorf("\n got  %v\n want %s", err, want)
			}
			if tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("%v is not %v", err, tt.is)
			}
		})
	}
	t.Run("permission", func(t *testing.T) {
		dir := nettest.SocketDir(t)
		path := filepath.Join(dir, "c")
		deadSocket(t, path)
		// What an unprivileged client is told, without being one: root gets in.
		for _, tt := range []struct{ path, want string }{
			{path, "permission denied for the control socket PATH: it belongs to user " + me.Username + "; ask as that user, or as root"},
			{filepath.Join(dir, "closed"), "permission denied on the way to the control socket PATH: ask as the daemon's user, or as root"},
		} {
			err := (&Client{path: tt.path}).explain(t.Context(), fs.ErrPermission)
			if want := strings.ReplaceAll(tt.want, "PATH", tt.path); err.Error() != want {
				t.Errorf("\n got  %v\n want %s", err, want)
			}
		}
	})
}

func TestClientDoesNotWaitForEver(t *testing.T) {
	waiting := make(chan struct{})
	c, path := start(t, &fake{waiting: waiting})
	defer close(waiting)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := c.Status(ctx)
	if want := fmt.Sprintf("the daemon at %s did not answer in time", path); err == nil || err.Error() != want || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v; want %s", err, want)
	}
}
