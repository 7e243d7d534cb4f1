package pluginwire

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
)

// Channel is one end of the descriptor channel. Send may be called by several
// goroutines at once, Receive by one. The zero value is not useful: see Pair
// and Inherit.
type Channel struct {
	conn *net.UnixConn
	send sync.Mutex
}

// Received is a record and the descriptor that came with it.
type Received struct {
	Record
	// Descriptor is the one of a Handoff, else nil. The receiver owns it: it
	// closes it, or makes it a file's or somebody else's.
	Descriptor *Descriptor
}

// Descriptor is one that was handed over: non-blocking and close-on-exec, and not
// known to Go's poller, which a tunnel's socket does not need.
type Descriptor struct{ fd int }

// File hands the descriptor over to os.
func (d *Descriptor) File() *os.File { return os.NewFile(uintptr(d.fd), "handed over") }

// FD is the descriptor's number. Who makes it another's does not close d.
func (d *Descriptor) FD() int { return d.fd }

// Close closes the descriptor, and ignores errors. It does not wait, whatever
// SO_LINGER somebody has left on a socket.
func (d *Descriptor) Close() {
	_ = syscall.SetsockoptLinger(d.fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{})
	_ = syscall.Close(d.fd)
}

// BadRecordError is a record that cannot be understood. The channel is still in
// step: the next Receive reads the next record.
type BadRecordError struct{ Err error }

func (e *BadRecordError) Error() string { return "descriptor channel: " + e.Err.Error() }

func (e *BadRecordError) Unwrap() error { return e.Err }

// Pair makes a channel: the daemon's end, and the plugin's as a file to be
// inherited. The caller closes the file once the plugin has been started.
func Pair() (*Channel, *os.File, error) {
	fds, err := socketpair(channelType)
	if err != nil {
		return nil, nil, fmt.Errorf("make descriptor channel: %w", err)
	}
	plugin := os.NewFile(uintptr(fds[1]), "descriptor channel")
	core, err := Open(os.NewFile(uintptr(fds[0]), "descriptor channel"))
	if err != nil {
		return nil, nil, errors.Join(err, plugin.Close())
	}
	return core, plugin, nil
}

// Inherit opens the plugin's end of the channel, whose descriptor's number is
// fd, and takes the descriptor over. No process that the plugin starts gets it.
func Inherit(fd uintptr) (*Channel, error) {
	syscall.CloseOnExec(int(fd))
	return Open(os.NewFile(fd, "descriptor channel"))
}

// Open makes a channel of one end of a socketpair and closes f.
func Open(f *os.File) (*Channel, error) {
	if f == nil {
		return nil, errors.New("open descriptor channel: not a descriptor")
	}
	conn, err := unixConn(f)
	if err != nil {
		return nil, fmt.Errorf("open descriptor channel: %w", err)
	}
	return &Channel{conn: conn}, nil
}

// relayBuffer is how much of a relay may wait for the other process, each way: a
// bound, not an allocation. By default the two wait for each other more often.
const relayBuffer = 512 << 10

// RelayPair makes the two ends of a relay tunnel: connected stream sockets,
// close-on-exec. The caller owns both.
func RelayPair() (near *net.UnixConn, far *net.UnixConn, err error) {
	fds, err := socketpair(syscall.SOCK_STREAM)
	if err != nil {
		return nil, nil, fmt.Errorf("make relay: %w", err)
	}
	for _, fd := range fds {
		// The system may allow less, which only makes it slower.
		_ = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_SNDBUF, relayBuffer)
	}
	a, b := os.NewFile(uintptr(fds[0]), "relay"), os.NewFile(uintptr(fds[1]), "relay")
	near, err = unixConn(a)
	if err != nil {
		return nil, nil, errors.Join(err, b.Close())
	}
	far, err = unixConn(b)
	if err != nil {
		return nil, nil, errors.Join(err, near.Close())
	}
	return near, far, nil
}

// unixConn turns f into a connection and closes f.
func unixConn(f *os.File) (*net.UnixConn, error) {
	c, err := net.FileConn(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("a %s socket, not a unix one", c.LocalAddr().Network()), c.Close())
	}
	return u, nil
}

// Send writes one record, with the descriptor of conn where conn is not nil.
// The caller keeps conn and closes its copy after a Handoff was sent.
func (c *Channel) Send(r Record, conn syscall.Conn) error {
	b := r.Encode()
	if conn == nil {
		return c.write(b[:], nil)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("descriptor channel: %w", err)
	}
	// Within Control the descriptor stays open and keeps its mode; File would
	// make the description blocking for everyone who shares it.
	var sendErr error
	if err := raw.Control(func(fd uintptr) { sendErr = c.write(b[:], syscall.UnixRights(int(fd))) }); err != nil {
		return fmt.Errorf("descriptor channel: %w", err)
	}
	return sendErr
}

