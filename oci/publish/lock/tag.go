package lock

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
	"github.com/waybill-ml/waybill/oci/store"
)

// ArtifactType is that of a manifest whose annotation is the value of a lock.
const ArtifactType = "application/vnd.waybill.lock.v1+json"

const annotation = "dev.waybill.lock"

// Tags is a repository whose tags are compared and moved in one step.
type Tags interface {
	Resolve(ctx context.Context, tagOrDigest string) (artifact.Descriptor, error)
	Manifest(ctx context.Context, d artifact.Digest) ([]byte, artifact.Descriptor, error)
	PushBlob(ctx context.Context, d artifact.Descriptor, open func() (io.ReadCloser, error)) error
	SwapTag(ctx context.Context, b []byte, mediaType, tag string, old artifact.Digest) (d artifact.Descriptor, atomic bool, err error)
	// Conditional tells whether it does.
	Conditional(ctx context.Context) (bool, error)
}

// Tag is a register in a repository: the value stands in the manifest that the tag lock-<name> leads to.
func Tag(t Tags, name string) Register { return &tagRegister{t: t, tag: "lock-" + name} }

type tagRegister struct {
	t    Tags
	tag  string
	sure bool // the other side compares
}

func (r *tagRegister) Load(ctx context.Context) ([]byte, string, error) {
	d, err := r.t.Resolve(ctx, r.tag)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	raw, d, err := r.t.Manifest(ctx, d.Digest)
	if err != nil {
		return nil, "", err
	}
	m, err := artifact.ParseManifest(raw)
	if err != nil || m.ArtifactType != ArtifactType {
		return nil, "", diag.New(diag.Failure, "tag %s is no lock: somebody put something else there", r.tag)
	}
	return []byte(m.Annotations[annotation]), string(d.Digest), nil
}

func (r *tagRegister) Swap(ctx context.Context, version string, value []byte) (string, error) {
	empty := artifact.Descriptor{MediaType: artifact.MediaTypeEmpty, Digest: artifact.EmptyDigest, Size: int64(len(artifact.EmptyConfig))}
	if !r.sure {
		ok, err := r.t.Conditional(ctx)
		if err != nil {
			return "", err
		}
		if !ok {
			return "", diag.New(diag.Usage, "this registry does not say that it compares and moves a tag in one step, so it holds no lock").
				Line("the embedded one does; the others: file:, s3:, git+ssh:, or registry:// of one that does").
				Hint("waybill channel publish --help")
		}
		open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader([]byte(artifact.EmptyConfig))), nil }
		if err := r.t.PushBlob(ctx, empty, open); err != nil {
			return "", err
		}
		r.sure = true
	}
	raw, err := json.Marshal(artifact.Manifest{
		SchemaVersion: 2, MediaType: artifact.MediaTypeManifest, ArtifactType: ArtifactType, Config: empty,
		Layers: []artifact.Descriptor{empty}, Annotations: map[string]string{annotation: string(value)},
	})
	if err != nil {
		return "", err
	}
	d, atomic, err := r.t.SwapTag(ctx, raw, artifact.MediaTypeManifest, r.tag, artifact.Digest(version))
	switch {
	case errors.Is(err, store.ErrConflict):
		return "", fmt.Errorf("%w: %w", ErrMoved, err)
	case err != nil:
		return "", err
	case !atomic:
		return "", diag.New(diag.Failure, "the registry said that it moves tags in one step and did not")
	}
	return string(d.Digest), nil
}
