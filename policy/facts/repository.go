package facts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
)

// Repository is the part of a registry, store or layout that is read here. Errors wrap fs.ErrNotExist when the thing is
// not there.
type Repository interface {
	Resolve(ctx context.Context, tagOrDigest string) (artifact.Descriptor, error)
	Manifest(ctx context.Context, d artifact.Digest) ([]byte, artifact.Descriptor, error)
	Blob(ctx context.Context, d artifact.Descriptor) (io.ReadCloser, error)
	Referrers(ctx context.Context, d artifact.Digest) ([]artifact.Descriptor, error)
}

// FromRepository reads artifacts, evidence and channels from one repository. It implements Source and Channels.
func FromRepository(r Repository) *RepositorySource { return &RepositorySource{r} }

// RepositorySource implements Source and Channels. Safe for concurrent use when the repository is.
type RepositorySource struct{ r Repository }

// Manifest implements Source.
func (s *RepositorySource) Manifest(ctx context.Context, d artifact.Digest) ([]byte, error) {
	b, _, err := s.r.Manifest(ctx, d)
	return b, err
}

// Blob implements Source.
func (s *RepositorySource) Blob(ctx context.Context, d artifact.Descriptor) (io.ReadCloser, error) {
	return s.r.Blob(ctx, d)
}

// Bundles implements Source: the first layer of every referrer that is a sigstore bundle. A referrer that is broken (its
// bytes are not what its digest says, it is no manifest, it is too large) proves nothing and is left out; one that could
// not be read for another reason is an error, since it might speak.
func (s *RepositorySource) Bundles(ctx context.Context, subject artifact.Digest) ([][]byte, error) {
	refs, err := s.r.Referrers(ctx, subject)
	if err != nil {
		return nil, err
	}
	if len(refs) > artifact.MaxReferrers {
		return nil, fmt.Errorf("%s has %d referrers, limit %d", subject.Short(), len(refs), artifact.MaxReferrers)
	}
	var out [][]byte
	total := 0
	for _, ref := range refs {
		b, err := s.bundleOf(ctx, ref.Digest, artifact.MaxBundle, artifact.MediaTypeBundle)
		if diag.CodeOf(err) == diag.Verification || errors.Is(err, errNoBundle) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("evidence %s: %w", ref.Digest.Short(), err)
		}
		if total += len(b); total > MaxEvidenceBytes {
			return nil, fmt.Errorf("the bundles attached to %s have more than %d bytes", subject.Short(), MaxEvidenceBytes)
		}
		out = append(out, b)
	}
	return out, nil
}

var errNoBundle = errors.New("carries no sigstore bundle")

// bundleOf reads layer 0 of a manifest of that artifact type.
func (s *RepositorySource) bundleOf(ctx context.Context, d artifact.Digest, limit int64, artifactType string) ([]byte, error) {
	raw, _, err := s.r.Manifest(ctx, d)
	if err != nil {
		return nil, err
	}
	m, err := artifact.ParseManifest(raw)
	if err != nil || m.ArtifactType != artifactType || len(m.Layers) == 0 || m.Layers[0].MediaType != artifact.MediaTypeBundle || m.Layers[0].Size > limit {
		return nil, errNoBundle
	}
	r, err := s.r.Blob(ctx, m.Layers[0])
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if artifact.DigestOf(b) != m.Layers[0].Digest {
		return nil, errNoBundle
	}
	return b, nil
}

// Record implements Channels: the bundle behind the channel's moving tag. A tag that is not there is an empty channel; a
// tag that leads to anything but a record is an error, never an empty channel.
func (s *RepositorySource) Record(ctx context.Context, name string) ([]byte, error) {
	return s.RecordAt(ctx, channel.Tag(name))
}

// RecordAt is Record for any tag that leads to a channel record.
func (s *RepositorySource) RecordAt(ctx context.Context, tag string) ([]byte, error) {
	d, err := s.r.Resolve(ctx, tag)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	b, err := s.bundleOf(ctx, d.Digest, 4*artifact.MaxRecord, artifact.MediaTypeChannel)
	if err != nil {
		return nil, fmt.Errorf("tag %s: %w", tag, err)
	}
	return b, nil
}

// ReportAt gives the bundle of a device report behind a tag; nil when there is no such tag, or it leads to something else.
func (s *RepositorySource) ReportAt(ctx context.Context, tag string) ([]byte, error) {
	d, err := s.r.Resolve(ctx, tag)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	b, err := s.bundleOf(ctx, d.Digest, artifact.MaxBundle, artifact.MediaTypeBundle)
	if errors.Is(err, errNoBundle) || errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("tag %s: %w", tag, err)
	}
	return b, nil
}
