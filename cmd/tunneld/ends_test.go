package main

import (
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
)

// backend is a service behind the far end whose connections the test holds.
type backend struct {
	addr  string
	conns chan *net.TCPConn
}

func startBackend(t *testing.T) *backend {
	t.Helper()
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{addr: ln.Addr().String(), conns: make(chan *net.TCPConn, 16)}
	closing, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.AcceptTCP()
			if err != nil {
				return // closed
			}
			select {
			case b.conns <- c:
			case <-closing: // more came than the test has taken
				c.Close()
			}
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		close(closing)
		<-done
		close(b.conns)
		for c := range b.conns {
			c.Close()
		}
	})
	return b
}

// next is the connection that was accepted next.
func (b *backend) next(t *testing.T) *net.TCPConn {
	t.Helper()
	select {
	case c := <-b.conns:
		t.Cleanup(func() { c.Close() })
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		return c
	case <-time.After(patience):
		t.Fatal("nothing connects to the backend")
		return nil
	}
}

func (b *backend) mapped() sapsocksemu.Options {
	return sapsocksemu.Options{Connectors: map[string]map[string]string{"": {"db.corp:5432": b.addr}}}
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

// wantRest expects text, and then a clean end.
func wantRest(t *testing.T, c net.Conn, text string) {
	t.Helper()
	got, err := io.ReadAll(c)
	if err != nil || string(got) != text {
		t.Fatalf("read %q, %v; want %q and a clean end", got, err, text)
	}
}

func closeWrite(t *testing.T, c *net.TCPConn) {
	t.Helper()
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
}

// breakConn makes the peer see a reset.
func breakConn(t *testing.T, c *net.TCPConn) {
	t.Helper()
	if err := errors.Join(c.SetLinger(0), c.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestHowTunnelsEnd: what one side does to its connection, the other sees, and
// the log names.
func TestHowTunnelsEnd(t *testing.T) {
	b := startBackend(t)
	s := startSapsocks(t, b.mapped())
	d := startDaemon(t, s.onprem(""))
	pair := func(t *testing.T) (client, server *net.TCPConn) {
		client = d.dial(t, "tcp.db")
		server = b.next(t)
		send(t, client, "hello")
		buf := make([]byte, 5)
		if _, err := io.ReadFull(server, buf); err != nil {
			t.Fatal(err)
		}
		return client, server
	}
	wantReset := func(t *testing.T, c net.Conn) {
		t.Helper()
		if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("read: %v; want a reset", err)
		}
	}
	tests := []struct {
		name   string
		do     func(t *testing.T, client, server *net.TCPConn)
		reason string
	}{
		{"the client ends first, and the server answers after that", func(t *testing.T, client, server *net.TCPConn) {
			send(t, client, "question")
			closeWrite(t, client)
			wantRest(t, server, "question")
			send(t, server, "answer")
			send(t, server, " in two parts")
			closeWrite(t, server)
			wantRest(t, client, "answer in two parts")
		}, "client_eof"},
		{"the server ends first, and the client goes on after that", func(t *testing.T, client, server *net.TCPConn) {
			send(t, server, "bye")
			closeWrite(t, server)
			wantRest(t, client, "bye")
			send(t, client, "one more thing")
			closeWrite(t, client)
			wantRest(t, server, "one more thing")
		}, "upstream_eof"},
		{"the client resets", func(t *testing.T, client, server *net.TCPConn) {
			breakConn(t, client)
			wantReset(t, server)
		}, "client_reset"},
		{"the server resets", func(t *testing.T, client, server *net.TCPConn) {
			breakConn(t, server)
			wantReset(t, client)
		}, "upstream_reset"},
		{"the client resets after the server has ended", func(t *testing.T, client, server *net.TCPConn) {
			closeWrite(t, server)
			wantRest(t, client, "")
			breakConn(t, client)
			wantReset(t, server)
		}, "client_reset"},
		{"the server resets after the client has ended", func(t *testing.T, client, server *net.TCPConn) {
			closeWrite(t, client)
			wantRest(t, server, "")
			breakConn(t, server)
			wantReset(t, client)
		}, "upstream_reset"},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			client, server := pair(t)
			tt.do(t, client, server)
			lines := d.log.Await(t, i+1, "msg", "connection")
			if line := lines[i]; line["reason"] != tt.reason || line["path"] != "direct" {
				t.Errorf("line %v; want reason %s", line, tt.reason)
			}
		})
	}
}

// TestResetInTheMiddleOfADownload: a reset behind bytes that nobody has read yet
// is a reset all the same.
func TestResetInTheMiddleOfADownload(t *testing.T) {
	b := startBackend(t)
	s := startSapsocks(t, b.mapped())
	d := startDaemon(t, s.onprem(""))
	client := d.dial(t, "tcp.db")
	server := b.next(t)
	chunk := []byte(strings.Repeat("x", 64<<10))
	if err := server.SetWriteDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	sent := 0
	for { // until every buffer on the way is full
		n, err := server.Write(chunk)
		sent += n
		if err != nil {
			break
		}
	}
	breakConn(t, server)
	n, err := io.Copy(io.Discard, client)
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("%d of %d bytes, %v; want a reset", n, sent, err)
	}
	d.log.Await(t, 1, "msg", "connection", "reason", "upstream_reset")
}
