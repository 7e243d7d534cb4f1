package splice

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/tlsconf"
)

// tlsRig is a tunnel whose client speaks TLS with the pump.
type tlsRig struct {
	client   *tls.Conn // over socket; an end of file without close_notify is an error
	socket   *net.TCPConn
	upstream *net.TCPConn
	pump     *Pump
	result   chan Result
}

func newTLSRig(t *testing.T, version uint16, ends tlsconf.Ends, tun Tunnel) *tlsRig {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	config := &tls.Config{Certificates: s.TLS.Certificates}
	s.Close()
	r := &tlsRig{pump: newPump(t), result: make(chan Result, 1)}
	near, far := tcpPair(t)
	r.socket = near
	r.client = tls.Client(tlsconf.Strict(near), &tls.Config{InsecureSkipVerify: true, MaxVersion: version})
	server := tlsconf.ServerConn(far, nil, config, ends)
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	if err := errors.Join(r.client.Handshake(), <-done); err != nil {
		t.Fatal(err)
	}
	conn, upstream := tcpPair(t)
	r.upstream = upstream
	for _, c := range []net.Conn{far, conn} {
		if err := c.SetDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	tun.Client, tun.Upstream = tunnel.End{Stream: server}, tunnel.End{Stream: conn}
	tun.Done = func(res Result) { r.result <- res }
	r.pump.Start(tun)
	return r
}

func (r *tlsRig) ended(t *testing.T, want tunnel.CloseReason) {
	t.Helper()
	select {
	case res := <-r.result:
		if res.Reason != want || (res.Err == nil) != (want == tunnel.CloseClientEOF || want == tunnel.CloseUpstreamEOF) {
			t.Errorf("it ended with %+v, want %s", res, want)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the tunnel did not end")
	}
}

// wantEnd reads the client's side up to its end: by the alert, with the connection left
// open, or by an end of file.
func (r *tlsRig) wantEnd(t *testing.T, text string, ends tlsconf.Ends, closed bool) {
	t.Helper()
	b, err := io.ReadAll(r.client)
	if string(b) != text {
		t.Errorf("the client reads %d bytes, want %d", len(b), len(text))
	}
	if ends.FIN {
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("the client's end: %v, want an end of file without close_notify", err)
		}
		return
	}
	if err != nil {
		t.Errorf("the client's end: %v, want close_notify", err)
	}
	raw, rawErr := r.socket.SyscallConn()
	if rawErr != nil || closed {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		n, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		if !errors.Is(err, syscall.EAGAIN) {
			t.Errorf("behind close_notify: %d bytes, %v; want the connection open", n, err)
		}
	})
}

func (r *tlsRig) closeNotify(t *testing.T) {
	t.Helper()
	if err := r.client.CloseWrite(); err != nil {
		t.Error(err)
	}
}

func (r *tlsRig) fin(t *testing.T) {
	t.Helper()
	if err := r.socket.CloseWrite(); err != nil {
		t.Error(err)
	}
}

func wantReset(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %v; want a reset", err)
	}
}

func resetNow(t *testing.T, c *net.TCPConn) {
	t.Helper()
	if err := errors.Join(c.SetLinger(0), c.Close()); err != nil {
		t.Error(err)
	}
}

