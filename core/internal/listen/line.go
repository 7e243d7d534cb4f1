package listen

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/tunneld/tunneld/core/internal/tunnel"
	pluginv1 "github.com/tunneld/tunneld/proto/tunneld/plugin/v1"
)

var lineKind = Kind{
	Name:    "line",
	Summary: "a line `host:port`, answered by a line: `ok`, or why not",
	Attributes: []*pluginv1.Attribute{
		{Name: "greeting", Type: &pluginv1.Type{Kind: pluginv1.Kind_KIND_STRING}, DefaultJson: `""`},
	},
	New: func(s Settings) Protocol {
		greeting, _ := s.Values["greeting"].(string)
		return lineProtocol{greeting}
	},
}

// maxLine bounds the line of a client.
const maxLine = 512

type lineProtocol struct{ greeting string }

func (lineProtocol) Asks() bool { return true }

func (p lineProtocol) Learn(ctx context.Context, c *Conn) (Request, *Failure) {
	return hear(ctx, p, c, p.read)
}

func (p lineProtocol) read(c io.ReadWriter) (Request, *Failure) {
	if _, err := io.WriteString(c, p.greeting); err != nil {
		return Request{}, &Failure{Err: err}
	}
	r := bufio.NewReaderSize(c, maxLine)
	line, err := r.ReadSlice('\n')
	if err != nil {
		return Request{}, &Failure{Err: err, Answer: []byte("no line\n")}
	}
	host, port, err := splitTarget(strings.TrimRight(string(line), "\r\n"))
	if err != nil {
		return Request{}, &Failure{Err: err, Answer: []byte("no host:port\n")}
	}
	return ask(host, port, buffered(r), replies{ready: []byte("ok\n"), refusal: lineRefusal}), nil
}

func (lineProtocol) Refuse(ctx context.Context, c *Conn, err *tunnel.DialError) {
	c.CloseWith(ctx, lineRefusal(err))
}

func lineRefusal(err *tunnel.DialError) []byte {
	return fmt.Appendf(nil, "%s: %q\n", err.Reason.Text(), err.Message)
}
