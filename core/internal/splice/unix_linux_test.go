package splice

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tunneld/tunneld/core/internal/tunnel"
)

// TestUnixClientSendsDescriptors: they are dropped, and what comes behind them is not left
// behind: the system ends a read there.
func TestUnixClientSendsDescriptors(t *testing.T) {
	eachPump(t, func(t *testing.T, start func(Tunnel)) {
		r := newUnixRig(t, start, func(client *net.UnixConn) {
			for _, text := range []string{"one", "two", "three"} {
				if _, _, err := client.WriteMsgUnix([]byte(text), unix.UnixRights(int(os.Stdout.Fd())), nil); err != nil {
					t.Fatal(err)
				}
			}
			write(t, client, "four")
		})
		read(t, r.upstream, "onetwothreefour")
		check(t, r.client.Close())
		expectEOF(t, r.upstream, "")
		check(t, r.upstream.Close())
		r.wantEnd(t, tunnel.CloseClientEOF, 15, 0)
	})
}

// TestUnixClientsUrgentData stays in its place, in bulk, too.
func TestUnixClientsUrgentData(t *testing.T) {
	eachPump(t, func(t *testing.T, start func(Tunnel)) {
		r := newUnixRig(t, start, nil)
		raw, err := r.client.SyscallConn()
		check(t, err)
		bulk := string(make([]byte, 40<<10))
		for range 20 {
			write(t, r.client, bulk)
			ctlErr := raw.Write(func(fd uintptr) bool {
				err = unix.Sendto(int(fd), []byte("!"), unix.MSG_OOB|unix.MSG_DONTWAIT, nil)
				return !errors.Is(err, unix.EAGAIN)
			})
			if err := errors.Join(ctlErr, err); errors.Is(err, unix.EOPNOTSUPP) {
				t.Skip("this kernel has no urgent data on unix sockets")
			} else if err != nil {
				t.Fatal(err)
			}
			write(t, r.client, bulk)
			read(t, r.upstream, bulk+"!"+bulk)
		}
	})
}

// TestUnixClientIsSpliced: bulk never comes to this process.
func TestUnixClientIsSpliced(t *testing.T) {
	const size = 64 << 20
	r := newUnixRig(t, newPump(t).Start, nil)
	go func() {
		_, _ = io.CopyN(r.client, zeros{}, size) // an error: less comes
		_ = r.client.CloseWrite()
	}()
	go func() {
		_, _ = io.CopyN(r.upstream, zeros{}, size)
		_ = r.upstream.CloseWrite()
	}()
	read := make(chan int64)
	go func() {
		n, _ := io.Copy(io.Discard, r.client)
		read <- n
	}()
	if n, err := io.Copy(io.Discard, r.upstream); n != size || err != nil {
		t.Errorf("%d bytes up, %v", n, err)
	}
	if n := <-read; n != size {
		t.Errorf("%d bytes down", n)
	}
	<-r.result
	if up, down := r.traffic.Up.Spliced.Load(), r.traffic.Down.Spliced.Load(); up < size/2 || down < size/2 {
		t.Errorf("spliced %d up, %d down of %d", up, down, size)
	}
}

// TestCloseUnix: a peer that waits in a read is told of the reset, and not of an end before
// that.
func TestCloseUnix(t *testing.T) {
	for range 500 {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		check(t, err)
		_, err = unix.Write(fds[1], []byte("unread"))
		check(t, err)
		began, told := make(chan struct{}), make(chan error, 1)
		go func() {
			close(began)
			n, err := unix.Read(fds[1], make([]byte, 1))
			if n == 0 && err == nil {
				err = io.EOF
			}
			told <- err
		}()
		<-began
		closeUnix(int32(fds[0]))
		if err := <-told; !errors.Is(err, unix.ECONNRESET) {
			t.Fatalf("read: %v, want a reset", err)
		}
		check(t, unix.Close(fds[1]))
	}
}
