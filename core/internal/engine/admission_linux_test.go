package engine

import (
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkShutOut is a client that is reset at once, by a list of the listener; beside it
// one beyond a limit, and one whose port nobody listens on. The client itself takes no
// memory: what is counted is the daemon's.
func BenchmarkShutOut(b *testing.B) {
	for name, more := range map[string]string{
		"deny":           " deny = [\"127.0.0.1\"]\n",
		"max_per_source": " limits {\n  max_per_source = 1\n }\n",
		"nobody":         "",
	} {
		b.Run(name, func(b *testing.B) {
			r := start(b, nil, func(echo string) string { return guarded(echo, "127.0.0.1:0", more) })
			at, _ := r.at(b, "tcp.a")
			address := netip.MustParseAddrPort(at[0])
			port := int(address.Port())
			if name == "nobody" {
				port = 1
			}
			if name == "max_per_source" {
				echoed(b, dialFrom(b, "", at[0]))
			}
			to := &unix.SockaddrInet4{Port: port, Addr: address.Addr().As4()}
			var got [1]byte
			b.ReportAllocs()
			for b.Loop() {
				fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					b.Fatal(err)
				}
				if err = unix.Connect(fd, to); err == nil {
					_, err = unix.Read(fd, got[:])
				}
				if err == nil || !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.ECONNREFUSED) {
					b.Fatal(err)
				}
				if err := unix.Close(fd); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
