package soht

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/soht/sohtemu"
)

// Each test here names the line of the protocol's notes that it is about. What
// the notes say of the server's side is tested in package sohtemu as well.

// "Everything is POST with Content-Type: application/x-www-form-urlencoded."
// The forms are those of the notes, byte for byte.
func TestNoteEverythingIsAPostedForm(t *testing.T) {
	var mu sync.Mutex
	var got []string
	answered := make(chan struct{})
	server := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		got = append(got, fmt.Sprintf("%s %s %s %s", r.Method, r.Header.Get("Content-Type"), r.Header.Get("X-Gate"), body))
		mu.Unlock()
		switch {
		case strings.HasPrefix(string(body), "action=open"):
			_, _ = io.WriteString(w, "SUCCESS\n1\n")
		case strings.HasPrefix(string(body), "action=read&"):
			select {
			case <-answered:
				_, _ = w.Write([]byte{1, 0})
			case <-r.Context().Done():
			}
		case strings.HasPrefix(string(body), "action=write"):
			close(answered)
		}
	})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close(); <-served })

	c := mustDial(t, values{
		"url": "http://" + l.Addr().String() + "/soht/service", "username": "al", "password": "p&w",
		"headers": values{"X-Gate": "7"},
	}, "127.0.0.1:27001")
	write(t, c, []byte("hi"))
	readAll(t, c)
	if err := awaitEnd(t, c); err != nil {
		t.Error(err)
	}
	waitFor(t, func() bool { mu.Lock(); defer mu.Unlock(); return len(got) == 4 })
	mu.Lock()
	defer mu.Unlock()
	const head = "POST application/x-www-form-urlencoded 7 "
	for _, want := range []string{
		"action=open&host=127.0.0.1&port=27001&username=al&password=p%26w",
		"action=read&id=1",
		"action=write&id=1&datalength=2&data=hi",
		"action=close&id=1",
	} {
		found := false
		for _, g := range got {
			found = found || g == head+want
		}
		if !found {
			t.Errorf("no %q in %q", want, got)
		}
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not happen")
		}
	}
}

// "errors are 200 as well", with each of their texts.
func TestNoteOpenErrorsAre200(t *testing.T) {
	for _, tt := range []struct {
		text      string
		reason    sdk.Reason
		retryable bool
	}{
		{"Connection refused", sdk.ReasonRefused, true},
		{"Host or port parameter not specified.", sdk.ReasonProtocol, false},
		{"Username and Password Required!", sdk.ReasonUnauthenticated, false},
		{"Invalid Username!", sdk.ReasonUnauthenticated, false},
		{"Invalid Password!", sdk.ReasonUnauthenticated, false},
		{"connect timed out", sdk.ReasonTimeout, true},
		{"No route to host", sdk.ReasonUnreachable, true},
		{"Network is unreachable", sdk.ReasonUnreachable, true},
		{"Permission denied", sdk.ReasonDenied, false},
		{"db.corp", sdk.ReasonNotFound, true},
		{"db.corp: Name or service not known", sdk.ReasonNotFound, true},
		{"something else", sdk.ReasonUnavailable, true},
	} {
		t.Run(tt.text, func(t *testing.T) {
			s := emulate(t, sohtemu.Options{Faults: sohtemu.Faults{OpenFail: tt.text}})
			_, err := dial(t, towards(s, modeStateful), "db.corp:5432")
			e := dialError(t, err)
			if e.Stage != sdk.StageRequest || e.Reason != tt.reason || e.Retryable != tt.retryable || e.Hint == "" || !strings.Contains(e.Message, tt.text) {
				t.Errorf("got %+v", e)
			}
		})
	}
}

