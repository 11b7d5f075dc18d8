package facts

import (
	"fmt"
	"strings"

	"github.com/waybill-ml/waybill/oci/artifact"
)

// Limits of the evidence about one digest. Beyond them nothing of it is read and the document says so as a problem, which
// denies: leaving some out would let whoever can write to the registry choose what a policy sees.
const (
	MaxBundles       = artifact.MaxReferrers
	MaxEvidenceBytes = 64 << 20
)

// maxNote is the longest text of ours about something foreign, in runes; error messages quote what they are about.
const maxNote = 1024

func clip(s string, limit int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	n := 0
	for i := range s {
		if n == limit-1 {
			return s[:i] + "…"
		}
		n++
	}
	return s
}

// within checks the limits of what is attached to one digest.
func (s seam) within(raws [][]byte) error {
	if !s.on("limits") {
		return nil
	}
	if len(raws) > MaxBundles {
		return fmt.Errorf("%d bundles are attached, limit %d", len(raws), MaxBundles)
	}
	total := 0
	for _, b := range raws {
		if total += len(b); total > MaxEvidenceBytes {
			return fmt.Errorf("the attached bundles have more than %d bytes", MaxEvidenceBytes)
		}
	}
	return nil
}
