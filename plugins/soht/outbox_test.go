package soht

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestTakeWaitsForMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, done := newOutbox(10), make(chan struct{})
		go func() {
			time.Sleep(time.Second)
			o.write([]byte("ab"), done)
			time.Sleep(lingerTime / 2)
			o.write([]byte("cd"), done)
		}()
		start := time.Now()
		data, last := o.take(lingerTime, done)
		if string(data) != "abcd" || last {
			t.Errorf("took %q, %v", data, last)
		}
		if waited := time.Since(start) - time.Second; waited > time.Millisecond {
			t.Errorf("coalescing added %v", waited)
		}
		synctest.Wait()
	})
}

func TestTakeDoesNotWaitWhenFullOrEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, done := newOutbox(4), make(chan struct{})
		go func() {
			time.Sleep(time.Second)
			o.write([]byte("abcdef"), done)
			o.end()
		}()
		start := time.Now()
		if data, last := o.take(time.Hour, done); string(data) != "abcd" || last {
			t.Errorf("took %q, %v", data, last)
		}
		synctest.Wait()
		if data, last := o.take(time.Hour, done); string(data) != "ef" || !last {
			t.Errorf("took %q, %v", data, last)
		}
		if time.Since(start) != time.Second {
			t.Errorf("took %v", time.Since(start))
		}
	})
}

func TestTakeOfWhatWaitsIsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, done := newOutbox(10), make(chan struct{})
		o.write([]byte("ab"), done)
		start := time.Now()
		if data, _ := o.take(time.Hour, done); string(data) != "ab" || time.Since(start) != 0 {
			t.Errorf("took %q after %v", data, time.Since(start))
		}
	})
}

func TestTakeGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, done := newOutbox(10), make(chan struct{})
		time.AfterFunc(time.Second, func() { close(done) })
		if data, last := o.take(lingerTime, done); len(data) > 0 || last {
			t.Errorf("took %q, %v", data, last)
		}
	})
}

func TestWriteWaitsForRoomAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, done := newOutbox(4), make(chan struct{})
		time.AfterFunc(time.Second, func() { o.take(0, done) })
		time.AfterFunc(time.Minute, func() { close(done) })
		start := time.Now()
		if n := o.write([]byte("abcdefghij"), done); n != 8 || time.Since(start) != time.Minute {
			t.Errorf("wrote %d in %v", n, time.Since(start))
		}
	})
}

// The notes: "a full reply means that more is waiting, so poll again at once,
// and back off only while nothing comes."
func TestPauses(t *testing.T) {
	for _, tt := range []struct {
		name        string
		last        time.Duration
		full, woken bool
		got         int
		want        time.Duration
	}{
		{"a full reply", maxPause, false, false, maxReply, 0},
		{"a reply", maxPause, false, false, 1, minPause},
		{"a reply in bulk", 0, true, false, 1, bulkPause},
		{"a write", maxPause, false, true, 0, minPause},
		{"nothing, after a full reply", 0, true, false, 0, minPause},
		{"nothing, after a reply in bulk", bulkPause, false, false, 0, minPause},
		{"nothing", minPause, false, false, 0, 2 * minPause},
		{"nothing for long", maxPause, false, false, 0, maxPause},
		{"nothing for rather long", maxPause - 1, false, false, 0, maxPause},
	} {
		if got := nextPause(tt.last, tt.full, tt.woken, tt.got); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
