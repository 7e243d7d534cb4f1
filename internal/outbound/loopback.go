package outbound

import (
	"net/netip"
	"strings"

	"github.com/tunneld/tunneld/internal/hostname"
)

// IsLoopback says whether a host, an IP address without brackets or a name, is this
// machine itself: 127.0.0.0/8 (RFC 1122, section 3.2.1.3), ::1, or localhost with all
// names below it (RFC 6761, section 6.3). What is sent there no network sees.
func IsLoopback(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().IsLoopback()
	}
	name := strings.ToLower(hostname.WithoutDot(host))
	return name == "localhost" || strings.HasSuffix(name, ".localhost")
}