// TestTLSEnds is the table of docs/configuration.md: what each event at a side is at the
// other.
func TestTLSEnds(t *testing.T) {
	closeNotify, fin := tlsconf.Ends{Strict: true}, tlsconf.Ends{FIN: true}
	// What the client may still do once its own direction has ended cleanly.
	answered := func(t *testing.T, r *tlsRig, ends tlsconf.Ends) {
		expectEOF(t, r.upstream, "question")
		write(t, r.upstream, "answer")
		if err := r.upstream.Close(); err != nil {
			t.Error(err)
		}
		r.wantEnd(t, "answer", ends, true)
		r.ended(t, tunnel.CloseClientEOF)
	}
	for name, tc := range map[string]struct {
		ends  []tlsconf.Ends
		event func(*testing.T, *tlsRig, tlsconf.Ends)
	}{
		"client, close_notify": {[]tlsconf.Ends{closeNotify, fin}, func(t *testing.T, r *tlsRig, ends tlsconf.Ends) {
			write(t, r.client, "question")
			r.closeNotify(t)
			answered(t, r, ends)
		}},
		"client, close_notify and FIN": {[]tlsconf.Ends{closeNotify, fin}, func(t *testing.T, r *tlsRig, ends tlsconf.Ends) {
			write(t, r.client, "question")
			r.closeNotify(t)
			r.fin(t)
			answered(t, r, ends)
		}},
		"client, close_notify and reset": {[]tlsconf.Ends{closeNotify, fin}, func(t *testing.T, r *tlsRig, _ tlsconf.Ends) {
			write(t, r.client, "question")
			r.closeNotify(t)
			expectEOF(t, r.upstream, "question")
			resetNow(t, r.socket)
			if err := r.upstream.SetReadDeadline(time.Now().Add(tick + tick/2)); err != nil {
				t.Fatal(err)
			}
			if _, err := r.upstream.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("the upstream reads %v behind the end", err)
			}
			// It is told once it has something to say.
			for err := error(nil); err == nil; {
				_, err = r.upstream.Write([]byte("answer"))
			}
			r.ended(t, tunnel.CloseClientReset)
		}},
		"client, FIN": {[]tlsconf.Ends{fin}, func(t *testing.T, r *tlsRig, ends tlsconf.Ends) {
			write(t, r.client, "question")
			r.fin(t)
			answered(t, r, ends)
		}},
		"client, only FIN": {[]tlsconf.Ends{closeNotify}, func(t *testing.T, r *tlsRig, _ tlsconf.Ends) {
			write(t, r.client, "question")
			read(t, r.upstream, "question")
			r.fin(t)
			wantReset(t, r.upstream)
			wantReset(t, r.socket)
			r.ended(t, tunnel.CloseClientReset)
		}},
		"client, FIN within a record": {[]tlsconf.Ends{closeNotify, fin}, func(t *testing.T, r *tlsRig, _ tlsconf.Ends) {
			write(t, r.socket, "\x17\x03\x03\x01\x00half")
			r.fin(t)
			wantReset(t, r.upstream)
			wantReset(t, r.socket)
			r.ended(t, tunnel.CloseClientReset)
		}},
		"client, no TLS any more": {[]tlsconf.Ends{closeNotify, fin}, func(t *testing.T, r *tlsRig, _ tlsconf.Ends) {
			write(t, r.socket, "\x17\x03\x03\x00\x20"+strings.Repeat("x", 32))
			wantReset(t, r.upstream)
			r.ended(t, tunnel.CloseClientReset)
		}},
		"client, reset": {[]tlsconf.Ends{closeNotify, fin}, func(t *testing.T, r *tlsRig, _ tlsconf.Ends) {
			write(t, r.client, "question")
			read(t, r.upstream, "question")
			resetNow(t, r.socket)
			wantReset(t, r.upstream)
			r.ended(t, tunnel.CloseClientReset)
		}},
		"client, FIN and reset": {[]tlsconf.Ends{fin}, func(t *testing.T, r *tlsRig, _ tlsconf.Ends) {
			r.fin(t)
			expectEOF(t, r.upstream, "")
			resetNow(t, r.socket)
			r.ended(t, tunnel.CloseClientReset)
		}},
		"upstream, FIN": {[]tlsconf.Ends{closeNotify, fin}, func(t *testing.T, r *tlsRig, ends tlsconf.Ends) {
			write(t, r.upstream, "greeting")
			if err := r.upstream.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			r.wantEnd(t, "greeting", ends, false)
			write(t, r.client, "still here")
			read(t, r.upstream, "still here")
			if err := r.client.Close(); err != nil {
				t.Error(err)
			}
			expectEOF(t, r.upstream, "")
			r.ended(t, tunnel.CloseUpstreamEOF)
		}},
		"upstream, reset": {[]tlsconf.Ends{closeNotify, fin}, func(t *testing.T, r *tlsRig, _ tlsconf.Ends) {
			write(t, r.client, "question")
			read(t, r.upstream, "question")
			resetNow(t, r.upstream)
			wantReset(t, r.socket)
			r.ended(t, tunnel.CloseUpstreamReset)
		}},
		"daemon, kill": {[]tlsconf.Ends{closeNotify, fin}, func(t *testing.T, r *tlsRig, _ tlsconf.Ends) {
			r.pump.Kill()
			wantReset(t, r.socket)
			wantReset(t, r.upstream)
			r.ended(t, tunnel.CloseKilled)
		}},
	} {
		for _, ends := range tc.ends {
			mode := "close_notify"
			if ends.FIN {
				mode = "fin"
			}
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				t.Run(name+"; "+mode+", "+tls.VersionName(version), func(t *testing.T) {
					t.Parallel()
					tc.event(t, newTLSRig(t, version, ends, Tunnel{}), ends)
				})
			}
		}
	}
}

