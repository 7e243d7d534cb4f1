package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/tunneld/tunneld/internal/emu"
)

// demoBytes is what is sent through each listener and back.
const demoBytes = 1 << 20

// rowTime bounds one row.
const rowTime = 30 * time.Second

// roundTrip sends random bytes to an address and reads them back. It returns how
// many came back.
func roundTrip(ctx context.Context, address string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, rowTime)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	sent := make([]byte, demoBytes)
	rand.Read(sent)
	written := make(chan error, 1)
	go func() {
		_, err := c.Write(sent)
		written <- err
	}()
	got := make([]byte, demoBytes)
	n, err := io.ReadFull(c, got)
	if err != nil {
		c.Close()
	}
	err = errors.Join(err, <-written)
	switch {
	case context.Cause(ctx) != nil:
		return n, fmt.Errorf("%d of %d bytes came back in %s", n, demoBytes, rowTime)
	case err != nil:
		return n, err
	case !bytes.Equal(sent, got):
		return n, errors.New("the bytes that came back are not those that were sent")
	}
	return n, nil
}

// echoService sends back what it receives, and ends its direction after its
// client.
type echoService struct {
	emu.Server
	ln *net.TCPListener
}

func startEcho() (*echoService, error) {
	ln, err := emu.Listen("")
	if err != nil {
		return nil, fmt.Errorf("start echo service: %w", err)
	}
	e := &echoService{ln: ln}
	e.Accept(ln, func(c *net.TCPConn) {
		// Its errors are the client's: it sees the connection end.
		if _, err := io.Copy(c, c); err == nil {
			_ = c.CloseWrite()
		}
	})
	return e, nil
}

func (e *echoService) Addr() string { return e.ln.Addr().String() }

// demoLog is the daemon's log: it goes into a file, and the lines of connections
// can be waited for.
type demoLog struct {
	w     io.Writer
	mu    sync.Mutex
	all   bytes.Buffer
	lines chan connectionLine
}

// connectionLine is what the demo reads in a line of the log.
type connectionLine struct {
	Msg      string
	Listener string
	Path     string
	Err      string
	Reason   string
	DialMS   map[string]float64 `json:"dial_ms"`
}

func (l connectionLine) dial() string {
	var sum float64
	for _, ms := range l.DialMS {
		sum += ms
	}
	return fmt.Sprintf("%.1fms", sum)
}

func newDemoLog(w io.Writer) *demoLog {
	return &demoLog{w: w, lines: make(chan connectionLine, 64)}
}

// Write takes whole lines.
func (l *demoLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	l.all.Write(b)
	l.mu.Unlock()
	for text := range bytes.Lines(b) {
		var line connectionLine
		if err := json.Unmarshal(text, &line); err == nil && (line.Msg == "connection" || line.Msg == "connection failed") {
			select {
			case l.lines <- line:
			default: // nobody waits for what is tried by hand
			}
		}
	}
	return l.w.Write(b)
}

func (l *demoLog) text() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.all.Bytes())
}

// connection waits for the line of a listener's connection, which ends a moment
// after its client has gone.
func (l *demoLog) connection(ctx context.Context, listener string) connectionLine {
	timeout := time.NewTimer(10 * time.Second)
	defer timeout.Stop()
	for {
		select {
		case line := <-l.lines:
			if line.Listener == listener {
				return line
			}
		case <-timeout.C:
			return connectionLine{}
		case <-ctx.Done():
			return connectionLine{}
		}
	}
}

func splitAddress(address string) (host, port string) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address, ""
	}
	return host, port
}
