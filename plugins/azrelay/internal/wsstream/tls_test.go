package wsstream

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// certificate makes a certificate for 127.0.0.1 and the pool to trust it.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(crand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// chop passes bytes on in pieces of any size.
func chop(dst io.Writer, src io.Reader, r *rand.Rand) {
	p := make([]byte, 40<<10)
	for {
		n, err := src.Read(p[:1+r.IntN(len(p))])
		for b := p[:n]; len(b) > 0; {
			k := 1 + r.IntN(len(b))
			if _, err := dst.Write(b[:k]); err != nil {
				return
			}
			b = b[k:]
		}
		if err != nil {
			return
		}
	}
}

// TestTLSInAnyPieces has records and frames cut anywhere on the way.
func TestTLSInAnyPieces(t *testing.T) {
	cert, pool := certificate(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			client, near := pair(t)
			far, server := pair(t)
			r := rand.New(rand.NewPCG(1, 2))
			var wg sync.WaitGroup
			wg.Go(func() { chop(near, far, r); _ = near.Close() })
			wg.Go(func() { _, _ = io.Copy(far, near); _ = far.CloseWrite() })

			want := sha256.New()
			wg.Go(func() {
				conn := tls.Server(server, &tls.Config{Certificates: []tls.Certificate{cert}, MaxVersion: version})
				r := rand.New(rand.NewPCG(3, 4))
				for range 300 {
					p := make([]byte, r.IntN(50_000))
					_, _ = rand.NewChaCha8([32]byte{byte(len(p))}).Read(p)
					want.Write(p)
					b := append(ws.MustCompileFrame(ws.NewPingFrame([]byte("p"))), ws.MustCompileFrame(ws.NewBinaryFrame(p))...)
					if _, err := conn.Write(b); err != nil {
						t.Errorf("write: %v", err)
					}
				}
				if err := ws.WriteFrame(conn, ws.NewCloseFrame(nil)); err != nil {
					t.Errorf("write: %v", err)
				}
				_, _ = io.Copy(io.Discard, conn)
				_ = server.Close()
			})

			secured := NewTLS(client, &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"})
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			if err := secured.HandshakeContext(ctx); err != nil {
				t.Fatal(err)
			}
			conn := New(Options{Conn: secured, Socket: client})
			got := sha256.New()
			if _, err := io.CopyBuffer(got, struct{ io.Reader }{conn}, make([]byte, 64<<10)); err != nil {
				t.Errorf("read: %v", err)
			}
			if secured.HasData() {
				t.Error("a buffer is held with nothing in it")
			}
			conn.Abort()
			wg.Wait()
			if !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
				t.Error("other bytes came than were sent")
			}
		})
	}
}

// gatherer keeps what is written, once it gathers.
type gatherer struct {
	net.Conn
	gathers bool
	buf     []byte
}

func (g *gatherer) Write(b []byte) (int, error) {
	if !g.gathers {
		return g.Conn.Write(b)
	}
	g.buf = append(g.buf, b...)
	return len(b), nil
}

// TestAReadDoesNotWaitForMoreThanItHas sends half a record behind a whole one.
func TestAReadDoesNotWaitForMoreThanItHas(t *testing.T) {
	cert, pool := certificate(t)
	client, near := pair(t)
	far, server := pair(t)
	release := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = io.Copy(far, near); _ = far.CloseWrite() })
	wg.Go(func() {
		// Everything but the last byte of what the server sends after the
		// handshake, which is the first message alone.
		p := make([]byte, 64<<10)
		for {
			n, err := far.Read(p)
			if err != nil {
				return
			}
			if n > 10_000 {
				_, _ = near.Write(p[:n-1])
				<-release
				_, _ = near.Write(p[n-1 : n])
				continue
			}
			_, _ = near.Write(p[:n])
		}
	})
	start := make(chan struct{})
	wg.Go(func() {
		b := &gatherer{Conn: server}
		conn := tls.Server(b, &tls.Config{Certificates: []tls.Certificate{cert}, DynamicRecordSizingDisabled: true})
		if err := conn.Handshake(); err != nil {
			t.Errorf("handshake: %v", err)
		}
		<-start
		b.gathers = true
		for _, p := range []string{"first", string(make([]byte, 12_000))} {
			_ = ws.WriteFrame(conn, ws.NewBinaryFrame([]byte(p)))
		}
		if _, err := server.Write(b.buf); err != nil {
			t.Errorf("write: %v", err)
		}
		b.gathers = false
		_, _ = io.Copy(io.Discard, conn)
		_ = server.Close()
	})
	secured := NewTLS(client, &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"})
	if err := secured.Handshake(); err != nil {
		t.Fatal(err)
	}
	close(start)
	conn := New(Options{Conn: secured, Socket: client})
	_ = client.SetReadDeadline(time.Now().Add(30 * time.Second))
	p := make([]byte, 64<<10)
	n, err := conn.Read(p)
	if string(p[:n]) != "first" || err != nil {
		t.Errorf("read %d bytes, %v", n, err)
	}
	close(release)
	if n, err := io.ReadFull(conn, p[:12_000]); err != nil {
		t.Errorf("read %d bytes of the second, %v", n, err)
	}
	conn.Abort()
	if _, err := conn.Read(p); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a read after Abort: %v", err)
	}
	wg.Wait()
}
