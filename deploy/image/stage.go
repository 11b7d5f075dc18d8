package image

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/edge"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
)

// Source is where an artifact and the statements about it lie; registry.Repository is one.
type Source interface {
	Manifest(ctx context.Context, d artifact.Digest) ([]byte, artifact.Descriptor, error)
	Blob(ctx context.Context, d artifact.Descriptor) (io.ReadCloser, error)
	Referrers(ctx context.Context, d artifact.Digest) ([]artifact.Descriptor, error)
}

// Content says what goes into images.
type Content struct {
	Digest   artifact.Digest // of the artifact's manifest
	Model    string          // name that it must have been released under
	Version  string          // for people
	Trust    []byte          // the signed trust document
	Doc      *trust.Document // the same, verified by the caller
	Evidence []string        // predicate types that must be there besides the release and what the trust document's rules require
	Env      string          // environment and channel that statements about one of them are about
	Channel  string
	Now      time.Time // by which expiry is judged
}

// Staged is an artifact as it will lie in an image: the layers that a runtime needs and the statements that prove it, verified.
type Staged struct {
	Content
	Dir         string // an OCI layout, with the trust document in it
	Size        int64  // bytes of all files in it
	TrustDigest artifact.Digest
	// AsOf is the newest of the times that the trust document and the statements name. It is when a start judges expiry as of: the
	// decision to ship is made now, when Stage judges by the clock.
	AsOf time.Time
}

// Stage brings an artifact into dir, an empty folder, and proves it there: once by the clock of c, and once as each start of an image
// will. Of the statements about the artifact only those of the types that are required come along, so that one that is attached later,
// such as that of a deployment, does not change the image.
func Stage(ctx context.Context, src Source, dir string, c Content) (*Staged, error) {
	s := &Staged{Content: c, Dir: dir}
	var err error
	if s.TrustDigest, err = c.Doc.Digest(); err != nil {
		return nil, diag.Wrap(diag.Failure, err, "the trust document")
	}
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o700); err != nil {
		return nil, diag.Wrap(diag.Failure, err, "make a place to work in")
	}
	raw, _, err := src.Manifest(ctx, c.Digest)
	if err != nil {
		return nil, err
	}
	m, err := verify.Manifest(raw, c.Digest)
	if err != nil {
		return nil, err
	}
	idx := index{SchemaVersion: 2, MediaType: artifact.MediaTypeIndex}
	list := func(raw []byte, artifactType string) error {
		d := describe(raw, artifact.MediaTypeManifest)
		idx.Manifests = append(idx.Manifests, listed{MediaType: d.MediaType, ArtifactType: artifactType, Digest: d.Digest, Size: d.Size})
		return s.write(d.Digest, raw)
	}
	if err := list(raw, artifact.ArtifactType); err != nil {
		return nil, err
	}
	bundles, err := s.choose(ctx, src, m)
	if err != nil {
		return nil, err
	}
	for _, l := range m.OnDevice() {
		if err := s.fetch(ctx, src, artifact.Descriptor{Digest: l.Digest, Size: l.Size, MediaType: l.Descriptor().MediaType}); err != nil {
			return nil, err
		}
	}
	if err := s.write(artifact.EmptyDigest, []byte(artifact.EmptyConfig)); err != nil {
		return nil, err
	}
	subject := artifact.Descriptor{MediaType: artifact.MediaTypeManifest, Digest: c.Digest, Size: int64(len(raw))}
	for _, b := range bundles {
		ref, err := artifact.BuildReferrer(subject, b.raw, b.PredicateType)
		if err == nil {
			err = errors.Join(s.write(b.Bundle, b.raw), list(ref, artifact.MediaTypeBundle))
		}
		if err != nil {
			return nil, err
		}
	}
	doc, err := artifact.Canonical(idx)
	if err != nil {
		return nil, err
	}
	for name, b := range map[string][]byte{"index.json": doc, "oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}` + "\n"), trustName: c.Trust} {
		if err := s.file(name, b); err != nil {
			return nil, err
		}
	}
	if err := s.prove(ctx, c.Now); err != nil {
		return nil, err
	}
	return s, s.prove(ctx, s.AsOf)
}

