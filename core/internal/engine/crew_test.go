package engine

import (
	"sync"
	"testing"
	"time"
)

// TestCrew runs more functions at once than it keeps goroutines, several times,
// and none of them waits for another.
func TestCrew(t *testing.T) {
	c := newCrew()
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
	c.Dismiss()
	if n := c.idle.Load(); n > maxIdle {
		t.Errorf("%d goroutines were kept", n)
	}
}

// TestCrewWaits for a function that runs on a goroutine which was kept.
func TestCrewWaits(t *testing.T) {
	c := newCrew()
	defer c.Dismiss()
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
