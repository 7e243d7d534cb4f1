package main

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

// TestSpliceIsUsed: what is sent in bulk goes through the kernel, on the direct
// path and on the relay path.
func TestSpliceIsUsed(t *testing.T) {
	for _, path := range []string{"direct", "relay"} {
		t.Run(path, func(t *testing.T) {
			far := startBackend(t)
			d := startDaemon(t, withMetrics+thirdParty(t, "fix"+path, "")+fmt.Sprintf("upstream %q \"x\" {}\n", "fix"+path)+
				listener("db", "127.0.0.1:0", far.addr, "")+route("all", "", "upstream.fix"+path+".x"))
			c := d.dial(t, "tcp.db")
			echo := far.next(t)
			go func() {
				_, _ = io.Copy(echo, echo) // the client sees how it ends
				_ = echo.CloseWrite()
			}()
			const size = 32 << 20
			sent := make(chan error, 1)
			go func() {
				_, err := io.CopyN(c, zeros{}, size)
				sent <- err
			}()
			if n, err := io.CopyN(io.Discard, c, size); err != nil {
				t.Fatalf("after %d bytes: %v", n, err)
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
			closeWrite(t, c)
			if _, err := io.ReadAll(c); err != nil {
				t.Fatal(err)
			}
			d.log.await(t, 1, "msg", "connection")
			for _, direction := range []string{"up", "down"} {
				_, text := d.served(t, "/metrics")
				series := fmt.Sprintf(`tunneld_tunnel_bytes_total{direction=%q,listener="tcp.db",method="splice",path=%q,route="all",upstream="fix%[2]s.x"} `, direction, path)
				_, rest, _ := strings.Cut(text, series)
				var spliced float64
				if _, err := fmt.Sscan(rest, &spliced); err != nil || spliced < size/2 || spliced > size {
					t.Errorf("%s: %v of %d bytes were spliced, %v", direction, spliced, size, err)
				}
			}
		})
	}
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }
