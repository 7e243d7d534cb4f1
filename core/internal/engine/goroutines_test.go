package engine

import (
	"sync"
	"testing"
	"time"
)

// TestGoroutines runs more functions at once than it keeps goroutines, several times,
// and none of them waits for another.
func TestGoroutines(t *testing.T) {
	c := newGoroutines()
	for range 3 {
		var all sync.WaitGroup
		all.Add(3 * maxIdle)
		for range 3 * maxIdle {
			c.Go(func() {
				all.Done()
				all.Wait()
			})
		}
		c.Wait()
	}
	c.Close()
	if n := c.idle.Load(); n > maxIdle {
		t.Errorf("%d goroutines were kept", n)
	}
}

// TestGoroutinesWait for a function that runs on a goroutine which was kept.
func TestGoroutinesWait(t *testing.T) {
	c := newGoroutines()
	defer c.Close()
	c.Go(func() {})
	c.Wait()
	end, waited := make(chan struct{}), make(chan struct{})
	c.Go(func() { <-end })
	go func() {
		c.Wait()
		close(waited)
	}()
	select {
	case <-waited:
		t.Fatal("it did not wait")
	case <-time.After(20 * time.Millisecond):
	}
	close(end)
	<-waited
}
