package publish

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/trust"
)

// MediaTypeTrust is the artifactType of a trust document's manifest and the type of its layer, a trust file.
const MediaTypeTrust = "application/vnd.waybill.trust.v1+jsonl"

// TrustTag is the tag under which a channel's repository carries trust document version n, so that devices can walk
// from the version they have to the newest.
func TrustTag(n int) string { return fmt.Sprintf("trust-%d", n) }

// Trust puts a signed trust file where devices look for it, unless it is there. A tag that holds another document of the
// same version is an error: versions are never reused.
func Trust(ctx context.Context, p Place, raw []byte, doc *trust.Document) error {
	tag := TrustTag(doc.Version)
	was, d, err := layer0(ctx, p, tag, MediaTypeTrust, artifact.MaxBundle)
	switch {
	case err == nil && bytes.Equal(was, raw):
		return nil
	case err == nil:
		return diag.New(diag.Verification, "tag %s holds another trust document of version %d (%s)", tag, doc.Version, d.Digest.Short()).
			Hint("waybill trust show, and raise the version before signing")
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	m, err := Paper(MediaTypeTrust, raw)
	if err != nil {
		return err
	}
	for _, b := range [][]byte{[]byte(artifact.EmptyConfig), raw} {
		if err := pushBlob(ctx, p, b); err != nil {
			return err
		}
	}
	_, _, err = p.SwapTag(ctx, m, artifact.MediaTypeManifest, tag, "")
	return err
}

// Paper makes the manifest of a document that travels beside artifacts: the empty config and one layer, the document. Its
// artifactType and the layer's type are mediaType.
func Paper(mediaType string, raw []byte) ([]byte, error) {
	m, err := json.Marshal(artifact.Manifest{
		SchemaVersion: 2, MediaType: artifact.MediaTypeManifest, ArtifactType: mediaType,
		Config: artifact.Descriptor{MediaType: artifact.MediaTypeEmpty, Digest: artifact.EmptyDigest, Size: int64(len(artifact.EmptyConfig))},
		Layers: []artifact.Descriptor{{MediaType: mediaType, Digest: artifact.DigestOf(raw), Size: int64(len(raw))}},
	})
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return m, nil
}

func pushBlob(ctx context.Context, p Place, b []byte) error {
	d := artifact.Descriptor{MediaType: "application/octet-stream", Digest: artifact.DigestOf(b), Size: int64(len(b))}
	return p.PushBlob(ctx, d, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil })
}
