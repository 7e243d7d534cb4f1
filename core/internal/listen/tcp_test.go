package listen

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/bare"
)

// waiting is a tcp listener's protocol that waits for the first byte.
func waiting() Protocol {
	return tcpKind.New(Settings{Target: tunnel.Target{Host: "db", Port: 1}, Values: map[string]any{"dial_on": onFirstByte}})
}

// TestFirstByte: a client that has sent something has a target, and nothing of what it
// sends is lost or there twice.
func TestFirstByte(t *testing.T) {
	for name, how := range manners {
		for size, text := range map[string]string{"a byte": "x", "a lot": strings.Repeat("0123456789", 10000)} {
			t.Run(size+", "+name, func(t *testing.T) {
				if how == bytewise {
					text = text[:min(len(text), 100)]
				}
				c, done := beginWith(t, waiting(), HandshakeOptions{Timeout: patience})
				select {
				case o := <-done:
					t.Fatalf("before the first byte: %+v", o)
				default:
				}
				send(t, c, text, how)
				o := await(t, done)
				if o.err != nil {
					t.Fatal(o.err)
				}
				end, err := o.client.Ready(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				defer end.Stream.Close()
				if _, ok := end.Stream.(*net.TCPConn); !ok || end.ReadAhead != nil {
					t.Errorf("the pump gets a %T, and %q before it", end.Stream, end.ReadAhead)
				}
				if how != thenEOF {
					if err := c.CloseWrite(); err != nil {
						t.Fatal(err)
					}
				}
				if got, err := io.ReadAll(end.Stream); string(got) != text || err != nil {
					t.Errorf("%d bytes arrived of %d, %v", len(got), len(text), err)
				}
			})
		}
	}
}

// TestFirstByteOverTLS: what is wrapped cannot be looked at ahead of its read.
func TestFirstByteOverTLS(t *testing.T) {
	c, _, conn := overTLS(t)
	sent := make(chan error, 1)
	go func() {
		_, err := io.WriteString(c, "hello")
		sent <- errors.Join(err, c.CloseWrite())
	}()
	client, err := Handshake(t.Context(), waiting(), conn, HandshakeOptions{Timeout: patience})
	if err := errors.Join(err, <-sent); err != nil {
		t.Fatal(err)
	}
	end, err := client.Ready(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(end.Stream)
	if got := bytes.Join([][]byte{end.ReadAhead, rest}, nil); string(got) != "hello" || err != nil {
		t.Errorf("read %q, then %q, %v", end.ReadAhead, rest, err)
	}
}

// TestNoFirstByte: who leaves without a byte is a probe, and who stays is reset once
// its time is over.
func TestNoFirstByte(t *testing.T) {
	for name, leave := range map[string]func(*net.TCPConn) error{
		"closed":      (*net.TCPConn).Close,
		"half-closed": (*net.TCPConn).CloseWrite,
		"reset":       func(c *net.TCPConn) error { bare.Reset(c); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			c, done := beginWith(t, waiting(), HandshakeOptions{Timeout: patience})
			if err := leave(c); err != nil {
				t.Fatal(err)
			}
			if o := await(t, done); !errors.Is(o.err, ErrNothing) {
				t.Errorf("error %v", o.err)
			}
			if name != "half-closed" {
				return
			}
			if b, err := io.ReadAll(c); len(b) != 0 || err != nil {
				t.Errorf("read %q, %v", b, err)
			}
		})
	}
	t.Run("silent", func(t *testing.T) {
		c, done := beginWith(t, waiting(), HandshakeOptions{Timeout: brief})
		o := await(t, done)
		if !errors.Is(o.err, errSilent) || Reason(o.err) != "timeout" || !strings.Contains(Hint(o.err), `dial_on = "accept"`) {
			t.Errorf("error %v, reason %s, hint %q", o.err, Reason(o.err), Hint(o.err))
		}
		if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read %d, %v; want a reset", n, err)
		}
	})
}
