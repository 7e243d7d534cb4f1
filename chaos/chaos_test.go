package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// TestStreamSeesWhatIsLost: a byte that is lost, doubled or wrong does not pass.
func TestStreamSeesWhatIsLost(t *testing.T) {
	const n = 40_000
	var whole bytes.Buffer
	if err := newStream(7, 0).write(&whole, n); err != nil {
		t.Fatal(err)
	}
	b := whole.Bytes()
	if err := newStream(7, 0).read(bytes.NewReader(b), n); err != nil {
		t.Errorf("what was sent does not pass: %v", err)
	}
	for name, spoilt := range map[string][]byte{
		"lost":          append(bytes.Clone(b[:n/2]), b[n/2+1:]...),
		"doubled":       append(bytes.Clone(b[:n/2]), b[n/2-1:]...),
		"swapped":       append(append(bytes.Clone(b[:100]), b[200:300]...), append(bytes.Clone(b[100:200]), b[300:]...)...),
		"of another":    bytes.Repeat([]byte{1}, n),
		"cut":           b[:n-1],
		"other's bytes": other(t, n),
	} {
		err := newStream(7, 0).read(bytes.NewReader(spoilt), n)
		var wrong *wrongByte
		if name == "cut" {
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("cut: %v", err)
			}
		} else if !errors.As(err, &wrong) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func other(t *testing.T, n int) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := newStream(8, 0).write(&b, n); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestEnds: what is a breach of a promise, and what is not, by what both ends saw.
func TestEnds(t *testing.T) {
	reset, short := errors.New("reset"), io.ErrUnexpectedEOF
	for _, c := range []struct {
		name         string
		path         string
		client, far  error
		away         bool
		breach, died int
	}{
		{"clean", "local", nil, nil, false, 0, 0},
		{"direct, lost with its plugin", "sapsocks", reset, reset, true, 1, 0},
		{"relay, lost with its plugin", "relay", reset, reset, true, 0, 1},
		{"relay, lost without a cause", "relay", reset, reset, false, 1, 0},
		{"relay, a short file for the client", "relay", short, reset, true, 1, 0},
		{"relay, a short file for the far end", "relay", reset, notClean(io.EOF), true, 1, 0},
		{"relay, clean for the far end alone", "relay", reset, nil, true, 1, 0},
		{"wrong byte", "relay", &wrongByte{}, reset, true, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			conn, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			far := &far{ends: map[uint64]error{5: c.far}, news: make(chan struct{})}
			l := newLoad(settings{}, nil, far, newReport())
			if c.away {
				l.leave(c.path)
			}
			tun := &tunnel{l: l, path: c.path, id: 5, conn: conn.(*net.TCPConn), born: time.Now(), in: newStream(5, 1), out: newStream(5, 0), failure: c.client}
			if c.client == nil {
				go func() {
					peer, err := ln.Accept()
					if err == nil {
						_, _ = io.Copy(io.Discard, peer)
						_ = peer.Close()
					}
				}()
			}
			tun.end()
			if len(l.r.broken) != c.breach || l.r.allowed != c.died {
				t.Errorf("%d breaches, %d died: %s", len(l.r.broken), l.r.allowed, strings.Join(l.r.broken, "\n"))
			}
		})
	}
}

// TestGrown sees what grows.
func TestGrown(t *testing.T) {
	var flat, rising []usage
	for i := range 30 {
		flat = append(flat, usage{100 + i%3, 50, 2, 30 << 20})
		rising = append(rising, usage{100 + 5*i, 50, 2, 30 << 20})
	}
	r := newReport()
	if err := grown(flat, r); err != nil || r.failed() {
		t.Errorf("%v, %v", err, r.broken)
	}
	if err := grown(rising, r); err != nil || len(r.broken) != 1 {
		t.Errorf("%v, %v", err, r.broken)
	}
}
