package diag

import "strings"

// Nearest returns the candidate closest to s, or "" when none is close: at most a third of its letters differ, or s is
// the beginning of exactly one candidate.
func Nearest(s string, candidates []string) string {
	best, bestD := "", len(s)
	for _, c := range candidates {
		if d := distance(s, c); d < bestD || d == bestD && best != "" && c < best {
			best, bestD = c, d
		}
	}
	if best != "" && bestD <= max(1, (len(s)+2)/3) {
		return best
	}
	hit := ""
	for _, c := range candidates {
		if len(s) >= 2 && strings.HasPrefix(c, s) {
			if hit != "" {
				return ""
			}
			hit = c
		}
	}
	return hit
}

// distance is the optimal string alignment distance: insertions, deletions, substitutions, swapped neighbours.
func distance(a, b string) int {
	prev2, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(b)]
}
