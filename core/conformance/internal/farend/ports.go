package farend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/core/internal/tunnel"
)

// Port is a port that makes no connection.
type Port struct {
	Target tunnel.Target
	held   []io.Closer
}

// Close frees the port.
func (p *Port) Close() error {
	var errs []error
	for _, c := range p.held {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// Refusing returns a port at which nothing listens, and nothing else can either.
func Refusing(ip netip.Addr) (*Port, error) {
	p, err := bound(ip.Unmap())
	if err != nil {
		return nil, fmt.Errorf("reserve a port: %w", err)
	}
	return p, nil
}

// bound binds a socket that does not listen.
func bound(ip netip.Addr) (*Port, error) {
	var address unix.Sockaddr
	family := unix.AF_INET
	if ip.Is4() {
		address = &unix.SockaddrInet4{Addr: ip.As4()}
	} else {
		family, address = unix.AF_INET6, &unix.SockaddrInet6{Addr: ip.As16()}
	}
	syscall.ForkLock.RLock()
	fd, err := unix.Socket(family, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, err
	}
	p := &Port{Target: tunnel.Target{Host: ip.String()}, held: []io.Closer{os.NewFile(uintptr(fd), "reserved port")}}
	if err := unix.Bind(fd, address); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		p.Target.Port = uint16(name.Port)
	case *unix.SockaddrInet6:
		p.Target.Port = uint16(name.Port)
	}
	return p, nil
}

// Unanswering returns a port whose queue of connections is full, so that the
// kernel lets any more wait without an answer; nil where the kernel does not.
func Unanswering(ctx context.Context, ip netip.Addr) (*Port, error) {
	ln, err := net.Listen("tcp", netip.AddrPortFrom(ip, 0).String())
	if err != nil {
		return nil, err
	}
	a := ln.Addr().(*net.TCPAddr)
	p := &Port{Target: tunnel.Target{Host: a.IP.String(), Port: uint16(a.Port)}, held: []io.Closer{ln}}
	raw, err := ln.(*net.TCPListener).SyscallConn()
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	// Listening again changes the length of the queue.
	var listenErr error
	if err := raw.Control(func(fd uintptr) { listenErr = unix.Listen(int(fd), 0) }); err != nil || listenErr != nil {
		return nil, errors.Join(err, listenErr, p.Close())
	}
	d := net.Dialer{Timeout: 100 * time.Millisecond}
	for range 4 {
		c, err := d.DialContext(ctx, "tcp", ln.Addr().String())
		if err != nil {
			return p, nil
		}
		p.held = append(p.held, c)
	}
	return nil, p.Close()
}
