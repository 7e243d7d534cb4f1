package tlsconf

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/nettest"
)

// tunnel is a Conn as a server and its client, after their handshake over TCP.
func tunnel(t *testing.T, version uint16, ends Ends) (client *tls.Conn, server *Conn) {
	t.Helper()
	near, far := nettest.Pair(t)
	return tunnelOver(t, version, ends, Strict(near), far)
}

// socketOf is the TCP connection of a tunnel's client.
func socketOf(c *tls.Conn) *net.TCPConn { return c.NetConn().(strict).Conn.(*net.TCPConn) }

// serving is a server with a certificate of the authority.
func (a *authority) serving(t *testing.T) *tls.Config {
	t.Helper()
	pair, err := tls.X509KeyPair(a.issue("far.example", time.Now().Add(time.Hour)))
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}}
}

func tunnelOver(t *testing.T, version uint16, ends Ends, near, far net.Conn) (client *tls.Conn, server *Conn) {
	t.Helper()
	for _, c := range []net.Conn{near, far} {
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	}
	client = tls.Client(near, &tls.Config{InsecureSkipVerify: true, MaxVersion: version})
	server = ServerConn(far, nil, newAuthority(t).serving(t), ends)
	done := make(chan error, 1)
	go func() { done <- server.HandshakeWithin(unmetered) }()
	if err := errors.Join(client.Handshake(), <-done); err != nil {
		t.Fatal(err)
	}
	return client, server
}

// unmetered takes anything.
var unmetered = Meter{Record: func(int) error { return nil }, Bytes: func(int) error { return nil }}

// readPatiently is a reader that holds no buffer while it waits.
type readPatiently struct {
	*testing.T
	c *Conn
}

func (r readPatiently) Read(b []byte) (int, error) {
	for {
		n, err := r.c.ReadNow(b)
		if n > 0 || !errors.Is(err, syscall.EAGAIN) {
			return n, err
		}
		if r.c.HasData() {
			r.Error("a buffer is held with nothing to read")
		}
		if err := r.c.AwaitData(); err != nil {
			return 0, err
		}
	}
}

// TestConnEnds: what a reader sees of the peer's end, and the peer of its own.
func TestConnEnds(t *testing.T) {
	cut := func(c *tls.Conn) error { return socketOf(c).CloseWrite() }
	for name, tc := range map[string]struct {
		ends Ends
		end  func(*tls.Conn) error
		want error // of the reader; nil: a clean end
		own  error // of the peer, which is strict
	}{
		"close_notify":               {Ends{Strict: true}, (*tls.Conn).CloseWrite, nil, nil},
		"strict, FIN":                {Ends{Strict: true}, cut, withoutAlert, nil},
		"neither":                    {Ends{}, cut, nil, nil},
		"FIN":                        {Ends{FIN: true}, cut, nil, withoutAlert},
		"FIN, close_notify":          {Ends{FIN: true}, (*tls.Conn).CloseWrite, nil, withoutAlert},
		"FIN and strict, FIN":        {Ends{FIN: true, Strict: true}, cut, withoutAlert, withoutAlert},
		"close_notify, and then FIN": {Ends{Strict: true}, func(c *tls.Conn) error { return errors.Join(c.CloseWrite(), cut(c)) }, nil, nil},
	} {
		for version, number := range bothVersions {
			for way, patient := range map[string]bool{"read": false, "patiently": true} {
				t.Run(name+", "+version+", "+way, func(t *testing.T) {
					client, server := tunnel(t, number, tc.ends)
					var from io.Reader = server
					if patient {
						server.Bulk()
						from = readPatiently{t, server}
					}
					send(t, client, "question")
					if err := tc.end(client); err != nil {
						t.Fatal(err)
					}
					expect(t, from, "question", tc.want)
					send(t, server, "answer")
					if err := server.CloseWrite(); err != nil {
						t.Fatal(err)
					}
					expect(t, client, "answer", tc.own)
				})
			}
		}
	}
}

// TestConnIsCutWithinARecord: it is no clean end, whoever waits how.
func TestConnIsCutWithinARecord(t *testing.T) {
	for name, patient := range map[string]bool{"read": false, "patiently": true} {
		t.Run(name, func(t *testing.T) {
			client, server := tunnel(t, tls.VersionTLS13, Ends{FIN: true})
			var from io.Reader = server
			if patient {
				server.Bulk()
				from = readPatiently{t, server}
			}
			send(t, client.NetConn(), "\x17\x03\x03\x01\x00half")
			if err := client.NetConn().Close(); err != nil {
				t.Fatal(err)
			}
			expect(t, from, "", io.ErrUnexpectedEOF)
		})
	}
}

// chop passes bytes on in pieces of any size.
func chop(dst io.Writer, src io.Reader, r *rand.Rand) {
	p := make([]byte, 100<<10)
	for {
		n, err := src.Read(p[:1+r.IntN(len(p))])
		for b := p[:n]; len(b) > 0; {
			k := 1 + r.IntN(len(b))
			if _, err := dst.Write(b[:k]); err != nil {
				return
			}
			b = b[k:]
		}
		if err != nil {
			return
		}
	}
}