// TestTLSTimeouts end both sides by a reset, without close_notify.
func TestTLSTimeouts(t *testing.T) {
	for name, tc := range map[string]struct {
		timeouts Timeouts
		reason   tunnel.CloseReason
	}{
		"idle":       {Timeouts{Idle: time.Millisecond}, tunnel.CloseIdle},
		"half_close": {Timeouts{HalfClose: time.Millisecond}, tunnel.CloseHalfClosed},
		"lifetime":   {Timeouts{Lifetime: time.Millisecond}, tunnel.CloseLifetime},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newTLSRig(t, tls.VersionTLS13, tlsconf.Ends{Strict: true}, Tunnel{Timeouts: tc.timeouts})
			if tc.timeouts.HalfClose > 0 {
				r.closeNotify(t)
			}
			r.ended(t, tc.reason)
			wantReset(t, r.socket)
		})
	}
}

// TestTLSSlowReaders get all that was sent before the end, and the end, either way: there
// is no room for the alert for a while.
func TestTLSSlowReaders(t *testing.T) {
	for _, ends := range []tlsconf.Ends{{Strict: true}, {FIN: true}} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			r := newTLSRig(t, version, ends, Tunnel{})
			// More than the sockets hold.
			text := strings.Repeat("0123456789abcdef", 1<<20)
			var sent sync.WaitGroup
			sent.Go(func() {
				write(t, r.upstream, text)
				if err := r.upstream.CloseWrite(); err != nil {
					t.Error(err)
				}
			})
			for heldBy(r.upstream) == 0 { // until nothing moves any more
				time.Sleep(time.Millisecond)
			}
			r.wantEnd(t, text, ends, false)
			sent.Wait()
			sent.Go(func() {
				write(t, r.client, text)
				_ = r.client.Close()
			})
			got, err := io.ReadAll(r.upstream)
			if err != nil || !bytes.Equal(got, []byte(text)) {
				t.Errorf("the upstream reads %d bytes, %v", len(got), err)
			}
			sent.Wait()
			r.ended(t, tunnel.CloseUpstreamEOF)
		}
	}
}

// TestIdleTLSHoldsNoBuffer of the pump.
func TestIdleTLSHoldsNoBuffer(t *testing.T) {
	r := newTLSRig(t, tls.VersionTLS13, tlsconf.Ends{Strict: true}, Tunnel{})
	text := strings.Repeat("x", 200<<10)
	go func() { _, _ = io.WriteString(r.client, text) }()
	read(t, r.upstream, text)
	go func() { _, _ = io.WriteString(r.upstream, text) }()
	read(t, r.client, text)
	deadline := time.Now().Add(30 * time.Second)
	for r.pump.Stats().BuffersInUse != 0 {
		if time.Now().After(deadline) {
			t.Fatalf("%d buffers in use", r.pump.Stats().BuffersInUse)
		}
		time.Sleep(time.Millisecond)
	}
	write(t, r.client, "again")
	read(t, r.upstream, "again")
	_ = r.client.Close()
	expectEOF(t, r.upstream, "")
	_ = r.upstream.Close()
	r.ended(t, tunnel.CloseClientEOF)
}
