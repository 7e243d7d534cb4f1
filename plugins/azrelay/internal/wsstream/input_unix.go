//go:build unix

package wsstream

import (
	"net"
	"syscall"
)

// newInput returns nil if conn is not a socket, as behind a proxy's TLS.
func newInput(conn net.Conn) *input {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	return &input{raw: raw}
}

// fill waits for bytes, with a buffer only once there are some.
func (in *input) fill() (n int, err error) {
	waitErr := in.raw.Read(func(fd uintptr) bool {
		in.buf = inputs.Get().(*[]byte)
		for {
			if n, err = syscall.Read(int(fd), *in.buf); err != syscall.EINTR {
				break
			}
		}
		if n > 0 {
			return true
		}
		inputs.Put(in.buf)
		in.buf = nil
		return err != syscall.EAGAIN
	})
	if waitErr != nil {
		return 0, waitErr
	}
	if err != nil {
		return 0, &net.OpError{Op: "read", Net: "tcp", Err: err}
	}
	return n, nil
}
