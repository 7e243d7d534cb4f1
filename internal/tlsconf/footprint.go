package tlsconf

import (
	"crypto/tls"
	"fmt"
	"reflect"
)

// maxIdentity bounds what a connection holds of the client's certificates until its end, in
// bytes. Three with RSA keys of 4096 bits, and 250 names among them, take 36 KiB.
const maxIdentity = 64 << 10

// LargeError is of a client whose certificates are too many or too large.
type LargeError struct {
	Size int // in bytes
}

// Error says how large they are.
func (e *LargeError) Error() string {
	return fmt.Sprintf("the client's certificates take %d KiB of memory, and may take %d", e.Size>>10, maxIdentity>>10)
}

// identitySize is what crypto/tls holds of the certificates that a client has sent, in bytes:
// also of those that are in no chain, and of what came along.
func identitySize(c tls.ConnectionState) int {
	n := len(c.OCSPResponse) + footprint(reflect.ValueOf(c.SignedCertificateTimestamps))
	for _, sct := range c.SignedCertificateTimestamps {
		n += len(sct)
	}
	for _, cert := range c.PeerCertificates {
		n += len(cert.Raw) + footprint(reflect.ValueOf(cert))
	}
	return n
}

// footprint is what v refers to, in bytes, apart from slices of bytes, which are parts of a
// certificate's Raw. It looks at whatever there is, since of two bytes of a certificate, an
// empty URI, x509 makes 150, and another Go may have more such fields.
func footprint(v reflect.Value) (n int) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			n += footprint(v.Field(i))
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return 0
		}
		n = v.Cap() * int(v.Type().Elem().Size())
		for i := range v.Len() {
			n += footprint(v.Index(i))
		}
	case reflect.String:
		n = v.Len()
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			n = int(v.Elem().Type().Size()) + footprint(v.Elem())
		}
	}
	return n
}
