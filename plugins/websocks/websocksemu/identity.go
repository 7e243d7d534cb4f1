package websocksemu

import (
	"crypto/rand"
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"

	"github.com/tunneld/tunneld/internal/emu"
)

// Certificate is a server's certificate in PEM files, and the authority that
// signed it.
type Certificate struct {
	// CAFile is the authority, CertFile the server's certificate, KeyFile its
	// private key.
	CAFile, CertFile, KeyFile string
}

// WriteCertificate makes an authority and a certificate for localhost, 127.0.0.1, ::1 and
// the given DNS names and IP literals, valid for a month, and writes them into dir. The
// authority's key is forgotten.
func WriteCertificate(dir string, names ...string) (Certificate, error) {
	files, _, err := writeCertificate(dir, names)
	return files, err
}

func writeCertificate(dir string, names []string) (Certificate, tls.Certificate, error) {
	files := Certificate{
		CAFile:   filepath.Join(dir, "ca.pem"),
		CertFile: filepath.Join(dir, "cert.pem"),
		KeyFile:  filepath.Join(dir, "key.pem"),
	}
	authority, err := emu.NewAuthority()
	if err != nil {
		return files, tls.Certificate{}, err
	}
	certificate, err := authority.Server(names...)
	if err != nil {
		return files, certificate, err
	}
	cert, key, err := emu.PEM(certificate)
	return files, certificate, errors.Join(err,
		os.WriteFile(files.CAFile, authority.PEM(), 0o600),
		os.WriteFile(files.CertFile, cert, 0o600),
		os.WriteFile(files.KeyFile, key, 0o600))
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
	if i.Certificate, i.loaded, err = writeCertificate(dir, names); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return i, nil
}
