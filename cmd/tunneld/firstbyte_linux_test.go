package main

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/bare"
)

// onFirstByte is a listener that dials for clients that have sent something, and has
// one place.
func onFirstByte(target, extra string) string {
	return withMetrics + "upstream \"direct\" \"x\" {}\n" + route("all", "", "upstream.direct.x") +
		listener("db", "127.0.0.1:0", target, "dial_on = \"first_byte\"\n limits {\n max_connections = 1\n }\n"+extra)
}

// TestProbesDialNothing: a probe of the port reaches nobody and is no failure, and
// the first client behind them is the first that the far end sees.
func TestProbesDialNothing(t *testing.T) {
	far := startBackend(t)
	d := startDaemon(t, onFirstByte(far.addr, ""))
	for i, leave := range []func(*net.TCPConn) error{
		(*net.TCPConn).Close,
		func(c *net.TCPConn) error { bare.Reset(c); return nil },
		func(c *net.TCPConn) error { closeWrite(t, c); _, err := io.ReadAll(c); return err },
	} {
		if err := leave(d.dial(t, "tcp.db")); err != nil {
			t.Error(err)
		}
		d.counted(t, fmt.Sprintf(`tunneld_probes_total{listener="tcp.db"} %d`, i+1), `tunneld_connections_active{listener="tcp.db"} 0`)
	}
	d.log.Await(t, 3, "msg", "client left without sending anything", "listener", "tcp.db", "level", "DEBUG")
	_, text := d.served(t, "/metrics")
	for _, name := range []string{"tunneld_connection_failures_total{", "tunneld_handshake_failures_total{", "tunneld_dial_duration_seconds_count{"} {
		if strings.Contains(text, name) {
			t.Errorf("a probe is counted in %s", name)
		}
	}
	for _, level := range []string{"INFO", "WARN", "ERROR"} {
		if lines := d.log.Matching("listener", "tcp.db", "level", level); len(lines) > 1 || len(lines) == 1 && lines[0]["msg"] != "listening" {
			t.Errorf("of a probe the log says %v", lines)
		}
	}

	const size = 8 << 20
	c := d.dial(t, "tcp.db")
	sent := make(chan error, 1)
	go func() {
		_, err := io.CopyN(c, new(counting), size)
		sent <- err
	}()
	echo := far.next(t)
	got, err := io.ReadAll(io.LimitReader(echo, size))
	if err != nil || len(got) != size {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	for i, b := range got {
		if b != byte(i%251) {
			t.Fatalf("byte %d is %d", i, b)
		}
	}
	if _, err := echo.Write([]byte("done")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	const series = `tunneld_tunnel_bytes_total{direction="up",listener="tcp.db",method="splice",path="direct",route="all",upstream="direct.x"} `
	eventually(t, "too little was spliced", func() bool {
		_, text := d.served(t, "/metrics")
		_, rest, _ := strings.Cut(text, series)
		var spliced float64
		_, err := fmt.Sscan(rest, &spliced)
		return err == nil && spliced > size/2
	})
}

// counting are bytes that differ from their neighbours, without an end.
type counting struct{ next int }

func (c *counting) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(c.next % 251)
		c.next++
	}
	return len(b), nil
}

// TestSilentClientOfFirstByte gives way to one that has something to say, and is told of
// in the log once its time is over.
func TestSilentClientOfFirstByte(t *testing.T) {
	echo, err := startEcho()
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	d := startDaemon(t, onFirstByte(echo.Addr(), "timeouts {\n handshake = \"0s\"\n }"))
	silent := d.dial(t, "tcp.db")
	d.counted(t, `tunneld_connections_active{listener="tcp.db"} 1`)
	c := d.dial(t, "tcp.db")
	pingPong(t, c, "hello")
	wantReset(t, silent)
	d.counted(t, `tunneld_handshakes_yielded_total{listener="tcp.db"} 1`)
	c.Close()
	d.counted(t, `tunneld_connections_active{listener="tcp.db"} 0`)

	d.reload(t, onFirstByte(echo.Addr(), "timeouts {\n handshake = \"50ms\"\n }"))
	d.dialReset(t, "tcp.db")
	line := d.log.Await(t, 1, "msg", "client handshake failed", "listener", "tcp.db", "level", "WARN", "reason", "timeout")[0]
	if hint, _ := line["hint"].(string); !strings.Contains(hint, `dial_on = "accept"`) {
		t.Errorf("hint %q", hint)
	}
}
