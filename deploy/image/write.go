package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"io"
	"slices"
	"strings"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Destination is where images go: a registry, or an OCI layout. registry.Repository is one.
type Destination interface {
	PushBlob(ctx context.Context, d artifact.Descriptor, open func() (io.ReadCloser, error)) error
	PushManifest(ctx context.Context, b []byte, mediaType, tag string) (artifact.Descriptor, error)
}

// Push writes everything and sets the tags last: who sees one finds all of the image.
func (set *Set) Push(ctx context.Context, to Destination, tags ...string) error {
	done := map[artifact.Digest]bool{}
	for _, b := range set.blobs {
		if done[b.desc.Digest] {
			continue
		}
		done[b.desc.Digest] = true
		if err := to.PushBlob(ctx, b.desc, b.open); err != nil {
			return err
		}
	}
	for _, m := range slices.Concat(set.manifests, set.attached) {
		if _, err := to.PushManifest(ctx, m.raw, m.desc.MediaType, ""); err != nil {
			return err
		}
	}
	root := set.manifests[len(set.manifests)-1]
	for _, tag := range tags {
		if tag == "" {
			continue
		}
		if _, err := to.PushManifest(ctx, root.raw, root.desc.MediaType, tag); err != nil {
			return err
		}
	}
	return nil
}

// dockerManifest is the line of manifest.json that `docker load` reads in archives that hold one image.
type dockerManifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// WriteTar writes one archive that container engines load (podman load, docker load) and that is an OCI layout: name is what the image
// is called there, with its tag. `docker load` before version 25 takes an archive of one platform only.
func (set *Set) WriteTar(ctx context.Context, w io.Writer, name string) error {
	root := set.manifests[len(set.manifests)-1].desc
	tag := name[strings.LastIndex(name, ":")+1:]
	idx := index{SchemaVersion: 2, MediaType: artifact.MediaTypeIndex, Manifests: []listed{{
		MediaType: root.MediaType, Digest: root.Digest, Size: root.Size,
		Annotations: map[string]string{"org.opencontainers.image.ref.name": tag, "io.containerd.image.name": "docker.io/library/" + name},
	}}}
	for _, m := range set.attached {
		idx.Manifests = append(idx.Manifests, listed{MediaType: m.desc.MediaType, Digest: m.desc.Digest, Size: m.desc.Size})
	}
	raw, err := artifact.Canonical(idx)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	es := []entry{{name: "oci-layout", data: []byte(`{"imageLayoutVersion":"1.0.0"}` + "\n"), mode: 0o644}, {name: "index.json", data: raw, mode: 0o644}}
	path := func(d artifact.Digest) string { return "blobs/sha256/" + d.Hex() }
	if len(set.Images) == 1 {
		i := set.Images[0]
		m := dockerManifest{Config: path(i.config.Digest), RepoTags: []string{name}}
		for _, l := range i.layers {
			m.Layers = append(m.Layers, path(l.Digest))
		}
		raw, err := json.Marshal([]dockerManifest{m})
		if err != nil {
			return err
		}
		es = append(es, entry{name: "manifest.json", data: raw, mode: 0o644})
	}
	es = append(es, entry{name: "blobs/"}, entry{name: "blobs/sha256/"})
	for _, m := range slices.Concat(set.manifests, set.attached) {
		es = append(es, entry{name: path(m.desc.Digest), data: m.raw, mode: 0o644})
	}
	for _, e := range es {
		if err := writeEntry(tw, e); err != nil {
			return diag.Wrap(diag.Failure, err, "write the archive")
		}
	}
	done := map[artifact.Digest]bool{}
	for _, b := range set.blobs {
		if done[b.desc.Digest] {
			continue
		}
		done[b.desc.Digest] = true
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := copyBlob(tw, path(b.desc.Digest), b); err != nil {
			return diag.Wrap(diag.Failure, err, "write the archive")
		}
	}
	if err := tw.Close(); err != nil {
		return diag.Wrap(diag.Failure, err, "write the archive")
	}
	return nil
}

// copyBlob writes one blob into an archive. One that is not as long as it was when it was hashed is an error of the archive's writer.
func copyBlob(tw *tar.Writer, name string, b blob) error {
	r, err := b.open()
	if err != nil {
		return err
	}
	defer r.Close()
	if err := tw.WriteHeader(header(name, b.desc.Size)); err != nil {
		return err
	}
	_, err = io.Copy(tw, r)
	return err
}
