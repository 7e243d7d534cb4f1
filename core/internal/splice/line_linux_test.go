package splice

import (
	"bytes"
	"io"
	"net"
	"testing"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/sockopt"
)

// TestBlackHole cuts the link of one side: the other is reset, though nobody
// says a word.
func TestBlackHole(t *testing.T) {
	for side := range sideNames {
		t.Run(sideNames[side], func(t *testing.T) {
			eachLook(t, sockopt.ReadAcks, func(t *testing.T, start func(Tunnel), _ func(int)) {
				n := nettest.New(t)
				near, living := tcpPair(t)
				lostNear, lost := n.Pair(t)
				ends := [2]*net.TCPConn{near, near}
				ends[side] = lostNear
				r := &rig{result: make(chan Result, 1)}
				start(Tunnel{
					Client:   tunnel.End{Stream: ends[client]},
					Upstream: tunnel.End{Stream: ends[upstream]},
					Done:     func(res Result) { r.result <- res },
				})
				write(t, living, "hello")
				read(t, lost, "hello")
				n.Cut(t)
				write(t, living, "into the void")
				if res := r.wait(t); res.Reason != tunnel.CloseDeadLine {
					t.Errorf("result %+v", res)
				}
				expectReset(t, living)
			})
		})
	}
}

// TestClosedWindowIsNoDeadLine has a peer that reads nothing for twice the limit
// and then everything.
func TestClosedWindowIsNoDeadLine(t *testing.T) {
	eachLook(t, sockopt.ReadAcks, func(t *testing.T, start func(Tunnel), looks func(int)) {
		r := newRig(t, start, shape{})
		sent := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
		written := make(chan error, 1)
		go func() {
			_, err := r.upstream.Write(sent)
			if err == nil {
				err = r.upstream.CloseWrite()
			}
			written <- err
		}()
		looks(twice)
		got, err := io.ReadAll(r.client)
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%d of %d bytes, %v", len(got), len(sent), err)
		}
		if err := <-written; err != nil {
			t.Error(err)
		}
	})
}
