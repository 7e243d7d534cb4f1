package logqueue

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// reader is a writer whose reader stalls: a write waits for a turn while it does.
type reader struct {
	turns chan struct{} // closed: no stall
	mu    sync.Mutex
	text  bytes.Buffer
	fails error
}

func (r *reader) Write(b []byte) (int, error) {
	<-r.turns
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fails != nil {
		return 0, r.fails
	}
	return r.text.Write(b)
}

func (r *reader) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fails = err
}

func (r *reader) lines() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Split(strings.TrimSuffix(r.text.String(), "\n"), "\n")
}

func line(t *testing.T, q *Queue, text string) {
	t.Helper()
	if n, err := q.Write([]byte(text + "\n")); n != len(text)+1 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
}

// TestOrder: every line of every goroutine is there, whole, in its order.
func TestOrder(t *testing.T) {
	r := &reader{turns: make(chan struct{})}
	close(r.turns)
	q := New(r, nil)
	var writers sync.WaitGroup
	const each = 2000
	for w := range 4 {
		writers.Go(func() {
			for i := range each {
				line(t, q, fmt.Sprintf("%d %d %s", w, i, strings.Repeat("x", i%100)))
			}
		})
	}
	writers.Wait()
	q.Flush()
	var next [4]int
	for _, l := range r.lines() {
		var w, i int
		if _, err := fmt.Sscanf(l, "%d %d", &w, &i); err != nil {
			t.Fatalf("%q: %v", l, err)
		}
		if i != next[w] || !strings.HasSuffix(l, " "+strings.Repeat("x", i%100)) {
			t.Fatalf("%q; want line %d of it", l, next[w])
		}
		next[w]++
	}
	if next != [4]int{each, each, each, each} || q.Dropped() != 0 {
		t.Errorf("%d lines, %d dropped", next, q.Dropped())
	}
}

// TestStall: nobody waits for a writer that stalls, and what it holds up is
// bounded. What is dropped is counted, and reported once when it goes on.
func TestStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{turns: make(chan struct{})}
		var q *Queue
		q = New(r, func(n uint64) { line(t, q, fmt.Sprint("dropped ", n)) })
		text := strings.Repeat("x", 1023)
		line(t, q, "first")
		synctest.Wait() // in the write of it
		for range maxPending / (len(text) + 1) {
			line(t, q, text)
		}
		if n := q.Dropped(); n != 0 {
			t.Fatalf("%d were dropped while there was room", n)
		}
		for range 100 {
			line(t, q, text)
		}
		if n := q.Dropped(); n != 100 {
			t.Errorf("%d were dropped of 100", n)
		}
		if n := len(q.pending); n > maxPending {
			t.Errorf("%d bytes wait", n)
		}
		start := time.Now()
		q.Flush()
		if took := time.Since(start); took != stallTime {
			t.Errorf("the flush took %s", took)
		}
		q.Flush()
		if took := time.Since(start); took != stallTime {
			t.Errorf("the second flush waited, too: %s", took)
		}
		close(r.turns)
		synctest.Wait()
		line(t, q, "last")
		synctest.Wait()
		lines := r.lines()
		if n := len(lines); n != maxPending/(len(text)+1)+3 || lines[n-2] != "dropped 100" || lines[n-1] != "last" {
			t.Errorf("%d lines that end with %.20q", n, lines[n-2:])
		}
	})
}

// slow is a writer that does not quite stall.
type slow struct{}

func (slow) Write(b []byte) (int, error) {
	time.Sleep(stallTime / 2)
	return len(b), nil
}

// TestSlowWriter holds a flush up for no longer than flushTime.
func TestSlowWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(slow{}, nil)
		long := strings.Repeat("x", maxChunk) // each is a write
		for range 100 {
			line(t, q, long)
		}
		written := q.idle
		start := time.Now()
		q.Flush()
		if took := time.Since(start); took != flushTime {
			t.Errorf("the flush took %s", took)
		}
		<-written
	})
}

// TestFailure: what a writer does not take is lost and counted; a report waits
// until it takes lines again.
func TestFailure(t *testing.T) {
	r := &reader{turns: make(chan struct{})}
	close(r.turns)
	var q *Queue
	q = New(r, func(n uint64) { line(t, q, fmt.Sprint("dropped ", n)) })
	r.fail(errors.New("no space left on device"))
	for range 3 {
		line(t, q, "lost")
		q.Flush()
	}
	if n := q.Dropped(); n != 3 {
		t.Errorf("%d were dropped", n)
	}
	r.fail(nil)
	line(t, q, "back")
	q.Flush()
	if got := r.lines(); len(got) != 2 || got[0] != "back" || got[1] != "dropped 3" {
		t.Errorf("%q", got)
	}
}

// TestChunks are whole lines, which a pipe takes at once.
func TestChunks(t *testing.T) {
	r, w := io.Pipe()
	q := New(w, nil)
	long := strings.Repeat("y", 3*maxChunk)
	line(t, q, "first") // is being written while the others come
	var want strings.Builder
	for i := range 300 {
		line(t, q, strings.Repeat("x", i))
		want.WriteString(strings.Repeat("x", i) + "\n")
	}
	line(t, q, long)
	want.WriteString(long + "\n")
	var got strings.Builder
	b := make([]byte, 4*maxChunk)
	for got.Len() < len("first\n")+want.Len() {
		n, err := r.Read(b) // one write
		if err != nil {
			t.Fatal(err)
		}
		if b[n-1] != '\n' || n > maxChunk && bytes.Count(b[:n], []byte("\n")) != 1 {
			t.Errorf("a write of %d bytes that ends with %q", n, b[n-1])
		}
		got.Write(b[:n])
	}
	if got.String() != "first\n"+want.String() {
		t.Error("the lines are others")
	}
	q.Flush()
}
