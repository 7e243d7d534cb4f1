package sdk

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"sync"

	"github.com/tunneld/tunneld/internal/userfile"
)

// tlsKept is what was made of the files of a tls block. Copies of a block share
// it, and may differ: each form has an entry of its own.
type tlsKept struct {
	mu    sync.Mutex
	forms map[TLS]*tlsForm
}

// tlsForm is the one configuration of a block and a state of its files.
type tlsForm struct {
	config *tls.Config
	files  []tlsFile
}

// tlsFile is a file as it was read. Its content is not kept, which may be a key.
type tlsFile struct {
	path  string
	stamp userfile.Stamp
	sum   [sha256.Size]byte
}

// keep makes the block remember what it made of its files. It comes before any
// copy of the block.
func (t *TLS) keep() {
	if t.kept == nil {
		t.kept = &tlsKept{forms: map[TLS]*tlsForm{}}
	}
}

// base returns the configuration that is the same for every host. It is shared,
// and not to be changed. The files are read where they may have changed, and
// parsed where they have.
func (t TLS) base() (*tls.Config, error) {
	t.ServerName = ""
	if t.kept == nil {
		form, err := t.read(nil)
		if err != nil {
			return nil, err
		}
		return form.config, nil
	}
	t.kept.mu.Lock()
	defer t.kept.mu.Unlock()
	form := t.kept.forms[t]
	if form == nil || !form.current() {
		var err error
		if form, err = t.read(form); err != nil {
			return nil, err
		}
		t.kept.forms[t] = form
	}
	return form.config, nil
}

// current says whether no file has changed since it was read.
func (f *tlsForm) current() bool {
	for _, file := range f.files {
		now, err := userfile.Look(file.path)
		if err != nil || !file.stamp.Same(now) {
			return false
		}
	}
	return true
}

// read reads the block's files. Where they hold what they held before, the
// configuration is still that one; before may be nil.
func (t TLS) read(before *tlsForm) (*tlsForm, error) {
	form := new(tlsForm)
	load := func(attribute, path string) ([]byte, error) {
		f, err := userfile.Read(path, maxPEM)
		if err != nil {
			return nil, fmt.Errorf("tls: %s: %w", attribute, err)
		}
		form.files = append(form.files, tlsFile{path, f.Stamp, sha256.Sum256(f.Data)})
		return f.Data, nil
	}
	var authorities, cert, key []byte
	var err error
	if t.CAFile != "" {
		authorities, err = load("ca_file", t.CAFile)
	}
	if err == nil && t.clientCertificate() {
		if cert, err = load("cert_file", t.CertFile); err == nil {
			key, err = load("key_file", t.KeyFile)
		}
	}
	if err != nil {
		return nil, err
	}
	if before != nil && slices.EqualFunc(form.files, before.files, func(a, b tlsFile) bool { return a.sum == b.sum }) {
		form.config = before.config
		return form, nil
	}
	form.config, err = t.parse(authorities, cert, key)
	return form, err
}

// clientCertificate says whether the block has one.
func (t TLS) clientCertificate() bool { return t.CertFile != "" || t.KeyFile != "" }

// parse makes the configuration of what the files hold.
func (t TLS) parse(authorities, cert, key []byte) (*tls.Config, error) {
	version, ok := tlsVersions[t.MinVersion]
	if !ok {
		return nil, fmt.Errorf("tls: min_version is neither 1.2 nor 1.3")
	}
	c := &tls.Config{MinVersion: version, InsecureSkipVerify: t.InsecureSkipVerify}
	if t.CAFile != "" {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(authorities) {
			return nil, fmt.Errorf("tls: ca_file: no certificate in %s", t.CAFile)
		}
	}
	if t.clientCertificate() {
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("tls: cert_file and key_file: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
