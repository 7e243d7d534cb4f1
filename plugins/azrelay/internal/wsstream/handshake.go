package wsstream

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"

	"github.com/gobwas/ws"

	"github.com/tunneld/tunneld/internal/outbound"
)

// maxResponse bounds the head of the response to an opening handshake, in bytes.
const maxResponse = 64 << 10

// RefusedError is a response other than 101.
type RefusedError struct {
	Status int
	// Reason is the status line's text, where the service says why.
	Reason string
	// Header is nil where the response's could not be read.
	Header http.Header
}

// Error returns status and reason.
func (e *RefusedError) Error() string { return fmt.Sprintf("refused with %d %s", e.Status, e.Reason) }

// Handshake does the opening handshake (RFC 6455, 4.1) on conn, which it leaves
// open, and returns what came behind the response. host is the Host header,
// header what else to send. No extension is offered. It ends when ctx does, and
// then with the context's error.
func Handshake(ctx context.Context, conn net.Conn, u *url.URL, host string, header http.Header) (ahead []byte, err error) {
	err = outbound.Bound(ctx, conn, func() error {
		ahead, err = handshake(conn, u, host, header)
		return err
	})
	return ahead, err
}

func handshake(conn net.Conn, u *url.URL, host string, header http.Header) ([]byte, error) {
	var refused *RefusedError
	d := ws.Dialer{
		Host:   host,
		Header: ws.HandshakeHeaderHTTP(header),
		OnStatusError: func(status int, reason []byte, r io.Reader) {
			refused = &RefusedError{Status: status, Reason: string(reason)}
			if resp, err := http.ReadResponse(bufio.NewReader(r), nil); err == nil {
				refused.Header = resp.Header
			}
		},
	}
	// The library bounds no line of the response.
	limited := struct {
		io.Reader
		io.Writer
	}{io.LimitReader(conn, maxResponse), conn}
	br, _, err := d.Upgrade(limited, u)
	if refused != nil {
		return nil, refused
	}
	if err != nil {
		return nil, fmt.Errorf("websocket handshake: %w", err)
	}
	if br == nil {
		return nil, nil
	}
	defer ws.PutReader(br)
	ahead := make([]byte, br.Buffered())
	_, err = io.ReadFull(br, ahead)
	return ahead, err
}
