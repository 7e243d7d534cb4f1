package sapsocks

import (
	"fmt"
	"strings"

	"github.com/tunneld/tunneld/internal/socks5"
	"github.com/tunneld/tunneld/plugins/sdk"
)

// Kind names a way in which a dial fails. It is the cause of the DialError, for
// errors.Is.
type Kind string

// Error returns the name.
func (k Kind) Error() string { return string(k) }

// The kinds of failure. "Proxy" is SAP's SOCKS5 proxy, "token" the token
// service.
const (
	BadTarget          Kind = "bad-target"
	IPv6Target         Kind = "ipv6-target"
	BindingUnreadable  Kind = "binding-unreadable"
	TokenNotAsked      Kind = "token-not-asked"
	TokenUnreachable   Kind = "token-unreachable"
	TokenRefused       Kind = "token-refused"
	TokenRejected      Kind = "token-rejected"
	TokenRedirected    Kind = "token-redirected"
	TokenUnavailable   Kind = "token-unavailable"
	TokenUnreadable    Kind = "token-unreadable"
	ProxyUnreachable   Kind = "proxy-unreachable"
	ProxyNotSOCKS      Kind = "proxy-not-socks"
	ProxyTrusted       Kind = "proxy-trusted"
	ProxyNoJWT         Kind = "proxy-no-jwt"
	ProxyWantsAuth     Kind = "proxy-wants-auth"
	ProxyOddMethod     Kind = "proxy-odd-method"
	AuthRefused        Kind = "auth-refused"
	HandshakeTimeout   Kind = "handshake-timeout"
	HandshakeBroken    Kind = "handshake-broken"
	HandshakeMalformed Kind = "handshake-malformed"
	RequestTimeout     Kind = "request-timeout"
	RequestBroken      Kind = "request-broken"
	RequestMalformed   Kind = "request-malformed"
	ReplyGeneral       Kind = "reply-01"
	ReplyNoMapping     Kind = "reply-02"
	ReplyNoConnector   Kind = "reply-03"
	ReplyUnreachable   Kind = "reply-04"
	ReplyAuthRefused   Kind = "reply-05"
	ReplyUnused        Kind = "reply-06"
	ReplyCommand       Kind = "reply-07"
	ReplyAddressType   Kind = "reply-08"
	ReplyUnassigned    Kind = "reply-other"
)

// Failure is what a kind of failure means to a user. In Message and Hint
// {target}, {proxy}, {location}, {token_url} and {detail} stand for the dial's
// own.
type Failure struct {
	Kind      Kind
	Stage     sdk.Stage
	Reason    sdk.Reason // unspecified: as the network's error has it
	Retryable bool
	Message   string
	Hint      string
}

