package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/bare"
	"github.com/tunneld/tunneld/internal/proxyheader"
)

// headers are PROXY headers of a client at 192.0.2.7 that has connected to 10.0.0.1, and of
// a load balancer's own connections.
var headers = map[string]string{
	"version 1": "PROXY TCP4 192.0.2.7 10.0.0.1 51442 80\r\n",
	"version 2": v2 + "\x21\x11\x00\x0c\xc0\x00\x02\x07\x0a\x00\x00\x01\xc8\xf2\x00\x50",
	"unknown":   "PROXY UNKNOWN\r\n",
	"local":     v2 + "\x20\x00\x00\x00",
}

const v2 = "\r\n\r\n\x00\r\nQUIT\n"

var announcedClient = proxyheader.Header{Source: netip.MustParseAddrPort("192.0.2.7:51442"), Destination: netip.MustParseAddrPort("10.0.0.1:80")}

// announcement is what Announced and Handshake returned.
type announcement struct {
	header proxyheader.Header
	outcome
}

// beginAnnounced connects a client that has to begin with a header.
func beginAnnounced(ctx context.Context, t *testing.T, p Protocol, options HandshakeOptions) (*net.TCPConn, func() announcement) {
	t.Helper()
	done := make(chan announcement, 1)
	c := served(t, func(s *bare.Socket) {
		conn := NewConn(s)
		var a announcement
		if a.header, a.err = conn.Announced(ctx, options.Timeout); a.err == nil {
			a.client, a.err = Handshake(ctx, p, conn, options)
		}
		done <- a
	})
	return c, func() announcement {
		t.Helper()
		select {
		case a := <-done:
			return a
		case <-time.After(patience):
			t.Fatal("the handshake does not end")
			return announcement{}
		}
	}
}

// asking is what a client of each kind sends, and hears before its target is known.
var asking = map[string]struct{ send, hear string }{
	KindTCP:                  {"", ""},
	KindTCP + ", first_byte": {"", ""},
	KindSOCKS5:               {"\x05\x01\x00\x05\x01\x00\x03\x02db\x00\x01", greeted},
	KindHTTP:                 {"CONNECT db:1 HTTP/1.1\r\n\r\n", ""},
	KindMixed:                {"CONNECT db:1 HTTP/1.1\r\n\r\n", ""},
	KindMixed + ", SOCKS5":   {"\x05\x01\x00\x05\x01\x00\x03\x02db\x00\x01", greeted},
	KindHTTP + " over TLS":   {"CONNECT db:1 HTTP/1.1\r\n\r\n", ""},
	KindTCP + " over TLS":    {"", ""},
}

// spoken is the protocol that such a client speaks, and whether it does so in TLS.
func spoken(t *testing.T, kind string) (p Protocol, secured bool) {
	t.Helper()
	name, secured := strings.CutSuffix(kind, " over TLS")
	if name == KindTCP+", first_byte" {
		return waiting(), secured
	}
	name, _, _ = strings.Cut(name, ",")
	return speaking(t, name), secured
}

