package websocksemu

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/tunneld/tunneld/plugins/websocks/internal/wire"
)

// javaDate is how the original writes the Date header, which is not HTTP's way.
const javaDate = "Mon Jan 02 15:04:05 MST 2006"

// answer returns the bytes that a request is answered with.
func (f *Faults) answer(q request, status int, why string, at time.Time) string {
	if f.Raw != "" {
		return f.Raw
	}
	headers := []header{{"Server", "websocksemu"}, {"Date", at.UTC().Format(javaDate)}}
	var body string
	if status == http.StatusSwitchingProtocols {
		key := q.values("Sec-WebSocket-Key")[0]
		for _, h := range []header{
			{"Upgrade", "websocket"},
			{"Connection", "Upgrade"},
			{"Sec-Websocket-Accept", wire.Accept(key)},
			{"Sec-WebSocket-Protocol", wire.Subprotocol},
		} {
			for name, value := range f.Replace {
				if strings.EqualFold(name, h.name) {
					h.value = value
				}
			}
			if h.value != "" {
				headers = append(headers, h)
			}
		}
	} else {
		body = fmt.Sprintf("<html>\r\n<head><title>%d %s</title></head>\r\n<body><h1>%s</h1></body>\r\n</html>\r\n", status, http.StatusText(status), why)
		if f.Body != "" {
			body = f.Body
		}
		if status == http.StatusUnauthorized {
			headers = append(headers, header{"WWW-Authenticate", "Basic"})
		}
		headers = append(headers, header{"Content-Type", "text/html"})
		if !f.OpenBody {
			headers = append(headers, header{"Content-Length", fmt.Sprint(len(body))})
		}
	}
	var b strings.Builder
	for range f.Informational {
		b.WriteString("HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n")
	}
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", status, http.StatusText(status))
	for _, h := range headers {
		if f.LowerCase {
			h.name = strings.ToLower(h.name)
		}
		fmt.Fprintf(&b, "%s: %s\r\n", h.name, h.value)
	}
	for _, line := range f.Headers {
		b.WriteString(line + "\r\n")
	}
	return b.String() + "\r\n" + body
}
