package azrelay_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/tunneld/tunneld/plugins/azrelay"
	"github.com/tunneld/tunneld/plugins/sdk/sdktest"
)

// classNames are the properties, methods, events and settings of the
// AzureRelayProxy class's reference, in its order.
const classNames = `AccessKey AccessKeyName ConnectionBacklog Connections DefaultIdleTimeout DefaultTimeout
HybridConnection KeepAlive Linger Listening LocalHost LocalPort NamespaceAddress SSLAuthenticateClients SSLCert
SSLEnabled SSLStartMode
Config Disconnect DoEvents Reset Shutdown StartListening StopListening
Connected ConnectionRequest Disconnected Error Log SSLClientAuthentication SSLConnectionRequest SSLStatus
AccessToken LogLevel TokenValidity
AcceptEncoding AllowHTTPCompression AllowHTTPFallback Append Authorization BytesTransferred ChunkSize
CompressHTTPRequest EncodeURL FollowRedirects GetOn302Redirect HTTP2HeadersWithoutIndexing HTTPVersion
IfModifiedSince KeepAlive KerberosSPN LogLevel MaxRedirectAttempts NegotiatedHTTPVersion OtherHeaders
ProxyAuthorization ProxyAuthScheme ProxyPassword ProxyPort ProxyServer ProxyUser SentHeaders StatusCode StatusLine
TransferredData TransferredDataLimit TransferredHeaders TransferredRequest UseChunkedEncoding UseIDNs
UsePlatformHTTPClient UseProxyAutoConfigURL UserAgent
ConnectionTimeout FirewallAutoDetect FirewallHost FirewallPassword FirewallPort FirewallType FirewallUser
KeepAliveInterval KeepAliveRetryCount KeepAliveTime Linger LingerTime LocalHost LocalPort MaxLineLength
MaxTransferRate ProxyExceptionsList TCPKeepAlive TcpNoDelay UseIPv6 AbsoluteTimeout FirewallData InBufferSize
OutBufferSize
LogSSLPackets OpenSSLCADir OpenSSLCAFile OpenSSLCipherList OpenSSLPrngSeedData ReuseSSLSession SSLCACertFilePaths
SSLCACerts SSLCipherStrength SSLClientCACerts SSLEnabledCipherSuites SSLEnabledProtocols SSLEnableRenegotiation
SSLIncludeCertChain SSLKeyLogFile SSLNegotiatedCipher SSLNegotiatedCipherStrength SSLNegotiatedCipherSuite
SSLNegotiatedKeyExchange SSLNegotiatedKeyExchangeStrength SSLNegotiatedVersion SSLSecurityFlags SSLServerCACerts
TLS12SignatureAlgorithms TLS12SupportedGroups TLS13KeyShareGroups TLS13SignatureAlgorithms TLS13SupportedGroups`

// TestREADMEMapsTheClass has a row for each name, as often as the reference has
// it, and every row says something.
func TestREADMEMapsTheClass(t *testing.T) {
	readme := readREADME(t)
	_, class, ok := strings.Cut(readme, "## Coming from the AzureRelayProxy class")
	if !ok {
		t.Fatal("the table is missing")
	}
	rows := make(map[string]int)
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (.*) \\|$").FindAllStringSubmatch(class, -1) {
		rows[m[1]]++
		if len(m[2]) < 3 {
			t.Errorf("the row of %s says nothing", m[1])
		}
	}
	for _, name := range strings.Fields(classNames) {
		rows[name]--
	}
	for name, n := range rows {
		if n != 0 {
			t.Errorf("%s: %+d rows too many", name, n)
		}
	}
}

func TestREADMEHasEveryAttribute(t *testing.T) {
	readme := readREADME(t)
	schema := sdktest.Start(t, azrelay.Plugin()).Schema()
	attributes := schema.GetAttributes()
	for _, b := range schema.GetBlocks() {
		attributes = append(attributes, b.GetBody().GetAttributes()...)
	}
	for _, a := range attributes {
		if !strings.Contains(readme, "`"+a.GetName()+"`") {
			t.Errorf("README.md does not have %s", a.GetName())
		}
	}
}

func readREADME(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
