package main

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/nettest"
)

// TestClientThatLeftIsNotDialedFor: a client's reset ends its dial, gives its slot
// back, and no further upstream is tried. Its end of file alone may be a half-close.
func TestClientThatLeftIsNotDialedFor(t *testing.T) {
	silent, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if err := silent.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	hangs := fmt.Sprintf("upstream \"sapsocks\" \"onprem\" {\n proxy = %q\n auth = \"none\"\n timeouts {\n handshake = \"100s\"\n }\n}\n", silent.Addr())
	const patient = "timeouts {\n dial = \"100s\"\n }\n limits {\n max_connections = 1\n }\n"
	d := startDaemon(t, "upstream \"direct\" \"next\" {\n}\n"+hangs+
		listener("db", "127.0.0.1:0", "127.0.0.1:1", patient)+
		listener("short", "127.0.0.1:0", "127.0.0.1:1", "timeouts {\n dial = \"3s\"\n }")+
		"listener \"socks5\" \"apps\" {\n address = \"127.0.0.1:0\"\n"+nettest.OpenTargets+patient+"}\n"+
		"listener \"http\" \"web\" {\n address = \"127.0.0.1:0\"\n"+nettest.OpenTargets+patient+"}\n"+
		route("all", "", "upstream.sapsocks.onprem", "upstream.direct.next"))
	asks := map[string]string{
		"tcp.db":      "x",
		"socks5.apps": "\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x01",
		"http.web":    "CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n",
	}
	n := 0
	for id, ask := range asks {
		for range 2 { // the second has the slot of the first
			c := d.dial(t, id)
			send(t, c, ask)
			n++
			proxy, err := silent.Accept() // the dial is under way
			if err != nil {
				t.Fatal(err)
			}
			defer proxy.Close()
			if err := c.SetLinger(0); err != nil {
				t.Fatal(err)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			d.log.Await(t, n, "msg", "connection failed", "reason", "canceled", "err", "the client has left")
		}
	}
	if tried := d.log.Matching("msg", "upstream failed, the next is tried"); len(tried) > 0 {
		t.Errorf("%v", tried)
	}

	half := d.dial(t, "tcp.short")
	if err := half.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	d.log.Await(t, 1, "msg", "upstream failed, the next is tried", "listener", "tcp.short", "reason", "timeout")
}
