package tlsconf

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tunneld/tunneld/internal/follow"
	"github.com/tunneld/tunneld/internal/nettest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// authority issues certificates.
type authority struct {
	t *testing.T
	*nettest.Authority
}

func newAuthority(t *testing.T) *authority { return namedAuthority(t, "authority") }

func namedAuthority(t *testing.T, name string) *authority {
	t.Helper()
	return &authority{t, nettest.NewAuthority(t, name)}
}

// issue returns the PEM of a certificate for name and of its key.
func (a *authority) issue(name string, end time.Time) (cert, key []byte) {
	a.t.Helper()
	return a.Issue(a.t, &x509.Certificate{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotAfter: end})
}

// folder holds files that are replaced.
type folder struct {
	t   *testing.T
	dir string
}

func newFolder(t *testing.T) folder { return folder{t, t.TempDir()} }

func (f folder) put(name string, content []byte) (path string) {
	f.t.Helper()
	path = filepath.Join(f.dir, name)
	if err := errors.Join(os.WriteFile(path+".new", content, 0o600), os.Rename(path+".new", path)); err != nil {
		f.t.Fatal(err)
	}
	return path
}

func (f folder) putPair(name string, cert, key []byte) Pair {
	return Pair{CertFile: f.put(name+".crt", cert), KeyFile: f.put(name+".key", key)}
}

// followed has a client or server follow its files, and returns what it tells.
func followed(t *testing.T, x interface {
	Follow(*follow.Follower, func(error)) error
	Stop()
}) <-chan error {
	t.Helper()
	told := make(chan error, 9)
	if err := x.Follow(&follow.Follower{Settle: 10 * time.Millisecond}, func(err error) { told <- err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(x.Stop)
	return told
}

// await takes what is told until it is good, or says all that want names.
func await(t *testing.T, told <-chan error, want ...string) {
	t.Helper()
	late := time.After(30 * time.Second)
	for {
		select {
		case err := <-told:
			matches := (err == nil) == (len(want) == 0)
			for _, w := range want {
				matches = matches && err != nil && strings.Contains(err.Error(), w)
			}
			if matches {
				return
			}
		case <-late:
			t.Fatalf("not told: %q", want)
		}
	}
}

// seen is what both ends of a connection know of it.
type seen struct {
	client, server tls.ConnectionState
}

func (s seen) clientName() string {
	if len(s.server.PeerCertificates) == 0 {
		return ""
	}
	return s.server.PeerCertificates[0].Subject.CommonName
}

func (s seen) serverName() string { return s.client.PeerCertificates[0].Subject.CommonName }

// meet does a handshake over TCP, and passes a byte each way, so that tickets arrive.
func meet(t *testing.T, client, server *tls.Config) (seen, error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	type result struct {
		state tls.ConnectionState
		err   error
	}
	served := make(chan result, 1)
	go func() {
		raw, err := l.Accept()
		if err != nil {
			served <- result{err: err}
			return
		}
		defer raw.Close()
		_ = raw.SetDeadline(time.Now().Add(20 * time.Second))
		c := tls.Server(raw, server)
		b := make([]byte, 1)
		_, err = io.ReadFull(c, b)
		if err == nil {
			_, err = c.Write(b)
		}
		served <- result{c.ConnectionState(), err}
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(20 * time.Second))
	c := tls.Client(raw, client)
	if err = c.Handshake(); err == nil {
		_, err = c.Write([]byte("x"))
	}
	if err == nil {
		_, err = io.ReadFull(c, make([]byte, 1))
	}
	if err != nil {
		raw.Close()
	}
	s := <-served
	return seen{c.ConnectionState(), s.state}, errors.Join(err, s.err)
}
