package listen

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
)

// wholeHead is what readHead does, of a request that is there as a whole.
func wholeHead(b []byte) (req requestLine, ahead []byte, err error) {
	rest := bytes.TrimLeft(b, "\r\n")
	if len(rest) > 0 && (rest[0] < 'A' || rest[0] > 'Z') && len(b)-len(rest) < maxHeader {
		return req, nil, wrongFirstByte(rest[0])
	}
	end := 0 // of the head
	for line := range strings.Lines(string(rest)) {
		end += len(line)
		if line == "\n" || line == "\r\n" {
			break
		}
	}
	head := string(rest[:end])
	switch complete := strings.HasSuffix(head, "\n\n") || strings.HasSuffix(head, "\n\r\n"); {
	case len(b)-len(rest)+end > maxHeader, !complete && len(b) >= maxHeader:
		return req, nil, errHeaderTooLarge
	case !complete && len(b) == 0:
		return req, nil, io.EOF
	case !complete:
		return req, nil, io.ErrUnexpectedEOF
	}
	first, fields, _ := strings.Cut(head, "\n")
	parts := strings.Split(strings.TrimSuffix(first, "\r"), " ")
	if len(parts) != 3 || !isToken(parts[0]) || parts[1] == "" || !isVersion(parts[2]) {
		return req, nil, errNotHTTP
	}
	req = requestLine{parts[0], parts[1], parts[2]}
	for line := range strings.Lines(fields) {
		line = strings.TrimRight(line, "\r\n")
		if name, _, found := strings.Cut(line, ":"); line != "" && (!found || !isToken(name)) {
			return req, rest[end:], errNotHTTP
		}
	}
	return req, rest[end:], nil
}

// FuzzHead compares the head that is read in pieces with one that is looked at as
// a whole.
func FuzzHead(f *testing.F) {
	for _, tt := range httpCases {
		f.Add([]byte(tt.send[:min(len(tt.send), 4096)]), uint16(0))
	}
	long := "CONNECT " + strings.Repeat("a b", 400) + " HTTP/1.1\r\nX: y\r\n\r\n"
	f.Add([]byte(long), uint16(3))
	f.Add([]byte(strings.ReplaceAll(long, "a b", "abc")), uint16(3))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\r\n:x\r\n\r\nahead"), uint16(0))
	f.Add([]byte("GET / HTTP/1.1\r\nX:\r\n\r\n"), uint16(65000))
	f.Fuzz(func(t *testing.T, b []byte, padding uint16) {
		b = append(bytes.Repeat([]byte("\n"), int(padding)), b...)
		want, wantAhead, wantErr := wholeHead(b)
		for _, r := range []io.Reader{bytes.NewReader(b), iotest.OneByteReader(bytes.NewReader(b)), iotest.DataErrReader(bytes.NewReader(b))} {
			r := bufio.NewReaderSize(r, headPiece)
			got, err := readHead(r)
			if !errors.Is(err, wantErr) && !(errors.Is(wantErr, errNotHTTP) && errors.Is(err, errNotHTTP)) {
				t.Fatalf("error %v, want %v", err, wantErr)
			}
			if err != nil {
				continue
			}
			// Of a target that no host and port has, the beginning is enough.
			if got.method != want.method || got.version != want.version ||
				got.target != want.target && (len(want.target) < 512 || !strings.HasPrefix(want.target, got.target[:512])) {
				t.Fatalf("got %+v, want %+v", got, want)
			}
			ahead, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(ahead, wantAhead) {
				t.Fatalf("ahead %q, %v; want %q", ahead, err, wantAhead)
			}
		}
	})
}

// TestHeadHoldsLittle: whatever a client has sent of a head, few of its bytes are
// held.
func TestHeadHoldsLittle(t *testing.T) {
	const (
		clients = 300
		sent    = 60_000
		most    = 12 << 10 // of each, its goroutine and the test's pipe included
	)
	heads := map[string]string{
		"many fields": "CONNECT db:80 HTTP/1.1\r\n" + strings.Repeat("X: 0123456789abcdef\r\n", sent/20),
		"one field":   "CONNECT db:80 HTTP/1.1\r\nX: " + strings.Repeat("x", sent),
		"one name":    "CONNECT db:80 HTTP/1.1\r\n" + strings.Repeat("x", sent),
		"first line":  "CONNECT " + strings.Repeat("x", sent),
		"credentials": "CONNECT db:80 HTTP/1.1\r\nProxy-Authorization: Basic " + strings.Repeat("x", sent),
		"empty lines": strings.Repeat("\r\n", sent/2),
	}
	for name, head := range heads {
		t.Run(name, func(t *testing.T) {
			before := inUse()
			var readers sync.WaitGroup
			var pipes []*io.PipeWriter
			for range clients {
				r, w := io.Pipe()
				pipes = append(pipes, w)
				readers.Go(func() {
					if _, fail := readHTTP(bufio.NewReaderSize(r, headPiece), nil, httpKind); fail == nil {
						t.Error("half a head was taken for a whole one")
					}
				})
				// It returns once all is read.
				if _, err := io.WriteString(w, head[:sent]); err != nil {
					t.Fatal(err)
				}
			}
			if held := (inUse() - before) / clients; held > most {
				t.Errorf("%d bytes are held of each head", held)
			}
			for _, w := range pipes {
				w.CloseWithError(fmt.Errorf("the client is gone"))
			}
			readers.Wait()
		})
	}
}

// inUse is the memory that is in use, after a collection.
func inUse() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}
