package azrelayemu

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"sync"
	"time"

	"github.com/gobwas/ws"
)

// lingerTime bounds the wait for both clients to close after a clean end.
const lingerTime = 2 * time.Second

// errCut is a tunnel's end on demand.
var errCut = errors.New("cut on demand")

// tunnel is a sender and a listener that have met. After the handshakes the
// service forwards frame by frame: FIN and opcode are kept, pings and Close
// included; only the mask is taken off.
type tunnel struct {
	entity *entity
	ends   [2]*peer
	faults Faults

	mu     sync.Mutex
	closes [2]bool // a Close frame came from ends[i], or the service sent its own
	ended  bool
}

// join forwards between sender and listener until both have closed or one is
// gone.
func (s *Server) join(t *tunnel) {
	var wg sync.WaitGroup
	for i := range t.ends {
		wg.Go(func() {
			if err := t.pump(i); err != nil {
				s.log.Debug("tunnel broken", "path", t.entity.path, "from", [...]string{"sender", "listener"}[i], "err", err)
				t.abort()
			}
		})
	}
	wg.Wait()
}

// CloseTunnels sends Close with code to both ends of every tunnel through a
// hybrid connection, as the service does when something is wrong.
func (s *Server) CloseTunnels(hybridConnection string, code int, reason string) {
	var affected []*tunnel
	s.mu.Lock()
	for t := range s.tunnels {
		if t.entity.path == entityPath(hybridConnection) {
			affected = append(affected, t)
		}
	}
	s.mu.Unlock()
	for _, t := range affected {
		t.shut(ws.StatusCode(code), reason)
	}
}

// Delete removes a hybrid connection: its listeners and tunnels are closed with
// 1001, and senders find nothing.
func (s *Server) Delete(hybridConnection string) {
	s.mu.Lock()
	e := s.entities[entityPath(hybridConnection)]
	delete(s.entities, entityPath(hybridConnection))
	var listeners []*control
	if e != nil {
		listeners = append(listeners, e.listeners...)
	}
	s.mu.Unlock()
	for _, c := range listeners {
		_ = c.peer.sendClose(codeGone, "The hybrid connection was deleted")
	}
	s.CloseTunnels(hybridConnection, int(codeGone), "The hybrid connection was deleted")
}

// pump forwards from ends[from] to the other until that client is gone. What it
// sends after its Close is read, so that closing does not become a reset.
func (t *tunnel) pump(from int) error {
	src, dst := t.ends[from], t.ends[1-from]
	buf := make([]byte, bufferSize)
	state := ws.StateServerSide
	for moved := int64(0); ; {
		h, err := ws.ReadHeader(src.br)
		if err != nil {
			return t.gone(from, err)
		}
		if err := ws.CheckHeader(h, state); err != nil {
			return fmt.Errorf("bad frame: %w", err)
		}
		if !h.OpCode.IsControl() {
			state = state.Clear(ws.StateFragmented)
			if !h.Fin {
				state = state.Set(ws.StateFragmented)
			}
		}
		limit := int64(math.MaxInt64)
		if t.faults.CutAfter > 0 {
			limit = t.faults.CutAfter - moved
		}
		n, err := t.forward(src, dst, h, buf, limit)
		if moved += n; err != nil {
			return t.gone(from, err)
		}
		if h.OpCode == ws.OpClose {
			t.closed(from)
		}
		if t.faults.CloseAfter > 0 && moved >= t.faults.CloseAfter {
			t.shut(ws.StatusCode(t.faults.CloseCode), "closed on demand")
		}
	}
}

// forward passes one frame on and returns how much of its payload it moved.
func (t *tunnel) forward(src, dst *peer, h ws.Header, buf []byte, limit int64) (int64, error) {
	dst.mu.Lock()
	defer dst.mu.Unlock()
	drop := dst.closed || t.faults.DropPings && h.OpCode == ws.OpPing
	if !drop {
		dst.closed = h.OpCode == ws.OpClose
		out := h
		out.Masked = false
		if err := ws.WriteHeader(dst.bw, out); err != nil {
			return 0, fmt.Errorf("write: %w", err)
		}
	}
	moved := int64(0)
	for moved < h.Length {
		chunk := buf[:min(h.Length-moved, int64(len(buf)), max(limit-moved, 1))]
		n, err := src.br.Read(chunk)
		ws.Cipher(chunk[:n], h.Mask, int(moved%4))
		moved += int64(n)
		if err != nil {
			return moved, err
		}
		if !drop {
			if _, err := dst.bw.Write(chunk[:n]); err != nil {
				return moved, fmt.Errorf("write: %w", err)
			}
		}
		if moved >= limit {
			_ = dst.bw.Flush()
			return moved, errCut
		}
		if src.br.Buffered() == 0 && !drop {
			if err := dst.bw.Flush(); err != nil {
				return moved, fmt.Errorf("write: %w", err)
			}
		}
	}
	if src.br.Buffered() == 0 || h.OpCode == ws.OpClose {
		if err := dst.bw.Flush(); err != nil {
			return moved, fmt.Errorf("write: %w", err)
		}
	}
	return moved, nil
}

// closed notes that ends[from] has closed its direction. Once both have, the
// service closes the connections, which is the server's to do first (RFC 6455,
// 7.1.1), and waits a little for the clients to follow.
func (t *tunnel) closed(from int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closes[from] = true
	if t.ended || !t.closes[0] || !t.closes[1] {
		return
	}
	t.ended = true
	for _, p := range t.ends {
		if cw, ok := p.conn.(interface{ CloseWrite() error }); ok {
			_ = cw.CloseWrite()
		}
		if tcp, ok := p.socket.(*net.TCPConn); ok {
			_ = tcp.CloseWrite()
		}
		_ = p.conn.SetReadDeadline(time.Now().Add(lingerTime))
	}
}

// gone says what the end of ends[from]'s connection means: nothing where the
// tunnel has ended, and nothing for the other direction after its Close.
func (t *tunnel) gone(from int, err error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended || t.closes[from] && errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// shut sends the service's own Close to both ends.
func (t *tunnel) shut(code ws.StatusCode, reason string) {
	for _, p := range t.ends {
		_ = p.sendClose(code, reason)
	}
	t.closed(0)
	t.closed(1)
}

// abort ends both connections so that neither looks closed.
func (t *tunnel) abort() {
	t.mu.Lock()
	ended := t.ended
	t.ended = true
	t.mu.Unlock()
	if ended {
		return
	}
	for _, p := range t.ends {
		if t.faults.CutFIN {
			_ = p.socket.Close()
		} else {
			p.reset()
		}
	}
}
