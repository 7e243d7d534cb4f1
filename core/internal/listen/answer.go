package listen

import (
	"crypto/tls"

	"github.com/tunneld/tunneld/internal/socks5"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

// Answer is the answer to a client whose dial failed, in each protocol. A tcp
// client is reset, whatever the reason.
type Answer struct {
	Reason pluginv1.Reason
	// SOCKS is the reply's code (RFC 1928, section 6).
	SOCKS socks5.Code
	// Status is the HTTP status, ProxyError the error type of Proxy-Status (RFC
	// 9209, section 2.3).
	Status     int
	ProxyError string
	// Alert ends the handshake of TLS (RFC 8446, section 6.2) where it is with the target.
	Alert tls.AlertError
}

// answers is the one table. An unspecified reason is not in it.
var answers = []Answer{
	{pluginv1.Reason_REASON_TIMEOUT, socks5.HostUnreachable, 504, "connection_timeout", alertInternalError},
	{pluginv1.Reason_REASON_REFUSED, socks5.ConnectionRefused, 502, "connection_refused", alertInternalError},
	{pluginv1.Reason_REASON_UNREACHABLE, socks5.HostUnreachable, 502, "destination_ip_unroutable", alertInternalError},
	{pluginv1.Reason_REASON_NOT_FOUND, socks5.HostUnreachable, 502, "destination_not_found", alertUnrecognizedName},
	{pluginv1.Reason_REASON_DENIED, socks5.NotAllowed, 403, "http_request_denied", alertAccessDenied},
	{pluginv1.Reason_REASON_UNAUTHENTICATED, socks5.GeneralFailure, 502, "proxy_configuration_error", alertInternalError},
	{pluginv1.Reason_REASON_PROTOCOL, socks5.GeneralFailure, 502, "connection_terminated", alertInternalError},
	{pluginv1.Reason_REASON_UNAVAILABLE, socks5.GeneralFailure, 503, "destination_unavailable", alertInternalError},
	{pluginv1.Reason_REASON_CANCELED, socks5.GeneralFailure, 503, "proxy_internal_error", alertInternalError},
}

// Answers returns the table from a reason to the answers.
func Answers() []Answer { return append([]Answer(nil), answers...) }

func answerTo(r pluginv1.Reason) Answer {
	for _, a := range answers {
		if a.Reason == r {
			return a
		}
	}
	return Answer{Reason: r, SOCKS: socks5.GeneralFailure, Status: 502, ProxyError: "proxy_internal_error", Alert: alertInternalError}
}
