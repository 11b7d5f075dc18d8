package artifact

import "github.com/waybill-ml/waybill/internal/diag"

// BuildReferrer makes the manifest that attaches one sigstore bundle to a subject, in the form that cosign v3 and
// sigstore-go read: artifactType of the bundle (also, redundantly, on the config), the empty config, exactly one
// layer. It carries no creation time, so the same bundle always has the same manifest digest.
func BuildReferrer(subject Descriptor, bundle []byte, predicateType string) ([]byte, error) {
	if len(bundle) > MaxBundle {
		return nil, diag.Errorf("bundle of %d bytes is larger than %d", len(bundle), MaxBundle)
	}
	return marshal(struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		ArtifactType  string            `json:"artifactType"`
		Config        Descriptor        `json:"config"`
		Layers        []Descriptor      `json:"layers"`
		Subject       Descriptor        `json:"subject"`
		Annotations   map[string]string `json:"annotations"`
	}{
		2, MediaTypeManifest, MediaTypeBundle,
		Descriptor{MediaType: MediaTypeEmpty, ArtifactType: MediaTypeBundle, Digest: EmptyDigest, Size: int64(len(EmptyConfig))},
		[]Descriptor{{MediaType: MediaTypeBundle, Digest: DigestOf(bundle), Size: int64(len(bundle))}},
		Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size},
		map[string]string{AnnotationBundleContent: BundleContentDSSE, AnnotationBundlePredicate: predicateType},
	})
}

// ReferrersTag is the OCI 1.1 fallback tag of a subject's referrers index.
func ReferrersTag(subject Digest) string { return "sha256-" + subject.Hex() }

// ReferrerTag is the tag of one referrer: the fallback tag, a dot and the first 12 hex digits of its bundle (its only
// layer), or of the manifest when it is no bundle. Registries cannot update the fallback index atomically, so that two
// writers lose entries there; a tag of its own cannot be lost.
func ReferrerTag(m Manifest, manifest Digest) string {
	d := manifest
	if m.ArtifactType == MediaTypeBundle && len(m.Layers) == 1 {
		d = m.Layers[0].Digest
	}
	return ReferrersTag(m.Subject.Digest) + "." + d.Short()
}

// DescriptorOf describes manifest bytes as a referrers listing does (OCI distribution-spec 1.1, listing referrers):
// artifactType is that of the manifest or else its config's media type, annotations are the manifest's.
func DescriptorOf(b []byte, m Manifest) Descriptor {
	at := m.ArtifactType
	if at == "" {
		at = m.Config.MediaType
	}
	return Descriptor{MediaType: m.MediaType, Digest: DigestOf(b), Size: int64(len(b)), ArtifactType: at, Annotations: m.Annotations}
}
