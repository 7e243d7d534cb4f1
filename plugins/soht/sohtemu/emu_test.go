package sohtemu

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

func start(t *testing.T, o Options) *Server {
	t.Helper()
	s, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// target is a target whose connections the test drives.
func target(t *testing.T) (string, <-chan *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conns := make(chan *net.TCPConn, 4)
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				close(conns)
				return
			}
			_ = c.SetDeadline(time.Now().Add(patience))
			conns <- c.(*net.TCPConn)
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wait.Wait()
		for c := range conns {
			_ = c.Close()
		}
	})
	return l.Addr().String(), conns
}

// post sends a raw form, as no client of ours would write it.
func post(t *testing.T, s *Server, form string) (*http.Response, string, error) {
	t.Helper()
	c := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := c.Post(s.URL(), "application/x-www-form-urlencoded", strings.NewReader(form))
	if err != nil {
		return nil, "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	return r, string(body), err
}

// want posts a form and expects status 200 and this body.
func want(t *testing.T, s *Server, form, body string) {
	t.Helper()
	r, got, err := post(t, s, form)
	if err != nil || r.StatusCode != 200 || got != body {
		t.Fatalf("%s: %q, %v", form, got, err)
	}
}

// open opens a connection to a new target.
func open(t *testing.T, s *Server, id string) *net.TCPConn {
	t.Helper()
	addr, conns := target(t)
	host, port, _ := net.SplitHostPort(addr)
	want(t, s, "action=open&host="+host+"&port="+port, "SUCCESS\n"+id+"\n")
	c := <-conns
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// The lines of the notes, as a client sees them.
func TestNotesOpen(t *testing.T) {
	s := start(t, Options{})
	open(t, s, "0")
	open(t, s, "1")
	want(t, s, "action=open&host=127.0.0.1&port=1", "FAIL - Connection refused\n")
	want(t, s, "action=open&host=127.0.0.1", "FAIL - Host or port parameter not specified.\n")
	want(t, s, "action=open&port=1", "FAIL - Host or port parameter not specified.\n")
	want(t, s, "action=open&host=db.corp&port=1", "FAIL - db.corp\n")
	want(t, s, "action=open&host=192.0.2.1&port=1", "FAIL - 192.0.2.1\n")

	s = start(t, Options{Users: map[string]string{"al": "p w"}})
	want(t, s, "action=open&host=127.0.0.1&port=1", "FAIL - Username and Password Required!\n")
	want(t, s, "action=open&host=127.0.0.1&port=1&username=al", "FAIL - Username and Password Required!\n")
	want(t, s, "action=open&host=127.0.0.1&port=1&username=bo&password=x", "FAIL - Invalid Username!\n")
	want(t, s, "action=open&host=127.0.0.1&port=1&username=al&password=x", "FAIL - Invalid Password!\n")
	want(t, s, "action=open&host=127.0.0.1&port=1&username=al&password=p+w", "FAIL - Connection refused\n")
}

func TestHostsAreMapped(t *testing.T) {
	addr, conns := target(t)
	_, port, _ := net.SplitHostPort(addr)
	s := start(t, Options{Hosts: map[string]string{"db.corp:5432": addr, "any.corp": "127.0.0.1"}})
	want(t, s, "action=open&host=db.corp&port=5432", "SUCCESS\n0\n")
	want(t, s, "action=open&host=any.corp&port="+port, "SUCCESS\n1\n")
	want(t, s, "action=open&host=localhost&port="+port, "SUCCESS\n2\n")
	for range 3 {
		_ = (<-conns).Close()
	}
}

func TestNotesRead(t *testing.T) {
	s := start(t, Options{})
	c := open(t, s, "0")
	_, _ = c.Write([]byte("hi\x00"))
	_ = c.CloseWrite()
	r, body, err := post(t, s, "action=read&id=0")
	if err != nil || body != "\x01hi\x00\x00" || len(r.TransferEncoding) == 0 {
		t.Errorf("got %q, %v, %v", body, r.TransferEncoding, err)
	}
	want(t, s, "action=read&id=0", "\x00")
	want(t, s, "action=read&id=99", "\x00")

	c = open(t, s, "1")
	_ = c.CloseWrite()
	want(t, s, "action=read&id=1", "\x01\x00")

	c = open(t, s, "2")
	_ = c.SetLinger(0)
	_ = c.Close()
	want(t, s, "action=read&id=2", "")
	if s.Stats().Open != 1 {
		t.Errorf("after a reset: %+v", s.Stats())
	}
	want(t, s, "action=close&id=2", "")
	if s.Stats().Open != 0 {
		t.Errorf("after close: %+v", s.Stats())
	}
}

func TestNotesWrite(t *testing.T) {
	s := start(t, Options{})
	for i, tt := range []struct{ form, got string }{
		{"datalength=2&data=hi", "hi"},
		{"datalength=4&data=#00#fF#Ffx", "\x00\xff\xffx"},
		{"datalength=3&data=a+b", "a b"},
		{"datalength=3&data=a%20b", "a b"},
		{"datalength=3&data=a;b", "a;b"},
		{"datalength=1&data=1,2", "1"}, // the rest is cut
		{"datalength=3&data=1,2", "1,2"},
	} {
		c := open(t, s, string(rune('0'+i)))
		id := "&id=" + string(rune('0'+i))
		want(t, s, "action=write"+id+"&"+tt.form, "")
		want(t, s, "action=close"+id, "")
		if got, _ := io.ReadAll(c); string(got) != tt.got {
			t.Errorf("%s: the target got %q", tt.form, got)
		}
	}
	want(t, s, "action=write&id=99&datalength=2&data=hi", "")
}

func TestNotesDatalengthTooLarge(t *testing.T) {
	s := start(t, Options{})
	c := open(t, s, "0")
	want(t, s, "action=write&id=0&datalength=9&data=hi", "")
	if got, err := io.ReadAll(c); len(got) > 0 {
		t.Errorf("the target got %q, %v", got, err)
	}
	want(t, s, "action=read&id=0", "\x00")
}

func TestNotesReadWrite(t *testing.T) {
	s := start(t, Options{IdlePoll: 20 * time.Millisecond})
	c := open(t, s, "0")
	begin := time.Now()
	want(t, s, "action=readwrite&id=0&datalength=0&data=", "\x01")
	if took := time.Since(begin); took < 20*time.Millisecond {
		t.Errorf("an idle poll took %v", took)
	}
	_, _ = c.Write([]byte("answer"))
	want(t, s, "action=readwrite&id=0&datalength=2&data=hi", "\x01answer")
	got := make([]byte, 2)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "hi" {
		t.Errorf("the target got %q, %v", got, err)
	}
	_, _ = c.Write(make([]byte, 3*maxReply))
	_ = c.CloseWrite()
	for n := 0; n < 3*maxReply; {
		_, body, err := post(t, s, "action=readwrite&id=0&datalength=0&data=")
		if err != nil || len(body) < 2 || len(body) > 1+maxReply || body[0] != 1 {
			t.Fatalf("a reply of %d bytes, %v", len(body), err)
		}
		n += len(body) - 1
	}
	want(t, s, "action=readwrite&id=0&datalength=0&data=", "\x00")
	want(t, s, "action=readwrite&id=0&datalength=0&data=", "\x00")
}

func TestNotesOddRequests(t *testing.T) {
	s := start(t, Options{FormLimit: 1000})
	for _, form := range []string{"action=read", "action=write&id=x&datalength=0&data=", "action=close&id="} {
		if r, _, err := post(t, s, form); err != nil || r.StatusCode != 500 {
			t.Errorf("%s: %v, %v", form, r, err)
		}
	}
	if r, _, err := post(t, s, "action=write&id=0&datalength=1000&data="+strings.Repeat("x", 1000)); err != nil || r.StatusCode != 400 {
		t.Errorf("a form over the limit: %v, %v", r, err)
	}
	c := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := c.Get(s.URL() + "?action=read&id=0")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(r.Body)
	_ = r.Body.Close()
	if r.StatusCode != 200 || len(body) != 0 {
		t.Errorf("GET: %d %q", r.StatusCode, body)
	}
}

// A client that breaks its read off takes the connection with it, once there is
// something for it: until then its thread is busy, and a close gives it back.
func TestBrokenRead(t *testing.T) {
	s := start(t, Options{})
	breakOff := func(id, body string) {
		t.Helper()
		conn, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", DefaultPath, len(body), body)
		threads(t, s, 1)
		_ = conn.Close()
	}
	c := open(t, s, "0")
	breakOff("0", "action=read&id=0")
	_ = c.SetWriteDeadline(time.Now().Add(patience))
	for {
		if _, err := c.Write([]byte("hi")); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("the target's connection lives on")
		} else if err != nil {
			break
		}
	}
	threads(t, s, 0)
	open(t, s, "1")
	breakOff("1", "action=read&id=1")
	want(t, s, "action=close&id=1", "")
	threads(t, s, 0)
}

// threads waits until so many are busy.
func threads(t *testing.T, s *Server, n int) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for s.Stats().Threads != n {
		if time.Now().After(deadline) {
			t.Fatalf("%d threads are busy, want %d", s.Stats().Threads, n)
		}
		time.Sleep(time.Millisecond)
	}
}

