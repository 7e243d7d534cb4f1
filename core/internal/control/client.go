package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"syscall"

	"github.com/tunneld/tunneld/core/status"
	"github.com/tunneld/tunneld/internal/unixsock"
)

// maxAnswer bounds an answer, in bytes: ten thousand listeners are about 3 MB.
const maxAnswer = 64 << 20

// Client asks a daemon at its control socket. It keeps no connection, and its
// methods may be called by several goroutines.
type Client struct{ path string }

// NewClient returns a client for an address, "unix:///path" or a path. It does
// not look whether anybody is there.
func NewClient(address string) (*Client, error) {
	path, err := Path(address)
	if err != nil {
		return nil, err
	}
	return &Client{path: path}, nil
}

// Error says in a whole sentence why a daemon could not be asked, and what to
// do.
type Error struct {
	Text string
	Err  error // may be nil
}

// Error implements error.
func (e *Error) Error() string { return e.Text }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Status asks for the daemon's status. An error is an *Error.
func (c *Client) Status(ctx context.Context) (status.Status, error) {
	var s status.Status
	err := c.ask(ctx, http.MethodGet, "/v1/status", &s)
	return s, err
}

// Reload makes the daemon reload and waits for the outcome, which may be a
// failure. When ctx is done the daemon breaks the reload off. An error is an
// *Error, and says that the outcome is not known.
func (c *Client) Reload(ctx context.Context, o status.ReloadOptions) (status.Reload, error) {
	var r status.Reload
	resource := "/v1/reload"
	if o.AllowEmpty {
		resource += "?allow_empty=true"
	}
	err := c.ask(ctx, http.MethodPost, resource, &r)
	return r, err
}

// RestartPlugin makes the daemon start a plugin anew, and waits as Reload does.
func (c *Client) RestartPlugin(ctx context.Context, name string) (status.Reload, error) {
	var r status.Reload
	err := c.ask(ctx, http.MethodPost, "/v1/plugins/"+url.PathEscape(name)+"/restart", &r)
	return r, err
}

func (c *Client) ask(ctx context.Context, method, resource string, into any) error {
	transport := &http.Transport{
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: maxHeader,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", c.path)
		},
	}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, method, "http://tunneld"+resource, nil)
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return c.explain(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return c.explain(ctx, err)
	}
	if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusUnprocessableEntity {
		if err := json.Unmarshal(body, into); err != nil {
			return &Error{fmt.Sprintf("the answer of the server at %s is not tunneld's: %v", c.path, err), err}
		}
		return nil
	}
	var p problem
	if err := json.Unmarshal(body, &p); err != nil || p.Error == "" {
		return &Error{fmt.Sprintf("the server at %s is not tunneld: it answers %s to %s %s", c.path, resp.Status, method, resource), nil}
	}
	if p.Hint != "" {
		p.Error += ": " + p.Hint
	}
	return &Error{fmt.Sprintf("the daemon at %s: %s", c.path, p.Error), nil}
}

// explain turns a failure on the way to the daemon into words.
func (c *Client) explain(ctx context.Context, err error) error {
	info, statErr := os.Stat(c.path)
	text := fmt.Sprintf("cannot ask the daemon at %s: %v", c.path, err)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		text = fmt.Sprintf("there is no control socket at %s: is tunneld running?", c.path)
	case errors.Is(err, fs.ErrPermission) && statErr == nil:
		text = fmt.Sprintf("permission denied for the control socket %s: it belongs to user %s; ask as that user, or as root", c.path, unixsock.Owner(info))
	case errors.Is(err, fs.ErrPermission):
		text = fmt.Sprintf("permission denied on the way to the control socket %s: ask as the daemon's user, or as root", c.path)
	case statErr == nil && info.Mode().Type() != fs.ModeSocket:
		text = fmt.Sprintf("%s is not a socket: give the address of the daemon's control socket", c.path)
	case errors.Is(err, syscall.ECONNREFUSED):
		text = fmt.Sprintf("nobody serves the control socket %s: the tunneld that made it is gone; the next one replaces it", c.path)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		text, err = fmt.Sprintf("the daemon at %s did not answer in time", c.path), ctx.Err()
	case ctx.Err() != nil:
		text = fmt.Sprintf("the wait for the daemon at %s was interrupted", c.path)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		text = fmt.Sprintf("the daemon at %s ended before it answered", c.path)
	}
	return &Error{text, err}
}