// prove opens the artifact as a start does.
func (s *Staged) prove(ctx context.Context, now time.Time) error {
	m, err := edge.Open(ctx, edge.Release{
		From: s.Dir, Model: s.Model, Trust: filepath.Join(s.Dir, trustName), TrustDigest: string(s.TrustDigest), Digest: string(s.Digest),
		Evidence: s.Evidence, Env: s.Env, Channel: s.Channel, Now: func() time.Time { return now },
	})
	if errors.Is(err, edge.ErrNotCompiled) {
		return diag.Wrap(diag.Unsupported, err, "prove %s %s", s.Model, s.Digest)
	}
	if err != nil {
		return diag.Wrap(diag.Verification, err, "prove %s %s", s.Model, s.Digest)
	}
	return m.Close(ctx)
}

type chosen struct {
	verify.Evidence
	raw []byte
}

// choose gives the verified statements of the types that are required, sorted by the digests of their bundles.
func (s *Staged) choose(ctx context.Context, src Source, m *artifact.Model) ([]chosen, error) {
	types := append([]string{evidence.TypeRelease}, s.Evidence...)
	for _, r := range s.Doc.Rules {
		if r.Require > 0 {
			types = append(types, r.PredicateType)
		}
	}
	refs, err := src.Referrers(ctx, s.Digest)
	if err != nil {
		return nil, err
	}
	s.AsOf = s.Doc.Issued
	var raws [][]byte
	for _, r := range refs {
		if r.ArtifactType != artifact.MediaTypeBundle {
			continue
		}
		raw, _, err := src.Manifest(ctx, r.Digest)
		if err != nil {
			return nil, err
		}
		rm, err := artifact.ParseManifest(raw)
		if err != nil || len(rm.Layers) != 1 { // nothing that proves anything
			continue
		}
		b, err := registry.ReadBlob(ctx, src, rm.Layers[0], artifact.MaxBundle)
		if err != nil {
			return nil, err
		}
		raws = append(raws, b)
	}
	proven, failed := verify.All(raws, s.Doc, verify.Want{Subject: s.Digest, Model: s.Model, Env: s.Env, Channel: s.Channel, Now: s.Now, Layers: m.Layers})
	byDigest := map[artifact.Digest][]byte{}
	for _, b := range raws {
		byDigest[artifact.DigestOf(b)] = b
	}
	var out []chosen
	for _, e := range proven {
		if slices.Contains(types, e.PredicateType) && (e.PredicateType != evidence.TypeRelease || e.SubjectName == s.Model) {
			out = append(out, chosen{e, byDigest[e.Bundle]})
			if e.TimeSource != verify.TimeNone && e.At.After(s.AsOf) {
				s.AsOf = e.At
			}
		}
	}
	slices.SortFunc(out, func(a, b chosen) int { return strings.Compare(string(a.Bundle), string(b.Bundle)) })
	out = slices.CompactFunc(out, func(a, b chosen) bool { return a.Bundle == b.Bundle })
	if !slices.ContainsFunc(out, func(c chosen) bool { return c.PredicateType == evidence.TypeRelease }) {
		err := error(verify.Missing(evidence.TypeRelease, len(raws)))
		for _, f := range failed {
			if f.PredicateType == evidence.TypeRelease {
				err = f.Err
			}
		}
		return nil, diag.Wrap(diag.Verification, err, "prove %s %s", s.Model, s.Digest).
			Line("an image proves its artifact without a network, by keys that the trust document names")
	}
	return out, nil
}

// write keeps a blob that has been hashed.
func (s *Staged) write(d artifact.Digest, b []byte) error {
	return s.file(filepath.Join("blobs", "sha256", d.Hex()), b)
}

func (s *Staged) file(name string, b []byte) error {
	name = filepath.Join(s.Dir, name)
	if _, err := os.Lstat(name); err == nil {
		return nil
	}
	s.Size += int64(len(b))
	if err := os.WriteFile(name, b, 0o600); err != nil {
		return diag.Wrap(diag.Failure, err, "write what goes into the image")
	}
	return nil
}

// fetch brings a layer here; the source hashes it, and prove does once more.
func (s *Staged) fetch(ctx context.Context, src Source, d artifact.Descriptor) (err error) {
	name := filepath.Join(s.Dir, "blobs", "sha256", d.Digest.Hex())
	if _, err := os.Lstat(name); err == nil { // two layers of the same content
		return nil
	}
	r, err := src.Blob(ctx, d)
	if err != nil {
		return err
	}
	defer r.Close()
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return diag.Wrap(diag.Failure, err, "write what goes into the image")
	}
	n, err := io.Copy(f, r)
	s.Size += n
	return errors.Join(err, f.Close())
}
