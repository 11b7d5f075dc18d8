package evidence_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
)

// TestSortVerdicts names each verdict time:name:prev:result, oldest first as wanted, and sorts random orders of them.
func TestSortVerdicts(t *testing.T) {
	cases := map[string][]string{
		"by time":                       {"1:c::FAILED", "2:b:c:PASSED", "3:a:b:FAILED"},
		"chain within one second":       {"1:c::FAILED", "1:b:c:FAILED", "1:d:b:PASSED", "1:a:d:FAILED"},
		"a denial of two at once":       {"1:c::PASSED", "1:b:c:PASSED", "1:a:c:FAILED"},
		"a denial beside a longer road": {"1:c::PASSED", "1:b:c:PASSED", "1:e:b:PASSED", "1:a::FAILED"},
		"two passes at once":            {"1:a::PASSED", "1:b::PASSED"},
		"prev of another second":        {"1:z::FAILED", "2:b:z:PASSED", "2:a:q:FAILED"},
	}
	for name, want := range cases {
		t.Run(name, func(t *testing.T) {
			var vs []evidence.Verdict
			for _, w := range want {
				f := strings.Split(w, ":")
				v := &evidence.VSA{VerificationResult: f[3]}
				if f[2] != "" {
					v.Waybill.Prev = artifact.DigestOf([]byte(f[2]))
				}
				var sec int
				if _, err := fmt.Sscan(f[0], &sec); err != nil {
					t.Fatal(err)
				}
				v.TimeVerified = time.Unix(int64(sec), 0)
				vs = append(vs, evidence.Verdict{Bundle: artifact.DigestOf([]byte(f[1])), VSA: v})
			}
			// The order by digest is not the order of the names.
			if name == "two passes at once" && vs[0].Bundle > vs[1].Bundle {
				vs[0], vs[1] = vs[1], vs[0]
			}
			got := append([]evidence.Verdict{}, vs...)
			for range 50 {
				rand.Shuffle(len(got), func(i, j int) { got[i], got[j] = got[j], got[i] })
				evidence.SortVerdicts(got)
				for i := range vs {
					if got[i].Bundle != vs[i].Bundle {
						t.Fatalf("place %d: another verdict than %s", i, want[i])
					}
				}
			}
		})
	}
}