// TestAnnounced: the header comes before all else, of every kind of listener; all that
// follows it is there, and the socket is bare where nobody talks with the client.
func TestAnnounced(t *testing.T) {
	rig := newTLSRig(t)
	for kind, say := range asking {
		for version, header := range headers {
			for name, how := range manners {
				t.Run(kind+", "+version+", "+name, func(t *testing.T) {
					p, secured := spoken(t, kind)
					options := HandshakeOptions{Timeout: patience}
					if secured {
						options.TLS = rig.tls()
					}
					c, end := beginAnnounced(t.Context(), t, p, options)
					sent := make(chan error, 1)
					if secured {
						send(t, c, header, min(how, bytewise)) // the end is that of TLS
						go func() {
							inTLS := tls.Client(c, rig.client())
							_, err := io.WriteString(inTLS, say.send+"hello")
							sent <- errors.Join(err, inTLS.CloseWrite())
						}()
					} else {
						send(t, c, header+say.send+"hello", how)
						sent <- c.CloseWrite()
					}
					a := end()
					if a.err != nil {
						t.Fatal(a.err)
					}
					want := announcedClient
					if version == "unknown" || version == "local" {
						want = proxyheader.Header{}
					}
					if a.header != want || a.client.Target.String() != "db:1" {
						t.Errorf("%v to %s, want %v", a.header, a.client.Target, want)
					}
					near, err := a.client.Ready(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					if isBare := near.Socket != nil; isBare != (kind == KindTCP) {
						t.Errorf("a bare socket: %t", isBare)
					}
					if err := near.UseStream(); err != nil {
						t.Fatal(err)
					}
					defer near.Stream.Close()
					if _, isTCP := near.Stream.(*net.TCPConn); !isTCP && !secured {
						t.Errorf("the tunnel has a %T", near.Stream)
					}
					rest, err := io.ReadAll(near.Stream)
					if got := string(near.ReadAhead) + string(rest); got != "hello" || err != nil {
						t.Errorf("behind the handshake is %q, %v", got, err)
					}
					if err := <-sent; err != nil {
						t.Error(err)
					}
				})
			}
		}
	}
}

// TestAnnouncedTime: the header takes of the handshake's time.
func TestAnnouncedTime(t *testing.T) {
	for name, tt := range map[string]struct{ send, hint string }{
		"no header":      {"", "accept_from"},
		"half a header":  {"PROXY TCP4 ", "accept_from"},
		"no handshake":   {headers["version 2"], "timeouts.handshake"},
		"half a request": {headers["version 1"] + "\x05\x01\x00\x05", "timeouts.handshake"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, end := beginAnnounced(t.Context(), t, speaking(t, KindSOCKS5), HandshakeOptions{Timeout: brief})
			begun := time.Now()
			send(t, c, tt.send, inOnePiece)
			a := end()
			if a.err == nil || Reason(a.err) != "timeout" || !strings.Contains(Hint(a.err), tt.hint) {
				t.Errorf("error %v, reason %q, hint %q", a.err, Reason(a.err), Hint(a.err))
			}
			if took := time.Since(begun); took > patience/2 {
				t.Errorf("it took %s", took)
			}
			if _, err := io.ReadAll(c); tt.hint == "accept_from" && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%v, want a reset", err)
			}
		})
	}
}

// TestAnnouncedTimeGoesOn: what follows the header has what is left of the time.
func TestAnnouncedTimeGoesOn(t *testing.T) {
	times := make(chan [2]time.Time, 1)
	c := served(t, func(s *bare.Socket) {
		conn := NewConn(s)
		if _, err := conn.Announced(t.Context(), patience); err != nil {
			t.Error(err)
		}
		until := conn.until
		if _, err := Handshake(t.Context(), speaking(t, KindSOCKS5), conn, HandshakeOptions{Timeout: patience}); err == nil {
			t.Error("half a greeting is taken")
		}
		times <- [2]time.Time{until, conn.until}
	})
	send(t, c, headers["version 1"]+"\x05", thenEOF)
	if got := <-times; got[0].IsZero() || got[1] != got[0] {
		t.Errorf("the time ends at %s, and then at %s", got[0], got[1])
	}
}

// TestAnnouncedProbe: who leaves without a byte, and a load balancer that leaves after a
// header of its own, is a probe. A client's own end is none: its target may speak first.
func TestAnnouncedProbe(t *testing.T) {
	for name, leave := range map[string]func(*net.TCPConn) error{
		"closed":      (*net.TCPConn).Close,
		"half-closed": (*net.TCPConn).CloseWrite,
		"reset":       func(c *net.TCPConn) error { bare.Reset(c); return nil },
	} {
		for _, version := range []string{"", "unknown", "local"} {
			t.Run(name+" after "+version, func(t *testing.T) {
				begun := make(chan struct{})
				done := make(chan error, 1)
				c := served(t, func(s *bare.Socket) {
					<-begun
					_, err := NewConn(s).Announced(t.Context(), patience)
					done <- err
				})
				send(t, c, headers[version], inOnePiece)
				if err := leave(c); err != nil {
					t.Fatal(err)
				}
				close(begun)
				if err := <-done; !errors.Is(err, ErrNothing) || Reason(err) != "left" {
					t.Errorf("%v, reason %q", err, Reason(err))
				}
				if b, err := io.ReadAll(c); name == "half-closed" && (len(b) > 0 || err != nil) {
					t.Errorf("heard %q, %v; want the end", b, err)
				}
			})
		}
	}
	c, end := beginAnnounced(t.Context(), t, speaking(t, KindTCP), HandshakeOptions{Timeout: patience})
	send(t, c, headers["version 1"], thenEOF)
	if a := end(); a.err != nil || a.header != announcedClient {
		t.Errorf("a client that has nothing to say: %v, %v", a.header, a.err)
	}
}

