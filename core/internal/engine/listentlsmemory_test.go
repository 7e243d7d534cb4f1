package engine

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/tunneld/tunneld/core/status"
	"github.com/tunneld/tunneld/internal/nettest"
)

// talker is a client of a TLS listener that writes records of its own.
type talker struct {
	*nettest.Records
	conn *tls.Conn
}

// talkers are clients with a tunnel each.
func (d *tlsDoor) talkers(at string, many int) (all []talker) {
	d.t.Helper()
	config := d.client("spiffe://corp/alice")
	for range many {
		raw := dialFrom(d.t, "127.0.0.1", at)
		records, conn := nettest.HandshakeRecords(d.t, raw, config)
		heard := make([]byte, len("hello"))
		if err := records.Write(nettest.RecordData, "hello"); err != nil {
			d.t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, heard); err != nil || string(heard) != "hello" {
			d.t.Fatalf("%q, %v", heard, err)
		}
		all = append(all, talker{records, conn})
	}
	return all
}

// TestSilentTLSClients cost what silent clients without TLS do: crypto/tls holds nothing of a
// client whose ClientHello is not whole, and little until its handshake is over.
func TestSilentTLSClients(t *testing.T) {
	many := crowd(t, 5000)
	d := newTLSDoor(t)
	hello := nettest.ClientHello(t, d.client(""))
	plain := "listener \"socks5\" \"plain\" {\n address = \"127.0.0.1:0\"\n" + nettest.OpenTargets + "}\n"
	r := start(t, nil, func(echo string) string {
		return strings.ReplaceAll(d.config(echo, "", "")+plain, "address = \"127.0.0.1:0\"\n", "address = \"127.0.0.1:0\"\n timeouts {\n  handshake = \"0s\"\n }\n") +
			fmt.Sprintf("daemon {\n max_connections = %d\n}\n", 3*many)
	})
	each := func(many int, listener, sends string, answer bool) int {
		t.Helper()
		at, _ := r.at(t, listener)
		await := func(want int) {
			t.Helper()
			r.await(t, "clients in their handshake", func(status.Status) bool { return r.handshakes(listener).taken == want })
		}
		conns := make([]net.Conn, many)
		before := inUse()
		for i := range conns {
			conns[i] = dialFrom(t, "", at[0])
			if _, err := io.WriteString(conns[i], sends); err != nil {
				t.Fatal(err)
			}
		}
		first := make([]byte, 1)
		for _, c := range conns {
			if !answer {
				break
			}
			if _, err := io.ReadFull(c, first); err != nil {
				t.Fatal(err)
			}
		}
		await(many)
		held := (inUse() - before) / many
		for _, c := range conns {
			_ = c.Close()
		}
		await(0)
		return held
	}
	each(100, "socks5.plain", "", false) // what is made once
	without := each(many, "socks5.plain", "", false)
	silent := each(many, "socks5.s", "", false)
	half := each(many/5, "socks5.s", hello[:len(hello)/2], false)
	begun := each(many/5, "socks5.s", hello, true)
	t.Logf("bytes each, with their client: %d without TLS, %d with it, %d after half a ClientHello, %d after a whole one", without, silent, half, begun)
	library := 24 << 10 // what a handshake is said to hold
	if raceDetector {
		library *= 2 // its stacks are larger
	}
	if most := without + 2<<10; silent > most || half > most || begun > most+library {
		t.Errorf("%d bytes of each are held without TLS, %d with it, %d after half a ClientHello, %d after a whole one", without, silent, half, begun)
	}
}

// TestTLSTunnelsHoldLittle: with a message that it does not finish a client can make its
// tunnel hold little, and no more than that: the tunnel ends, and the client and the log are
// told why. Others go on.
func TestTLSTunnelsHoldLittle(t *testing.T) {
	const (
		clients = 40
		begins  = "\x0b\x03\xff\xff" // a certificate of 256 KiB
		most    = 160 << 10          // bytes a tunnel, where 55 to 105 KB were measured
	)
	part := strings.Repeat("\x00", 15<<10)
	d := newTLSDoor(t)
	r := start(t, nil, func(echo string) string { return d.config(echo, d.mutual("spiffe://corp/*"), "") })
	at, _ := r.at(t, "tcp.t")
	all := d.talkers(at[0], clients)
	before := inUse()
	for _, c := range all {
		for _, content := range []string{begins, part, part} {
			if err := c.Write(nettest.RecordHandshake, content); err != nil {
				t.Fatal(err)
			}
		}
	}
	each := 0
	for late := time.Now().Add(patience); each < 2*len(part); {
		if each = (inUse() - before) / clients; time.Now().After(late) {
			t.Fatalf("%d bytes each: not all is read", each)
		}
	}
	t.Logf("%d bytes of each client's message are held in %d", 2*len(part), each)
	if each > most && !raceDetector { // with it pools keep little, and more is made
		t.Errorf("%d bytes are held of each client", each)
	}
	for _, c := range all[1:] {
		for range 20 {
			if err := c.Write(nettest.RecordHandshake, part); err != nil {
				break // it is gone
			}
		}
		if _, err := c.conn.Read(make([]byte, 1)); err == nil {
			t.Fatal("a client goes on")
		}
	}
	lines := r.log.Await(t, clients-1, "msg", "connection", "listener", "tcp.t")
	for _, line := range lines {
		if err, _ := line["err"].(string); line["reason"] != "client_reset" || !strings.Contains(err, "bytes of TLS came without any data") {
			t.Errorf("%v", line)
		}
	}
	_ = all[0].conn.NetConn().(*net.TCPConn).CloseWrite()
}
