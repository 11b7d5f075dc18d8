package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
)

// CheckFiles hashes the files of an artifact on disk that a device needs, without changing anything; it returns how many
// bytes were right. A file that is missing or altered is an error that matches fs.ErrNotExist or state.ErrDigest.
func CheckFiles(ctx context.Context, blobs *state.Blobs, s state.Slot) (*artifact.Model, int64, error) {
	raw, err := blobs.Read(s.Digest, artifact.MaxManifest)
	if err != nil {
		return nil, 0, fmt.Errorf("manifest: %w", err)
	}
	m, err := verify.Manifest(raw, s.Digest)
	if err != nil {
		return nil, 0, err
	}
	n := int64(len(raw))
	for _, l := range deviceLayers(m) {
		if err := blobs.Check(ctx, l.Digest, l.Size); err != nil {
			return nil, n, fmt.Errorf("layer %s: %w", l.Path, err)
		}
		n += l.Size
	}
	return m, n, nil
}

// AcceptedRecord reads the record that a channel accepted last and verifies it under doc at the time now.
func AcceptedRecord(blobs *state.Blobs, c *state.Channel, doc *trust.Document, now time.Time) (*channel.Record, error) {
	raw, err := blobs.Read(c.Record, maxRecordBundle)
	if err != nil {
		return nil, err
	}
	r, _, err := verify.Record(raw, doc, now)
	return r, err
}
