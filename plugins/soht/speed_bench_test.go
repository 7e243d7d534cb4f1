package soht

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/plugins/sdk"
	"github.com/tunneld/tunneld/plugins/soht/sohtemu"
)

// README.md has the figures of these benchmarks, explained.

// source is a target that sends n bytes, which content fills a block at a time,
// and ends.
func source(b *testing.B, n int, content []byte) string {
	return nettest.Serve(b, func(c *net.TCPConn) {
		for left := n; left > 0; {
			m, err := c.Write(content[:min(left, len(content))])
			if err != nil {
				return
			}
			left -= m
		}
		_ = c.CloseWrite()
		_, _ = io.Copy(io.Discard, c)
	})
}

// drain reads n bytes and the end of file with the buffer that the SDK's pump
// would use.
func drain(b *testing.B, r io.Reader, n int) {
	b.Helper()
	buf := make([]byte, 64<<10)
	got := 0
	for {
		m, err := r.Read(buf)
		got += m
		if err == io.EOF && got == n {
			return
		}
		if err != nil {
			b.Fatalf("after %d of %d bytes: %v", got, n, err)
		}
	}
}

// BenchmarkDown downloads 64 MiB. x-plain is its speed as a ratio to that of a
// plain HTTP download through the same server, measured in turn.
func BenchmarkDown(b *testing.B) {
	const n = 64 << 20
	for name, content := range contents(1 << 20) {
		for _, mode := range []string{modeStateful, modeStateless} {
			b.Run(mode+"/"+name, func(b *testing.B) {
				s := emulate(b, sohtemu.Options{})
				target := source(b, n, content)
				hc := &http.Client{Transport: &http.Transport{}}
				defer hc.CloseIdleConnections()
				var plain time.Duration
				b.SetBytes(n)
				for b.Loop() {
					stream := bare(b, config(s, mode), target)
					drain(b, stream, n)
					_ = stream.Close()
					b.StopTimer()
					start := time.Now()
					r, err := hc.Get(s.PlainURL(target))
					if err != nil {
						b.Fatal(err)
					}
					drain(b, r.Body, n)
					_ = r.Body.Close()
					plain += time.Since(start)
					b.StartTimer()
				}
				b.ReportMetric(float64(plain)/float64(b.Elapsed()), "x-plain")
			})
		}
	}
}

// BenchmarkUp uploads with one write in flight, without and with 20 ms of delay
// in front of each answer. Its MB/s are of unencoded data. The target is silent:
// in mode "stateless" the server keeps each poll for 100 ms.
func BenchmarkUp(b *testing.B) {
	for _, mode := range []string{modeStateful, modeStateless} {
		for _, delay := range []time.Duration{0, 20 * time.Millisecond} {
			for _, size := range []sdk.Size{sdk.KiB, 32 * sdk.KiB, 64 * sdk.KiB} {
				b.Run(fmt.Sprintf("%s/delay=%v/write_size=%v", mode, delay, size), func(b *testing.B) {
					// As much as takes a while in either case.
					n := 200 * int(size)
					if delay > 0 {
						n = 20 * int(size)
					}
					upload(b, mode, delay, size, n)
				})
			}
		}
	}
}

func upload(b *testing.B, mode string, delay time.Duration, size sdk.Size, n int) {
	random := contents(1 << 20)["random"]
	s := emulate(b, sohtemu.Options{})
	c := config(s, mode)
	c.WriteSize = size
	addr, conns := scripted(b)
	stream := bare(b, c, addr)
	target := receive(b, conns)
	s.SetFaults(sohtemu.Faults{Delay: delay})
	b.SetBytes(int64(n))
	for b.Loop() {
		go func() {
			for left := n; left > 0; {
				m, err := stream.Write(random[:min(left, len(random))])
				if err != nil {
					return
				}
				left -= m
			}
		}()
		if _, err := io.CopyN(io.Discard, target, int64(n)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRoundTrip plays ping-pong with 64 bytes, which end in NUL or do not.
func BenchmarkRoundTrip(b *testing.B) {
	for _, mode := range []string{modeStateful, modeStateless} {
		for _, last := range []byte{'x', 0} {
			for _, delay := range []time.Duration{0, 20 * time.Millisecond} {
				b.Run(fmt.Sprintf("%s/last=%#02x/delay=%v", mode, last, delay), func(b *testing.B) {
					s := emulate(b, sohtemu.Options{})
					stream := bare(b, config(s, mode), nettest.Serve(b, nettest.Echo))
					s.SetFaults(sohtemu.Faults{Delay: delay})
					message := make([]byte, 64)
					message[63] = last
					for b.Loop() {
						if _, err := stream.Write(message); err != nil {
							b.Fatal(err)
						}
						if _, err := io.ReadFull(stream, message); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
		}
	}
}
