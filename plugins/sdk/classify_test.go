package sdk

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/neterr"
)

func TestDialFailure(t *testing.T) {
	op := func(err error) error {
		return fmt.Errorf("open: %w", &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", err)})
	}
	dns := func(e net.DNSError) error { return &net.OpError{Op: "dial", Net: "tcp", Err: &e} }
	const none = Stage(0)
	for name, tc := range map[string]struct {
		err       error
		last      Stage
		stage     Stage
		reason    Reason
		retryable bool
	}{
		"refused":               {op(syscall.ECONNREFUSED), StageConnect, StageConnect, ReasonRefused, true},
		"no route":              {op(syscall.EHOSTUNREACH), StageConnect, StageConnect, ReasonUnreachable, true},
		"no network":            {op(syscall.ENETUNREACH), StageConnect, StageConnect, ReasonUnreachable, true},
		"kernel's timeout":      {op(syscall.ETIMEDOUT), StageHandshake, StageHandshake, ReasonTimeout, true},
		"reset":                 {op(syscall.ECONNRESET), StageHandshake, StageHandshake, ReasonUnavailable, true},
		"firewall":              {op(syscall.EPERM), StageConnect, StageConnect, ReasonDenied, true},
		"no descriptors":        {op(syscall.EMFILE), StageConnect, StageConnect, ReasonUnavailable, true},
		"no such socket":        {op(syscall.ENOENT), StageConnect, StageConnect, ReasonNotFound, true},
		"deadline":              {os.ErrDeadlineExceeded, StageTLS, StageTLS, ReasonTimeout, true},
		"context's deadline":    {context.DeadlineExceeded, StageRequest, StageRequest, ReasonTimeout, true},
		"cancelled":             {context.Canceled, StageRequest, StageRequest, ReasonCanceled, false},
		"no such name":          {dns(net.DNSError{IsNotFound: true}), StageConnect, StageResolve, ReasonNotFound, true},
		"name server is silent": {dns(net.DNSError{IsTimeout: true}), none, StageResolve, ReasonTimeout, true},
		"name server fails":     {dns(net.DNSError{}), StageConnect, StageResolve, ReasonUnavailable, true},
		"token service's name":  {dns(net.DNSError{IsNotFound: true}), StageCredential, StageCredential, ReasonNotFound, true},
		"authority":             {&tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}, StageTLS, StageTLS, ReasonProtocol, false},
		"host name":             {&tls.CertificateVerificationError{Err: x509.HostnameError{Certificate: &x509.Certificate{}}}, StageTLS, StageTLS, ReasonProtocol, false},
		"expired":               {&tls.CertificateVerificationError{Err: x509.CertificateInvalidError{Cert: &x509.Certificate{}, Reason: x509.Expired}}, StageTLS, StageTLS, ReasonProtocol, false},
		"no TLS":                {tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}, StageTLS, StageTLS, ReasonProtocol, false},
		"end of file":           {io.EOF, StageHandshake, StageHandshake, ReasonProtocol, true},
		"cut short":             {fmt.Errorf("reply: %w", io.ErrUnexpectedEOF), StageHandshake, StageHandshake, ReasonProtocol, true},
		"anything":              {errors.New("odd"), StageHandshake, StageHandshake, ReasonUnavailable, true},
		"typed, all open":       {&DialError{Err: op(syscall.ECONNREFUSED)}, StageRequest, StageRequest, ReasonRefused, true},
		"typed, wrapped":        {fmt.Errorf("x: %w", &DialError{Stage: StageCredential, Reason: ReasonDenied}), StageRequest, StageCredential, ReasonDenied, false},
	} {
		got := dialFailure(t.Context(), tc.err, tc.last)
		if got.Stage != tc.stage || got.Reason != tc.reason || got.Retryable != tc.retryable || got.Message == "" {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

// An author who closes the connection when the context ends gets "use of closed
// network connection"; the context knows better.
func TestDialFailureAsksTheContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	<-ctx.Done()
	if got := dialFailure(ctx, net.ErrClosed, StageHandshake); got.Reason != ReasonTimeout {
		t.Errorf("got %v", got)
	}
	typed := &DialError{Reason: ReasonDenied, Message: "told in time"}
	if got := dialFailure(ctx, typed, StageHandshake); got.Reason != ReasonDenied {
		t.Errorf("got %v", got)
	}
}

// The setting to raise is the listener's where the daemon's time is over, and the
// plugin's own before that.
func TestDialFailureOfOvertime(t *testing.T) {
	const listeners = "timeouts.dial"
	deadline := time.Now().Add(time.Millisecond)
	over, cancel := context.WithDeadlineCause(t.Context(), deadline, neterr.ErrOvertime)
	defer cancel()
	for time.Now().Before(deadline) { // a dialer may be back before the context's timer
	}
	socket := &net.OpError{Op: "read", Net: "tcp", Err: os.ErrDeadlineExceeded}
	for name, tc := range map[string]struct {
		ctx                context.Context
		err                error
		message, hint, not string
	}{
		"a socket's deadline":      {over, socket, "read tcp: i/o timeout (" + neterr.ErrOvertime.Error() + ")", listeners, "handshake"},
		"the context's error":      {over, context.DeadlineExceeded, listeners, listeners, "handshake"},
		"the context's cause":      {over, neterr.ErrOvertime, neterr.ErrOvertime.Error(), listeners, "handshake"},
		"a closed connection":      {over, net.ErrClosed, neterr.ErrOvertime.Error(), listeners, "handshake"},
		"typed":                    {over, &DialError{Reason: ReasonTimeout, Message: "silent", Hint: "look", Err: socket}, "silent (" + neterr.ErrOvertime.Error() + ")", "look", listeners},
		"typed, says so":           {over, &DialError{Reason: ReasonTimeout, Message: "silent", Hint: "look", Err: neterr.ErrOvertime}, "silent", "look", listeners},
		"typed, of another reason": {over, &DialError{Reason: ReasonDenied, Message: "no", Hint: "ask"}, "no", "ask", listeners},
		"the plugin's own time":    {t.Context(), socket, "read tcp: i/o timeout", "timeouts.handshake", listeners},
	} {
		got := dialFailure(tc.ctx, tc.err, StageHandshake)
		if !strings.Contains(got.Message, tc.message) || !strings.Contains(got.Hint, tc.hint) || strings.Contains(got.Hint, tc.not) {
			t.Errorf("%s: %q, hint %q", name, got.Message, got.Hint)
		}
		if n := strings.Count(got.Message, listeners); n > 1 {
			t.Errorf("%s: %q says it %d times", name, got.Message, n)
		}
	}
}

// A far end that took the connection was reached.
func TestDialFailureHintsByStage(t *testing.T) {
	for stage, want := range map[Stage]string{StageConnect: "is reachable", StageHandshake: "timeouts.handshake", StageRequest: "timeouts.handshake"} {
		if got := dialFailure(t.Context(), context.DeadlineExceeded, stage); !strings.Contains(got.Hint, want) {
			t.Errorf("%s: %q", stage, got.Hint)
		}
	}
}

// An HTTP client's error quotes the URL, whose query may be the credential.
func TestDialFailureLeavesURLsOut(t *testing.T) {
	err := fmt.Errorf("token: %w", &url.Error{Op: "Post", URL: "https://h/?token=hunter2", Err: errors.New("refused")})
	if got := dialFailure(t.Context(), err, StageCredential).Message; got != "post: refused" {
		t.Errorf("message is %q", got)
	}
}

// The alerts are of a type that crypto/tls keeps to itself: this fails if it
// stops being a number.
func TestClassifyAlertFromRealHandshake(t *testing.T) {
	cert := selfSigned(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAnyClientCert})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			err = c.(*tls.Conn).Handshake()
			_ = c.Close()
		}
		served <- err
	}()
	c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	if err == nil {
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		_, err = c.Read(make([]byte, 1))
	}
	<-served
	got := dialFailure(t.Context(), err, StageTLS)
	if got.Reason != ReasonUnauthenticated || !strings.Contains(got.Hint, "cert_file") {
		t.Errorf("%v became %v", err, got)
	}
}

func TestDialErrorText(t *testing.T) {
	cause := errors.New("cause")
	err := &DialError{Stage: StageRequest, Reason: ReasonNotFound, Message: "no mapping", Hint: "add it", Err: cause}
	if got := err.Error(); got != "request: no mapping (add it)" {
		t.Errorf("error is %q", got)
	}
	if !errors.Is(err, cause) {
		t.Error("the cause is lost")
	}
}
