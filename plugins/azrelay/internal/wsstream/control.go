package wsstream

import (
	"time"

	"github.com/gobwas/ws"
)

// answer notes a ping for its pong. The reader does not write: a peer that
// reads only once it is read from would block both.
func (c *Conn) answer(op ws.OpCode, payload []byte) {
	if op != ws.OpPing {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
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
// for long; after both there is nothing left to keep open.
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
				_ = c.writeLocked(ws.OpPing, nil)
			}
			c.write.Unlock()
		}
	}
	c.mu.Lock()
	if !c.closed {
		c.timer.Reset(wait)
	}
	c.mu.Unlock()
}
