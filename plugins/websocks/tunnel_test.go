package websocks

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
	"github.com/tunneld/tunneld/plugins/websocks/websocksemu"
)

// pair is a tunnel and a function that accepts its connection at the target,
// which is made once the tunnel has carried a byte.
func pair(t *testing.T, secure bool) (*sdktest.Conn, func() *net.TCPConn) {
	t.Helper()
	return pairThrough(t, websocksemu.Options{TLS: secure})
}

// pairThrough is pair for a server of these options, but for its targets.
func pairThrough(t *testing.T, o websocksemu.Options, more ...values) (*sdktest.Conn, func() *net.TCPConn) {
	t.Helper()
	l := listen(t)
	o.Targets = map[string]string{"db.corp:5432": l.Addr().String()}
	return mustDial(t, towards(emulate(t, o), more...), "db.corp:5432"), func() *net.TCPConn {
		t.Helper()
		c, err := l.AcceptTCP()
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
}

// TestBulk carries random bytes both ways at once.
func TestBulk(t *testing.T) {
	for name, secure := range map[string]bool{"ws": false, "wss": true} {
		t.Run(name, func(t *testing.T) {
			s := emulate(t, websocksemu.Options{TLS: secure})
			c := mustDial(t, towards(s), websocksemu.EchoTarget)
			data := make([]byte, 8<<20)
			_, _ = rand.Read(data)
			sent := make(chan error, 1)
			go func() {
				_, err := c.Write(data)
				if err == nil {
					err = c.CloseWrite()
				}
				sent <- err
			}()
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("received %d bytes, equal %t: %v", len(got), bytes.Equal(got, data), err)
			}
			if err := <-sent; err != nil {
				t.Errorf("send: %v", err)
			}
		})
	}
}

// TestReadAhead has the target's first bytes in one packet with the reply.
func TestReadAhead(t *testing.T) {
	ahead := strings.Repeat("early ", 1000) // more than one read of the handshake's
	for name, secure := range map[string]bool{"ws": false, "wss": true} {
		t.Run(name, func(t *testing.T) {
			s := emulate(t, websocksemu.Options{TLS: secure, Faults: websocksemu.Faults{Ahead: ahead}})
			c := mustDial(t, towards(s), websocksemu.EchoTarget)
			expect(t, c, ahead)
			send(t, c, "late")
			expect(t, c, "late")
		})
	}
}

// TestReset passes a target's reset on, in each direction.
func TestReset(t *testing.T) {
	t.Run("ws, from the far end", func(t *testing.T) {
		c, target := pair(t, false)
		send(t, c, "x")
		up := target()
		expect(t, up, "x")
		_ = up.SetLinger(0)
		_ = up.Close()
		if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%v, want a reset", err)
		}
	})
	t.Run("wss, from the far end", func(t *testing.T) {
		c, target := pair(t, true)
		send(t, c, "x")
		up := target()
		expect(t, up, "x")
		_ = up.SetLinger(0)
		_ = up.Close()
		if _, err := io.ReadAll(c); !errors.Is(err, sdktest.ErrNotClean) {
			t.Errorf("%v, want an end that is not clean", err)
		}
	})
	for name, secure := range map[string]bool{"ws": false, "wss": true} {
		t.Run(name+", from the client", func(t *testing.T) {
			c, target := pair(t, secure)
			send(t, c, "x")
			up := target()
			expect(t, up, "x")
			if err := c.Abort("test"); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAll(up); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the target reads %v, want a reset", err)
			}
		})
	}
}

// TestStages has the time of each stage.
func TestStages(t *testing.T) {
	s := emulate(t, websocksemu.Options{TLS: true})
	var got []string
	for _, st := range mustDial(t, towards(s), websocksemu.EchoTarget).Stages {
		got = append(got, st.Stage.String())
	}
	if want := "connect tls handshake request"; strings.Join(got, " ") != want {
		t.Errorf("stages %q, want %q", got, want)
	}
}

// TestServerName has SNI and Host apart from where the connection goes.
func TestServerName(t *testing.T) {
	s := emulate(t, websocksemu.Options{TLS: true, Names: []string{"paas.example"}})
	mustDial(t, towards(s, values{
		"tls":     values{"ca_file": s.CAFile(), "server_name": "paas.example"},
		"headers": values{"Host": "app.paas.example"},
	}), websocksemu.EchoTarget)
	e := s.Exchanges()[0]
	if e.ServerName != "paas.example" {
		t.Errorf("server name %q", e.ServerName)
	}
	has(t, "request", e.Request, "\r\nHost: app.paas.example\r\n")
}

