package wire

import (
	"encoding/binary"
	"testing"
	"time"
)

// The vectors were computed with coreutils' sha256sum and base64, but for the last,
// which the original agent sent.
func TestSaltPassword(t *testing.T) {
	at := time.UnixMilli(1_700_000_040_000) // a full minute
	tests := map[string]struct {
		password string
		at       time.Time
		want     string
	}{
		"at the minute's first instant": {"pasSw0rD", at, "YWXWPx+ia5qx4VMyFGd9X68jv/pOAgUYrlwouvTbyIE="},
		"at the minute's last":          {"pasSw0rD", at.Add(time.Minute - 1), "YWXWPx+ia5qx4VMyFGd9X68jv/pOAgUYrlwouvTbyIE="},
		"in the next minute":            {"pasSw0rD", at.Add(time.Minute), "4Ge/eUuBEBJQqg7XBjkL1ElJ4FbSH9HUlzwjw52o7yg="},
		"a password of any bytes":       {"a:b\n\x00ü", at, "51vSV+BXaJIdXfijZ42CCkIiL8W34scaZBGT0D2QsRY="},
		"as recorded":                   {"pasSw0rD", time.UnixMilli(1_795_945_140_000), "jeKNU5HIDnO6/L6gHhPpT3SfcTrs6FjpZSih+rFGbTQ="},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := SaltPassword(tt.password, tt.at); got != tt.want {
				t.Errorf("SaltPassword = %q, want %q", got, tt.want)
			}
		})
	}
}

// TestAccept has the example of RFC 6455, section 1.3.
func TestAccept(t *testing.T) {
	if got := Accept("dGhlIHNhbXBsZSBub25jZQ=="); got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Errorf("Accept = %q", got)
	}
}

func TestFrame(t *testing.T) {
	f := Frame()
	if f[0] != 0x80|2 {
		t.Errorf("first byte 0x%02x, want FIN and the binary opcode alone", f[0])
	}
	if f[1] != 127 {
		t.Errorf("second byte 0x%02x, want no MASK and an 8-byte length", f[1])
	}
	if n := binary.BigEndian.Uint64(f[2:]); n != 1<<63-1 {
		t.Errorf("length %d, want 2^63-1", n)
	}
}
