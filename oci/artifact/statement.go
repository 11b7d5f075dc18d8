package artifact

import (
	"errors"

	"github.com/waybill-ml/waybill/internal/diag"
)

// MediaTypeStatement is an in-toto statement that nobody signed, as layer and as artifactType.
const MediaTypeStatement = "application/vnd.in-toto+json"

// AnnotationPredicate names the predicate type of an unsigned statement on its manifest.
const AnnotationPredicate = "dev.waybill.predicate-type"

// BuildStatement makes the manifest that attaches one unsigned in-toto statement to a subject: what pack wrote down for the
// publisher to sign. It is a note, never evidence: verifiers look at bundles only. Equal arguments give equal bytes.
func BuildStatement(subject Descriptor, statement []byte, predicateType string) ([]byte, error) {
	if len(statement) > MaxBundle/2 {
		return nil, diag.Errorf("statement of %d bytes is larger than %d", len(statement), MaxBundle/2)
	}
	return marshal(Manifest{
		SchemaVersion: 2, MediaType: MediaTypeManifest, ArtifactType: MediaTypeStatement,
		Config:      Descriptor{MediaType: MediaTypeEmpty, Digest: EmptyDigest, Size: int64(len(EmptyConfig))},
		Layers:      []Descriptor{{MediaType: MediaTypeStatement, Digest: DigestOf(statement), Size: int64(len(statement))}},
		Subject:     &Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size},
		Annotations: map[string]string{AnnotationPredicate: predicateType},
	})
}

// ParseStatementManifest reads such a manifest and gives the layer and the predicate type that it claims.
func ParseStatementManifest(b []byte) (layer Descriptor, predicateType string, err error) {
	m, err := ParseManifest(b)
	switch {
	case err != nil:
		return Descriptor{}, "", err
	case m.ArtifactType != MediaTypeStatement:
		return Descriptor{}, "", diag.Errorf("artifactType is %q, want %q", m.ArtifactType, MediaTypeStatement)
	case m.Subject == nil || len(m.Layers) != 1 || m.Layers[0].MediaType != MediaTypeStatement:
		return Descriptor{}, "", errors.New("an unsigned statement has a subject and one layer")
	case m.Layers[0].Size > MaxBundle/2:
		return Descriptor{}, "", diag.Errorf("statement of %d bytes is larger than %d", m.Layers[0].Size, MaxBundle/2)
	case m.Annotations[AnnotationPredicate] == "":
		return Descriptor{}, "", diag.Errorf("annotation %s is missing", AnnotationPredicate)
	}
	return m.Layers[0], m.Annotations[AnnotationPredicate], nil
}
