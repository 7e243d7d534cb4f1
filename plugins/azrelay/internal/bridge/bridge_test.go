package bridge

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestRequest(t *testing.T) {
	b := AppendRequest(nil, Stream, "5432")
	if string(b) != "\x01\x00\x00\x045432" {
		t.Fatalf("the preamble is %q", b)
	}
	r := iotest.OneByteReader(strings.NewReader(string(b) + "data"))
	mode, name, err := ReadRequest(r)
	if mode != Stream || name != "5432" || err != nil {
		t.Errorf("ReadRequest = %d, %q, %v", mode, name, err)
	}
	if rest, _ := io.ReadAll(r); string(rest) != "data" {
		t.Errorf("%q is left", rest)
	}
}

func TestBadRequests(t *testing.T) {
	if _, _, err := ReadRequest(strings.NewReader("\x02\x00")); !errors.Is(err, ErrVersion) {
		t.Errorf("version 2 is %v", err)
	}
	for _, b := range []string{"", "\x01", "\x01\x00\x00", "\x01\x00\x00\x04543", "\x01\x00\x00\x00", "\x01\x00\x00\x01\xff"} {
		if _, name, err := ReadRequest(strings.NewReader(b)); err == nil {
			t.Errorf("%q is read as %q", b, name)
		}
	}
	for _, name := range []string{"", strings.Repeat("a", MaxName+1), "\xff"} {
		if CheckName(name) == nil {
			t.Errorf("the name %.10q passes", name)
		}
	}
}

func TestAnswers(t *testing.T) {
	for _, tt := range []struct {
		answer string
		want   error
	}{
		{string(Accept(Stream)), nil},
		{string(BadVersion()), ErrVersion},
		{"\x00\x00\x01", ErrNotStream},
		{string(NotStream()), ErrNotStream},
		{"\x00\x00\xff", ErrNotDatagrams},
		{string(NotDatagrams()), ErrNotDatagrams},
		{"", ErrName},
		{"\x01\x00", io.ErrUnexpectedEOF},
	} {
		if err := ReadAnswer(strings.NewReader(tt.answer), Stream); !errors.Is(err, tt.want) {
			t.Errorf("%x is %v, want %v", tt.answer, err, tt.want)
		}
	}
	if err := ReadAnswer(strings.NewReader("SSH"), Stream); err == nil || !strings.Contains(err.Error(), "53 53 48") {
		t.Errorf("another answer is %v", err)
	}
}

func FuzzReadRequest(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x045432data"))
	f.Add([]byte("\x01\x00\xff\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		mode, name, err := ReadRequest(r)
		if err != nil {
			return
		}
		if again := AppendRequest(nil, mode, name); !bytes.Equal(again, b[:len(b)-r.Len()]) {
			t.Errorf("%x is written as %x", b, again)
		}
	})
}

func FuzzReadAnswer(f *testing.F) {
	f.Add([]byte{1, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := ReadAnswer(bytes.NewReader(b), Stream); (err == nil) != bytes.HasPrefix(b, []byte{1, 0, 0}) {
			t.Errorf("%x is %v", b, err)
		}
	})
}
