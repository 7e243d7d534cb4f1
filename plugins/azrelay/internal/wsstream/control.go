package wsstream

import (
	"fmt"
	"time"

	"github.com/gobwas/ws"
)

// NoAnswerError says for how long a ping was not answered.
type NoAnswerError time.Duration

func (e NoAnswerError) Error() string {
	return fmt.Sprintf("no answer to a ping for %s: the line, or the far end, is dead", time.Duration(e))
}

const (
	// notWaiting is no time.
	notWaiting = -1
	// maxOwed is how much a peer may have yet to take while its silence still
	// tells something, in bytes. More than that may fill the buffers up to a target
	// that is slow to read: then the peer reads no pings, and is alive.
	maxOwed = 64 << 10
)

// answer notes a ping for its pong, and the answer to one. The reader does not
// write: a peer that reads only once it is read from would block both.
func (c *Conn) answer(op ws.OpCode, payload []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if op == ws.OpPong && c.pinged > 0 {
		c.pinged, c.taken = 0, c.mark
	}
	if op != ws.OpPing || c.closed {
		return
	}
	c.pong = payload
	if !c.ponging {
		c.ponging = true
		c.controls.Go(c.sendPongs)
	}
}

// sendPongs answers the newest ping until there is none; older ones need no
// answer (RFC 6455, 5.5.3). An error is the reader's and the writer's to find.
func (c *Conn) sendPongs() {
	for {
		c.mu.Lock()
		payload := c.pong
		c.pong = nil
		if payload == nil || c.closed {
			c.ponging = false
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		_ = c.writeFrame(ws.OpPong, payload)
	}
}

// tick pings where a direction was silent for the interval, and waits anew.
// After a Close of its own it pings on, since the other direction may be silent
// for long; after both there is nothing left to keep open. A ping that was not
// answered in time ends the stream.
func (c *Conn) tick() {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	c.controls.Add(1)
	c.mu.Unlock()
	defer c.controls.Done()

	now := time.Since(c.start)
	wait := c.ping - (now - time.Duration(min(c.lastRead.Load(), c.lastSent.Load())))
	if wait <= 0 {
		wait = c.ping
		// A frame that is being written is traffic enough.
		if c.write.TryLock() {
			if !c.sentClose || !c.gotClose.Load() {
				c.pinging(now)
				_ = c.writeLocked(ws.OpPing, nil)
			}
			c.write.Unlock()
		}
	}
	if c.timeout > 0 {
		left := c.patience(now)
		if left <= 0 {
			c.lost.Store(true)
			c.cut()
			return
		}
		wait = min(wait, left)
	}
	c.mu.Lock()
	if !c.closed {
		c.timer.Reset(wait)
	}
	c.mu.Unlock()
}

// pinging notes a ping that goes out now, unless one is unanswered already. It is
// called with write held.
func (c *Conn) pinging(now time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pinged == 0 {
		c.pinged, c.mark = now, c.sent
	}
}

// patience is how long the ping under way may still stay unanswered. It begins
// anew with each byte either way, and does not pass while the silence tells
// nothing: nobody reads here, what was written does not leave, the peer may be
// busy with a slow target, or one of the two has closed its direction, after
// which peers answer no more.
func (c *Conn) patience(now time.Duration) time.Duration {
	c.mu.Lock()
	pinged, taken := c.pinged, c.taken
	c.mu.Unlock()
	waiting := time.Duration(c.waiting.Load())
	if pinged == 0 || waiting == notWaiting || c.gotClose.Load() || !c.write.TryLock() {
		return c.timeout
	}
	defer c.write.Unlock()
	if c.sentClose || c.sent-taken > maxOwed {
		return c.timeout
	}
	return c.timeout - (now - max(pinged, waiting, c.lastData))
}