// Failures returns the table of all failures: the only place that says what
// they mean. The meaning of the replies is SAP's, which differs from RFC 1928.
func Failures() []Failure {
	return []Failure{
		{BadTarget, sdk.StageRequest, sdk.ReasonUnreachable, false,
			"{target} cannot be asked for: {detail}",
			"name the virtual host and port as the Cloud Connector has them"},
		{IPv6Target, sdk.StageRequest, sdk.ReasonUnreachable, false,
			"{target} is an IPv6 address, and SAP's proxy takes host names and IPv4 addresses only",
			"expose the host under a virtual name in the Cloud Connector and connect to that"},

		{BindingUnreadable, sdk.StageCredential, sdk.ReasonUnavailable, true,
			"the service binding cannot be used: {detail}",
			"check that the binding's files are mounted and readable"},
		{TokenNotAsked, sdk.StageCredential, sdk.ReasonUnavailable, true,
			"the token service {token_url} cannot be asked: {detail}",
			"correct the variable or the file that is named"},
		{TokenUnreachable, sdk.StageCredential, 0, true,
			"cannot reach the token service {token_url}: {detail}",
			"check that this machine reaches the token service, by its proxy variables if it needs one"},
		{TokenRefused, sdk.StageCredential, sdk.ReasonUnauthenticated, false,
			"the token service {token_url} refuses the client: {detail}",
			"the proxy was not asked yet: check client_id with its secret or certificate, and whether the binding was deleted or its credentials were rotated"},
		{TokenRejected, sdk.StageCredential, sdk.ReasonProtocol, false,
			"the token service {token_url} rejects the request: {detail}",
			"check token_url, and resource if it is set"},
		{TokenRedirected, sdk.StageCredential, sdk.ReasonProtocol, false,
			"the token service {token_url} redirects: {detail}",
			"the client's secret is not sent elsewhere: set token_url to the token service itself"},
		{TokenUnavailable, sdk.StageCredential, sdk.ReasonUnavailable, true,
			"the token service {token_url} is not available: {detail}",
			"try again later, and see the status page of the token service"},
		{TokenUnreadable, sdk.StageCredential, sdk.ReasonProtocol, false,
			"the answer of the token service {token_url} contains no token: {detail}",
			"check that token_url is a token service and not a login page or a web proxy"},

		{ProxyUnreachable, sdk.StageConnect, 0, true,
			"cannot connect to the proxy {proxy}: {detail}",
			"check the proxy's address; on Cloud Foundry it answers only applications of its own region"},
		{ProxyNotSOCKS, sdk.StageHandshake, sdk.ReasonProtocol, false,
			"{proxy} does not speak SOCKS5: {detail}",
			"use the port of onpremise_socks5_proxy_port (20004 by default), not the HTTP proxy's"},
		{ProxyTrusted, sdk.StageHandshake, sdk.ReasonProtocol, false,
			"the proxy answers method 00 (no authentication), which was not offered",
			`the proxy is in trusted mode: set auth = "none"`},
		{ProxyNoJWT, sdk.StageHandshake, sdk.ReasonProtocol, false,
			"the proxy does not accept method 80 (JWT)",
			`check that {proxy} is SAP's connectivity proxy; if it is in trusted mode, set auth = "none"`},
		{ProxyWantsAuth, sdk.StageHandshake, sdk.ReasonUnauthenticated, false,
			"the proxy does not accept method 00 (no authentication)",
			`the proxy is not in trusted mode: set auth = "jwt" and credentials`},
		{ProxyOddMethod, sdk.StageHandshake, sdk.ReasonProtocol, false,
			"the proxy answers {detail}, which was not offered",
			"check that {proxy} is SAP's connectivity proxy"},
		{AuthRefused, sdk.StageHandshake, sdk.ReasonUnauthenticated, false,
			"the proxy refuses the access token: {detail}",
			"the token service was not at fault: check that the token is for this subaccount's connectivity service, not expired, and the clock of this machine"},
		{HandshakeTimeout, sdk.StageHandshake, sdk.ReasonTimeout, true,
			"the proxy {proxy} is silent in the handshake: {detail}",
			"check that {proxy} is SAP's connectivity proxy, or raise that timeout"},
		{HandshakeBroken, sdk.StageHandshake, 0, true,
			"the proxy {proxy} breaks off the handshake: {detail}",
			"check that {proxy} is SAP's connectivity proxy and what its log says"},
		{HandshakeMalformed, sdk.StageHandshake, sdk.ReasonProtocol, false,
			"the proxy's answer to the access token cannot be understood: {detail}",
			"check that {proxy} is SAP's connectivity proxy"},
		{RequestTimeout, sdk.StageRequest, sdk.ReasonTimeout, true,
			"no answer to the request for {target}: {detail}",
			"check that the Cloud Connector reaches the host behind {target}, or raise that timeout"},
		{RequestBroken, sdk.StageRequest, 0, true,
			"the proxy closes instead of answering the request for {target}: {detail}",
			"check the Cloud Connector and the host behind {target}"},
		{RequestMalformed, sdk.StageRequest, sdk.ReasonProtocol, false,
			"the proxy's answer to the request cannot be understood: {detail}",
			"check that {proxy} is SAP's connectivity proxy"},

		{ReplyGeneral, sdk.StageRequest, sdk.ReasonUnavailable, true,
			"the backend closed the connection, or a general failure (SOCKS reply 01)",
			"check that the host behind {target} accepts connections, and the Cloud Connector's log"},
		{ReplyNoMapping, sdk.StageRequest, sdk.ReasonDenied, false,
			"the Cloud Connector has no mapping for {target} (SOCKS reply 02)",
			"add {target} as a virtual host and port with protocol TCP to the access control of the Cloud Connector {location}"},
		{ReplyNoConnector, sdk.StageRequest, sdk.ReasonUnavailable, true,
			"the Cloud Connector is not connected to the subaccount, or its location id is not known (SOCKS reply 03)",
			"check in the subaccount that the Cloud Connector {location} is connected"},
		{ReplyUnreachable, sdk.StageRequest, sdk.ReasonUnreachable, true,
			"the Cloud Connector cannot reach the host behind {target} (SOCKS reply 04)",
			"check the internal host and port of the mapping, and from the Cloud Connector's machine that the host answers"},
		{ReplyAuthRefused, sdk.StageRequest, sdk.ReasonUnauthenticated, false,
			"authentication failure (SOCKS reply 05)",
			"the access token was refused, not the connection: check that it is for this subaccount's connectivity service, not expired, and the clock of this machine"},
		{ReplyUnused, sdk.StageRequest, sdk.ReasonProtocol, false,
			"the proxy answers SOCKS reply 06 (TTL expired), which SAP does not use",
			"check that {proxy} is SAP's connectivity proxy"},
		{ReplyCommand, sdk.StageRequest, sdk.ReasonProtocol, false,
			"the proxy says that only CONNECT is supported (SOCKS reply 07), which is what it was asked for",
			"check that {proxy} is SAP's connectivity proxy"},
		{ReplyAddressType, sdk.StageRequest, sdk.ReasonProtocol, false,
			"the proxy says that only host names and IPv4 addresses are supported (SOCKS reply 08)",
			"connect to a virtual host name"},
		{ReplyUnassigned, sdk.StageRequest, sdk.ReasonProtocol, false,
			"the proxy answers {detail}, which has no meaning",
			"check that {proxy} is SAP's connectivity proxy"},
	}
}

