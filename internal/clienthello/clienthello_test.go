package clienthello

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

// sent returns what a client of crypto/tls sends first, in one record.
func sent(t testing.TB, c *tls.Config) []byte {
	t.Helper()
	near := &wire{}
	c.InsecureSkipVerify = true
	if err := tls.Client(near, c).HandshakeContext(context.Background()); !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return near.out.Bytes()
}

// wire is a connection whose peer has sent in, and no more.
type wire struct {
	net.Conn
	in  io.Reader
	out bytes.Buffer
}

func (w *wire) Read(b []byte) (int, error) {
	if w.in == nil {
		return 0, io.EOF
	}
	return w.in.Read(b)
}

func (w *wire) Write(b []byte) (int, error) { return w.out.Write(b) }

func (w *wire) Close() error { return nil }

// split has the content of a record in records of at most n bytes.
func split(record []byte, n int) (out []byte) {
	for content := record[recordHeader:]; len(content) > 0; {
		part := content[:min(n, len(content))]
		content = content[len(part):]
		out = append(out, record[0], record[1], record[2], byte(len(part)>>8), byte(len(part)))
		out = append(out, part...)
	}
	return out
}

// message is a ClientHello of so many bytes, with its header, in one record.
func message(size int) []byte {
	padding := size - len(extended("\x00\x63\x00\x00")) + recordHeader
	return []byte(extended(string([]byte{0, 0x63, byte(padding >> 8), byte(padding)}) + strings.Repeat("p", padding)))
}

func free(int) error { return nil }

// TestRead: the message is found in any split over records and reads, and what comes
// behind is kept.
func TestRead(t *testing.T) {
	for name, tc := range map[string]struct {
		config *tls.Config
		want   Info
	}{
		"TLS 1.3":     {&tls.Config{ServerName: "db.example"}, Info{"db.example", nil, []uint16{0x304, 0x303}}},
		"TLS 1.2":     {&tls.Config{ServerName: "DB.example", MaxVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}, Info{"DB.example", []string{"h2", "http/1.1"}, []uint16{0x303}}},
		"no name":     {&tls.Config{ServerName: "127.0.0.1"}, Info{"", nil, []uint16{0x304, 0x303}}},
		"old":         {&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, Info{"", nil, []uint16{0x302, 0x301}}},
		"many protos": {&tls.Config{NextProtos: strings.Split(strings.Repeat(strings.Repeat("x", 200)+",", 40)+"y", ",")}, Info{"", strings.Split(strings.Repeat(strings.Repeat("x", 200)+",", 40)+"y", ","), []uint16{0x304, 0x303}}},
	} {
		t.Run(name, func(t *testing.T) {
			hello := sent(t, tc.config)
			for _, records := range []int{1, 2, 3, 5, 100, 1000, maxRecord} {
				raw := split(hello, records)
				if len(raw) > maxRead {
					continue
				}
				raw = append(raw, "what comes behind"...)
				for form, r := range map[string]io.Reader{
					"at once": bytes.NewReader(raw), "by bytes": iotest.OneByteReader(bytes.NewReader(raw)), "by halves": iotest.HalfReader(bytes.NewReader(raw)),
				} {
					got, err := Read(r, free)
					if err != nil {
						t.Fatalf("records of %d, %s: %v", records, form, err)
					}
					if !bytes.HasPrefix(raw, got.Raw) || len(got.Raw) < len(raw)-len("what comes behind") {
						t.Errorf("records of %d, %s: %d bytes, want %d", records, form, len(got.Raw), len(raw))
					}
					info, err := got.Info()
					if err != nil || !reflect.DeepEqual(*info, tc.want) {
						t.Errorf("records of %d, %s: %+v, %v", records, form, info, err)
					}
				}
			}
		})
	}
}

