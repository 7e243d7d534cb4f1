package pluginwire

import (
	"bytes"
	"strings"
	"testing"
)

func TestRecords(t *testing.T) {
	long := strings.Repeat("é", 200)
	for name, tc := range map[string]struct {
		record Record
		head   []byte // the first twelve bytes
		text   string
	}{
		"direct handoff": {Record{Kind: Handoff, Token: 1, Path: PathDirect}, []byte{1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1}, ""},
		"relay handoff":  {Record{Kind: Handoff, Token: 1<<64 - 1, Path: PathRelay}, []byte{1, 1, 2, 0, 255, 255, 255, 255, 255, 255, 255, 255}, ""},
		"end of file":    {Record{Kind: EOF, Token: 0x0102030405060708}, []byte{1, 2, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8}, ""},
		"clean end":      {Record{Kind: End, Token: 9}, []byte{1, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9}, ""},
		"end with error": {Record{Kind: End, Token: 9, Status: StatusError, Text: "reset"}, []byte{1, 3, 1, 5, 0, 0, 0, 0, 0, 0, 0, 9}, "reset"},
		"abort":          {Record{Kind: Abort, Token: 9, Text: "bye"}, []byte{1, 4, 0, 3, 0, 0, 0, 0, 0, 0, 0, 9}, "bye"},
		"text too long":  {Record{Kind: Abort, Token: 9, Text: "x" + long}, []byte{1, 4, 0, 243, 0, 0, 0, 0, 0, 0, 0, 9}, "x" + long[:242]},
		"text is bytes":  {Record{Kind: Abort, Token: 9, Text: "a\xffb"}, []byte{1, 4, 0, 5, 0, 0, 0, 0, 0, 0, 0, 9}, "a\uFFFDb"},
	} {
		t.Run(name, func(t *testing.T) {
			b := tc.record.Encode()
			want := append(append(bytes.Clone(tc.head), tc.text...), make([]byte, MaxText-len(tc.text))...)
			if !bytes.Equal(b[:], want) {
				t.Errorf("bytes are % x", b)
			}
			got, err := Decode(b[:])
			tc.record.Text = tc.text
			if err != nil || got != tc.record {
				t.Errorf("read back as %+v, %v", got, err)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	for want, change := range map[string]func(*[RecordSize]byte){
		"record version 2":               func(b *[RecordSize]byte) { b[0] = 2 },
		"record of unknown kind 0":       func(b *[RecordSize]byte) { b[1] = 0 },
		"record of unknown kind 5":       func(b *[RecordSize]byte) { b[1] = 5 },
		"handoff with path 0":            func(b *[RecordSize]byte) { b[2] = 0 },
		"handoff with path 3":            func(b *[RecordSize]byte) { b[2] = 3 },
		"end with status 2":              func(b *[RecordSize]byte) { b[1], b[2] = 3, 2 },
		"record of kind 2 with a status": func(b *[RecordSize]byte) { b[1], b[2] = 2, 1 },
		"record of kind 4 with a status": func(b *[RecordSize]byte) { b[1], b[2] = 4, 1 },
		"record text of 245 bytes":       func(b *[RecordSize]byte) { b[3] = 245 },
		"record text is not UTF-8":       func(b *[RecordSize]byte) { b[3], b[12] = 1, 0xff },
		"without a token":                func(b *[RecordSize]byte) { b[11] = 0 },
	} {
		b := Record{Kind: Handoff, Token: 1, Path: PathDirect}.Encode()
		change(&b)
		if r, err := Decode(b[:]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v", want, r, err)
		}
	}
	for _, n := range []int{0, 255, 257} {
		if _, err := Decode(make([]byte, n)); err == nil {
			t.Errorf("a record of %d bytes is accepted", n)
		}
	}
}

// What is read can be written, and comes out the same.
func FuzzDecode(f *testing.F) {
	for _, r := range []Record{
		{Kind: Handoff, Token: 1, Path: PathRelay},
		{Kind: End, Token: 2, Status: StatusError, Text: "é"},
		{Kind: Abort, Token: 1 << 63, Text: strings.Repeat("x", MaxText)},
	} {
		b := r.Encode()
		f.Add(b[:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Decode(b)
		if err != nil {
			return
		}
		again := r.Encode()
		if !bytes.Equal(again[:textOffset+len(r.Text)], b[:textOffset+len(r.Text)]) {
			t.Errorf("%+v: read from % x, written as % x", r, b, again)
		}
	})
}

func FuzzEncode(f *testing.F) {
	f.Add(uint8(3), uint64(1), uint8(1), "reason")
	f.Fuzz(func(t *testing.T, kind uint8, token uint64, flag uint8, text string) {
		r := Record{Kind: Kind(kind), Token: token, Text: text}
		if r.Kind == Handoff {
			r.Path = flag
		} else {
			r.Status = flag
		}
		b := r.Encode()
		got, err := Decode(b[:])
		if err != nil {
			return // not a record that anybody may send
		}
		if len(got.Text) > MaxText || got.Kind != r.Kind || got.Token != r.Token || got.Path != r.Path || got.Status != r.Status {
			t.Errorf("%+v became %+v", r, got)
		}
	})
}