// TestTLSFilesAreFollowed dials until ca_file's change has been noticed, and dials on
// where it cannot be used.
func TestTLSFilesAreFollowed(t *testing.T) {
	s := emulate(t, websocksemu.Options{TLS: true})
	stranger := emulate(t, websocksemu.Options{TLS: true})
	file := filepath.Join(t.TempDir(), "ca.pem")
	put := func(ca []byte) {
		t.Helper()
		if err := os.WriteFile(file, ca, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ca, err := os.ReadFile(s.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(stranger.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	put(ca)
	u := sdktest.Start(t, Plugin()).Configure(t, "test", towards(s, values{"tls": values{"ca_file": file}}))
	dial := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		c, err := u.Dial(ctx, websocksemu.EchoTarget)
		if err == nil {
			_ = c.Close()
		}
		return err
	}
	if err := dial(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	put([]byte("x"))
	u.AwaitFileProblem(ctx, t, "no certificate in "+file)
	if err := dial(); err != nil {
		t.Errorf("with a file that cannot be used: %v", err)
	}
	put(other)
	for err = nil; err == nil && ctx.Err() == nil; {
		err = dial()
	}
	if e := dialError(t, err); e.Stage != sdk.StageTLS || e.Reason != sdk.ReasonProtocol {
		t.Errorf("by another authority: %+v", e)
	}
	put(ca)
	for err != nil && ctx.Err() == nil {
		err = dial()
	}
	if err != nil {
		t.Error(err)
	}
}

// TestTLSSessionsAreResumed from the second dial on.
func TestTLSSessionsAreResumed(t *testing.T) {
	s := emulate(t, websocksemu.Options{TLS: true})
	u := sdktest.Start(t, Plugin()).Configure(t, "test", towards(s, values{"tls": values{"ca_file": s.CAFile()}}))
	for range 3 {
		c, err := u.Dial(t.Context(), websocksemu.EchoTarget)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	}
	for i, e := range s.Exchanges() {
		if e.Resumed != (i > 0) {
			t.Errorf("connection %d: resumed %v", i, e.Resumed)
		}
	}
}

// TestAddresses sends each form of target as SOCKS has it.
func TestAddresses(t *testing.T) {
	long := strings.Repeat("a", 255)
	s := emulate(t, websocksemu.Options{Targets: map[string]string{
		"db.corp:5432": "127.0.0.1:1", long + ":1": "127.0.0.1:1", "name-with-UPPER.and_under:65535": "127.0.0.1:1",
	}})
	for target, want := range map[string]string{
		"db.corp:5432":                    "\x03\x07db.corp\x15\x38",
		"10.0.0.1:80":                     "\x01\x0a\x00\x00\x01\x00\x50",
		"[2001:db8::1]:443":               "\x04\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x01\xbb",
		long + ":1":                       "\x03\xff" + long + "\x00\x01",
		"name-with-UPPER.and_under:65535": "\x03\x19name-with-UPPER.and_under\xff\xff",
	} {
		mustDial(t, towards(s), target)
		all := s.Exchanges()
		got := all[len(all)-1].Reads[1]
		if want := frame + "\x05\x01\x00\x05\x01\x00" + want; string(got) != want {
			t.Errorf("%s: sent %q, want %q", target, got, want)
		}
	}
	before := len(s.Exchanges())
	for _, target := range []string{"label", strings.Repeat("a", 256) + ":1", "[fe80::1%eth0]:1"} {
		_, err := dial(t, towards(s), target)
		if e := dialError(t, err); e.Stage != sdk.StageRequest || e.Reason != sdk.ReasonUnreachable || e.Retryable {
			t.Errorf("%.20s: %+v", target, e)
		}
	}
	if after := len(s.Exchanges()); after != before {
		t.Errorf("%d connections for targets that cannot be asked for", after-before)
	}
}

// TestCancel ends a dial at each step of a server that hangs, and leaves
// nothing open.
func TestCancel(t *testing.T) {
	for _, step := range []websocksemu.Step{
		websocksemu.Accepted, websocksemu.Requested, websocksemu.Upgraded, websocksemu.Framed, websocksemu.Greeted,
	} {
		s := emulate(t, websocksemu.Options{TLS: true, Faults: websocksemu.Faults{StopAt: step}})
		u := sdktest.Start(t, Plugin()).Configure(t, "test", towards(s, values{"timeouts": values{"handshake": "1h"}}))
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if _, err := u.Dial(ctx, websocksemu.EchoTarget); err == nil {
			t.Errorf("step %d: a dial that cannot succeed did", step)
		}
		cancel()
	}
}
