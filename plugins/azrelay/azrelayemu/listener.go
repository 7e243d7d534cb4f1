package azrelayemu

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tunneld/tunneld/plugins/azrelay/internal/bridge"
	"github.com/tunneld/tunneld/plugins/azrelay/internal/sas"
	"github.com/tunneld/tunneld/plugins/azrelay/internal/wsstream"
)

const (
	// ownTokenLife is how long a token of the built-in listeners is valid; it is
	// renewed at half of that.
	ownTokenLife = 24 * time.Hour
	// dialTime bounds the built-in listeners' own connections.
	dialTime = 10 * time.Second
	// pingTime keeps the built-in listeners' idle connections open.
	pingTime = 30 * time.Second
)

// forwarder is a listener that the emulator brings along. It is a client of the
// service like any other: it listens, accepts and rejects over the wire.
type forwarder struct {
	Forward
	server  *Server
	control *wsstream.Conn
	cancel  context.CancelFunc
	wg      sync.WaitGroup
}

// startForwarder opens the control channel and returns when the service knows
// the listener.
func (s *Server) startForwarder(f Forward) (*forwarder, error) {
	fw := &forwarder{Forward: f, server: s}
	u, err := url.Parse(s.URL())
	if err != nil {
		return nil, fmt.Errorf("parse own address: %w", err)
	}
	u.Path, u.RawQuery = "/$hc/"+strings.Trim(f.HybridConnection, "/"), "sb-hc-action=listen"
	ctx, cancel := context.WithCancel(context.Background())
	fw.control, err = fw.dial(ctx, u, http.Header{"ServiceBusAuthorization": {fw.token()}})
	if err != nil {
		cancel()
		return nil, err
	}
	fw.cancel = cancel
	fw.wg.Go(func() { fw.run(ctx) })
	fw.wg.Go(func() { fw.renew(ctx) })
	return fw, nil
}

// close ends the listener and all that it forwards.
func (f *forwarder) close() {
	f.cancel()
	f.control.Abort()
	f.wg.Wait()
}

func (f *forwarder) token() string {
	host := hostname(f.server.Addr())
	return sas.Sign("http://"+host+"/"+entityPath(f.HybridConnection), ownKey, f.server.own, f.server.options.Now().Add(ownTokenLife))
}

// renew sends a fresh token at half of the old one's life.
func (f *forwarder) renew(ctx context.Context) {
	t := time.NewTicker(ownTokenLife / 2)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if _, err := f.control.Write(fmt.Appendf(nil, `{"renewToken":{"token":%q}}`, f.token())); err != nil {
				return
			}
		}
	}
}

// dial makes a WebSocket to the service.
func (f *forwarder) dial(ctx context.Context, u *url.URL, header http.Header) (*wsstream.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	socket, err := (&net.Dialer{}).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, fmt.Errorf("dial service: %w", err)
	}
	conn := socket
	if u.Scheme == "wss" {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(f.server.ca)
		conn = wsstream.NewTLS(socket, &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: u.Hostname()})
	}
	ahead, err := wsstream.Handshake(ctx, conn, u, u.Host, header)
	if err != nil {
		_ = socket.Close()
		return nil, err
	}
	return wsstream.New(wsstream.Options{Conn: conn, Socket: socket, Ahead: ahead, Ping: pingTime}), nil
}

// run reads the control channel until it ends.
func (f *forwarder) run(ctx context.Context) {
	d := json.NewDecoder(f.control)
	for {
		var m acceptMessage
		if err := d.Decode(&m); err != nil {
			f.server.log.Debug("built-in listener ended", "hybrid_connection", f.HybridConnection, "err", err)
			return
		}
		if m.Accept.Address == "" {
			continue
		}
		f.wg.Go(func() {
			if err := f.serve(ctx, m.Accept.Address); err != nil {
				f.server.log.Debug("forward failed", "hybrid_connection", f.HybridConnection, "err", err)
			}
		})
	}
}

