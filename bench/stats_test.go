package main

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestQuantiles(t *testing.T) {
	for _, c := range []struct {
		values                    []float64
		low, median, high, spread float64
	}{
		{[]float64{5}, 5, 5, 5, 0},
		{[]float64{3, 1}, 1.5, 2, 2.5, 0.25},
		{[]float64{4, 1, 3, 2, 5}, 2, 3, 4, 1. / 3},
		{[]float64{40, 10, 30, 20}, 17.5, 25, 32.5, 0.3},
		{[]float64{0, 0, 0}, 0, 0, 0, 0},
	} {
		for q, want := range map[float64]float64{0.25: c.low, 0.5: c.median, 0.75: c.high} {
			if got, ok := quantile(c.values, q); !ok || got != want {
				t.Errorf("quantile %v of %v is %v, %t; want %v", q, c.values, got, ok, want)
			}
		}
		if got := spread(c.values); math.Abs(got-c.spread) > 1e-12 {
			t.Errorf("spread of %v is %v, want %v", c.values, got, c.spread)
		}
	}
	if _, ok := median(nil); ok {
		t.Error("nothing has a median")
	}
}

func TestRatiosAreOfTheSameRound(t *testing.T) {
	got := ratios([]float64{2, 30, 1, 7}, []float64{1, 10, 0})
	if len(got) != 2 || got[0] != 2 || got[1] != 3 {
		t.Errorf("%v", got)
	}
}

// TestBounds has the ranks of published tables of the median's 95 % interval.
func TestBounds(t *testing.T) {
	for _, c := range []struct{ n, low int }{{5, 0}, {6, 1}, {8, 1}, {9, 2}, {10, 2}, {12, 3}, {20, 6}, {25, 8}, {50, 18}} {
		v := make([]float64, c.n)
		for i := range v {
			v[i] = float64((i*7)%c.n + 1) // 1 to n, out of order, unless 7 divides n
		}
		low, high, ok := bounds(v, missEach)
		if ok != (c.low > 0) || ok && (low != float64(c.low) || high != float64(c.n+1-c.low)) {
			t.Errorf("of %d values: %v to %v, %t; want %d to %d", c.n, low, high, ok, c.low, c.n+1-c.low)
		}
	}
	if got := fewest(missEach); got != 6 {
		t.Errorf("an interval of 95 %% takes %d values, want 6", got)
	}
	if got := fewest(missAll / 18); got != 9 {
		t.Errorf("18 values take %d rounds, want 9", got)
	}
}

// TestBoundsHoldTheMedian draws from a lopsided distribution whose median is 1, with
// values far out: no more intervals miss it than may.
func TestBoundsHoldTheMedian(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	const tries = 20000
	for _, n := range []int{6, 12, 25} {
		below, above := 0, 0
		for range tries {
			v := make([]float64, n)
			for i := range v {
				v[i] = math.Exp(rnd.NormFloat64())
				if v[i] > 2 {
					v[i] *= 100
				}
			}
			low, high, _ := bounds(v, missEach)
			if high < 1 {
				below++
			}
			if low > 1 {
				above++
			}
		}
		// Of a chance of 2.5 % the standard deviation is 22 of 20,000.
		if most := int(tries*missEach) + 4*22; below > most || above > most {
			t.Errorf("of %d values: %d intervals below the median and %d above, of %d", n, below, above, tries)
		}
	}
}
