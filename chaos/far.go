package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/tunneld/tunneld/internal/emu"
	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
)

// The conversation: the client sends its number (8 bytes) and gets it back. Then
// come messages: a length (4 bytes) and as many bytes, which are answered with as
// many. Length 0 says that the end of file comes next; it is answered with one.

// farName is the far end as the sapsocks proxy knows it.
const farName = "far.corp:7000"

// far is the service that tunnels lead to, and what it saw of each.
type far struct {
	ln      *net.TCPListener
	emu     *sapsocksemu.Server
	serving emu.Server

	mu   sync.Mutex
	ends map[uint64]error // nil: a clean end
	news chan struct{}    // closed and replaced at each end
}

func startFar() (*far, error) {
	ln, err := emu.Listen("")
	if err != nil {
		return nil, err
	}
	f := &far{ln: ln, ends: map[uint64]error{}, news: make(chan struct{})}
	f.emu, err = sapsocksemu.Start(sapsocksemu.Options{Connectors: map[string]map[string]string{"": {farName: ln.Addr().String()}}})
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	f.serving.Accept(ln, f.serve)
	return f, nil
}

func (f *far) close() {
	_ = f.serving.Close()
	_ = f.emu.Close()
}

func (f *far) serve(c *net.TCPConn) {
	var head [8]byte
	var id uint64
	_, err := io.ReadFull(c, head[:])
	if err == nil {
		id = binary.BigEndian.Uint64(head[:])
		err = converse(c, head[:], id)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if id == 0 {
		return // nobody's: a dial that was given up
	}
	f.ends[id] = err
	close(f.news)
	f.news = make(chan struct{})
}

func converse(c *net.TCPConn, head []byte, id uint64) error {
	if _, err := c.Write(head); err != nil {
		return err
	}
	in, out := newStream(id, 0), newStream(id, 1)
	for {
		var length [4]byte
		if _, err := io.ReadFull(c, length[:]); err != nil {
			return notClean(err)
		}
		n := int(binary.BigEndian.Uint32(length[:]))
		if n == 0 {
			break
		}
		if err := in.read(c, n); err != nil {
			return notClean(err)
		}
		if err := out.write(c, n); err != nil {
			return err
		}
	}
	if n, err := c.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
		return fmt.Errorf("after the last message: %d bytes, %w", n, err)
	}
	return c.CloseWrite()
}

// errShort is an end of file where more was to come: it looks like a clean end, but
// is not one.
var errShort = errors.New("a clean end in the middle")

// notClean tells an end of file in the middle from an error.
func notClean(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %w", errShort, err)
	}
	return err
}

// end waits for what the far end saw of a tunnel.
func (f *far) end(id uint64, limit time.Duration) (seen error, ok bool) {
	deadline := time.After(limit)
	for {
		f.mu.Lock()
		seen, ok = f.ends[id]
		delete(f.ends, id)
		news := f.news
		f.mu.Unlock()
		if ok {
			return seen, true
		}
		select {
		case <-news:
		case <-deadline:
			return nil, false
		}
	}
}