// serve answers one sender and forwards until both directions have ended.
func (f *forwarder) serve(ctx context.Context, address string) error {
	u, err := url.Parse(address)
	if err != nil {
		return fmt.Errorf("parse address: %w", err)
	}
	if f.Framing == FramingAzbridge {
		stream, err := f.dial(ctx, u, nil)
		if err != nil {
			return err
		}
		target, err := f.preamble(ctx, stream)
		if err != nil {
			return err
		}
		return pump(ctx, stream, target)
	}
	target, err := dialTarget(ctx, f.Target)
	if err != nil {
		u.RawQuery += "&" + url.Values{"sb-hc-statusCode": {"502"}, "sb-hc-statusDescription": {"The listener cannot reach its target"}}.Encode()
		_, rejected := f.dial(ctx, u, nil)
		return errors.Join(err, rejected)
	}
	stream, err := f.dial(ctx, u, nil)
	if err != nil {
		_ = target.Close()
		return err
	}
	return pump(ctx, stream, target)
}

// preamble answers azbridge's preamble as azbridge does and connects to the
// port's target. On an error it has ended stream.
func (f *forwarder) preamble(ctx context.Context, stream *wsstream.Conn) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	stop := context.AfterFunc(ctx, stream.Abort)
	defer stop()
	mode, name, err := bridge.ReadRequest(stream)
	switch {
	case errors.Is(err, bridge.ErrVersion):
		return nil, refuseBridge(stream, bridge.BadVersion(), err)
	case err != nil:
		stream.Abort()
		return nil, err
	case slices.Contains(f.UDPPorts, name):
		return nil, refuseBridge(stream, bridge.NotStream(), bridge.ErrNotStream)
	case f.Ports[name] == "":
		return nil, refuseBridge(stream, nil, bridge.ErrName)
	case mode != bridge.Stream:
		return nil, refuseBridge(stream, bridge.NotDatagrams(), bridge.ErrNotDatagrams)
	}
	target, err := dialTarget(ctx, f.Ports[name])
	if err != nil {
		// azbridge has answered by the time it connects, so that its sender sees
		// an accepted connection that ends.
		return nil, refuseBridge(stream, bridge.Accept(mode), err)
	}
	if _, err := stream.Write(bridge.Accept(mode)); err != nil {
		stream.Abort()
		_ = target.Close()
		return nil, err
	}
	return target, nil
}

// refuseBridge answers and closes, and returns why.
func refuseBridge(stream *wsstream.Conn, answer []byte, why error) error {
	_, err := stream.Write(answer)
	if err == nil {
		err = stream.CloseWrite()
	}
	if err == nil {
		_, err = io.Copy(io.Discard, io.LimitReader(stream, bufferSize))
	}
	if err != nil {
		stream.Abort()
	} else {
		_ = stream.Close()
	}
	return why
}

func dialTarget(ctx context.Context, address string) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("dial target: %w", err)
	}
	return conn.(*net.TCPConn), nil
}

// pump moves bytes both ways. The end of a direction is passed on alone; an
// error ends both, so that neither side takes it for a clean end.
func pump(ctx context.Context, stream *wsstream.Conn, target *net.TCPConn) error {
	abort := func() {
		stream.Abort()
		_ = target.SetLinger(0)
		_ = target.Close()
	}
	aborted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { defer close(aborted); abort() })
	var wg sync.WaitGroup
	var errs [2]error
	move := func(err *error, dst io.Writer, src io.Reader, closeWrite func() error) {
		if _, *err = io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, make([]byte, bufferSize)); *err == nil {
			*err = closeWrite()
		}
		if *err != nil {
			abort()
		}
	}
	wg.Go(func() { move(&errs[0], target, stream, target.CloseWrite) })
	wg.Go(func() { move(&errs[1], stream, target, stream.CloseWrite) })
	wg.Wait()
	if !stop() {
		<-aborted
	}
	_ = target.Close()
	_ = stream.Close()
	return errors.Join(errs[:]...)
}
