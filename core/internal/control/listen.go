package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/tunneld/tunneld/internal/unixsock"
)

const (
	// maxConns bounds the connections to a socket.
	maxConns = 32

	// probeTimeout bounds the question who serves a socket.
	probeTimeout = time.Second
)

// access: only this process's user and root can open the control socket.
var access = unixsock.Access{Mode: 0o600, UID: -1, GID: -1}

// bind makes the control socket. A missing folder is made, for this user alone. Closing the
// listener removes the socket, unless it is another one by now.
func bind(address string) (*listener, error) {
	path, err := Path(address)
	if err != nil {
		return nil, err
	}
	ln, err := listen(path)
	if err != nil {
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	return ln, nil
}

func listen(path string) (*listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	socket, place, err := unixsock.Listen(context.Background(), path, access)
	if err != nil {
		return nil, inTheWay(path, err)
	}
	return &listener{
		UnixListener: socket,
		path:         path,
		place:        place,
		slots:        make(chan struct{}, maxConns),
		closed:       make(chan struct{}),
	}, nil
}

// inTheWay adds to an error who serves the path, if that is a tunneld, and what to do.
func inTheWay(path string, err error) error {
	var e *unixsock.Error
	if !errors.As(err, &e) {
		return err
	}
	if e.Served {
		ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
		defer cancel()
		if s, askErr := (&Client{path: path}).Status(ctx); askErr == nil {
			e = &unixsock.Error{What: fmt.Sprintf("another tunneld serves it (process %d, configuration %s)", s.PID, s.Config), Hint: "stop that process"}
		}
	}
	return fmt.Errorf("%w: %s, or choose another control.address", e, e.Hint)
}

// listener is a socket that removes itself, and accepts maxConns connections at
// a time.
type listener struct {
	*net.UnixListener
	path   string
	place  *unixsock.Place
	slots  chan struct{}
	closed chan struct{}
	once   sync.Once
	err    error // of the close
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	conn, err := l.AcceptUnix()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &slotted{UnixConn: conn, free: sync.OnceFunc(func() { <-l.slots })}, nil
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Close implements net.Listener. The socket goes before nobody serves it.
func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.err = errors.Join(l.place.Remove(), l.UnixListener.Close())
	})
	return l.err
}

// slotted is a connection that holds a slot until it is closed. The server
// wants its CloseWrite.
type slotted struct {
	*net.UnixConn
	free func()
}

// Close implements net.Conn.
func (c *slotted) Close() error {
	defer c.free()
	return c.UnixConn.Close()
}
