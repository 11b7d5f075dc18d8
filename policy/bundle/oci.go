package bundle

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"strings"

	"github.com/waybill-ml/waybill/oci/artifact"
)

// Media types of a policy as an OCI artifact: an empty config, and the same files in three forms. Layer 0 is the canonical
// tar, whose digest is the policy's; nothing here reads another layer. Layer 1 is that tar as gzip, the form in which OPA
// fetches a bundle. Then comes each file by itself, as conftest and oras pull them.
const (
	ArtifactType   = "application/vnd.waybill.policy.v1+json"
	MediaTypeLayer = "application/vnd.waybill.policy.layer.v1.tar"

	mediaTypeGzip = "application/vnd.oci.image.layer.v1.tar+gzip"
	mediaTypeRego = "application/vnd.cncf.openpolicyagent.policy.layer.v1+rego"
	mediaTypeData = "application/vnd.cncf.openpolicyagent.data.layer.v1+json"
	mediaTypeMeta = "application/json"
)

// Annotations that name the policy on its manifest.
const (
	annotationTitle   = "org.opencontainers.image.title"
	annotationVersion = "org.opencontainers.image.version"
)

// Blob is one blob of the artifact.
type Blob struct {
	artifact.Descriptor
	Bytes []byte
}

// Image is a policy as an OCI artifact: a function of the policy alone, so that the same policy has the same manifest digest
// on every machine, and a manifest that is not this one is refused, whatever its layer 0 is.
type Image struct {
	Manifest   []byte
	Descriptor artifact.Descriptor // of the manifest
	Blobs      []Blob              // the config and the layers, in order
}

// Image makes the artifact.
func (b *Bundle) Image() (*Image, error) {
	x := &Image{}
	add := func(mediaType, title string, raw []byte) artifact.Descriptor {
		d := artifact.Descriptor{MediaType: mediaType, Digest: artifact.DigestOf(raw), Size: int64(len(raw))}
		x.Blobs = append(x.Blobs, Blob{d, raw})
		if title != "" {
			d.Annotations = map[string]string{annotationTitle: title}
		}
		return d
	}
	m := artifact.Manifest{
		SchemaVersion: 2, MediaType: artifact.MediaTypeManifest, ArtifactType: ArtifactType,
		Config: add(artifact.MediaTypeEmpty, "", []byte(artifact.EmptyConfig)),
	}
	for k, v := range map[string]string{annotationTitle: b.meta.Name, annotationVersion: b.meta.Version} {
		if v != "" {
			if m.Annotations == nil {
				m.Annotations = map[string]string{}
			}
			m.Annotations[k] = v
		}
	}
	m.Layers = []artifact.Descriptor{add(MediaTypeLayer, "", b.tar), add(mediaTypeGzip, "", stored(b.tar))}
	for _, n := range b.names {
		t := mediaTypeData
		switch {
		case strings.HasSuffix(n, ".rego"):
			t = mediaTypeRego
		case n == MetaFile:
			t = mediaTypeMeta
		}
		m.Layers = append(m.Layers, add(t, n, b.files[n]))
	}
	var err error
	if x.Manifest, err = json.Marshal(m); err != nil {
		return nil, fmt.Errorf("policy manifest: %w", err)
	}
	x.Descriptor = artifact.Descriptor{MediaType: artifact.MediaTypeManifest, ArtifactType: ArtifactType, Digest: artifact.DigestOf(x.Manifest), Size: int64(len(x.Manifest))}
	return x, nil
}

// stored is b as gzip without compression (RFC 1952, RFC 1951 section 3.2.4): what a compressor writes may change with its
// version, and with it the digest.
func stored(b []byte) []byte {
	const most = 1<<16 - 1
	out := make([]byte, 0, len(b)+len(b)/most*5+32)
	out = append(out, 0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff)
	for rest := b; ; {
		n := min(len(rest), most)
		final := byte(0)
		if n == len(rest) {
			final = 1
		}
		out = append(out, final)
		out = binary.LittleEndian.AppendUint16(out, uint16(n))
		out = binary.LittleEndian.AppendUint16(out, ^uint16(n))
		out = append(out, rest[:n]...)
		if rest = rest[n:]; final == 1 {
			break
		}
	}
	out = binary.LittleEndian.AppendUint32(out, crc32.ChecksumIEEE(b))
	return binary.LittleEndian.AppendUint32(out, uint32(len(b)))
}