func (c *Channel) write(b, oob []byte) error {
	c.send.Lock()
	defer c.send.Unlock()
	n, _, err := c.conn.WriteMsgUnix(b, oob, nil)
	for err == nil && n < len(b) {
		var more int
		more, err = c.conn.Write(b[n:])
		n += more
	}
	if err != nil {
		return fmt.Errorf("descriptor channel: %w", err)
	}
	return nil
}

// Receive waits for the next record. It returns io.EOF when the other process
// is gone, and a *BadRecordError, after which it may be called again, for a
// record that cannot be used: descriptors that came with it are closed, and the
// record is returned as far as it was understood, so that the tunnel it speaks
// of can be failed.
func (c *Channel) Receive() (Received, error) {
	var b [RecordSize]byte
	m, err := c.readMessage(b[:])
	if err != nil {
		closeAll(m.descriptors)
		return Received{}, err
	}
	r, err := Decode(b[:m.n])
	switch {
	case m.bad != nil:
		err = m.bad
	case m.flags&syscall.MSG_TRUNC != 0:
		err = fmt.Errorf("record of more than %d bytes", len(b))
	case err != nil:
	case m.flags&syscall.MSG_CTRUNC != 0:
		err = fmt.Errorf("descriptor of tunnel %d was lost (MSG_CTRUNC): the process may have no descriptors left", r.Token)
	case r.Kind == Handoff && len(m.descriptors) != 1:
		err = fmt.Errorf("handoff of tunnel %d with %d descriptors, not 1", r.Token, len(m.descriptors))
	case r.Kind != Handoff && len(m.descriptors) != 0:
		err = fmt.Errorf("record of kind %d with a descriptor", r.Kind)
	}
	if err != nil {
		closeAll(m.descriptors)
		return Received{Record: r}, &BadRecordError{Err: err}
	}
	got := Received{Record: r}
	if len(m.descriptors) == 1 {
		got.Descriptor = m.descriptors[0]
	}
	return got, nil
}

// message is what came in place of one record.
type message struct {
	n           int
	flags       int
	descriptors []*Descriptor
	bad         error // descriptors that could not be taken over
}

// readMessage reads one message, or on a stream as many as make up a record.
func (c *Channel) readMessage(b []byte) (message, error) {
	var m message
	oob := make([]byte, syscall.CmsgSpace(4*maxDescriptors))
	for {
		n, oobn, flags, _, err := c.conn.ReadMsgUnix(b[m.n:], oob)
		// First of all, since they are this process's already, whatever err is.
		got, bad := descriptors(oob[:oobn])
		m.descriptors = append(m.descriptors, got...)
		if m.bad == nil {
			m.bad = bad
		}
		m.n += n
		m.flags |= flags
		switch {
		case err != nil:
			return m, eof(err)
		case n == 0 && oobn == 0:
			return m, io.EOF
		case channelType != syscall.SOCK_STREAM || m.n == len(b):
			return m, nil
		}
	}
}

// Close closes this end; the other reads the end of file.
func (c *Channel) Close() error { return c.conn.Close() }

// maxDescriptors is how many descriptors a careless message can bring before
// the kernel drops them.
const maxDescriptors = 4

// descriptors takes over the descriptors of a control message, all that are
// good even if another is not.
func descriptors(oob []byte) ([]*Descriptor, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("control message: %w", err)
	}
	var got []*Descriptor
	var errs []error
	for _, m := range messages {
		fds, err := syscall.ParseUnixRights(&m)
		if err != nil {
			errs = append(errs, fmt.Errorf("control message: %w", err))
			continue
		}
		for _, fd := range fds {
			syscall.CloseOnExec(fd)
			if err := syscall.SetNonblock(fd, true); err != nil {
				errs = append(errs, fmt.Errorf("descriptor: %w", err), syscall.Close(fd))
				continue
			}
			got = append(got, &Descriptor{fd})
		}
	}
	return got, errors.Join(errs...)
}

// closeAll closes descriptors that nobody uses.
func closeAll(unused []*Descriptor) {
	for _, d := range unused {
		d.Close()
	}
}

// eof maps what a vanished peer looks like to io.EOF.
func eof(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return io.EOF
	}
	return fmt.Errorf("descriptor channel: %w", err)
}
