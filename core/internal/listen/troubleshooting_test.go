package listen

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	"github.com/tunneld/tunneld/internal/neterr"
	"github.com/tunneld/tunneld/internal/pagetest"
	"github.com/tunneld/tunneld/plugins/sapsocks"
	"github.com/tunneld/tunneld/plugins/sdk"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

const (
	troubleshooting = "../../../docs/troubleshooting.md"
	neterrSource    = "../../../internal/neterr/neterr.go"
)

// networkErrors are errors of every kind that neterr tells apart, in the words of
// a user.
var networkErrors = []struct {
	what string
	err  error
	at   pluginv1.Stage
}{
	{"the dial was given up: the daemon stops, or the client has reset its connection", context.Canceled, 0},
	{"the name server is silent", &net.DNSError{Name: "NAME", IsTimeout: true}, 0},
	{"the name does not exist", &net.DNSError{Name: "NAME", IsNotFound: true}, 0},
	{"the name server fails", &net.DNSError{Name: "NAME"}, 0},
	{"certificate signed by unknown authority", x509.UnknownAuthorityError{}, 0},
	{"certificate relies on legacy Common Name field", x509.HostnameError{Certificate: &x509.Certificate{}}, 0},
	{"certificate is valid for another name", x509.HostnameError{Certificate: &x509.Certificate{Extensions: []pkix.Extension{{Id: []int{2, 5, 29, 17}}}}}, 0},
	{"certificate has expired or is not yet valid", x509.CertificateInvalidError{Reason: x509.Expired}, 0},
	{"first record does not look like a TLS handshake", tls.RecordHeaderError{}, 0},
	{"remote error: tls: certificate required", &net.OpError{Op: "remote error", Err: tls.AlertError(116)}, 0},
	{"remote error: tls: bad certificate, and the like", &net.OpError{Op: "remote error", Err: tls.AlertError(42)}, 0},
	{"remote error: tls: handshake failure", &net.OpError{Op: "remote error", Err: tls.AlertError(40)}, 0},
	{"remote error: tls: protocol version not supported", &net.OpError{Op: "remote error", Err: tls.AlertError(70)}, 0},
	{"remote error: tls: any other alert", &net.OpError{Op: "remote error", Err: tls.AlertError(80)}, 0},
	{"connection refused", syscall.ECONNREFUSED, 0},
	{"no route to host, network is unreachable", syscall.EHOSTUNREACH, 0},
	{"cannot assign requested address", syscall.EADDRNOTAVAIL, 0},
	{"permission denied, operation not permitted", syscall.EPERM, 0},
	{"no such file or directory", syscall.ENOENT, 0},
	{"too many open files", syscall.EMFILE, 0},
	{"i/o timeout, connection timed out", os.ErrDeadlineExceeded, 0},
	{"i/o timeout, once the connection is made", os.ErrDeadlineExceeded, pluginv1.Stage_STAGE_HANDSHAKE},
	{"the same, when the listener's time for the dial is over", neterr.ErrOvertime, pluginv1.Stage_STAGE_HANDSHAKE},
	{"EOF, unexpected EOF", io.ErrUnexpectedEOF, 0},
	{"connection reset by peer, broken pipe", syscall.ECONNRESET, 0},
	{"anything else", errors.New("x"), 0},
}

// reader writes a text of a table for the page.
func reader(text string) string {
	return strings.NewReplacer("{target}", "*target*", "{proxy}", "*proxy*", "{location}", "*location*", "{token_url}", "*token_url*",
		"{detail}", "*…*", `"NAME"`, "*name*", "|", `\|`).Replace(text)
}

// alertName is that of RFC 8446, section 6.
func alertName(a tls.AlertError) string {
	return strings.ReplaceAll(strings.TrimPrefix(a.Error(), "tls: "), " ", "_")
}

func yes(b bool) string { return map[bool]string{true: "yes", false: "no"}[b] }

// failures is the table of the failures of sapsocks that in takes.
func failures(in func(sapsocks.Failure) bool) string {
	var b strings.Builder
	b.WriteString("| stage | reason | next | the log says | what to check |\n|---|---|---|---|---|\n")
	for _, f := range sapsocks.Failures() {
		if !in(f) {
			continue
		}
		reason, next := f.Reason.String(), yes(f.Retryable)
		if f.Reason == 0 {
			reason, next = "as the network's", "as the network's"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", f.Stage, reason, next, reader(f.Message), reader(f.Hint))
	}
	return b.String()
}

// tables are what the page holds between its marks.
func tables() map[string]string {
	reply := func(f sapsocks.Failure) bool { return strings.HasPrefix(string(f.Kind), "reply-") }
	token := func(f sapsocks.Failure) bool { return f.Stage == sdk.StageCredential }
	var network, told strings.Builder
	network.WriteString("| reason | next | what happened | what to check |\n|---|---|---|---|\n")
	for _, e := range networkErrors {
		m := neterr.ClassifyAt(e.at, e.err)
		hint := m.Hint
		if hint == "" {
			hint = "the message"
		}
		fmt.Fprintf(&network, "| %s | %s | %s | %s |\n", m.Reason.Text(), yes(m.Retryable), e.what, reader(hint))
	}
	told.WriteString("| reason | SOCKS reply | HTTP status | Proxy-Status error | alert of TLS |\n|---|---|---|---|---|\n")
	for _, a := range Answers() {
		fmt.Fprintf(&told, "| %s | %02x, %s | %d | %s | %d, %s |\n", a.Reason.Text(), byte(a.SOCKS), a.SOCKS.Text(), a.Status, a.ProxyError, a.Alert, alertName(a.Alert))
	}
	return map[string]string{
		"answers":   told.String(),
		"replies":   failures(reply),
		"token":     failures(token),
		"handshake": failures(func(f sapsocks.Failure) bool { return !reply(f) && !token(f) }),
		"network":   network.String(),
	}
}

// TestTroubleshootingPage: the page's tables are the code's.
func TestTroubleshootingPage(t *testing.T) {
	for name, table := range tables() {
		pagetest.Generated(t, troubleshooting, name, table)
	}
}

// TestNetworkErrorsAreComplete: there is an error for every meaning that neterr
// gives, so that a new one cannot be left out of the page.
func TestNetworkErrorsAreComplete(t *testing.T) {
	source, err := os.ReadFile(neterrSource)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, e := range networkErrors {
		m := neterr.ClassifyAt(e.at, e.err)
		seen[m.Reason.Text()+m.Hint] = true
	}
	if n := strings.Count(string(source), "return Meaning{"); n != len(seen) || len(seen) != len(networkErrors) {
		t.Errorf("neterr has %d meanings, and the %d errors here have %d", n, len(networkErrors), len(seen))
	}
}

// TestBodyOfEveryFailure: a client of an http listener reads stage, reason, what
// happened and what to check, whatever has failed.
func TestBodyOfEveryFailure(t *testing.T) {
	for _, f := range sapsocks.Failures() {
		stage, reason := pluginv1.Stage(f.Stage), pluginv1.Reason(f.Reason)
		if reason == 0 {
			reason = pluginv1.Reason_REASON_REFUSED
		}
		got := string(httpRefusal(&tunnel.DialError{Stage: stage, Reason: reason, Message: f.Message, Hint: f.Hint}))
		_, body, _ := strings.Cut(got, "\r\n\r\n")
		want := fmt.Sprintf("stage: %s\nreason: %s\n%s\n%s\n", stage.Text(), reason.Text(), f.Message, f.Hint)
		if body != want || f.Hint == "" {
			t.Errorf("%s: body %q, want %q", f.Kind, body, want)
		}
	}
}
