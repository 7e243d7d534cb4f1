package sdk

import (
	"crypto/tls"

	"github.com/tunneld/tunneld/internal/tlsconf"
	"github.com/tunneld/tunneld/internal/userfile"
)

// ReadFile reads a file that the user named, of at most limit bytes. Unlike
// os.ReadFile it never waits: a FIFO, a device, a socket or a folder is an error,
// and so is a larger file. It leaves out a UTF-8 byte order mark at the start. The
// error is an *fs.PathError, and wraps fs.ErrNotExist where there is no file.
func ReadFile(path string, limit int64) ([]byte, error) {
	f, err := userfile.Read(path, limit)
	return f.Data, err
}

// LoadKeyPair is tls.LoadX509KeyPair for files that the user named: it reads them
// as ReadFile does, at most 4 MiB of each.
func LoadKeyPair(certFile, keyFile string) (tls.Certificate, error) {
	return tlsconf.LoadKeyPair(certFile, keyFile)
}
