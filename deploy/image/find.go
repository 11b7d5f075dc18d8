package image

import (
	"context"
	"encoding/json"
	"io"
	"slices"
	"strings"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// TagOf is the tag under which a registry has the image of an artifact, beside the one that its maker chose: deploy looks there. It is
// a pointer only: what it points at is believed when its labels and its signature say the same.
func TagOf(d artifact.Digest, v Variant) string { return "waybill-" + d.Hex() + "-" + string(v) }

// Shelf is a repository with images. registry.Repository is one.
type Shelf interface {
	Resolve(ctx context.Context, tagOrDigest string) (artifact.Descriptor, error)
	Manifest(ctx context.Context, d artifact.Digest) ([]byte, artifact.Descriptor, error)
	Blob(ctx context.Context, d artifact.Descriptor) (io.ReadCloser, error)
}

// Found is an image, or an index of several.
type Found struct {
	Root   artifact.Descriptor
	Arches []string // as GOARCH names them, sorted
	Size   int64    // bytes that the largest of them pulls
	Trust  artifact.Digest
}

// Lookup finds the image of an artifact that follows v. Its labels are compared here; who made it is for the caller to ask
// (its bundles hold a release, where it was signed). diag.NotFound when there is none.
func Lookup(ctx context.Context, from Shelf, d artifact.Digest, v Variant) (*Found, error) {
	root, err := from.Resolve(ctx, TagOf(d, v))
	if err != nil {
		return nil, err
	}
	raw, root, err := from.Manifest(ctx, root.Digest)
	if err != nil {
		return nil, err
	}
	var head struct {
		MediaType   string            `json:"mediaType"`
		Annotations map[string]string `json:"annotations"`
		Manifests   []listed          `json:"manifests"`
	}
	bad := func(format string, args ...any) error {
		return diag.New(diag.Verification, format, args...).Line("it is %s, under the tag %s", root.Digest, TagOf(d, v))
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return nil, bad("the image's manifest cannot be read: %v", err)
	}
	if got := head.Annotations[LabelDigest]; got != string(d) {
		return nil, bad("the image says that it holds the artifact %q, not %s", got, d)
	}
	if got := head.Annotations[LabelVariant]; got != string(v) {
		return nil, bad("the image follows the contract %q, not %s", got, v)
	}
	f := &Found{Root: root, Trust: artifact.Digest(head.Annotations[LabelTrust])}
	if root.MediaType != artifact.MediaTypeIndex {
		return f, f.add(ctx, from, raw)
	}
	if len(head.Manifests) == 0 || len(head.Manifests) > 16 {
		return nil, bad("its index lists %d images", len(head.Manifests))
	}
	for _, m := range head.Manifests {
		raw, _, err := from.Manifest(ctx, m.Digest)
		if err != nil {
			return nil, err
		}
		if err := f.add(ctx, from, raw); err != nil {
			return nil, err
		}
	}
	slices.Sort(f.Arches)
	return f, nil
}

// add reads what one platform's image says.
func (f *Found) add(ctx context.Context, from Shelf, raw []byte) error {
	var m manifestJSON
	if err := json.Unmarshal(raw, &m); err != nil {
		return diag.Wrap(diag.Verification, err, "the image's manifest")
	}
	if m.Config.Size < 0 || m.Config.Size > artifact.MaxConfig {
		return diag.New(diag.Verification, "the image's configuration has %d bytes", m.Config.Size)
	}
	r, err := from.Blob(ctx, m.Config)
	if err != nil {
		return err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	var c struct{ Architecture, OS string }
	if err := json.Unmarshal(b, &c); err != nil || c.Architecture == "" || !strings.EqualFold(c.OS, "linux") {
		return diag.New(diag.Verification, "the image is for %s/%s, not for linux", c.OS, c.Architecture)
	}
	f.Arches = append(f.Arches, c.Architecture)
	size := int64(len(raw)) + m.Config.Size
	for _, l := range m.Layers {
		size += l.Size
	}
	f.Size = max(f.Size, size)
	return nil
}