// TestBounds: the largest message is read, one that is larger is not, and what is held
// grows with what has come, not with what is claimed.
func TestBounds(t *testing.T) {
	for _, size := range []int{Max, Max - 1, 4000} {
		var asked []int
		got, err := Read(iotest.OneByteReader(bytes.NewReader(message(size))), func(n int) error { asked = append(asked, n); return nil })
		if err != nil {
			t.Fatalf("%d: %v", size, err)
		}
		if info, err := got.Info(); err != nil || info.ServerName != "" {
			t.Errorf("%d: %+v, %v", size, info, err)
		}
		if most := asked[len(asked)-1]; most > maxRead || most > 2*(size+recordHeader) || cap(got.Raw) != most {
			t.Errorf("%d: grown to %v", size, asked)
		}
	}
	late := errors.New("no memory")
	if _, err := Read(bytes.NewReader(message(4000)), func(int) error { return late }); !errors.Is(err, late) {
		t.Errorf("%v, want the error of grow", err)
	}
	claim := []byte{recordHandshake, 3, 1, 0x40, 0, messageHello, 0, 0x3f, 0xfc}
	if _, err := Read(bytes.NewReader(claim), func(int) error { t.Error("it grows"); return nil }); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v, want an early end", err)
	}
	tiny := split(append([]byte{recordHandshake, 3, 1, 0, 0}, message(4000)[recordHeader:]...), 1)
	var malformed *MalformedError
	if _, err := Read(bytes.NewReader(tiny), free); !errors.As(err, &malformed) || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("%d bytes of records: %v", len(tiny), err)
	}
}

func TestReadFails(t *testing.T) {
	if _, err := Read(bytes.NewReader(nil), free); err != io.EOF {
		t.Errorf("nothing: %v", err)
	}
	broken := errors.New("broken")
	if _, err := Read(io.MultiReader(strings.NewReader("\x16\x03"), iotest.ErrReader(broken)), free); !errors.Is(err, broken) {
		t.Errorf("an error of the connection: %v", err)
	}
	for name, tc := range map[string]struct {
		raw   string
		alert byte
		want  string
	}{
		"HTTP":                  {"GET / HTTP/1.1\r\n", 0, "0x47"},
		"an alert":              {"\x15\x03\x01\x00\x02\x02\x00", 0, "0x15"},
		"SSL 2.0":               {"\x80\x2e\x01\x00\x02", alertWrongVersion, "SSL 2.0"},
		"TLS 1.0 in its form":   {"\x80\x67\x01\x03\x01\x00\x4e\x00\x00\x00\x10", alertWrongVersion, "SSL 2.0"},
		"another message of it": {"\x80\x2e\x02\x00\x02", 0, "0x80"},
		"no version of it":      {"\x80\x2e\x01\x47\x02", 0, "0x80"},
		"half of it":            {"\x80\x2e\x01", 0, "0x80"},
		"another version":       {"\x16\x02\x00", alertWrongVersion, "2.x"},
		"an empty record":       {"\x16\x03\x01\x00\x00", alertUnexpected, "empty record"},
		"a long record":         {"\x16\x03\x01\x40\x01", alertOverflow, "16385 bytes"},
		"another message":       {"\x16\x03\x01\x00\x04\x02", alertUnexpected, "type 2"},
		"an empty message":      {"\x16\x03\x01\x00\x04\x01\x00\x00\x00", alertDecodeError, "empty"},
		"a long message":        {"\x16\x03\x01\x40\x00\x01\x00\x3f\xfd", alertDecodeError, "larger than 16384"},
		"an alert in between":   {"\x16\x03\x01\x00\x05\x01\x00\x00\x05\x03\x15", alertUnexpected, "type 21"},
		"an empty one later":    {"\x16\x03\x01\x00\x05\x01\x00\x00\x05\x03\x16\x03\x01\x00\x00", alertUnexpected, "empty record"},
		"HTTP between messages": {"\x16\x03\x01\x00\x05\x01\x00\x00\x05\x03GET", alertUnexpected, "type 71"},
	} {
		_, err := Read(strings.NewReader(tc.raw), free)
		var malformed *MalformedError
		var foreign *NotTLSError
		switch {
		case err == nil || !strings.Contains(err.Error(), tc.want):
			t.Errorf("%s: %v", name, err)
		case tc.alert == 0 && (!errors.As(err, &foreign) || foreign.First != tc.raw[0]):
			t.Errorf("%s: %#v", name, err)
		case tc.alert != 0 && (!errors.As(err, &malformed) || malformed.Alert != tc.alert):
			t.Errorf("%s: %#v", name, err)
		}
	}
}

// extended is a ClientHello with those extensions.
func extended(extensions string) string {
	body := "\x03\x03" + strings.Repeat("r", 32) + "\x00" + "\x00\x02\x13\x01" + "\x01\x00"
	if extensions != "" {
		body += string([]byte{byte(len(extensions) >> 8), byte(len(extensions))}) + extensions
	}
	body = string([]byte{messageHello, 0, byte(len(body) >> 8), byte(len(body))}) + body
	return string([]byte{recordHandshake, 3, 1, byte(len(body) >> 8), byte(len(body))}) + body
}