// TestConnInAnyPieces: records that come cut anywhere are read with buffers of any size.
func TestConnInAnyPieces(t *testing.T) {
	for version, number := range bothVersions {
		for _, way := range []string{"read", "in bulk", "patiently"} {
			t.Run(version+", "+way, func(t *testing.T) {
				t.Parallel()
				near, between := nettest.Pair(t)
				beyond, far := nettest.Pair(t)
				var wg sync.WaitGroup
				wg.Go(func() { chop(beyond, between, rand.New(rand.NewPCG(1, uint64(number)))); _ = beyond.CloseWrite() })
				wg.Go(func() { _, _ = io.Copy(between, beyond); _ = between.CloseWrite() })
				client, server := tunnelOver(t, number, Ends{Strict: true}, near, far)
				sent := sha256.New()
				wg.Go(func() {
					r := rand.New(rand.NewPCG(2, uint64(number)))
					for range 200 {
						b := make([]byte, r.IntN(100<<10))
						_, _ = rand.NewChaCha8([32]byte{byte(len(b))}).Read(b)
						sent.Write(b)
						if _, err := client.Write(b); err != nil {
							t.Errorf("write: %v", err)
							return
						}
					}
					if err := client.Close(); err != nil {
						t.Error(err)
					}
				})
				var from io.Reader = struct{ io.Reader }{server}
				if way != "read" {
					server.Bulk()
				}
				if way == "patiently" {
					from = readPatiently{t, server}
				}
				got, r := sha256.New(), rand.New(rand.NewPCG(3, uint64(number)))
				for b := make([]byte, 64<<10); ; {
					n, err := from.Read(b[:1+r.IntN(len(b))])
					got.Write(b[:n])
					if err == io.EOF {
						break
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				_ = server.Close()
				wg.Wait()
				if !bytes.Equal(got.Sum(nil), sent.Sum(nil)) {
					t.Error("other bytes came than were sent")
				}
			})
		}
	}
}

// counted counts the writes and the deadlines of writes.
type counted struct {
	net.Conn
	writes, deadlines atomic.Int64
	fails             atomic.Bool
}

func (c *counted) Write(b []byte) (int, error) {
	c.writes.Add(1)
	if c.fails.Load() {
		return 0, errors.New("no")
	}
	return c.Conn.Write(b)
}

func (c *counted) SetWriteDeadline(t time.Time) error {
	c.deadlines.Add(1)
	return c.Conn.SetWriteDeadline(t)
}

// TestConnWritesAtOnce what takes many records, and ends without a hurry: a peer that is
// slow to read gets the alert when it comes to it. A write that fails is the last.
func TestConnWritesAtOnce(t *testing.T) {
	near, far := nettest.Pair(t)
	below := &counted{Conn: far}
	client, server := tunnelOver(t, tls.VersionTLS13, Ends{Strict: true}, near, below)
	text := strings.Repeat("0123456789abcdef", 64<<10/16)
	below.writes.Store(0)
	var wg sync.WaitGroup
	wg.Go(func() {
		expect(t, client, text+"small", nil)
	})
	send(t, server, text)
	if n := below.writes.Load(); n != 1 {
		t.Errorf("%d writes", n)
	}
	send(t, server, "small")
	if err := server.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if n := below.deadlines.Load(); n != 0 {
		t.Errorf("%d deadlines for the alert", n)
	}
	if err := server.SetWriteDeadline(time.Now().Add(time.Minute)); err != nil || below.deadlines.Load() != 1 {
		t.Errorf("%d deadlines, %v", below.deadlines.Load(), err)
	}

	near, far = nettest.Pair(t)
	below = &counted{Conn: far}
	_, server = tunnelOver(t, tls.VersionTLS13, Ends{}, near, below)
	below.fails.Store(true)
	if _, err := io.WriteString(server, text); err == nil {
		t.Error("a write succeeds that failed")
	}
	below.fails.Store(false)
	if _, err := io.WriteString(server, "small"); err == nil {
		t.Error("records are missing, and a write succeeds")
	}
}

// TestConnWithinTLS is read as it comes: each AwaitData allows one read.
func TestConnWithinTLS(t *testing.T) {
	outerClient, outer := tunnel(t, tls.VersionTLS13, Ends{Strict: true})
	client, server := tunnelOver(t, tls.VersionTLS13, Ends{Strict: true}, outerClient, outer)
	server.Bulk()
	from := readPatiently{t, server}
	b := make([]byte, 100)
	for _, word := range []string{"one", "two"} {
		send(t, client, word)
		if n, err := from.Read(b); string(b[:n]) != word || err != nil {
			t.Errorf("%q, %v", b[:n], err)
		}
	}
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	expect(t, from, "", nil)
}

// TestConnDeadline ends a wait, and another one may follow.
func TestConnDeadline(t *testing.T) {
	client, server := tunnel(t, tls.VersionTLS13, Ends{Strict: true})
	server.Bulk()
	_ = server.SetReadDeadline(time.Unix(1, 0))
	if err := server.AwaitData(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("waited until %v", err)
	}
	_ = server.SetReadDeadline(time.Now().Add(30 * time.Second))
	send(t, client, "later")
	b := make([]byte, 10)
	if n, err := (readPatiently{t, server}).Read(b); string(b[:n]) != "later" || err != nil {
		t.Errorf("%q, %v", b[:n], err)
	}
}
