package evidence

import (
	"cmp"
	"slices"

	"github.com/waybill-ml/waybill/oci/artifact"
)

// Verdict is a verified VSA with the digest of its bundle.
type Verdict struct {
	Bundle artifact.Digest
	VSA    *VSA
}

// SortVerdicts sorts the verdicts on one digest for one environment from the oldest to the newest, in place.
//
// The time of a verdict has whole seconds, so within one second the chain decides: a verdict that another one of that
// second names as Prev comes before it. Of several that nobody follows, as two gates at once leave them, a denial counts
// as the newer one: it withdraws the pass. What is left is ordered by digest, so that every reader agrees.
func SortVerdicts(vs []Verdict) {
	at := make(map[artifact.Digest]*VSA, len(vs))
	for _, v := range vs {
		at[v.Bundle] = v.VSA
	}
	followed := make(map[artifact.Digest]bool, len(vs))
	depth := make(map[artifact.Digest]int, len(vs))
	for _, v := range vs {
		before := func(x *VSA) *VSA { // the verdict before x, if it is of the same second
			if p := at[x.Waybill.Prev]; p != nil && p.TimeVerified.Equal(x.TimeVerified) {
				return p
			}
			return nil
		}
		p := before(v.VSA)
		if p != nil {
			followed[v.VSA.Waybill.Prev] = true
		}
		for ; p != nil && depth[v.Bundle] < len(vs); p = before(p) {
			depth[v.Bundle]++
		}
	}
	rank := func(v Verdict) int {
		switch {
		case followed[v.Bundle]:
			return 0
		case v.VSA.VerificationResult == Passed:
			return 1
		}
		return 2
	}
	slices.SortFunc(vs, func(a, b Verdict) int {
		return cmp.Or(a.VSA.TimeVerified.Compare(b.VSA.TimeVerified), cmp.Compare(rank(a), rank(b)),
			cmp.Compare(depth[a.Bundle], depth[b.Bundle]), cmp.Compare(a.Bundle, b.Bundle))
	})
}
