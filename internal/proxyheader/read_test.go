package proxyheader

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/nettest"
)

const patience = 20 * time.Second

func unhex(t testing.TB, text string) string {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const (
	// fixed is the signature of version 2 and the command PROXY, and local the command LOCAL.
	fixed = "0d0a0d0a000d0a515549540a 21"
	local = "0d0a0d0a000d0a515549540a 20"
	// ends4 are the addresses of a connection by IPv4.
	ends4 = "c0000207 0a000001 c8f2 0050"
)

// headers are those that load balancers send, in hex if they are of version 2. The two of
// AWS were captured, by its own tools for its load balancer.
var headers = map[string]struct {
	header string
	want   Header
}{
	"version 1, IPv4":                      {"PROXY TCP4 192.0.2.7 10.0.0.1 51442 80\r\n", ends("192.0.2.7:51442", "10.0.0.1:80")},
	"version 1, IPv6":                      {"PROXY TCP6 2001:db8::7 fd00::1 51442 80\r\n", ends("[2001:db8::7]:51442", "[fd00::1]:80")},
	"version 1, IPv6 as long as it can be": {"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe 65535 65535\r\n", ends("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535", "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe]:65535")},
	"version 1, IPv4-mapped":               {"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:10.0.0.1 51442 80\r\n", ends("192.0.2.7:51442", "10.0.0.1:80")},
	"version 1, port 0":                    {"PROXY TCP4 192.0.2.7 10.0.0.1 0 80\r\n", ends("192.0.2.7:0", "10.0.0.1:80")},
	"version 1, unknown":                   {"PROXY UNKNOWN\r\n", Header{}},
	"version 1, unknown with addresses":    {"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n", Header{}},
	"version 2, IPv4":                      {fixed + "11 000c" + ends4, ends("192.0.2.7:51442", "10.0.0.1:80")},
	"version 2, IPv6":                      {fixed + "21 0024 20010db8000000000000000000000007 fd000000000000000000000000000001 c8f2 0050", ends("[2001:db8::7]:51442", "[fd00::1]:80")},
	"version 2, IPv4-mapped":               {fixed + "21 0024 00000000000000000000ffffc0000207 00000000000000000000ffff0a000001 c8f2 0050", ends("192.0.2.7:51442", "10.0.0.1:80")},
	"version 2, local":                     {local + "00 0000", Header{}},
	"version 2, local with addresses":      {local + "11 000c" + ends4, Header{}},
	"version 2, local with anything":       {local + "11 0003 ffffff", Header{}},
	"version 2, local of a unix socket":    {local + "31 00d8" + strings.Repeat("61", 216), Header{}},
	"version 2, unspecified":               {fixed + "00 0000", Header{}},
	"version 2, unspecified with anything": {fixed + "00 0005 ffffffffff", Header{}},
	"version 2, longest":                   {fixed + "11 1000" + ends4 + "04 0ff1" + strings.Repeat("00", 0xff1), ends("192.0.2.7:51442", "10.0.0.1:80")},
	"version 2, empty TLVs":                {fixed + "11 0012" + ends4 + "04 0000 05 0000", ends("192.0.2.7:51442", "10.0.0.1:80")},
	"AWS, an example":                      {"0d0a0d0a000d0a515549540a21110054ac1f0771ac1f0a1fc8f20050030004e8d6892dea001701767063652d3038643262663135666163353030316339040024" + strings.Repeat("00", 36), ends("172.31.7.113:51442", "172.31.10.31:80")},
	"AWS, a capture":                       {"0d0a0d0a000d0a515549540a21110054c0a82c0ac0a82c07cc3e241b030004b9286fa6ea001701767063652d3030656166633435386563393762383333040024" + strings.Repeat("00", 36), ends("192.168.44.10:52286", "192.168.44.7:9243")},
	"Azure Private Link":                   {fixed + "11 0014" + ends4 + "ee 0005 01 2a000000", ends("192.0.2.7:51442", "10.0.0.1:80")},
}

func ends(source, destination string) Header {
	return Header{netip.MustParseAddrPort(source), netip.MustParseAddrPort(destination)}
}

func bytesOf(t testing.TB, header string) string {
	if strings.HasPrefix(header, "0d0a") {
		return unhex(t, header)
	}
	return header
}

// TestRead: a header is read however its bytes come, and what follows it stays.
func TestRead(t *testing.T) {
	for name, tt := range headers {
		header := bytesOf(t, tt.header)
		for how, run := range map[string]func(client *net.TCPConn, header string) (behind string, err error){
			"alone":                       func(c *net.TCPConn, h string) (string, error) { return "", write(c, h) },
			"with what follows":           func(c *net.TCPConn, h string) (string, error) { return "hello", write(c, h+"hello") },
			"with the end behind it":      func(c *net.TCPConn, h string) (string, error) { return "", errors.Join(write(c, h), c.CloseWrite()) },
			"with another header":         func(c *net.TCPConn, h string) (string, error) { return h, write(c, h+h) },
			"all but its last byte first": func(c *net.TCPConn, h string) (string, error) { return "x", write(c, h[:len(h)-1], h[len(h)-1:]+"x") },
			"a byte at a time": func(c *net.TCPConn, h string) (string, error) {
				return "hello", write(c, append(strings.Split(h, ""), "hello")...)
			},
		} {
			t.Run(name+", "+how, func(t *testing.T) {
				client, server := nettest.Pair(t)
				deadline(t, client, server)
				sent := make(chan string, 1)
				go func() {
					behind, err := run(client, header)
					if err != nil {
						t.Error(err)
					}
					_ = client.CloseWrite()
					sent <- behind
				}()
				got, err := Read(server)
				if err != nil || got != tt.want {
					t.Fatalf("%v, %v, want %v", got, err, tt.want)
				}
				if got.IsLocal() != (tt.want == Header{}) {
					t.Errorf("local: %t", got.IsLocal())
				}
				if rest, err := io.ReadAll(server); err != nil || string(rest) != <-sent {
					t.Errorf("behind it are %q, %v", rest, err)
				}
			})
		}
	}
}

func deadline(t testing.TB, conns ...net.Conn) {
	t.Helper()
	for _, c := range conns {
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
	}
}

// write writes pieces, each in a packet of its own.
func write(c net.Conn, pieces ...string) error {
	for _, p := range pieces {
		if _, err := io.WriteString(c, p); err != nil {
			return err
		}
	}
	return nil
}

// TestWrongHeaders are refused as soon as it is clear that they are wrong: the client keeps
// its side open.
func TestWrongHeaders(t *testing.T) {
	for name, tt := range map[string]struct{ header, want string }{
		"version 1, one space too many":              {"PROXY  TCP4 192.0.2.7 10.0.0.1 1 2\r\n", "can't read address family"},
		"version 1, no CR":                           {"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\n", "must end with"},
		"version 1, no end":                          {"PROXY UNKNOWN " + strings.Repeat("x", 93), "does not end within 107 bytes"},
		"version 1, no end and no addresses":         {"PROXY TCP6 " + strings.Repeat("x", 200), "does not end within 107 bytes"},
		"version 1, no family":                       {"PROXY \r\n", "address family"},
		"version 1, UDP":                             {"PROXY UDP4 192.0.2.7 10.0.0.1 1 2\r\n", "address family"},
		"version 1, wrong family":                    {"PROXY TCP4 ::1 10.0.0.1 1 2\r\n", "invalid address"},
		"version 1, leading zero":                    {"PROXY TCP4 192.0.2.07 10.0.0.1 1 2\r\n", "invalid address"},
		"version 1, zone":                            {"PROXY TCP6 fe80::1%lo ::1 1 2\r\n", "invalid address"},
		"version 1, large port":                      {"PROXY TCP4 192.0.2.7 10.0.0.1 65536 2\r\n", "invalid port"},
		"version 1, signed port":                     {"PROXY TCP4 192.0.2.7 10.0.0.1 +1 2\r\n", "invalid port"},
		"version 1, a field too few":                 {"PROXY TCP4 192.0.2.7 10.0.0.1 1\r\n", "address family"},
		"version 1, a field too many":                {"PROXY TCP4 192.0.2.7 10.0.0.1 1 2 3\r\n", "address family"},
		"version 2, too long":                        {fixed + "11 1001", "at most 4112"},
		"version 2, longest that it can say":         {local + "00 ffff", "says that it has 65551 bytes"},
		"version 2, version 3":                       {"0d0a0d0a000d0a515549540a 31 11 000c" + ends4, "unsupported proxy protocol version"},
		"version 2, unknown command and unspecified": {"0d0a0d0a000d0a515549540a 22 00 0000", "unsupported proxy protocol version and command"},
		"version 2, unknown command":                 {"0d0a0d0a000d0a515549540a 22 11 000c" + ends4, "unsupported proxy protocol version and command"},
		"version 2, unknown family":                  {fixed + "41 000c" + ends4, "unsupported address family"},
		"version 2, unknown transport":               {fixed + "13 000c" + ends4, "unsupported address family"},
		"version 2, a family by half":                {fixed + "10 000c" + ends4, "unsupported address family"},
		"version 2, local of unknown family":         {local + "41 0000", "unsupported address family"},
		"version 2, short":                           {fixed + "11 000b c0000207 0a000001 c8f2 00", "invalid length"},
		"version 2, UDP":                             {fixed + "12 000c" + ends4, "of UDP or of a unix socket"},
		"version 2, UDP over IPv6":                   {fixed + "22 0024" + strings.Repeat("00", 36), "of UDP or of a unix socket"},
		"version 2, unix":                            {fixed + "31 00d8" + strings.Repeat("61", 216), "of UDP or of a unix socket"},
		"TLVs, cut off":                              {fixed + "11 000e" + ends4 + "04 00", "cut off"},
		"TLVs, too long":                             {fixed + "11 0010" + ends4 + "04 0002 00", "a TLV of type 0x04 says that it has 2 bytes, and 1 are left"},
		"checksum, of another size":                  {fixed + "11 0012" + ends4 + "03 0003 000000", "checksum has 3 bytes"},
		"checksum, wrong":                            {"0d0a0d0a000d0a515549540a21110054ac1f0771ac1f0a1fc8f20051030004e8d6892dea001701767063652d3038643262663135666163353030316339040024" + strings.Repeat("00", 36), "checksum is wrong"},
		"checksum, wrong behind it":                  {"0d0a0d0a000d0a515549540a21110054ac1f0771ac1f0a1fc8f20050030004e8d6892dea001701767063652d3038643262663135666163353030316339040024" + strings.Repeat("00", 35) + "01", "checksum is wrong"},
	} {
		t.Run(name, func(t *testing.T) {
			client, server := nettest.Pair(t)
			deadline(t, client, server)
			if err := write(client, bytesOf(t, tt.header)); err != nil {
				t.Fatal(err)
			}
			_, err := Read(server)
			var malformed *MalformedError
			if !errors.As(err, &malformed) || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "proxyproto") {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// TestNoHeader: what begins no header is known by the first byte that is wrong, and is not
// taken from the socket.
func TestNoHeader(t *testing.T) {
	for _, first := range []string{"G", "\x16\x03\x01", "\x05", "PROXI", "PROXYTCP4 ", "\r\n\r\nG", "\r\n\r\n\x00\r\nQUIX"} {
		client, server := nettest.Pair(t)
		deadline(t, client, server)
		if err := write(client, first); err != nil {
			t.Fatal(err)
		}
		_, err := Read(server)
		var absent *AbsentError
		if !errors.As(err, &absent) || absent.First != first[0] || !strings.Contains(err.Error(), "no PROXY header") {
			t.Errorf("%q: %v", first, err)
		}
		if err := client.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if left, err := io.ReadAll(server); err != nil || string(left) != first {
			t.Errorf("%q: %q is left, %v", first, left, err)
		}
	}
}

// TestBegins: a header is known by its first bytes.
func TestBegins(t *testing.T) {
	for _, h := range headers {
		header := bytesOf(t, h.header)
		enough := 6
		if header[0] == '\r' {
			enough = 5
		}
		for n := range len(header) + 1 {
			if is, maybe := Begins([]byte(header[:n])); is != (n >= enough) || maybe != (n < enough) {
				t.Fatalf("%q: %t, %t", header[:n], is, maybe)
			}
		}
	}
	for _, other := range []string{"PROXYTCP4", "PO", "\r\n\r\nG", "\n", "GET / HTTP/1.1\r\n", "\x16\x03\x01\x02\x00"} {
		if is, maybe := Begins([]byte(other)); is || maybe {
			t.Errorf("%q: %t, %t", other, is, maybe)
		}
	}
}

// TestClientLeaves before a byte, or before the header is whole.
func TestClientLeaves(t *testing.T) {
	for name, tt := range map[string]struct {
		header string
		want   error
	}{
		"without a byte":   {"", io.EOF},
		"within version 1": {"PROXY TCP4 192.0.2.7", io.ErrUnexpectedEOF},
		"within version 2": {unhex(t, fixed), io.ErrUnexpectedEOF},
		"within the block": {unhex(t, fixed+"11 000c c0000207"), io.ErrUnexpectedEOF},
	} {
		client, server := nettest.Pair(t)
		deadline(t, client, server)
		if err := errors.Join(write(client, tt.header), client.CloseWrite()); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(server); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	client, server := nettest.Pair(t)
	deadline(t, server)
	if err := errors.Join(client.SetLinger(0), client.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(server); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after a reset: %v", err)
	}
}

// TestDeadline: a header that does not come, or not as a whole, is waited for as long as the
// socket's deadline lets it.
func TestDeadline(t *testing.T) {
	for _, begun := range []string{"", "PROXY TCP4", unhex(t, fixed+"11 000c c0")} {
		client, server := nettest.Pair(t)
		if err := write(client, begun); err != nil {
			t.Fatal(err)
		}
		if err := server.SetDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(server); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("after %q: %v", begun, err)
		}
	}
}

// FuzzRead: whatever comes, and in whatever pieces, no byte behind the header is taken, and
// what is read is what parse makes of the header.
func FuzzRead(f *testing.F) {
	for _, h := range headers {
		f.Add([]byte(bytesOf(f, h.header)+"hello"), uint16(7))
	}
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), uint16(2))
	f.Fuzz(func(t *testing.T, sent []byte, cut uint16) {
		client, server := nettest.Pair(t)
		deadline(t, client, server)
		at := min(int(cut), len(sent))
		go func() {
			_ = write(client, string(sent[:at]), string(sent[at:]))
			_ = client.CloseWrite()
		}()
		got, err := Read(server)
		rest, readErr := io.ReadAll(server)
		if err != nil {
			return
		}
		header, behind := sent[:len(sent)-len(rest)], sent[len(sent)-len(rest):]
		if is, _ := Begins(header); readErr != nil || !bytes.Equal(rest, behind) || !is {
			t.Fatalf("behind the header of %q is %q, %v", sent, rest, readErr)
		}
		again, err := parse(header)
		if err != nil || again != got {
			t.Errorf("%q is %v, and then %v, %v", header, got, again, err)
		}
		if size, err := end(header); err != nil || size != len(header) {
			t.Errorf("%q ends at %d, %v", header, size, err)
		}
		if got.Source.IsValid() != got.Destination.IsValid() || got.Source.Addr().Is4In6() || got.Destination.Addr().Is4In6() {
			t.Errorf("%q is %v", header, got)
		}
	})
}
