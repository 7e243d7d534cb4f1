package main

import (
	"math"
	"slices"
)

// ratios are those of two rows, round by round: the machine's speed drifts from one
// to the next.
func ratios(of, to []float64) (all []float64) {
	for i, v := range of {
		if i < len(to) && to[i] != 0 {
			all = append(all, v/to[i])
		}
	}
	return all
}

func median(v []float64) (float64, bool) { return quantile(v, 0.5) }

// quantile interpolates between the two values that are nearest to it.
func quantile(v []float64, q float64) (float64, bool) {
	if len(v) == 0 {
		return 0, false
	}
	s := slices.Sorted(slices.Values(v))
	at := q * float64(len(s)-1)
	below := int(at)
	if below == len(s)-1 {
		return s[below], true
	}
	return s[below] + (at-float64(below))*(s[below+1]-s[below]), true
}

// spread is half of what lies between the quartiles, as a share of the median.
func spread(v []float64) float64 {
	low, _ := quantile(v, 0.25)
	high, _ := quantile(v, 0.75)
	m, _ := median(v)
	if m == 0 {
		return 0
	}
	return math.Abs((high - low) / 2 / m)
}

// bounds returns the k-th smallest and the k-th largest of the values: the median of
// all that could have been measured is below the one by a chance of at most miss, and
// above the other as well. ok is false if there are too few values for that.
//
// Nothing is assumed of how the values are distributed: each of n lies on either side
// of that median like a coin that was thrown.
func bounds(v []float64, miss float64) (low, high float64, ok bool) {
	k := 0
	for k < len(v)/2 && tail(len(v), k) <= miss {
		k++
	}
	if k == 0 {
		return 0, 0, false
	}
	s := slices.Sorted(slices.Values(v))
	return s[k-1], s[len(s)-k], true
}

// tail is the chance that of n coins no more than k show heads.
func tail(n, k int) float64 {
	sum, term := 0.0, math.Pow(0.5, float64(n))
	for i := range k + 1 {
		sum += term
		term *= float64(n-i) / float64(i+1)
	}
	return sum
}

// fewest is how many values bounds needs for a chance.
func fewest(miss float64) int {
	n := 1
	for tail(n, 0) > miss || n < 2 {
		n++
	}
	return n
}
