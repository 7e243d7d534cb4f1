package splice

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core/internal/tunnel"
)

// backlogSize is what the pump's socket holds at once in these tests; its peer
// takes it in steps.
const backlogSize = 384 << 10

// backlogged returns a rig whose pump has written all there is, and whose far end
// has ended.
func backlogged(t *testing.T, start func(Tunnel), down bool, timeouts Timeouts) (r *rig, receiver net.Conn, sent []byte) {
	sent = bytes.Repeat([]byte("0123456789abcdef"), backlogSize/16)
	traffic := &tunnel.Traffic{}
	r = newRig(t, start, shape{timeouts: timeouts, traffic: traffic, before: func(r *rig, client, upstream net.Conn) {
		near, far := client, net.Conn(r.client)
		if !down {
			near, far = upstream, r.upstream
		}
		receiver = far
		for _, err := range []error{near.(*net.TCPConn).SetWriteBuffer(backlogSize), far.(*net.TCPConn).SetReadBuffer(16 << 10)} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}})
	sender := halfCloser(r.client)
	if down {
		sender = r.upstream
	}
	if _, err := sender.Write(sent); err != nil {
		t.Fatal(err)
	}
	if timeouts.HalfClose > 0 {
		if err := sender.CloseWrite(); err != nil {
			t.Fatal(err)
		}
	}
	return r, receiver, sent
}

// TestSlowPeerIsNotQuiet has a peer that takes longer over what it was sent than
// the tunnel may be quiet.
func TestSlowPeerIsNotQuiet(t *testing.T) {
	const patience = 3 * time.Second
	tests := []struct {
		name     string
		down     bool
		timeouts Timeouts
	}{
		{"client, idle", true, Timeouts{Idle: patience}},
		{"upstream, half-closed", false, Timeouts{HalfClose: patience}},
	}
	eachPump(t, func(t *testing.T, start func(Tunnel)) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				r, receiver, sent := backlogged(t, start, tt.down, tt.timeouts)
				const steps = 128
				pace := time.NewTicker(5 * patience / 2 / steps)
				defer pace.Stop()
				got := make([]byte, len(sent))
				for i := range steps {
					<-pace.C
					if n, err := io.ReadFull(receiver, got[i*len(got)/steps:(i+1)*len(got)/steps]); err != nil {
						t.Fatalf("step %d: %d bytes: %v; result %+v", i, n, err, r.wait(t))
					}
				}
				if !bytes.Equal(got, sent) {
					t.Error("other bytes than were sent")
				}
			})
		}
	})
}

// TestStuckPeerIsQuiet has one that takes nothing.
func TestStuckPeerIsQuiet(t *testing.T) {
	eachPump(t, func(t *testing.T, start func(Tunnel)) {
		r, _, _ := backlogged(t, start, true, Timeouts{HalfClose: time.Second})
		if res := r.wait(t); res.Reason != tunnel.CloseHalfClosed {
			t.Errorf("result %+v", res)
		}
	})
}
