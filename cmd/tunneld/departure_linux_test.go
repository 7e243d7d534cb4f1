package main

import (
	"testing"
	"time"

	"github.com/tunneld/tunneld/plugins/sapsocks/sapsocksemu"
)

// awaitConversations waits until the proxy has been asked n times.
func (s *sapsocksRig) awaitConversations(t *testing.T, n int) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for len(s.emu.Conversations()) < n {
		if time.Now().After(deadline) {
			t.Fatalf("%d conversations, not %d", len(s.emu.Conversations()), n)
		}
		time.Sleep(time.Millisecond)
	}
}

// TestClientThatLeftIsNotDialedFor: a client's reset ends its dial, gives its slot
// back, and no further upstream is tried. Its end of file alone may be a half-close.
func TestClientThatLeftIsNotDialedFor(t *testing.T) {
	hangs := startSapsocks(t, sapsocksemu.Options{Faults: sapsocksemu.Faults{Silent: sapsocksemu.StepGreeting}})
	const patient = "timeouts {\n dial = \"100s\"\n }\n limits {\n max_connections = 1\n }\n"
	d := startDaemon(t, "upstream \"direct\" \"next\" {\n}\n"+hangs.upstream("timeouts {\n handshake = \"100s\"\n }")+
		listener("db", "127.0.0.1:0", "127.0.0.1:1", patient)+
		listener("short", "127.0.0.1:0", "127.0.0.1:1", "timeouts {\n dial = \"3s\"\n }")+
		"listener \"socks5\" \"apps\" {\n address = \"127.0.0.1:0\"\n"+patient+"}\n"+
		"listener \"http\" \"web\" {\n address = \"127.0.0.1:0\"\n"+patient+"}\n"+
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
			hangs.awaitConversations(t, n)
			if err := c.SetLinger(0); err != nil {
				t.Fatal(err)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			d.log.await(t, n, "msg", "connection failed", "reason", "canceled", "err", "the client has left")
		}
	}
	if tried := d.log.matching("msg", "upstream failed, the next is tried"); len(tried) > 0 {
		t.Errorf("%v", tried)
	}

	half := d.dial(t, "tcp.short")
	if err := half.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	d.log.await(t, 1, "msg", "upstream failed, the next is tried", "listener", "tcp.short", "reason", "timeout")
}