// With every thread in a read nothing is served, a close included, until one of
// the targets ends.
func TestThreadsRunOut(t *testing.T) {
	s := start(t, Options{Threads: 2})
	first := open(t, s, "0")
	open(t, s, "1")
	var wait sync.WaitGroup
	defer wait.Wait()
	for _, id := range []string{"0", "1"} {
		wait.Go(func() { _, _, _ = post(t, s, "action=read&id="+id) })
	}
	threads(t, s, 2)
	closed := make(chan struct{})
	wait.Go(func() {
		defer close(closed)
		want(t, s, "action=close&id=1", "")
	})
	// Not a wait for something to happen: the answer must not come in this time.
	select {
	case <-closed:
		t.Error("it was answered without a thread")
	case <-time.After(20 * time.Millisecond):
	}
	_ = first.Close()
	<-closed
	threads(t, s, 0)
	if n := s.Stats().Open; n != 0 {
		t.Errorf("%d ids are left", n)
	}
}

// How the containers answer, as they were seen to; both are right (RFC 9112,
// section 6.3).
func TestContainers(t *testing.T) {
	for c, framed := range map[Container]bool{Tomcat: true, Jetty: false} {
		s := start(t, Options{Container: c, IdlePoll: time.Millisecond})
		target := open(t, s, "0")
		_, _ = target.Write([]byte("hi"))
		for form, status := range map[string]int{
			"action=readwrite&id=0&datalength=0&data=": http.StatusOK,
			"action=close&id=x":                        http.StatusInternalServerError,
		} {
			conn, err := net.Dial("tcp", s.Addr())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			_ = conn.SetDeadline(time.Now().Add(patience))
			_, _ = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", DefaultPath, len(form), form)
			r, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(r.Body)
			chunked := slices.Equal(r.TransferEncoding, []string{"chunked"})
			if err != nil || !r.ProtoAtLeast(1, 1) || r.StatusCode != status || r.ContentLength >= 0 || chunked != framed || r.Close == framed || len(body) == 0 {
				t.Errorf("container %d, %s: %+v, %q, %v", c, form, r, body, err)
			}
		}
	}
}