// TestNotAnnounced: a client that should begin with a header, and does not, or with a wrong
// one, is reset, and the log says why.
func TestNotAnnounced(t *testing.T) {
	for name, tt := range map[string]struct {
		send      string
		how       manner
		err, hint string
	}{
		"SOCKS":      {"\x05\x01\x00", inOnePiece, "sends no PROXY header, but SOCKS5", "accept_from"},
		"HTTP":       {"GET / HTTP/1.1\r\n", inOnePiece, "sends no PROXY header, but HTTP", "accept_from"},
		"TLS":        {"\x16\x03\x01\x02\x00", inOnePiece, "sends no PROXY header, but TLS", "accept_from"},
		"anything":   {"\x00", inOnePiece, "sends no PROXY header, but an unknown protocol (its first byte is 0x00)", "accept_from"},
		"malformed":  {"PROXY TCP4 a b c d\r\n", inOnePiece, "PROXY header: invalid address", "see what the client sends"},
		"unix":       {v2 + "\x21\x31\x00\xd8" + strings.Repeat("a", 216), inOnePiece, "not for a TCP connection", "for TCP over IPv4 and IPv6"},
		"half of it": {headers["version 2"][:20], thenEOF, "left before its PROXY header was complete", "client's log"},
		"too long":   {v2 + "\x21\x11\xff\xff", inOnePiece, "at most 4112 are read", "see what"},
	} {
		t.Run(name, func(t *testing.T) {
			c, end := beginAnnounced(t.Context(), t, speaking(t, KindSOCKS5), HandshakeOptions{Timeout: patience})
			send(t, c, tt.send, tt.how)
			a := end()
			if a.err == nil || !strings.Contains(a.err.Error(), tt.err) || !strings.Contains(Hint(a.err), tt.hint) || Reason(a.err) != "proxy_protocol" {
				t.Errorf("error %v, reason %q, hint %q", a.err, Reason(a.err), Hint(a.err))
			}
			if b, err := io.ReadAll(c); len(b) > 0 || !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("heard %q, %v; want a reset", b, err)
			}
		})
	}
}

// TestAnnouncedIsBrokenOff by the context.
func TestAnnouncedIsBrokenOff(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	c, end := beginAnnounced(ctx, t, speaking(t, KindTCP), HandshakeOptions{})
	send(t, c, "PROXY TCP4", inOnePiece)
	cancel(errors.New("the test has had enough"))
	if a := end(); a.err == nil {
		t.Error("it went on")
	}
	if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v, want a reset", err)
	}
}

// TestUnwantedHeader: a client that sends a header, and is none that should, is reset on
// kinds that read what it says, and the log says why.
func TestUnwantedHeader(t *testing.T) {
	rig := newTLSRig(t)
	for kind := range asking {
		if kind == KindTCP {
			continue // nobody reads what it says
		}
		for version, header := range headers {
			t.Run(kind+", "+version, func(t *testing.T) {
				p, secured := spoken(t, kind)
				options := HandshakeOptions{Timeout: patience, Headless: true}
				if secured {
					options.TLS = rig.tls()
				}
				c, done := beginWith(t, p, options)
				send(t, c, header, inOnePiece)
				o := await(t, done)
				if o.err == nil || !strings.Contains(o.err.Error(), "sends a PROXY header") || Reason(o.err) != "proxy_protocol" || !strings.Contains(Hint(o.err), "accept_from") {
					t.Errorf("error %v, reason %q, hint %q", o.err, Reason(o.err), Hint(o.err))
				}
				if b, err := io.ReadAll(c); len(b) > 0 || !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("heard %q, %v; want a reset", b, err)
				}
			})
		}
	}
}

// TestHeaderOfTheTargets: where a listener takes no headers from anybody, one is the
// target's, as all that a client of a tcp listener says.
func TestHeaderOfTheTargets(t *testing.T) {
	c, done := beginWith(t, waiting(), HandshakeOptions{Timeout: patience})
	send(t, c, headers["version 1"], thenEOF)
	o := await(t, done)
	if o.err != nil {
		t.Fatal(o.err)
	}
	end, err := o.client.Ready(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer end.Stream.Close()
	if got, err := io.ReadAll(end.Stream); err != nil || string(got) != headers["version 1"] {
		t.Errorf("%q, %v", got, err)
	}
}
