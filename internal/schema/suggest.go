package schema

import "strings"

// Suggest returns the candidate that given was most likely meant to be, or "".
// Of equally near ones it is the first.
func Suggest(given string, candidates []string) string {
	given = strings.ToLower(given)
	best, bestDistance := "", len(given)
	for _, c := range candidates {
		limit := max(1, min(len(c), len(given))/3)
		d := distance(given, strings.ToLower(c), limit)
		if d <= limit && d < bestDistance {
			best, bestDistance = c, d
		}
	}
	if best != "" || len(given) < 3 {
		return best
	}
	for _, c := range candidates {
		if strings.HasPrefix(strings.ToLower(c), given) || len(c) >= 3 && strings.HasPrefix(given, strings.ToLower(c)) {
			return c
		}
	}
	return ""
}

// distance is the number of letters to add, drop, change or swap with their
// neighbour to turn a into b; anything above limit may be returned as limit+1.
func distance(a, b string, limit int) int {
	if len(a)-len(b) > limit || len(b)-len(a) > limit {
		return limit + 1
	}
	before, prev, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(prev[j]+1, row[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, prev, row = prev, row, before
	}
	return prev[len(b)]
}
