package sapsocksemu

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"time"
)

// authority is a certificate authority with one server and one client, all made
// anew and never stored.
type authority struct {
	certificate                  string // PEM
	pool                         *x509.CertPool
	server                       tls.Certificate
	clientCertificate, clientKey string // PEM
}

// certificateLife is longer than any emulator runs.
const certificateLife = 30 * 24 * time.Hour

func newAuthority(clientID string) (*authority, error) {
	a := &authority{pool: x509.NewCertPool()}
	template := func(serial int64, name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(serial),
			Subject:      pkix.Name{CommonName: name},
			NotBefore:    time.Now().Add(-time.Hour),
			NotAfter:     time.Now().Add(certificateLife),
			KeyUsage:     x509.KeyUsageDigitalSignature,
		}
	}
	root := template(1, "SAP emulator")
	root.IsCA, root.BasicConstraintsValid, root.KeyUsage = true, true, x509.KeyUsageCertSign
	rootCert, rootKey, err := issue(root, nil, nil)
	if err != nil {
		return nil, err
	}
	a.certificate = certPEM(rootCert)
	a.pool.AddCert(rootCert)

	server := template(2, "127.0.0.1")
	server.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	server.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	serverCert, serverKey, err := issue(server, rootCert, rootKey)
	if err != nil {
		return nil, err
	}
	a.server = tls.Certificate{Certificate: [][]byte{serverCert.Raw}, PrivateKey: serverKey}

	client := template(3, clientID)
	client.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	clientCert, clientKey, err := issue(client, rootCert, rootKey)
	if err != nil {
		return nil, err
	}
	a.clientCertificate = certPEM(clientCert)
	a.clientKey, err = keyPEM(clientKey)
	return a, err
}

// issue signs a certificate; by itself where there is no parent.
func issue(template, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make certificate: %w", err)
	}
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, nil, fmt.Errorf("make certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	return cert, key, err
}

func certPEM(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

func keyPEM(k *ecdsa.PrivateKey) (string, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return "", fmt.Errorf("make certificate: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), nil
}
