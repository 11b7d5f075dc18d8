package cli

import (
	"context"
	"errors"

	"github.com/waybill-ml/waybill/internal/diag"
)

// noteLegacy adds to a refusal that a signature of cosign's older kind (a tag ending in .sig) stands there, and that it
// was not looked at: it signs a payload that binds nothing but a digest, and a fallback to it would undo every refusal.
func noteLegacy(ctx context.Context, s *subject, refusal error) error {
	var d *diag.Error
	if !errors.As(refusal, &d) {
		return refusal
	}
	tag := "sha256-" + s.Desc.Digest.Hex() + ".sig"
	if _, err := s.Place.Resolve(ctx, tag); err == nil {
		d.Line("there is a legacy signature under the tag %s...sig: such are never accepted", tag[:19])
		d.Hint("cosign sign --new-bundle-format makes the kind that is (cosign v3: without the flag)")
	}
	return refusal
}