// Reply returns the kind of failure of a reply (REP of RFC 1928) that is not a success.
func Reply(code byte) Kind {
	switch socks5.Code(code) {
	case socks5.GeneralFailure:
		return ReplyGeneral
	case socks5.NotAllowed:
		return ReplyNoMapping
	case socks5.NetworkUnreachable:
		return ReplyNoConnector
	case socks5.HostUnreachable:
		return ReplyUnreachable
	case socks5.ConnectionRefused:
		return ReplyAuthRefused
	case socks5.TTLExpired:
		return ReplyUnused
	case socks5.CommandNotSupported:
		return ReplyCommand
	case socks5.AddressTypeNotSupported:
		return ReplyAddressType
	default:
		return ReplyUnassigned
	}
}

// words are what stands in a message for the placeholders. None is a secret.
type words struct {
	target, proxy, location, tokenURL string
}

// failure makes the DialError of a kind. detail and cause may be empty and nil.
func (w words) failure(k Kind, detail string, cause error) *sdk.DialError {
	var f Failure
	for _, f = range Failures() {
		if f.Kind == k {
			break
		}
	}
	location := "without a location id"
	if w.location != "" {
		location = fmt.Sprintf("with location id %q", w.location)
	}
	r := strings.NewReplacer("{target}", w.target, "{proxy}", w.proxy, "{location}", location,
		"{token_url}", w.tokenURL, "{detail}", detail)
	var err error = k
	if cause != nil {
		err = fmt.Errorf("%w: %w", k, cause)
	}
	return &sdk.DialError{
		Stage:     f.Stage,
		Reason:    f.Reason,
		Retryable: f.Retryable,
		Message:   r.Replace(f.Message),
		Hint:      r.Replace(f.Hint),
		Err:       err,
	}
}

// network makes the DialError of a kind whose meaning is the network error's.
func (w words) network(k Kind, detail string, cause error) *sdk.DialError {
	f := w.failure(k, detail, cause)
	e := sdk.NetworkError(f.Stage, cause)
	f.Reason, f.Retryable, f.RetryAfter = e.Reason, e.Retryable, e.RetryAfter
	if f.Stage == sdk.StageConnect {
		f.Stage = e.Stage // of a name that was not resolved, the one before
	}
	if e.Hint != "" {
		f.Hint = e.Hint + "; " + f.Hint
	}
	return f
}
