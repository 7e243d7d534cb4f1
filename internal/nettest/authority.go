package nettest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Authority issues certificates for servers and clients, which hold what a test asks for.
type Authority struct {
	Certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// NewAuthority returns one of that name, whose certificate ends in an hour.
func NewAuthority(t testing.TB, name string) *Authority {
	t.Helper()
	a := &Authority{}
	der, key := a.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Hour)})
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a.Certificate, a.key = cert, key
	return a
}

func (a *Authority) sign(t testing.TB, c *x509.Certificate) ([]byte, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if c.NotBefore.IsZero() {
		c.NotBefore = time.Now().Add(-time.Hour)
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	parent, signer := a.Certificate, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	return der, key
}

// PEM is what the authority is trusted by.
func (a *Authority) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate.Raw})
}

// File is a file with PEM.
func (a *Authority) File(t testing.TB) string {
	t.Helper()
	return writeFiles(t, map[string][]byte{"ca.pem": a.PEM()})
}

// Issue returns the PEM of a certificate and of its key. It ends in an hour, and is for
// servers and clients, unless c says otherwise.
func (a *Authority) Issue(t testing.TB, c *x509.Certificate) (cert, key []byte) {
	t.Helper()
	if c.NotAfter.IsZero() {
		c.NotAfter = time.Now().Add(time.Hour)
	}
	if c.ExtKeyUsage == nil {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	der, private := a.sign(t, c)
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

// Files is Issue into two files.
func (a *Authority) Files(t testing.TB, c *x509.Certificate) (certFile, keyFile string) {
	t.Helper()
	cert, key := a.Issue(t, c)
	certFile = writeFiles(t, map[string][]byte{"cert.pem": cert, "key.pem": key})
	return certFile, filepath.Join(filepath.Dir(certFile), "key.pem")
}

// writeFiles returns the path of the first by name.
func writeFiles(t testing.TB, files map[string][]byte) (first string) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if first == "" || path < first {
			first = path
		}
	}
	return first
}
