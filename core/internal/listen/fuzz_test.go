package listen

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/iotest"

	"github.com/tunneld/tunneld/internal/socks5"
)

// written is a client that has sent all that it will, and hears the answers.
type written struct {
	io.Reader
	bytes.Buffer
}

func (w *written) Read(b []byte) (int, error)  { return w.Reader.Read(b) }
func (w *written) Write(b []byte) (int, error) { return w.Buffer.Write(b) }

// fuzz checks of any input: the same is understood whole and byte by byte, no
// more is read than the bound, what a client sent behind its handshake comes out
// as it was, and whoever sent a byte is answered in full by a protocol's rules.
func fuzz(f *testing.F, bound int, cases map[string]handshakeCase, read func(io.ReadWriter) (Request, *Failure), wellFormed func(sent, answer []byte) error) {
	for _, tt := range cases {
		f.Add([]byte(tt.send[:min(len(tt.send), 4096)]))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		whole := bytes.NewReader(b)
		w := &written{Reader: whole}
		got, fail := read(w)
		slow := &written{Reader: iotest.OneByteReader(bytes.NewReader(b))}
		bytewise, slowFail := read(slow)
		if (fail == nil) != (slowFail == nil) || got.Target != bytewise.Target {
			t.Fatalf("whole: %+v, %+v; byte by byte: %+v, %+v", got, fail, bytewise, slowFail)
		}
		if taken := len(b) - whole.Len(); taken > bound {
			t.Fatalf("%d bytes were read", taken)
		}
		if fail == nil && got.Plain {
			left, err := io.ReadAll(whole)
			if err != nil {
				t.Fatal(err)
			}
			if all := append(got.Ahead, left...); !bytes.Equal(all, bytes.TrimLeft(b, "\r\n")) || !bytewise.Plain {
				t.Fatalf("%q is left, byte by byte plain: %v", all, bytewise.Plain)
			}
			return
		}
		if fail == nil {
			if got.Target.Host == "" || got.Target.Port == 0 || len(got.Target.Host) > 255 {
				t.Fatalf("target %+v", got.Target)
			}
			left, err := io.ReadAll(whole)
			if err != nil {
				t.Fatal(err)
			}
			if tail := append(got.Ahead, left...); !bytes.HasSuffix(b, tail) || len(bytewise.Ahead) != 0 {
				t.Fatalf("ahead %q and left %q are not the end of what was sent; byte by byte %q", got.Ahead, left, bytewise.Ahead)
			}
			return
		}
		if fail.Err.Error() != slowFail.Err.Error() || !bytes.Equal(fail.Answer, slowFail.Answer) {
			t.Fatalf("whole: %v, % x; byte by byte: %v, % x", fail.Err, fail.Answer, slowFail.Err, slowFail.Answer)
		}
		if len(fail.Answer) == 0 {
			if !errors.Is(fail.Err, ErrNothing) {
				t.Fatalf("no answer to %q: %v", b, fail.Err)
			}
			return
		}
		if err := wellFormed(b, append(w.Bytes(), fail.Answer...)); err != nil {
			t.Fatalf("the answer % x to %q: %v", fail.Answer, b, err)
		}
	})
}

// asks is a protocol's reader with its buffer.
func asks(buffer int, prove prover, read func(*bufio.Reader, io.Writer, prover) (Request, *Failure)) func(io.ReadWriter) (Request, *Failure) {
	return func(c io.ReadWriter) (Request, *Failure) { return read(bufio.NewReaderSize(c, buffer), c, prove) }
}

// readHTTPOnly reads as http listeners do.
func readHTTPOnly(r *bufio.Reader, _ io.Writer, prove prover) (Request, *Failure) {
	return readHTTP(r, prove, httpKind)
}

// readAll returns the error of read unless it takes all of answer.
func readAll(answer []byte, read func(*bufio.Reader) error) error {
	r := bufio.NewReader(bytes.NewReader(answer))
	if err := read(r); err != nil {
		return err
	}
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		return errors.New("there is more behind it")
	}
	return nil
}

func isResponse(r *bufio.Reader) error {
	res, err := http.ReadResponse(r, &http.Request{Method: http.MethodGet})
	if err != nil {
		return err
	}
	if res.StatusCode < 400 {
		return errors.New(res.Status)
	}
	_, err = io.Copy(io.Discard, res.Body)
	return errors.Join(err, res.Body.Close())
}

// isForeign says whether answer is one of another protocol, to a client of it.
func isForeign(sent, answer []byte) bool {
	switch sent[0] {
	case 0x04: // SOCKS4
		return len(answer) == 8 && answer[0] == 0 && answer[1] == 0x5b
	case 0x16: // TLS: an alert
		return bytes.Equal(answer, []byte{0x15, 3, 1, 0, 2, 2, 10})
	default:
		return false
	}
}

func FuzzSOCKS5Handshake(f *testing.F) {
	// The reader takes up to its buffer at a time, behind the longest messages.
	const bound = 2 + 255 + 4 + 255 + 2 + socksBuffer
	fuzz(f, bound, socks5Cases, asks(socksBuffer, nil, readSOCKS5), func(sent, answer []byte) error {
		if isForeign(sent, answer) {
			return nil
		}
		if sent[0] != socks5.Version && sent[0] >= 'A' && sent[0] <= 'Z' {
			return readAll(answer, isResponse)
		}
		return socks5Refusal(answer)
	})
}

func FuzzHTTPHandshake(f *testing.F) {
	fuzz(f, maxHeader+headPiece, httpCases, asks(headPiece, nil, readHTTPOnly), httpRefused)
}

func httpRefused(sent, answer []byte) error {
	sent = bytes.TrimLeft(sent, "\r\n")
	switch {
	case len(sent) == 0:
	case isForeign(sent, answer), sent[0] == socks5.Version && string(answer) == noMethod:
		return nil
	case bytes.HasPrefix(sent, []byte("HEAD ")):
		return nil // without a body, and http.ReadResponse must know
	}
	return readAll(answer, isResponse)
}
