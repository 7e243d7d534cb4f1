//go:build interop

package interop

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/pluginwire"
	"github.com/tunneld/tunneld/plugins/azrelay"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
)

// rounds is how often each side of a comparison is measured, in turn.
const rounds = 7

// duplex is a client's connection, whatever carries it.
type duplex interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// BenchmarkBulk compares the plugin with a bare TLS connection of the same
// cipher and with a pipe through Node's ws, all of them towards the same kind
// of far end. It reports medians: MB/s, and the ratios x_tls and x_node.
//
//	go test -tags interop -run xxx -bench Bulk -benchtime 1x ./interop/azrelay
func BenchmarkBulk(b *testing.B) {
	f := startFarEnd(b)
	u := sdktest.Start(b, azrelay.Plugin())
	for _, way := range []string{"up", "down", "both"} {
		b.Run(way, func(b *testing.B) {
			body := map[string]any{"endpoint": f.wss, "hybrid_connection": way, "tls": map[string]any{"ca_file": f.ca}}
			ours := u.Configure(b, way, body)
			node := startPipe(b, f, way)
			sides := []struct {
				name string
				open func() duplex
			}{
				{"plugin", func() duplex { return must(ours.Dial(b.Context(), "label"))(b) }},
				{"tls", func() duplex { return bareTLS(b, f, way) }},
				{"node", func() duplex { return must(net.Dial("tcp", node))(b).(*net.TCPConn) }},
			}
			for b.Loop() {
				speeds := make([][]float64, len(sides))
				for range rounds {
					for i, side := range sides {
						speeds[i] = append(speeds[i], measure(b, side.open(), way))
					}
				}
				median := make([]float64, len(sides))
				for i, s := range speeds {
					slices.Sort(s)
					median[i] = s[len(s)/2]
					b.ReportMetric(median[i], "MB/s_"+sides[i].name)
				}
				b.ReportMetric(median[0]/median[1], "x_tls")
				b.ReportMetric(median[0]/median[2], "x_node")
			}
		})
	}
}

// measure moves bulk bytes in each direction that way names and returns MB/s,
// of both directions together.
func measure(b *testing.B, c duplex, way string) float64 {
	b.Helper()
	defer c.Close()
	up, down := way != "down", way != "up"
	start := time.Now()
	var wg sync.WaitGroup
	if up {
		wg.Go(func() {
			p := make([]byte, 64<<10)
			for range bulk / len(p) {
				if _, err := c.Write(p); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	if down {
		if n, err := io.CopyBuffer(io.Discard, io.LimitReader(c, bulk), make([]byte, 64<<10)); err != nil || n != bulk {
			b.Fatalf("%s: %d bytes came, %v", way, n, err)
		}
	}
	wg.Wait()
	if err := c.CloseWrite(); err != nil {
		b.Fatal(err)
	}
	// The far end's answer to the end says that it has everything.
	if n, err := io.Copy(io.Discard, c); err != nil || n != 0 {
		b.Fatalf("%s: %d bytes came behind the last, %v", way, n, err)
	}
	moved := 0.0
	for _, on := range []bool{up, down} {
		if on {
			moved += bulk
		}
	}
	return moved / 1e6 / time.Since(start).Seconds()
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// bareTLS is a socketpair whose other end is copied to and from a TLS
// connection: what the plugin does, without WebSocket.
func bareTLS(b *testing.B, f farEnd, way string) duplex {
	b.Helper()
	ca, err := os.ReadFile(f.ca)
	if err != nil {
		b.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	conn := must(tls.Dial("tcp", f.tls, &tls.Config{RootCAs: roots}))(b)
	if _, err := io.WriteString(conn, way[:1]); err != nil {
		b.Fatal(err)
	}
	near, far, err := pluginwire.RelayPair()
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		var wg sync.WaitGroup
		wg.Go(func() {
			_, _ = io.CopyBuffer(struct{ io.Writer }{conn}, struct{ io.Reader }{far}, make([]byte, 64<<10))
			_ = conn.CloseWrite()
		})
		_, _ = io.CopyBuffer(struct{ io.Writer }{far}, struct{ io.Reader }{conn}, make([]byte, 64<<10))
		_ = far.CloseWrite()
		wg.Wait()
		_ = conn.Close()
		_ = far.Close()
	}()
	return near
}

// startPipe runs the pipe through Node's ws and returns its address.
func startPipe(b *testing.B, f farEnd, way string) string {
	b.Helper()
	b.Setenv("NODE_EXTRA_CA_CERTS", f.ca)
	return "127.0.0.1:" + startNode(b, nil, "ws-pipe", "wss://"+f.wss+"/$hc/"+way).line("ready")
}

// BenchmarkIdle reports the memory of one idle tunnel in the plugin, over wss,
// after 64 KiB have gone each way: heap and stacks, and what the system counts.
//
//	go test -tags interop -run xxx -bench Idle -benchtime 1x ./interop/azrelay
func BenchmarkIdle(b *testing.B) {
	const tunnels = 500
	f := startFarEnd(b)
	u := sdktest.Start(b, azrelay.Plugin()).Configure(b, "idle",
		map[string]any{"endpoint": f.wss, "hybrid_connection": "idle", "tls": map[string]any{"ca_file": f.ca}})
	for b.Loop() {
		before, rss := memory()
		conns := make([]*sdktest.Conn, tunnels)
		p := make([]byte, 64<<10)
		for i := range conns {
			ctx, cancel := context.WithTimeout(b.Context(), patience)
			conns[i] = must(u.Dial(ctx, "label"))(b)
			cancel()
			if _, err := conns[i].Write(p); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(conns[i], p); err != nil {
				b.Fatal(err)
			}
		}
		after, rssAfter := memory()
		b.ReportMetric(float64(after-before)/tunnels, "B/tunnel")
		b.ReportMetric(float64(rssAfter-rss)/tunnels, "RSS_B/tunnel")
		b.ReportMetric(float64(runtime.NumGoroutine())/tunnels, "goroutines/tunnel")
		for _, c := range conns {
			_ = c.Close()
		}
	}
}

// memory returns what the heap and the stacks hold, and the resident set.
func memory() (held, rss int64) {
	for range 3 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	var pages, resident int64
	if b, err := os.ReadFile("/proc/self/statm"); err == nil {
		_, _ = fmt.Sscan(string(b), &pages, &resident)
	}
	return int64(m.HeapAlloc + m.StackInuse), resident * int64(os.Getpagesize())
}