func TestNoteLogin(t *testing.T) {
	s := emulate(t, sohtemu.Options{Users: map[string]string{"alice": "a b&c=d+%"}})
	modes(t, func(t *testing.T, mode string) {
		c := mustDial(t, towards(s, mode, values{"username": "alice", "password": "a b&c=d+%"}), nettest.Serve(t, nettest.Echo))
		write(t, c, []byte("hi"))
		read(t, c, 2)
	})
	for name, login := range map[string]values{
		"none":     {},
		"user":     {"username": "bob", "password": "x"},
		"password": {"username": "alice", "password": "secret-x"},
	} {
		_, err := dial(t, towards(s, modeStateful, login), "127.0.0.1:1")
		e := dialError(t, err)
		if e.Reason != sdk.ReasonUnauthenticated || strings.Contains(e.Error(), "secret-x") {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

// "A status byte comes first in the body of read and readwrite: 01 alive, 00
// closed or unknown id."
func TestNoteStatusByte(t *testing.T) {
	target := scriptedTarget(t)
	t.Run("stateful, unknown id", func(t *testing.T) {
		s := emulate(t, sohtemu.Options{Faults: sohtemu.Faults{ForgetIDs: true}})
		expectBroken(t, bare(t, config(s, modeStateful), target), ErrUnknown)
	})
	t.Run("stateless, closed", func(t *testing.T) {
		s := emulate(t, sohtemu.Options{})
		if got := readAll(t, bare(t, config(s, modeStateless), sender(t, []byte("bye")))); string(got) != "bye" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("stateless, data behind the 00", func(t *testing.T) {
		for _, body := range []string{"\x00data", "\x00\x00", "\x00\x01data"} {
			s := emulate(t, sohtemu.Options{Faults: sohtemu.Faults{On: map[string]sohtemu.Fault{
				"readwrite": {Status: 200, Body: body},
			}}})
			expectBroken(t, bare(t, config(s, modeStateless), target), ErrNotSOHT)
		}
	})
	modes(t, func(t *testing.T, mode string) {
		action := map[string]string{modeStateful: "read", modeStateless: "readwrite"}[mode]
		for _, body := range []string{"\x02data", " \x01data", "<html>", "SUCCESS\n"} {
			s := emulate(t, sohtemu.Options{Faults: sohtemu.Faults{On: map[string]sohtemu.Fault{
				action: {Status: 200, Body: body},
			}}})
			expectBroken(t, bare(t, config(s, mode), target), ErrNotSOHT)
		}
	})
}

func scriptedTarget(t testing.TB) string {
	addr, _ := scripted(t)
	return addr
}

// expectBroken expects that reading ends with an *Error of that kind, and that
// writing fails with it from then on.
func expectBroken(t *testing.T, s sdk.Stream, kind error) *Error {
	t.Helper()
	_, err := io.Copy(io.Discard, s)
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, kind) || errors.Is(err, io.EOF) {
		t.Fatalf("read ended with %v, want %v", err, kind)
	}
	if _, werr := s.Write([]byte("x")); !errors.Is(werr, kind) {
		t.Errorf("write after it: %v", werr)
	}
	if werr := s.CloseWrite(); !errors.Is(werr, kind) {
		t.Errorf("close write after it: %v", werr)
	}
	return e
}

// "data that itself ends in NUL must survive", "Exactly one 00 is dropped".
func TestNoteDataThatEndsInNUL(t *testing.T) {
	modes(t, func(t *testing.T, mode string) {
		s := emulate(t, sohtemu.Options{IdlePoll: time.Millisecond})
		for _, data := range []string{"", "\x00", "hi\x00", "\x00\x00\x00", "a\x00b\x00\x00"} {
			if got := readAll(t, mustDial(t, towards(s, mode), sender(t, []byte(data)))); string(got) != data {
				t.Errorf("%q became %q", data, got)
			}
		}
	})
}

// "A body that ends without the 00, or is cut short, is an error."
func TestNoteBodyWithoutItsEnd(t *testing.T) {
	for name, f := range map[string]sohtemu.Faults{
		"no mark":                 {NoMark: true},
		"cut at the first byte":   {CutReadAfter: 1},
		"cut in the middle":       {CutReadAfter: 3},
		"cut behind the data":     {CutReadAfter: 5},
		"end late after the mark": {MarkDelay: 100 * time.Millisecond},
		"HTTP/1.0, no mark":       {NoMark: true, HTTP10: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := emulate(t, sohtemu.Options{Faults: f})
			expectBroken(t, bare(t, config(s, modeStateful), sender(t, []byte("hello"))), ErrCut)
		})
	}
	t.Run("a reply of readwrite", func(t *testing.T) {
		s := emulate(t, sohtemu.Options{Faults: sohtemu.Faults{On: map[string]sohtemu.Fault{"readwrite": {Cut: true}}}})
		expectBroken(t, bare(t, config(s, modeStateless), sender(t, []byte("hello"))), ErrCut)
	})
	t.Run("a reply of readwrite that Jetty ends with its connection", func(t *testing.T) {
		s := emulate(t, sohtemu.Options{Container: sohtemu.Jetty, IdlePoll: time.Millisecond})
		if got := readAll(t, mustDial(t, towards(s, modeStateless), sender(t, []byte("hello")))); string(got) != "hello" {
			t.Errorf("%q", got)
		}
	})
	t.Run("a reply of readwrite that nobody can tell whole", func(t *testing.T) {
		s := emulate(t, sohtemu.Options{Faults: sohtemu.Faults{HTTP10: true}})
		e := expectBroken(t, bare(t, config(s, modeStateless), sender(t, []byte("hello"))), ErrCut)
		if !strings.Contains(e.Hint, "stateful") {
			t.Errorf("hint %q", e.Hint)
		}
	})
}

// "A remote RST gives 200 with an empty body, no status byte: treat it as
// closed, and send close so that the server frees the id."
func TestNoteRemoteReset(t *testing.T) {
	modes(t, func(t *testing.T, mode string) {
		s := emulate(t, sohtemu.Options{})
		addr, conns := scripted(t)
		stream := bare(t, config(s, mode), addr)
		target := receive(t, conns)
		_ = target.SetLinger(0)
		_ = target.Close()
		expectBroken(t, stream, ErrReset)
		if s.Stats().Open != 1 {
			t.Fatalf("the server has freed the id by itself: %+v", s.Stats())
		}
		stream.Abort("")
		eventually(t, s, "close", func(st sohtemu.Stats) bool { return st.Open == 0 && st.Requests["close"] == 1 })
	})
}

// "The response headers of read come only with the first remote byte. So no
// header timeout on it, and never wait for it before writing."
func TestNoteHeadersOfReadComeLate(t *testing.T) {
	s := emulate(t, sohtemu.Options{})
	addr, conns := scripted(t)
	// A handshake time that would run out if it were applied to read.
	c := mustDial(t, towards(s, modeStateful, values{"timeouts": values{"handshake": "1s"}}), addr)
	target := receive(t, conns)
	write(t, c, []byte("first"))
	if got := read(t, target, 5); string(got) != "first" {
		t.Errorf("got %q", got)
	}
	// Not a wait for something to happen: nothing may happen in this time.
	time.Sleep(1500 * time.Millisecond)
	write(t, target, []byte("second"))
	if got := read(t, c, 6); string(got) != "second" {
		t.Errorf("got %q", got)
	}
}

// "A write to a closed or unknown id is still 200, the data gone: only the read
// side tells that the connection died."
func TestNoteWriteToAClosedID(t *testing.T) {
	s := emulate(t, sohtemu.Options{})
	addr, conns := scripted(t)
	stream := bare(t, config(s, modeStateful), addr)
	target := receive(t, conns)
	_ = target.SetLinger(0)
	_ = target.Close()
	expectBroken(t, stream, ErrReset)
}

// "datalength must be exact": the emulated server is as unforgiving.
func TestNoteDatalengthIsExact(t *testing.T) {
	modes(t, func(t *testing.T, mode string) {
		s := emulate(t, sohtemu.Options{IdlePoll: time.Millisecond})
		c := mustDial(t, towards(s, mode, values{"write_size": 7}), nettest.Serve(t, nettest.Echo))
		var all []byte
		for i := range 256 {
			all = append(all, byte(i), byte(255-i))
		}
		go func() { _, _ = c.Write(all) }()
		if got := read(t, c, len(all)); !bytes.Equal(got, all) {
			t.Errorf("got % x", got)
		}
	})
}

// "One write in flight at a time: there are no sequence numbers."
func TestNoteOneWriteInFlight(t *testing.T) {
	modes(t, func(t *testing.T, mode string) {
		s := emulate(t, sohtemu.Options{IdlePoll: time.Millisecond})
		c := mustDial(t, towards(s, mode, values{"write_size": 16}), nettest.Serve(t, nettest.Echo))
		data := bytes.Repeat([]byte("0123456789abcdefghi"), 200)
		go func() {
			for b := data; len(b) > 0; b = b[19:] {
				if _, err := c.Write(b[:19]); err != nil {
					return
				}
			}
		}()
		if got := read(t, c, len(data)); !bytes.Equal(got, data) {
			t.Error("the bytes are out of order")
		}
		if n := s.Stats().WritesInFlight; n != 1 {
			t.Errorf("%d writes at a time", n)
		}
	})
}

// "Ids start at 0."
func TestNoteIDsStartAtZero(t *testing.T) {
	modes(t, func(t *testing.T, mode string) {
		forms := make(chan sohtemu.Form, 100)
		s := emulate(t, sohtemu.Options{Observe: func(f sohtemu.Form) {
			if f.Action != "open" {
				forms <- f
			}
		}})
		c := mustDial(t, towards(s, mode), nettest.Serve(t, nettest.Echo))
		write(t, c, []byte("hi"))
		read(t, c, 2)
		if f := receive(t, forms); !strings.Contains(string(f.Raw), "&id=0") {
			t.Errorf("got %q", f.Raw)
		}
	})
}

// "A form is limited by the server to about 200,000 encoded bytes (then 400):
// the worst byte takes three, so 32 KiB of data a write is safe."
func TestNoteFormLimit(t *testing.T) {
	modes(t, func(t *testing.T, mode string) {
		for _, size := range []string{"32KiB", "64KiB"} {
			var largest int
			var mu sync.Mutex
			s := emulate(t, sohtemu.Options{IdlePoll: time.Millisecond, Observe: func(f sohtemu.Form) {
				mu.Lock()
				largest = max(largest, len(f.Raw))
				mu.Unlock()
			}})
			c := mustDial(t, towards(s, mode, values{"write_size": size}), nettest.Serve(t, nettest.Echo))
			data := make([]byte, 512<<10)
			go func() { _, _ = c.Write(data) }()
			read(t, c, len(data))
			mu.Lock()
			if largest >= maxForm {
				t.Errorf("%s: a form of %d bytes", size, largest)
			}
			mu.Unlock()
		}
		s := emulate(t, sohtemu.Options{FormLimit: 1000})
		stream := bare(t, config(s, mode), scriptedTarget(t))
		_, _ = stream.Write(make([]byte, 1000))
		if e := expectBroken(t, stream, ErrStatus); e.Status != 400 || !strings.Contains(e.Hint, "write_size") {
			t.Errorf("got %+v", e)
		}
	})
}

// "An HTML body is never data", for each action, and neither is a redirect or
// any other answer of an intermediary.
func TestNoteIntermediaries(t *testing.T) {
	faults := map[string]struct {
		fault sohtemu.Fault
		kind  error
	}{
		"login page": {sohtemu.LoginPage(), ErrNotSOHT},
		"redirect":   {sohtemu.Redirect("https://login.example/?next=secret"), ErrStatus},
		"401":        {sohtemu.Fault{Status: 401}, ErrStatus},
		"403":        {sohtemu.Fault{Status: 403}, ErrStatus},
		"404":        {sohtemu.Fault{Status: 404, Body: "not here"}, ErrStatus},
		"413":        {sohtemu.Fault{Status: 413}, ErrStatus},
		"500":        {sohtemu.Fault{Status: 500}, ErrStatus},
		"502":        {sohtemu.Fault{Status: 502, Body: "<html>bad gateway"}, ErrStatus},
		"504":        {sohtemu.Fault{Status: 504}, ErrStatus},
		"204":        {sohtemu.Fault{Status: 204}, ErrStatus},
		"dropped":    {sohtemu.Fault{Drop: true}, ErrExchange},
		"gzip":       {sohtemu.Fault{Status: 200, Header: map[string]string{"Content-Encoding": "gzip"}}, ErrNotSOHT},
	}
	for name, f := range faults {
		for _, action := range []string{"read", "write", "readwrite"} {
			t.Run(action+", "+name, func(t *testing.T) {
				s := emulate(t, sohtemu.Options{Faults: sohtemu.Faults{On: map[string]sohtemu.Fault{action: f.fault}}})
				mode := modeStateful
				if action == "readwrite" {
					mode = modeStateless
				}
				stream := bare(t, config(s, mode), scriptedTarget(t))
				// It may be broken already.
				_, _ = stream.Write([]byte("hi"))
				e := expectBroken(t, stream, f.kind)
				if e.Action != action || strings.Contains(e.Error(), "secret") {
					t.Errorf("got %v", e)
				}
			})
		}
		t.Run("open, "+name, func(t *testing.T) {
			s := emulate(t, sohtemu.Options{Faults: sohtemu.Faults{On: map[string]sohtemu.Fault{"open": f.fault}}})
			_, err := dial(t, towards(s, modeStateful), scriptedTarget(t))
			if e := dialError(t, err); e.Stage != sdk.StageRequest || strings.Contains(e.Error(), "secret") {
				t.Errorf("got %+v", e)
			}
		})
	}
}
