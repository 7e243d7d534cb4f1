//go:build interop

package daemon

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/internal/nettest"
	"github.com/tunneld/tunneld/internal/proctest"
)

// TestKeyUpdates: OpenSSL's client changes its keys, and asks for new ones, as often as it
// likes, as long as it says something now and then.
func TestKeyUpdates(t *testing.T) {
	proctest.Tool(t, "openssl")
	d, _ := open(t, "tcp", fmt.Sprintf(" target = %q\n", nettest.Serve(t, nettest.Echo)), "")
	c := startSClient(t, d, "-tls1_3")
	says := func(line, heard string, times int) {
		t.Helper()
		if _, err := io.WriteString(c.stdin, line+"\n"); err != nil {
			t.Fatal(err)
		}
		eventually(t, heard, func() error {
			if strings.Count(c.output(), heard) < times {
				return errors.New(c.output())
			}
			return nil
		})
	}
	updates := 0
	for i := range 10 {
		for _, command := range []string{"K", "k", "K", "k", "K", "k", "K", "k"} {
			updates++
			says(command, "KEYUPDATE", updates) // it takes one command at a time
		}
		word := fmt.Sprintf("word %d.", i)
		says(word, word, 1)
	}
	_ = c.stdin.Close()
	<-c.ended
	d.logs(t, "reason=client_eof")
}

// TestHugeCertificate: OpenSSL's client is told by an alert that it sends too much.
func TestHugeCertificate(t *testing.T) {
	proctest.Tool(t, "openssl")
	d, a := open(t, "tcp", fmt.Sprintf(" target = %q\n", nettest.Serve(t, nettest.Echo)), "  client_ca_file = \"CA\"\n")
	var names []string
	for i := range 1000 {
		names = append(names, fmt.Sprintf("web-%d.department.corp", i))
	}
	cert, key := a.Files(t, &x509.Certificate{DNSNames: names})
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		c := startSClient(t, d, version, "-cert", cert, "-key", key)
		if err := <-c.ended; err == nil || !strings.Contains(c.output(), "alert record overflow") {
			t.Errorf("%s: %v\n%s", version, err, c.output())
		}
		_ = c.stdin.Close()
	}
	d.logs(t, "the client sends more than 16384 bytes after its ClientHello", "see how many certificates the client sends")
}
