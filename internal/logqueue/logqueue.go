// Package logqueue decouples a log's writers from its reader: lines wait in a queue, and
// those that do not fit are dropped and counted.
package logqueue

import (
	"bytes"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxPending bounds the lines that wait, in bytes. As much again may be on its
	// way: what is being written was taken out of the queue at once.
	maxPending = 16 << 20
	// maxKept bounds the buffer that an idle queue keeps, in bytes.
	maxKept = 64 << 10
	// maxChunk bounds what is written at once, in bytes, but for a longer line: a
	// pipe takes that much whole (PIPE_BUF, pipe(7)), so that the lines of several
	// writers do not get mixed.
	maxChunk = 4 << 10
	// stallTime is how long one write may take before Flush gives up.
	stallTime = 2 * time.Second
	// flushTime bounds Flush, where the writer is slow and does not stall.
	flushTime = 5 * time.Second
)

// Queue is an io.Writer of lines before another one. It is safe for concurrent
// use. Its one goroutine lives while there is something to write.
type Queue struct {
	w      io.Writer
	report func(lines uint64)

	dropped atomic.Uint64
	began   atomic.Int64 // when the write under way began, since epoch

	mu      sync.Mutex
	pending []byte
	lost    uint64        // lines that were dropped and not reported
	idle    chan struct{} // closed once nothing is left to write; nil: nothing is
}

// epoch is what times are measured from, by the monotonic clock.
var epoch = time.Now()

// New returns a queue before w, which is given whole lines, by one goroutine at a
// time. Once w takes lines again after some were dropped, report is called with how
// many; it may write to the queue. It may be nil.
func New(w io.Writer, report func(lines uint64)) *Queue {
	if report == nil {
		report = func(uint64) {}
	}
	return &Queue{w: w, report: report}
}

// Write takes a line, with its line feed. It never waits and never fails.
func (q *Queue) Write(line []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.pending)+len(line) > maxPending {
		q.drop(line)
		return len(line), nil
	}
	q.pending = append(q.pending, line...)
	if q.idle == nil {
		q.idle = make(chan struct{})
		q.began.Store(int64(time.Since(epoch)))
		go q.drain(q.idle)
	}
	return len(line), nil
}

// drop counts lines that are lost. It is called with mu held.
func (q *Queue) drop(lines []byte) {
	n := uint64(bytes.Count(lines, []byte("\n")))
	q.lost += n
	q.dropped.Add(n)
}

// Dropped counts the lines that were lost: there was no room for them, or the
// writer failed.
func (q *Queue) Dropped() uint64 { return q.dropped.Load() }

// drain writes until nothing is left.
func (q *Queue) drain(idle chan struct{}) {
	defer close(idle)
	var batch []byte
	taken := false // whether the last write succeeded
	for {
		q.mu.Lock()
		if cap(batch) > maxKept {
			batch = nil
		}
		batch, q.pending = q.pending, batch[:0]
		var lost uint64
		if taken {
			lost, q.lost = q.lost, 0
		}
		if len(batch) == 0 && lost == 0 {
			q.idle = nil
			q.mu.Unlock()
			return
		}
		q.mu.Unlock()
		if lost > 0 {
			// The queue is empty: the report stands where the lines are missing.
			q.report(lost)
		}
		if len(batch) > 0 {
			taken = q.write(batch)
		}
	}
}

// write writes lines, and says whether the last of them got through.
func (q *Queue) write(lines []byte) (taken bool) {
	for len(lines) > 0 {
		n := chunk(lines)
		q.began.Store(int64(time.Since(epoch)))
		_, err := q.w.Write(lines[:n])
		if taken = err == nil; !taken {
			q.mu.Lock()
			q.drop(lines[:n])
			q.mu.Unlock()
		}
		lines = lines[n:]
	}
	return taken
}

// chunk is the length of what is written next: whole lines.
func chunk(lines []byte) int {
	if len(lines) <= maxChunk {
		return len(lines)
	}
	if n := bytes.LastIndexByte(lines[:maxChunk], '\n') + 1; n > 0 {
		return n
	}
	if n := bytes.IndexByte(lines, '\n') + 1; n > 0 {
		return n
	}
	return len(lines)
}

// Flush waits until all lines are written, but not for a writer that stalls: one
// that has been in a write for two seconds. It never waits for more than five.
func (q *Queue) Flush() {
	over := time.NewTimer(flushTime)
	defer over.Stop()
	for {
		q.mu.Lock()
		idle := q.idle
		q.mu.Unlock()
		left := stallTime - (time.Since(epoch) - time.Duration(q.began.Load()))
		if idle == nil || left <= 0 {
			return
		}
		stalled := time.NewTimer(left)
		select {
		case <-idle: // there may be more by now
		case <-stalled.C:
		case <-over.C:
			stalled.Stop()
			return
		}
		stalled.Stop()
	}
}
