package nettest

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

// WantsCertificate serves a version of TLS to clients with a certificate; all others are
// refused, with TLS 1.3 once their handshake is over. It returns the address, on
// 127.0.0.1, and the file with the authority of the server's certificate.
func WantsCertificate(t testing.TB, version uint16) (address, caFile string) {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS() // for its certificate
	config := &tls.Config{Certificates: s.TLS.Certificates, ClientAuth: tls.RequireAnyClientCert, MinVersion: version, MaxVersion: version}
	caFile = filepath.Join(t.TempDir(), "server.pem")
	err := os.WriteFile(caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600)
	s.Close()
	if err != nil {
		t.Fatal(err)
	}
	return Serve(t, func(c *net.TCPConn) {
		if err := tls.Server(c, config).Handshake(); err == nil {
			t.Error("a client has a certificate")
		}
	}), caFile
}

// ClientHello is the first message of a client of crypto/tls, in its records.
func ClientHello(t testing.TB, config *tls.Config) string {
	t.Helper()
	var c alone
	if err := tls.Client(&c, config).Handshake(); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return c.sent.String()
}

// alone is a connection without a peer.
type alone struct {
	net.Conn
	sent bytes.Buffer
}

func (c *alone) Write(b []byte) (int, error) { return c.sent.Write(b) }
func (c *alone) Read([]byte) (int, error)    { return 0, io.EOF }
func (c *alone) Close() error                { return nil }

// ReplaceFile puts the content of another file in a file's place, by a rename, as
// certificates are rotated.
func ReplaceFile(t testing.TB, file, by string) {
	t.Helper()
	content, err := os.ReadFile(by)
	if err == nil {
		err = os.WriteFile(file+".new", content, 0o600)
	}
	if err == nil {
		err = os.Rename(file+".new", file)
	}
	if err != nil {
		t.Fatal(err)
	}
}