var malformed = map[string]string{
	"two names":            extended("\x00\x00\x00\x0a\x00\x08\x00\x00\x01a\x00\x00\x01b"),
	"an empty name":        extended("\x00\x00\x00\x05\x00\x03\x00\x00\x00"),
	"no names":             extended("\x00\x00\x00\x02\x00\x00"),
	"one twice":            extended("\x00\x00\x00\x06\x00\x04\x00\x00\x01a\x00\x00\x00\x06\x00\x04\x00\x00\x01a"),
	"more in it":           extended("\x00\x00\x00\x07\x00\x04\x00\x00\x01a!"),
	"no protocol":          extended("\x00\x10\x00\x02\x00\x00"),
	"an empty protocol":    extended("\x00\x10\x00\x03\x00\x01\x00"),
	"half a version":       extended("\x00\x2b\x00\x02\x01\x03"),
	"cut":                  extended("\x00\x00\x00\x09\x00"),
	"half an extension":    extended("\x00\x00\x00"),
	"more than the length": strings.Replace(extended("\x00\x63\x00\x00"), "\x00\x04\x00\x63", "\x00\x03\x00\x63", 1),
	"nothing":              "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03",
}

func TestMalformedHellos(t *testing.T) {
	for name, raw := range malformed {
		got, err := Read(strings.NewReader(raw), free)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var malformed *MalformedError
		if info, err := got.Info(); !errors.As(err, &malformed) || malformed.Alert != alertDecodeError {
			t.Errorf("%s: %+v, %v", name, info, err)
		}
	}
	other := extended("\x00\x00\x00\x0a\x00\x08\x01\x00\x01a\x00\x00\x01b\x00\x63\x00\x01x")
	got, err := Read(strings.NewReader(other), free)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := got.Info(); err != nil || info.ServerName != "b" || !reflect.DeepEqual(info.Versions, []uint16{0x303}) {
		t.Errorf("a name of another form: %+v, %v", info, err)
	}
	dotted := &Hello{Raw: []byte(extended("\x00\x00\x00\x07\x00\x05\x00\x00\x02a."))}
	if info, err := dotted.Info(); err != nil || info.ServerName != "a." {
		t.Errorf("a dot at the end: %+v, %v", info, err)
	}
	if info, err := (&Hello{Raw: []byte(extended(""))}).Info(); err != nil || info.ServerName != "" {
		t.Errorf("no extensions: %+v, %v", info, err)
	}
}

// FuzzHello compares with what crypto/tls sees: who routes by the name must not see
// another one than who speaks TLS then.
func FuzzHello(f *testing.F) {
	for _, c := range []*tls.Config{{ServerName: "db.example"}, {ServerName: "a.b", MaxVersion: tls.VersionTLS12, NextProtos: []string{"h2"}}, {}} {
		hello := sent(f, c)
		f.Add(hello)
		f.Add(split(hello, 7))
	}
	for _, raw := range malformed {
		f.Add([]byte(raw))
	}
	f.Add(message(300))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var theirs *tls.ClientHelloInfo
		seen := errors.New("seen")
		server := &tls.Config{GetConfigForClient: func(i *tls.ClientHelloInfo) (*tls.Config, error) { theirs = i; return nil, seen }}
		_ = tls.Server(&wire{in: bytes.NewReader(raw)}, server).HandshakeContext(context.Background())

		hello, err := Read(bytes.NewReader(raw), free)
		if err != nil {
			var malformed *MalformedError
			ours := errors.As(err, &malformed) && (malformed == errTooLarge || malformed.Alert == alertWrongVersion)
			if theirs != nil && !ours {
				t.Fatalf("crypto/tls reads a hello for %q, and we do not: %v", theirs.ServerName, err)
			}
			return
		}
		if !bytes.HasPrefix(raw, hello.Raw) {
			t.Error("Raw is not what was read")
		}
		info, err := hello.Info()
		if theirs == nil {
			return // it looks at more
		}
		if err != nil {
			t.Fatalf("crypto/tls takes a hello for %q that we do not: %v", theirs.ServerName, err)
		}
		if info.ServerName != theirs.ServerName || len(info.Protocols) != len(theirs.SupportedProtos) || len(info.Protocols) > 0 && !reflect.DeepEqual(info.Protocols, theirs.SupportedProtos) {
			t.Errorf("%+v, and crypto/tls has %q, %q", info, theirs.ServerName, theirs.SupportedProtos)
		}
		if len(info.Versions) != 1 && !reflect.DeepEqual(info.Versions, theirs.SupportedVersions) {
			t.Errorf("versions %x, and crypto/tls has %x", info.Versions, theirs.SupportedVersions)
		}
	})
}
