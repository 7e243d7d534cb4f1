package engine

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(line []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(line)
}

// lines returns what was written since the last call.
func (b *lockedBuffer) lines() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.text.Reset()
	return b.text.String()
}

// withoutTime logs to b, a line each.
func withoutTime(b *lockedBuffer) *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

func TestRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b lockedBuffer
		r := newRepeats(withoutTime(&b))
		fail := func(n int, level slog.Level, listener, reason string) {
			for range n {
				r.write(level, repeatKey{message: "failed", listener: listener, reason: reason}, func() []any { return []any{"listener", listener, "reason", reason} })
			}
		}
		const first = "level=WARN msg=failed listener=tcp.a reason=refused\n"
		fail(25, slog.LevelWarn, "tcp.a", "refused")
		if got := b.lines(); got != strings.Repeat(first, repeatsLogged) {
			t.Errorf("%s", got)
		}
		// Others are no repeats of it, nor what nobody would see.
		fail(1, slog.LevelWarn, "tcp.a", "timeout")
		fail(1, slog.LevelWarn, "tcp.b", "refused")
		fail(100, slog.LevelDebug, "tcp.b", "refused")
		fail(repeatsLogged-1, slog.LevelWarn, "tcp.b", "refused")
		if got := strings.Count(b.lines(), "\n"); got != 1+repeatsLogged {
			t.Errorf("%d lines of others", got)
		}
		time.Sleep(repeatsFor - time.Second)
		synctest.Wait()
		if got := b.lines(); got != "" {
			t.Errorf("before the end of the time: %s", got)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		const count = `level=WARN msg="more lines like these were left out" like=failed listener=tcp.a reason=refused lines=15 within=1m0s` + "\n"
		if got := b.lines(); got != count {
			t.Errorf("%s", got)
		}
		if n := len(r.lines); n > 0 {
			t.Errorf("%d are remembered", n)
		}
		// And anew. The end of the engine does not wait for that of the time.
		fail(25, slog.LevelWarn, "tcp.a", "refused")
		r.close()
		if got := b.lines(); got != strings.Repeat(first, repeatsLogged)+count {
			t.Errorf("%s", got)
		}
	})
}
