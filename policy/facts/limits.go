package facts

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

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
	if utf8.RuneCountInString(s) <= limit {
		return s
	}
	n := 0
	for i := range s {
		if n++; n == limit {
			return s[:i] + "…"
		}
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

// distinct gives the bundles by digest, each once: the document does not depend on the order in which a registry lists them.
func distinct(raws [][]byte) ([]artifact.Digest, map[artifact.Digest][]byte) {
	by := make(map[artifact.Digest][]byte, len(raws))
	for _, b := range raws {
		by[artifact.DigestOf(b)] = b
	}
	return slices.Sorted(maps.Keys(by)), by
}
