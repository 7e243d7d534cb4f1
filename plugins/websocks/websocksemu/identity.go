package websocksemu

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/tunneld/tunneld/internal/tlsconf"
)

// Certificate is a server's certificate in PEM files, and the authority that
// signed it.
type Certificate struct {
	// CAFile is the authority, CertFile the server's certificate, KeyFile its
	// private key.
	CAFile, CertFile, KeyFile string
}

// WriteCertificate makes an authority and a certificate for localhost,
// 127.0.0.1 and the given DNS names and IP literals, valid for a day, and
// writes them into dir. The authority's key is forgotten.
func WriteCertificate(dir string, names ...string) (Certificate, error) {
	c := Certificate{
		CAFile:   filepath.Join(dir, "ca.pem"),
		CertFile: filepath.Join(dir, "cert.pem"),
		KeyFile:  filepath.Join(dir, "key.pem"),
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return c, fmt.Errorf("make authority: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return c, fmt.Errorf("make key: %w", err)
	}
	ca := template("websocks emulator authority", 1)
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	leaf := template("websocks emulator", 2)
	leaf.KeyUsage, leaf.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, name := range append([]string{"localhost", "127.0.0.1"}, names...) {
		if ip := net.ParseIP(name); ip != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		} else {
			leaf.DNSNames = append(leaf.DNSNames, name)
		}
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return c, fmt.Errorf("make authority: %w", err)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	if err != nil {
		return c, fmt.Errorf("make certificate: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return c, fmt.Errorf("encode key: %w", err)
	}
	return c, errors.Join(
		writePEM(c.CAFile, "CERTIFICATE", caDER),
		writePEM(c.CertFile, "CERTIFICATE", leafDER),
		writePEM(c.KeyFile, "PRIVATE KEY", keyDER))
}

func template(name string, serial int64) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(24 * time.Hour),
	}
}

func writePEM(file, kind string, der []byte) error {
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

// identity is a certificate in a folder of its own, and loaded.
type identity struct {
	Certificate
	dir     string
	loaded  tls.Certificate
	tickets [32]byte // of all connections, so that sessions can be resumed
}

func newIdentity(names []string) (*identity, error) {
	dir, err := os.MkdirTemp("", "websocksemu-")
	if err != nil {
		return nil, err
	}
	i := &identity{dir: dir}
	_, _ = rand.Read(i.tickets[:]) // never fails
	if i.Certificate, err = WriteCertificate(dir, names...); err == nil {
		i.loaded, err = tlsconf.LoadKeyPair(i.CertFile, i.KeyFile)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return i, nil
}
