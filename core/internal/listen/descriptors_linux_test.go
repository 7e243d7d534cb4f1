package listen

import (
	"context"
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"

	"github.com/tunneld/tunneld/internal/bare"
)

// TestHandshakeWithTheLastDescriptor: where accepting a client has taken it, the
// client is told in its own protocol.
func TestHandshakeWithTheLastDescriptor(t *testing.T) {
	tests := map[string]struct{ send, answer string }{
		KindSOCKS5: {"\x05\x01\x00\x05\x01\x00\x03\x02db\x00\x50", greeted + generalFailure},
		KindHTTP:   {"CONNECT db:80 HTTP/1.1\r\n\r\n", "HTTP/1.1 503 Service Unavailable"},
	}
	for kind, tt := range tests {
		t.Run(kind, func(t *testing.T) {
			s, err := Bind(context.Background(), "127.0.0.1:0", Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			c := dial(t, s.Addr())
			send(t, c, tt.send, thenEOF)
			done := make(chan outcome, 1)
			defer leaveDescriptors(t, 1)()
			s.Serve(quiet(), func(raw *bare.Socket, _ bare.Peer) {
				client, err := Handshake(t.Context(), speaking(t, kind), NewConn(raw), HandshakeOptions{Timeout: patience})
				done <- outcome{client, err}
			}, func() {})
			got, err := io.ReadAll(c)
			checkAnswer(t, got, err, tt.answer)
			const hint = "no file descriptors are left"
			if kind == KindHTTP && !strings.Contains(string(got), hint) {
				t.Errorf("answer %q", got)
			}
			if o := await(t, done); !errors.Is(o.err, syscall.EMFILE) || !strings.Contains(Hint(o.err), hint) {
				t.Errorf("error %v, hint %q", o.err, Hint(o.err))
			}
		})
	}
}
