package splice

import (
	"bytes"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/nettest"
)

// unixPair returns the two ends of a connection over a unix socket, with a deadline at the
// far one.
func unixPair(t testing.TB) (near, far *net.UnixConn) {
	t.Helper()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(nettest.SocketDir(t), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if far, err = net.DialUnix("unix", nil, ln.Addr().(*net.UnixAddr)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	if err := far.SetDeadline(time.Now().Add(60 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if near, err = ln.AcceptUnix(); err != nil {
		t.Fatal(err)
	}
	return near, far
}

// unixRig is a tunnel of a client that has come over a unix socket.
type unixRig struct {
	client   *net.UnixConn
	upstream *net.TCPConn
	traffic  tunnel.Traffic
	result   chan Result
}

// newUnixRig starts one; before, unless nil, is called before that.
func newUnixRig(t testing.TB, start func(Tunnel), before func(client *net.UnixConn)) *unixRig {
	t.Helper()
	near, far := unixPair(t)
	upstream, nearUpstream := tcpPair(t)
	if err := nearUpstream.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	r := &unixRig{client: far, upstream: upstream, result: make(chan Result, 1)}
	if before != nil {
		before(far)
	}
	start(Tunnel{
		Client:   tunnel.End{Stream: near},
		Upstream: tunnel.End{Stream: nearUpstream},
		Traffic:  &r.traffic,
		Done:     func(res Result) { r.result <- res },
	})
	return r
}

// wantEnd expects how the tunnel ends.
func (r *unixRig) wantEnd(t testing.TB, reason tunnel.CloseReason, up, down int64) {
	t.Helper()
	select {
	case res := <-r.result:
		if res.Reason != reason || res.Up != up || res.Down != down {
			t.Errorf("result %+v, want %s, %d up, %d down", res, reason, up, down)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the tunnel did not end")
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestUnixClientEnds: a client of a unix socket ends one direction alone, or is told of its
// end, as one of TCP.
func TestUnixClientEnds(t *testing.T) {
	eachPump(t, func(t *testing.T, start func(Tunnel)) {
		t.Run("the client's first", func(t *testing.T) {
			r := newUnixRig(t, start, nil)
			write(t, r.client, "question")
			check(t, r.client.CloseWrite())
			expectEOF(t, r.upstream, "question")
			write(t, r.upstream, "answer")
			check(t, r.upstream.Close())
			expectEOF(t, r.client, "answer")
			r.wantEnd(t, tunnel.CloseClientEOF, 8, 6)
		})
		t.Run("the upstream's first", func(t *testing.T) {
			r := newUnixRig(t, start, nil)
			write(t, r.upstream, "greeting")
			check(t, r.upstream.CloseWrite())
			expectEOF(t, r.client, "greeting")
			write(t, r.client, "word")
			check(t, r.client.Close())
			expectEOF(t, r.upstream, "word")
			r.wantEnd(t, tunnel.CloseUpstreamEOF, 4, 8)
		})
	})
}

// TestUnixClientLeaves: one that sends and closes has sent all of it, and the upstream sees a
// clean end. Only an answer that nobody can take breaks the tunnel.
func TestUnixClientLeaves(t *testing.T) {
	eachPump(t, func(t *testing.T, start func(Tunnel)) {
		const size = 1 << 20
		r := newUnixRig(t, start, nil)
		write(t, r.client, string(make([]byte, size))) // the pump holds what the upstream has not taken
		check(t, r.client.Close())
		expectEOF(t, r.upstream, string(make([]byte, size)))
		write(t, r.upstream, "nobody wants it")
		r.wantEnd(t, tunnel.CloseClientReset, size, 0)
	})
}

// TestUnixClientResets: one that closes before it has read all has broken the tunnel off.
func TestUnixClientResets(t *testing.T) {
	eachPump(t, func(t *testing.T, start func(Tunnel)) {
		r := newUnixRig(t, start, nil)
		write(t, r.upstream, "unread")
		read(t, r.client, "u") // it has come
		check(t, r.client.Close())
		expectReset(t, r.upstream)
		r.wantEnd(t, tunnel.CloseClientReset, 0, 6)
	})
}

// TestUnixClientOfABrokenTunnel: it is reset where it has sent what nobody took, also while it
// waits for an answer. There is no other way to tell it than the end.
func TestUnixClientOfABrokenTunnel(t *testing.T) {
	eachPump(t, func(t *testing.T, start func(Tunnel)) {
		t.Run("unread", func(t *testing.T) {
			r := newUnixRig(t, start, nil)
			read := make(chan error, 1)
			go func() {
				_, err := io.ReadAll(r.client)
				read <- err
			}()
			// Until the upstream's buffers, the pump's and the client's are full.
			check(t, r.client.SetWriteDeadline(time.Now().Add(time.Second)))
			if _, err := io.Copy(r.client, zeros{}); !errors.Is(err, syscall.EAGAIN) && !isTimeout(err) {
				t.Fatal(err)
			}
			check(t, r.upstream.SetLinger(0))
			check(t, r.upstream.Close())
			if err := <-read; !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("read: %v, want a reset", err)
			}
			if res := <-r.result; res.Reason != tunnel.CloseUpstreamReset {
				t.Errorf("result %+v", res)
			}
		})
		t.Run("all read", func(t *testing.T) {
			r := newUnixRig(t, start, nil)
			write(t, r.client, "question")
			read(t, r.upstream, "question")
			check(t, r.upstream.SetLinger(0))
			check(t, r.upstream.Close())
			expectEOF(t, r.client, "")
			r.wantEnd(t, tunnel.CloseUpstreamReset, 8, 0)
		})
	})
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// TestUnixClientWithARelay: the plugin learns of the end of such a client as of any other.
func TestUnixClientWithARelay(t *testing.T) {
	eachPump(t, func(t *testing.T, start func(Tunnel)) {
		r := newRig(t, func(tun Tunnel) {
			near, far := unixPair(t)
			_ = tun.Client.Stream.Close() // another client takes its place
			tun.Client.Stream = near
			write(t, far, "question")
			check(t, far.CloseWrite())
			t.Cleanup(func() { expectEOF(t, far, "answer") })
			start(tun)
		}, shape{relay: true})
		read(t, r.upstream, "question")
		<-r.relay.announced
		expectEOF(t, r.upstream, "")
		write(t, r.upstream, "answer")
		r.closeUpstream(t)
		if res := r.wait(t); res.Err != nil || res.Reason != tunnel.CloseClientEOF {
			t.Errorf("result %+v", res)
		}
	})
}

// TestUnixClientInBulk: as much as goes through at once, both ways.
func TestUnixClientInBulk(t *testing.T) {
	eachPump(t, func(t *testing.T, start func(Tunnel)) {
		const size = 4 << 20
		r := newUnixRig(t, start, nil)
		want := bytes.Repeat([]byte("0123456789abcdef"), size/16)
		var both sync.WaitGroup
		move := func(from, to halfCloser) {
			both.Go(func() {
				if _, err := from.Write(want); err != nil {
					t.Error(err)
				}
				if err := from.CloseWrite(); err != nil {
					t.Error(err)
				}
			})
			both.Go(func() {
				if got, err := io.ReadAll(to); !bytes.Equal(got, want) || err != nil {
					t.Errorf("%d bytes, %v", len(got), err)
				}
			})
		}
		move(r.client, r.upstream)
		move(r.upstream, r.client)
		both.Wait()
		select {
		case res := <-r.result:
			if res.Err != nil || res.Up != size || res.Down != size {
				t.Errorf("result %+v", res)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("the tunnel did not end")
		}
		t.Logf("spliced %d up, %d down", r.traffic.Up.Spliced.Load(), r.traffic.Down.Spliced.Load())
	})
}
