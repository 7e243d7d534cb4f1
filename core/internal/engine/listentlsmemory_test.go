package engine

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

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
