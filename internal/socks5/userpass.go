package socks5

import (
	"errors"
	"fmt"
	"io"
)

// userPassVersion is the first byte of each message of RFC 1929.
const userPassVersion = 1

// UserPass is what a client proves itself with by MethodUserPass (RFC 1929).
type UserPass struct {
	// Username and Password are of at most 255 bytes each; the username is not
	// empty.
	Username, Password string
}

// String returns the username alone.
func (u UserPass) String() string { return u.Username }

// GoString returns the username alone.
func (u UserPass) GoString() string { return u.Username }

// AppendUserPass adds a client's username and password. RFC 1929 wants 1 to 255
// bytes of each; an empty password is written all the same, as most clients do.
func AppendUserPass(b []byte, u UserPass) ([]byte, error) {
	switch {
	case u.Username == "":
		return nil, errors.New("SOCKS username is empty")
	case len(u.Username) > 255:
		return nil, fmt.Errorf("SOCKS username of %d bytes, at most 255", len(u.Username))
	case len(u.Password) > 255:
		return nil, fmt.Errorf("SOCKS password of %d bytes, at most 255", len(u.Password))
	}
	b = append(append(b, userPassVersion, byte(len(u.Username))), u.Username...)
	return append(append(b, byte(len(u.Password))), u.Password...), nil
}

// ReadUserPass reads a client's username and password. Empty ones are returned
// as they are.
func ReadUserPass(r io.Reader) (UserPass, error) {
	const message = "SOCKS username and password"
	var head [1]byte
	if err := readHead(r, message, userPassVersion, head[:]); err != nil {
		return UserPass{}, err
	}
	var u UserPass
	var err error
	if u.Username, err = readString(r); err == nil {
		u.Password, err = readString(r)
	}
	if err != nil {
		return UserPass{}, inMessage(message, err)
	}
	return u, nil
}

// AppendUserPassStatus adds a server's answer to a username and password. After
// a refusal the server closes.
func AppendUserPassStatus(b []byte, ok bool) []byte {
	if ok {
		return append(b, userPassVersion, 0)
	}
	return append(b, userPassVersion, 1)
}

// ReadUserPassStatus reads a server's answer to a username and password: any
// status but 0 is a refusal. Methods for private use tend to have the same form.
func ReadUserPassStatus(r io.Reader) (status byte, err error) {
	var b [2]byte
	if err := readHead(r, "SOCKS authentication status", userPassVersion, b[:]); err != nil {
		return 0, err
	}
	return b[1], nil
}
