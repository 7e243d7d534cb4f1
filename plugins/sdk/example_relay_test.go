package sdk_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"

	"github.com/tunneld/tunneld/plugins/sdk"
)

// Framed is a protocol in which each message is two bytes of length and that many bytes.
// An empty message ends a direction.
type Framed struct {
	Server string `tunneld:"server,required" doc:"host:port of the server"`
}

// Dial connects and lets the SDK pump.
func (f *Framed) Dial(ctx context.Context, req *sdk.Request) (*sdk.Tunnel, error) {
	conn, err := req.Connect(ctx, f.Server)
	if err != nil {
		return nil, err
	}
	tcp, ok := sdk.Socket(conn).(*net.TCPConn)
	if ok {
		_ = tcp.SetLinger(0) // a plugin that dies must not look like a clean end
	}
	s := &frames{Conn: conn, in: bufio.NewReader(conn), tcp: tcp}
	return sdk.Relay(s, conn.LocalAddr(), conn.RemoteAddr()), nil
}

// frames implements sdk.Stream.
type frames struct {
	net.Conn
	in   *bufio.Reader
	left int // bytes of the message that is being read
	tcp  *net.TCPConn
}

// NetConn returns the connection beneath, by which the SDK finds a dead line.
func (s *frames) NetConn() net.Conn { return s.Conn }

// Read returns bytes of messages.
func (s *frames) Read(b []byte) (int, error) {
	if s.left == 0 {
		var head [2]byte
		if _, err := io.ReadFull(s.in, head[:]); err != nil {
			return 0, io.ErrUnexpectedEOF // without an empty message this is no clean end
		}
		if s.left = int(binary.BigEndian.Uint16(head[:])); s.left == 0 {
			return 0, io.EOF
		}
	}
	n, err := s.in.Read(b[:min(len(b), s.left)])
	s.left -= n
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// Write sends b in messages.
func (s *frames) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		part := b[:min(len(b), 1<<15)]
		if _, err := s.Conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(part))), part...)); err != nil {
			return n, err
		}
		n, b = n+len(part), b[len(part):]
	}
	return n, nil
}

// CloseWrite sends an empty message.
func (s *frames) CloseWrite() error {
	_, err := s.Conn.Write([]byte{0, 0})
	return err
}

// Close ends the connection without a reset.
func (s *frames) Close() error {
	if s.tcp != nil {
		_ = s.tcp.SetLinger(-1)
	}
	return s.Conn.Close()
}

// Abort resets the connection.
func (s *frames) Abort(string) { _ = sdk.Socket(s.Conn).Close() }

// A protocol of messages is relayed: the plugin reads and writes them, and the SDK moves
// the bytes between it and the daemon.
func ExampleRelay() {
	_ = sdk.Plugin{Name: "framed", Version: "1.0.0", New: func() sdk.Dialer { return new(Framed) }}
}
