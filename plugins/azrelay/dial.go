package azrelay

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/tunneld/tunneld/plugins/azrelay/internal/bridge"
	"github.com/tunneld/tunneld/plugins/azrelay/internal/wsstream"
	"github.com/tunneld/tunneld/plugins/sdk"
)

// Dial makes one WebSocket through the relay. It returns once a listener has
// accepted and, with azbridge, has taken the port.
func (c *Config) Dial(ctx context.Context, req *sdk.Request) (*sdk.Tunnel, error) {
	port, err := c.portName(req.Target)
	if err != nil {
		return nil, err // a matter of the target, and not of the upstream's health
	}
	s, _ := c.settings()
	t, err := c.dial(ctx, s, req, port)
	c.reportHealth(err)
	return t, err
}

// reportHealth tells the upstream's health from a dial. One that was given up, and what
// azbridge answers for one port, say nothing of the upstream.
func (c *Config) reportHealth(err error) {
	var e *sdk.DialError
	switch {
	case err == nil:
		c.report(sdk.HealthOK, "")
	case errors.Is(err, context.Canceled):
	case errors.As(err, &e) && (e.Reason == sdk.ReasonCanceled || e.Stage == sdk.StageRequest):
	default:
		c.report(sdk.HealthFailing, err.Error())
	}
}

func (c *Config) dial(ctx context.Context, s *settings, req *sdk.Request, port string) (*sdk.Tunnel, error) {
	req.Enter(sdk.StageCredential)
	token := c.token.get(s, c.TokenTTL)

	conn, err := c.connect(ctx, s, req)
	if err != nil {
		return nil, err
	}
	stream, err := c.open(ctx, s, req, conn, token)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	if c.Framing == FramingAzbridge {
		req.Enter(sdk.StageRequest)
		if err := c.preamble(ctx, stream, port); err != nil {
			stream.Abort()
			return nil, c.bridgeFailure(ctx, err, port)
		}
	}
	return sdk.Relay(relay{stream}, conn.LocalAddr(), conn.RemoteAddr()), nil
}

// connect makes the connection, through a proxy where the block names one.
func (c *Config) connect(ctx context.Context, s *settings, req *sdk.Request) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeouts.Connect)
	defer cancel()
	conn, err := req.Connect(ctx, s.address)
	if err != nil {
		return nil, failure(sdk.StageConnect, err, "connect to the service at "+s.address)
	}
	return conn, nil
}

// open does the handshakes of TLS and WebSocket on conn.
func (c *Config) open(ctx context.Context, s *settings, req *sdk.Request, conn net.Conn, token string) (*wsstream.Conn, error) {
	socket := sdk.Socket(conn)
	if s.scheme == "wss" {
		req.Enter(sdk.StageTLS)
		config, err := c.TLS.Config(s.host)
		if err != nil {
			return nil, fmt.Errorf("configure tls: %w", err)
		}
		secured := wsstream.NewTLS(conn, config)
		hctx, cancel := context.WithTimeout(ctx, c.Timeouts.Handshake)
		err = secured.HandshakeContext(hctx)
		cancel()
		if err != nil {
			return nil, tlsFailure(ctx, err, s.address)
		}
		conn = secured
	}
	req.Enter(sdk.StageHandshake)
	u, header := c.request(s, token, newID())
	actx, cancel := context.WithTimeout(ctx, c.Timeouts.Accept)
	defer cancel()
	ahead, err := wsstream.Handshake(actx, conn, u, s.namespace, header)
	if err != nil {
		return nil, c.handshakeFailure(ctx, s, err, token)
	}
	return wsstream.New(wsstream.Options{
		Conn: conn, Socket: socket, Ahead: ahead, Ping: c.PingInterval, PingTimeout: c.pingTimeout(),
		Quote: func(reason string) string { return c.quote(reason, token) },
	}), nil
}

func (c *Config) pingTimeout() time.Duration {
	if c.PingTimeout == 0 {
		return 2 * c.PingInterval
	}
	return c.PingTimeout
}

// request returns what the opening handshake asks for.
func (c *Config) request(s *settings, token, id string) (*url.URL, http.Header) {
	query := "sb-hc-action=connect&sb-hc-id=" + id
	if s.query != "" {
		query = s.query + "&" + query
	}
	header := http.Header{}
	for name, value := range c.Headers {
		header.Set(name, value)
	}
	switch {
	case token == "":
	case c.TokenIn == InQuery:
		query += "&sb-hc-token=" + url.QueryEscape(token)
	default:
		header.Set("ServiceBusAuthorization", token)
	}
	return &url.URL{Scheme: s.scheme, Host: s.address, Path: "/$hc/" + s.path, RawQuery: query}, header
}

// portName returns the azbridge port for a target. Another azrelay upstream may
// have a port_name for one without a port, or need none.
func (c *Config) portName(t sdk.Target) (string, error) {
	switch {
	case c.Framing != FramingAzbridge || c.PortName != "":
		return c.PortName, nil
	case t.Port == 0:
		return "", &sdk.DialError{
			Stage: sdk.StageRequest, Reason: sdk.ReasonUnreachable, Retryable: true,
			Message: fmt.Sprintf("the target %q has no port for azbridge", t.Host),
			Hint:    "set port_name on the upstream, or give the listener's target a port",
		}
	}
	return strconv.Itoa(int(t.Port)), nil
}

// preamble asks azbridge for a port and waits for its answer.
func (c *Config) preamble(ctx context.Context, stream *wsstream.Conn, port string) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeouts.Handshake)
	defer cancel()
	stop := context.AfterFunc(ctx, stream.Abort)
	defer stop()
	_, err := stream.Write(bridge.AppendRequest(nil, bridge.Stream, port))
	if err == nil {
		err = bridge.ReadAnswer(stream, bridge.Stream)
	}
	if !stop() && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// relay is the stream as the SDK pumps it.
type relay struct{ *wsstream.Conn }

// Abort resets the connection. The reason stays here: a Close frame with any
// code would be an end of file to azbridge.
func (r relay) Abort(string) { r.Conn.Abort() }

// NetConn is the connection whose line the SDK watches.
func (r relay) NetConn() net.Conn { return r.Socket() }

// newID returns a random sb-hc-id in the form of a GUID.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// clockSkew is how far this machine's clock is behind the service's, or 0 where
// the response's date is missing or close.
func clockSkew(h http.Header, now time.Time) time.Duration {
	date, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return 0
	}
	if d := date.Sub(now); d.Abs() > time.Minute {
		return d.Round(time.Second)
	}
	return 0
}
