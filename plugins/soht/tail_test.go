package soht

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// part is what a body brings, and when: after so long since the part before.
type part struct {
	after time.Duration
	data  string
}

// scriptedBody is a body that brings its parts at their time and then err.
type scriptedBody struct {
	parts []part
	pause time.Duration // before err
	err   error
}

func (b *scriptedBody) Read(p []byte) (int, error) {
	if len(b.parts) == 0 {
		time.Sleep(b.pause)
		return 0, b.err
	}
	first := &b.parts[0]
	time.Sleep(first.after)
	first.after = 0
	n := copy(p, first.data)
	if first.data = first.data[n:]; first.data == "" {
		b.parts = b.parts[1:]
	}
	return n, nil
}

// readTail reads a body to its end, with when each byte came.
func readTail(body io.Reader, size int) (data []byte, at []time.Duration, err error) {
	var wait sync.WaitGroup
	defer wait.Wait()
	t := newTail(body, func(f func()) bool { wait.Go(f); return true })
	start := time.Now()
	for {
		p := make([]byte, size)
		n, err := t.Read(p)
		for _, c := range p[:n] {
			data = append(data, c)
			at = append(at, time.Since(start))
		}
		if err != nil {
			return data, at, err
		}
	}
}

// The notes: "Hold back one trailing zero byte, for 20 ms at most, then deliver
// it, and drop it when the body ends cleanly behind it. … Exactly one 00 is
// dropped, at the clean end."
func TestTrailingZero(t *testing.T) {
	const ms = time.Millisecond
	broken := errors.New("connection reset")
	for _, tt := range []struct {
		name  string
		body  scriptedBody
		want  string
		last  time.Duration // when the last byte is there
		clean bool
	}{
		{"only the mark", scriptedBody{parts: []part{{0, "\x00"}}, err: io.EOF}, "", 0, true},
		{"the mark behind data", scriptedBody{parts: []part{{0, "hi\x00"}}, err: io.EOF}, "hi", 0, true},
		{"the mark by itself", scriptedBody{parts: []part{{0, "hi"}, {50 * ms, "\x00"}}, err: io.EOF}, "hi", 0, true},
		{"the end 19 ms behind the mark", scriptedBody{parts: []part{{0, "hi\x00"}}, pause: 19 * ms, err: io.EOF}, "hi", 0, true},
		{"data that ends in zero, and the mark", scriptedBody{parts: []part{{0, "hi\x00\x00"}}, err: io.EOF}, "hi\x00", 0, true},
		{"data that ends in zero, the mark apart", scriptedBody{parts: []part{{0, "hi\x00"}, {5 * ms, "\x00"}}, err: io.EOF}, "hi\x00", 5 * ms, true},
		{"zero, more within the time", scriptedBody{parts: []part{{0, "a\x00"}, {10 * ms, "b\x00"}}, err: io.EOF}, "a\x00b", 10 * ms, true},
		{"zero, nothing more for long", scriptedBody{parts: []part{{0, "a\x00"}, {time.Hour, "\x00"}}, err: io.EOF}, "a\x00", 20 * ms, true},
		{"two zeros, each waited for", scriptedBody{parts: []part{{0, "\x00"}, {time.Second, "\x00"}, {time.Second, "\x00"}}, err: io.EOF}, "\x00\x00", time.Second + 20*ms, true},
		{"no mark", scriptedBody{parts: []part{{0, "hi"}}, err: io.EOF}, "hi", 0, false},
		{"no mark, and no data", scriptedBody{err: io.EOF}, "", 0, false},
		{"no mark behind a zero that was delivered", scriptedBody{parts: []part{{0, "hi\x00"}}, pause: 21 * ms, err: io.EOF}, "hi\x00", 20 * ms, false},
		{"broken behind data", scriptedBody{parts: []part{{0, "hi"}}, err: broken}, "hi", 0, false},
		{"cut short behind a zero", scriptedBody{parts: []part{{0, "hi\x00"}}, err: io.ErrUnexpectedEOF}, "hi\x00", 0, false},
	} {
		for _, size := range []int{1, 2, 3, 4096} {
			t.Run(tt.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					body := tt.body
					body.parts = append([]part(nil), tt.body.parts...)
					data, at, err := readTail(&body, size)
					if tt.clean && err != io.EOF || !tt.clean && !errors.Is(err, ErrCut) {
						t.Errorf("ends with %v", err)
					}
					// Of a broken body the zero that was held may be missing.
					if want := tt.want; string(data) != want && (tt.clean || string(data) != want[:max(len(want)-1, 0)]) {
						t.Errorf("got %q, want %q", data, want)
					}
					if len(at) > 0 && tt.clean && at[len(at)-1] != tt.last {
						t.Errorf("the last byte came after %v, want %v", at[len(at)-1], tt.last)
					}
				})
			})
		}
	}
}

// A reader that comes late must not take the mark for data: the end may be
// there already, unread.
func TestMarkIsSeenByALateReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		var wait sync.WaitGroup
		tail := newTail(r, func(f func()) bool { wait.Go(f); return true })
		wait.Go(func() {
			_, _ = w.Write([]byte("hi\x00"))
			_ = w.Close()
		})
		p := make([]byte, 10)
		if n, err := tail.Read(p); n != 2 || err != nil {
			t.Errorf("read %d, %v", n, err)
		}
		time.Sleep(time.Hour)
		if n, err := tail.Read(p); n != 0 || err != io.EOF {
			t.Errorf("read %q, %v", p[:n], err)
		}
		wait.Wait()
	})
}

func TestTailOfZeros(t *testing.T) {
	body := make([]byte, 1<<20)
	data, _, err := readTail(bytes.NewReader(body), 64<<10)
	if err != io.EOF || len(data) != len(body)-1 {
		t.Errorf("got %d bytes and %v, want %d", len(data), err, len(body)-1)
	}
}

func FuzzTail(f *testing.F) {
	f.Add([]byte("hi\x00"), uint8(3))
	f.Add([]byte{0, 0, 0}, uint8(1))
	f.Fuzz(func(t *testing.T, body []byte, size uint8) {
		data, _, err := readTail(bytes.NewReader(body), int(size)+1)
		if marked := len(body) > 0 && body[len(body)-1] == 0; marked != (err == io.EOF) {
			t.Errorf("body %q ends with %v", body, err)
		} else if marked && !bytes.Equal(data, body[:len(body)-1]) {
			t.Errorf("body %q became %q", body, data)
		}
	})
}