func TestPlainDownload(t *testing.T) {
	s := start(t, Options{})
	addr, conns := target(t)
	data := bytes.Repeat([]byte("x"), 100_000)
	go func() {
		c := <-conns
		_, _ = c.Write(data)
		_ = c.Close()
	}()
	c := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := c.Get(s.PlainURL(url.QueryEscape(addr)))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if body, err := io.ReadAll(r.Body); err != nil || !bytes.Equal(body, data) {
		t.Errorf("got %d bytes, %v", len(body), err)
	}
}

// What happens is logged, logins are not.
func TestLog(t *testing.T) {
	addr, conns := target(t)
	var log bytes.Buffer
	s := start(t, Options{
		Users: map[string]string{"al": "p-w"}, Hosts: map[string]string{"db.corp:5432": addr},
		Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	want(t, s, "action=open&host=db.corp&port=5432&username=al&password=x-y", "FAIL - Invalid Password!\n")
	want(t, s, "action=open&host=db.corp&port=5432&username=al&password=p-w", "SUCCESS\n0\n")
	want(t, s, "action=close&id=0", "")
	_ = (<-conns).Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	said := log.String()
	for _, want := range []string{"msg=refused", "Invalid Password", "msg=connected", "target=db.corp:5432", "id=0", "msg=closed"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is missing in %s", want, said)
		}
	}
	if strings.Contains(said, "p-w") || strings.Contains(said, "x-y") {
		t.Errorf("logged %s", said)
	}
}

// What is mapped may be anywhere and have a name.
func TestBackendsByName(t *testing.T) {
	addr, conns := target(t)
	_, port, _ := net.SplitHostPort(addr)
	s := start(t, Options{Hosts: map[string]string{"db.corp:5432": "localhost:" + port, "none.corp": "no..host"}})
	want(t, s, "action=open&host=db.corp&port=5432", "SUCCESS\n0\n")
	_ = (<-conns).Close()
	want(t, s, "action=open&host=none.corp&port=1", "FAIL - none.corp\n")
}

func TestLoopbackOnly(t *testing.T) {
	if s, err := Start(Options{Address: "0.0.0.0:0"}); err == nil {
		_ = s.Close()
		t.Error("it listens beyond the loopback interface")
	}
}

// Close leaves no goroutine behind, whatever is under way.
func TestCloseWithWorkUnderWay(t *testing.T) {
	s, err := Start(Options{Faults: Faults{On: map[string]Fault{"write": {Silent: true}}}})
	if err != nil {
		t.Fatal(err)
	}
	open(t, s, "0")
	var wait sync.WaitGroup
	for _, form := range []string{"action=read&id=0", "action=write&id=0&datalength=0&data=", "action=readwrite&id=0&datalength=0&data="} {
		wait.Go(func() { _, _, _ = post(t, s, form) })
	}
	for st := s.Stats(); st.Requests["read"]+st.Requests["write"]+st.Requests["readwrite"] < 3; st = s.Stats() {
		time.Sleep(time.Millisecond)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	wait.Wait()
}

func FuzzForm(f *testing.F) {
	f.Add("action=write&id=1&datalength=2&data=#00#fF;+%20")
	f.Add("data=#0")
	f.Fuzz(func(t *testing.T, body string) {
		fields, err := parseForm(body)
		if err != nil {
			return
		}
		if data, err := decodeData(fields["data"]); err == nil && len(data) > len(fields["data"]) {
			t.Errorf("%q became longer: %q", fields["data"], data)
		}
	})
}
