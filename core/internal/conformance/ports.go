package conformance

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/core/internal/tunnel"
)

// reserved is a port at which nothing listens, and nothing else can either.
type reserved struct {
	file   *os.File
	target tunnel.Target
}

func reserve(ip netip.Addr) (*reserved, error) {
	ip = ip.Unmap()
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
		return nil, fmt.Errorf("reserve a port: %w", err)
	}
	r := &reserved{file: os.NewFile(uintptr(fd), "reserved port")}
	if err := unix.Bind(fd, address); err != nil {
		return nil, errors.Join(fmt.Errorf("reserve a port: %w", err), r.close())
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reserve a port: %w", err), r.close())
	}
	r.target.Host = ip.String()
	switch b := bound.(type) {
	case *unix.SockaddrInet4:
		r.target.Port = uint16(b.Port)
	case *unix.SockaddrInet6:
		r.target.Port = uint16(b.Port)
	}
	return r, nil
}

func (r *reserved) close() error { return r.file.Close() }

// swamp is a port whose queue of connections is full: the kernel lets any more
// wait without an answer.
type swamp struct {
	ln    net.Listener
	queue []net.Conn
}

// newSwamp returns nil where the kernel does not let connections wait.
func newSwamp(ctx context.Context, ip netip.Addr) (*swamp, error) {
	ln, err := net.Listen("tcp", netip.AddrPortFrom(ip, 0).String())
	if err != nil {
		return nil, err
	}
	s := &swamp{ln: ln}
	raw, err := ln.(*net.TCPListener).SyscallConn()
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	// Listening again changes the length of the queue.
	var listenErr error
	if err := raw.Control(func(fd uintptr) { listenErr = unix.Listen(int(fd), 0) }); err != nil || listenErr != nil {
		return nil, errors.Join(err, listenErr, s.close())
	}
	d := net.Dialer{Timeout: 100 * time.Millisecond}
	for range 4 {
		c, err := d.DialContext(ctx, "tcp", ln.Addr().String())
		if err != nil {
			return s, nil
		}
		s.queue = append(s.queue, c)
	}
	return nil, s.close()
}

func (s *swamp) target() tunnel.Target {
	a := s.ln.Addr().(*net.TCPAddr)
	return tunnel.Target{Host: a.IP.String(), Port: uint16(a.Port)}
}

func (s *swamp) close() error {
	err := s.ln.Close()
	for _, c := range s.queue {
		_ = c.Close()
	}
	return err
}
