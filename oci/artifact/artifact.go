// Package artifact names the parts of a Waybill artifact: media types, roles, annotations, limits, the
// interface document and the golden vectors. docs/format.md is the text; the numbers and names live here.
// It is a leaf: standard library only.
package artifact

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"

	"github.com/waybill-ml/waybill/internal/diag"
)

// OCI and ModelPack media types.
const (
	MediaTypeManifest = "application/vnd.oci.image.manifest.v1+json"
	MediaTypeIndex    = "application/vnd.oci.image.index.v1+json"
	MediaTypeEmpty    = "application/vnd.oci.empty.v1+json"

	ArtifactType    = "application/vnd.cncf.model.manifest.v1+json"
	MediaTypeConfig = "application/vnd.cncf.model.config.v1+json"

	MediaTypeWeight       = "application/vnd.cncf.model.weight.v1.raw"
	MediaTypeWeightConfig = "application/vnd.cncf.model.weight.config.v1.raw"
	MediaTypeDoc          = "application/vnd.cncf.model.doc.v1.raw"
	MediaTypeCode         = "application/vnd.cncf.model.code.v1.raw"
	MediaTypeDataset      = "application/vnd.cncf.model.dataset.v1.raw"

	// MediaTypeBundle is the sigstore bundle that carries every piece of evidence, as layer and as artifactType.
	MediaTypeBundle = "application/vnd.dev.sigstore.bundle.v0.3+json"
	// MediaTypeChannel is the artifactType of a channel record's manifest; its layer 0 is a sigstore bundle.
	MediaTypeChannel = "application/vnd.waybill.channel.v1+json"
)

// Annotations on layers, manifests and referrers.
const (
	AnnotationTitle    = "org.opencontainers.image.title"
	AnnotationFilepath = "org.cncf.model.filepath"
	AnnotationMetadata = "org.cncf.model.file.metadata+json"
	AnnotationRole     = "dev.waybill.role"
	AnnotationTarget   = "dev.waybill.target"
	AnnotationPersonal = "dev.waybill.personal-data" // "none" or "yes", on golden, baseline and source
	AnnotationCreated  = "org.opencontainers.image.created"

	AnnotationBundleContent   = "dev.sigstore.bundle.content"
	AnnotationBundlePredicate = "dev.sigstore.bundle.predicateType"
	BundleContentDSSE         = "dsse-envelope"
)

// Role tells what a layer is for. The order of Roles is no order of layers: layers are sorted by file path.
type Role string

// Roles, and how many layers of each a manifest may have (docs/format.md).
const (
	RoleModule    Role = "module"    // 1 per target; none when the files were bundled as they are
	RoleWeights   Role = "weights"   // 0-1
	RoleInterface Role = "interface" // exactly 1
	RoleStep      Role = "step"      // any
	RoleGolden    Role = "golden"    // 0-1
	RoleBaseline  Role = "baseline"  // 0-1
	RoleSource    Role = "source"    // any
	RoleConfig    Role = "config"    // any: configuration and tokenizer of a model that was not compiled
	RoleCode      Role = "code"      // any: its code
	RoleDoc       Role = "doc"       // any
)

// RoleInfo is one row of the role table.
type RoleInfo struct {
	Role      Role
	MediaType string
	Max       int  // 0 means any number; module: per target
	Required  bool //
	OnDevice  bool // a device pulls it
}

// Roles is the closed table of roles.
func Roles() []RoleInfo {
	return []RoleInfo{
		{RoleModule, MediaTypeCode, 1, false, true},
		{RoleWeights, MediaTypeWeight, 1, false, true},
		{RoleInterface, MediaTypeWeightConfig, 1, true, true},
		{RoleStep, MediaTypeCode, 0, false, true},
		{RoleGolden, MediaTypeDataset, 1, false, true},
		{RoleBaseline, MediaTypeDataset, 1, false, true},
		{RoleSource, MediaTypeWeight, 0, false, false},
		{RoleConfig, MediaTypeWeightConfig, 0, false, false},
		{RoleCode, MediaTypeCode, 0, false, false},
		{RoleDoc, MediaTypeDoc, 0, false, false},
	}
}

// Limits on what is read from outside, in bytes unless said otherwise. A reader stops hard at them.
const (
	MaxManifest  = 4 << 20
	MaxInterface = 8 << 20
	MaxConfig    = 1 << 20
	MaxBundle    = 1 << 20
	MaxRecord    = 16 << 10 // a channel record's statement
	MaxGolden    = 64 << 20
	MaxLayers    = 512 // layers in one manifest
	MaxReferrers = 4096
)

// Digest is "sha256:" and 64 lower-case hex digits; no other algorithm is accepted anywhere.
type Digest string

var digestRE = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// ParseDigest checks s.
func ParseDigest(s string) (Digest, error) {
	if !digestRE.MatchString(s) {
		return "", diag.Errorf("%q is not a sha256 digest", s)
	}
	return Digest(s), nil
}

// DigestOf hashes b.
func DigestOf(b []byte) Digest {
	h := sha256.Sum256(b)
	return Digest("sha256:" + hex.EncodeToString(h[:]))
}

// Hex returns the 64 hex digits; it panics on a malformed digest, which only a programming error can make.
func (d Digest) Hex() string { return string(d[len("sha256:"):]) }

// Short returns the first 12 hex digits, for people.
func (d Digest) Short() string {
	if len(d) < len("sha256:")+12 {
		return string(d)
	}
	return string(d[len("sha256:") : len("sha256:")+12])
}

// Descriptor is the OCI content descriptor, with the fields that we read and write.
type Descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       Digest            `json:"digest"`
	Size         int64             `json:"size"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
}

// Manifest is the OCI 1.1 image manifest.
type Manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	ArtifactType  string            `json:"artifactType,omitempty"`
	Config        Descriptor        `json:"config"`
	Layers        []Descriptor      `json:"layers"`
	Subject       *Descriptor       `json:"subject,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

// Index is the OCI 1.1 image index.
type Index struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	ArtifactType  string            `json:"artifactType,omitempty"`
	Manifests     []Descriptor      `json:"manifests"`
	Subject       *Descriptor       `json:"subject,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}
