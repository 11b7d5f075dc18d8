// Package image puts a runtime and an artifact into an OCI image, without a container engine. The artifact's evidence is verified
// before, by what the runtime itself verifies at each start. Equal inputs give equal bytes on every machine: layers are plain tars
// with constant owners and times, and nothing in them is a compressor's or a clock's. Compiled code alone, where it is asked for, hangs
// on the features of the CPU that Bake ran on.
package image

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/version"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Media types of the OCI image specification 1.1. Layers are not compressed: weights hardly shrink, and a digest must not hang on the
// version of a compressor.
const (
	mediaTypeConfig = "application/vnd.oci.image.config.v1+json"
	mediaTypeLayer  = "application/vnd.oci.image.layer.v1.tar"
	mediaTypeSBOM   = "application/vnd.cyclonedx+json"
)

// Labels of an image that say what is in it.
const (
	LabelDigest   = "dev.waybill.artifact.digest"
	LabelModel    = "dev.waybill.artifact.model"
	LabelVersion  = "dev.waybill.artifact.version"
	LabelVariant  = "dev.waybill.variant"
	LabelRuntime  = "dev.waybill.runtime.version"
	LabelTrust    = "dev.waybill.trust.digest"
	LabelCode     = "dev.waybill.code.digest" // of the index of compiled code; without it there is none
	defaultUser   = "65532:65532"
	codeDir       = "code"
	artifactDir   = "models" // where KServe wants it, and as good a place as any for the others
	trustName     = "trust.jsonl"
	server        = "/waybill-serve"
	maxBuildFiles = 4096
)

// Variant is the platform whose contract an image follows.
type Variant string

// Variants.
const (
	Plain     Variant = "plain"     // HTTP on PORT: Cloud Run, Knative, Kubernetes, Azure
	Lambda    Variant = "lambda"    // AWS Lambda's Runtime API
	SageMaker Variant = "sagemaker" // /ping and /invocations on 8080
	Vertex    Variant = "vertex"    // AIP_HTTP_PORT, AIP_HEALTH_ROUTE, AIP_PREDICT_ROUTE
	Modelcar  Variant = "modelcar"  // KServe: files that another container reads, and a shell that hands them over
)

// Platform is one that images are made for.
type Platform struct{ OS, Arch string }

// String writes it as container tools do.
func (p Platform) String() string { return p.OS + "/" + p.Arch }

// ParsePlatform reads OS/ARCH. Images are for Linux, on the two architectures that models are compiled to machine code on.
func ParsePlatform(s string) (Platform, error) {
	for _, p := range []Platform{{"linux", "amd64"}, {"linux", "arm64"}} {
		if s == p.String() {
			return p, nil
		}
	}
	return Platform{}, diag.New(diag.Usage, "platform %q: images are made for linux/amd64 and linux/arm64", s)
}

// Options say how images look.
type Options struct {
	Variant Variant
	User    string // UID:GID; "": 65532:65532, nobody in particular
	// Created is the time that stands in the image, for people; zero: that of the newest statement in it.
	Created time.Time
	Labels  map[string]string // further ones
}

// Set is an image, or an index of several, with what is attached to them.
type Set struct {
	Root      artifact.Descriptor // of the image, or of the index when there are several
	Images    []Image
	manifests []manifest // children first, Root last
	attached  []manifest
	blobs     []blob
}

// Image is one image of a Set.
type Image struct {
	Platform   Platform
	Descriptor artifact.Descriptor
	Runtime    int64 // bytes of the runtime's file
	Artifact   int64 // bytes of the artifact and its evidence
	Size       int64 // of all that is pulled: layers, config and manifest
	config     artifact.Descriptor
	layers     []artifact.Descriptor
}

type manifest struct {
	raw  []byte
	desc artifact.Descriptor
}

type blob struct {
	desc artifact.Descriptor
	open func() (io.ReadCloser, error)
}

// Build makes an image of s for each of the runtimes, which are of different platforms. It keeps no files: what it returns reads
// those of s and of the runtimes when it is written.
func Build(s *Staged, runtimes []Runtime, o Options) (*Set, error) {
	if len(runtimes) == 0 {
		return nil, diag.New(diag.Usage, "no platform is named")
	}
	if o.Created.IsZero() {
		o.Created = s.AsOf
	}
	o.User = cmp.Or(o.User, defaultUser)
	set := &Set{}
	art, err := s.layer()
	if err != nil {
		return nil, diag.Wrap(diag.CodeOf(err), err, "write the layer of the artifact")
	}
	set.blobs = append(set.blobs, art)
	seen := map[Platform]bool{}
	for _, r := range runtimes {
		if seen[r.Platform] {
			return nil, diag.New(diag.Usage, "platform %s is named twice", r.Platform)
		}
		seen[r.Platform] = true
		if err := set.add(s, r, art, o); err != nil {
			return nil, err
		}
	}
	if len(set.Images) == 1 {
		set.Root = set.Images[0].Descriptor
		return set, nil
	}
	idx := index{SchemaVersion: 2, MediaType: artifact.MediaTypeIndex, Annotations: labels(s, o)}
	for _, i := range set.Images {
		d := i.Descriptor
		idx.Manifests = append(idx.Manifests, listed{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Platform: &platformJSON{i.Platform.Arch, i.Platform.OS}})
	}
	set.Root, err = set.put(idx, artifact.MediaTypeIndex)
	return set, err
}

// add makes the image for one runtime.
func (set *Set) add(s *Staged, r Runtime, art blob, o Options) error {
	run, err := r.layer(o.Variant)
	if err != nil {
		return diag.Wrap(diag.CodeOf(err), err, "write the layer of the runtime")
	}
	o.Labels = maps.Clone(o.Labels)
	layers, env := []blob{run, art}, environment(s, o.Variant)
	if r.code.Dir != "" {
		code, err := codeLayer(r.code.Dir)
		if err != nil {
			return diag.Wrap(diag.Failure, err, "write the layer of the compiled code")
		}
		layers = append(layers, code)
		set.blobs = append(set.blobs, code)
		env = append(env, "WAYBILL_CODE=/"+codeDir, "WAYBILL_CODE_DIGEST="+r.code.Digest)
		slices.Sort(env)
		if o.Labels == nil {
			o.Labels = map[string]string{}
		}
		o.Labels[LabelCode] = r.code.Digest
	}
	created := o.Created.UTC().Format(time.RFC3339)
	var diffIDs []artifact.Digest
	var descs []artifact.Descriptor
	var size int64
	for _, l := range layers {
		diffIDs, descs, size = append(diffIDs, l.desc.Digest), append(descs, l.desc), size+l.desc.Size
	}
	cfg := configJSON{
		Created: created, Architecture: r.Platform.Arch, OS: r.Platform.OS,
		Config: runConfig{
			User: o.User, Env: env, Entrypoint: []string{server}, WorkingDir: "/", Labels: labels(s, o), StopSignal: "SIGTERM",
		},
		RootFS: rootFS{Type: "layers", DiffIDs: diffIDs},
		History: []history{
			{Created: created, CreatedBy: "waybill image", Comment: "waybill-serve " + version.Number},
			{Created: created, CreatedBy: "waybill image", Comment: s.Model + " " + s.Version + " " + string(s.Digest)},
		},
	}
	if r.code.Dir != "" {
		cfg.History = append(cfg.History, history{Created: created, CreatedBy: "waybill image", Comment: "compiled code " + r.code.Digest})
	}
	if o.Variant != Lambda {
		cfg.Config.ExposedPorts = map[string]struct{}{"8080/tcp": {}}
	}
	conf, err := set.document(cfg, mediaTypeConfig)
	if err != nil {
		return err
	}
	m := manifestJSON{
		SchemaVersion: 2, MediaType: artifact.MediaTypeManifest, Config: conf, Layers: descs, Annotations: labels(s, o),
	}
	d, err := set.put(m, artifact.MediaTypeManifest)
	if err != nil {
		return err
	}
	set.blobs = append(set.blobs, run)
	set.Images = append(set.Images, Image{
		Platform: r.Platform, Descriptor: d, Runtime: r.Size, Artifact: s.Size, Size: size + conf.Size + d.Size,
		config: conf, layers: m.Layers,
	})
	bom, err := sbom(s, r, d.Digest, o)
	if err != nil {
		return diag.Wrap(diag.Failure, err, "write the bill of materials")
	}
	return set.attach(d, bom, mediaTypeSBOM, nil)
}

// environment is what waybill-serve reads.
func environment(s *Staged, v Variant) []string {
	env := map[string]string{
		"PATH": "/bin", "WAYBILL_ARTIFACT": "/" + artifactDir, "WAYBILL_TRUST": "/" + artifactDir + "/" + trustName, "WAYBILL_TRUST_DIGEST": string(s.TrustDigest),
		"WAYBILL_MODEL": s.Model, "WAYBILL_DIGEST": string(s.Digest), "WAYBILL_VARIANT": string(v), "WAYBILL_AS_OF": s.AsOf.UTC().Format(time.RFC3339),
		"WAYBILL_EVIDENCE": strings.Join(s.Evidence, ","), "WAYBILL_ENVIRONMENT": s.Env, "WAYBILL_CHANNEL": s.Channel,
	}
	if v == Modelcar { // started as a server, it is a plain one
		env["WAYBILL_VARIANT"] = string(Plain)
	}
	var out []string
	for _, k := range slices.Sorted(maps.Keys(env)) {
		if env[k] != "" {
			out = append(out, k+"="+env[k])
		}
	}
	return out
}

func labels(s *Staged, o Options) map[string]string {
	l := maps.Clone(o.Labels)
	if l == nil {
		l = map[string]string{}
	}
	maps.Copy(l, map[string]string{
		"org.opencontainers.image.title": s.Model, "org.opencontainers.image.version": s.Version, "org.opencontainers.image.created": o.Created.UTC().Format(time.RFC3339),
		"org.opencontainers.image.description": "model " + s.Model + " " + s.Version + ", served by waybill-serve " + version.Number,
		LabelDigest:                            string(s.Digest), LabelModel: s.Model, LabelVersion: s.Version, LabelVariant: string(o.Variant), LabelRuntime: version.Number, LabelTrust: string(s.TrustDigest),
	})
	return l
}

// put adds a manifest or index.
func (set *Set) put(v any, mediaType string) (artifact.Descriptor, error) {
	raw, err := artifact.Canonical(v)
	if err != nil {
		return artifact.Descriptor{}, err
	}
	d := describe(raw, mediaType)
	set.manifests = append(set.manifests, manifest{raw, d})
	return d, nil
}

// document adds a blob that is in memory.
func (set *Set) document(v any, mediaType string) (artifact.Descriptor, error) {
	raw, err := artifact.Canonical(v)
	if err != nil {
		return artifact.Descriptor{}, err
	}
	return set.bytes(raw, mediaType), nil
}

func (set *Set) bytes(raw []byte, mediaType string) artifact.Descriptor {
	d := describe(raw, mediaType)
	set.blobs = append(set.blobs, blob{d, func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(string(raw))), nil }})
	return d
}

func describe(raw []byte, mediaType string) artifact.Descriptor {
	return artifact.Descriptor{MediaType: mediaType, Digest: artifact.DigestOf(raw), Size: int64(len(raw))}
}

// attach adds a document about subject.
func (set *Set) attach(subject artifact.Descriptor, doc []byte, mediaType string, annotations map[string]string) error {
	m := manifestJSON{
		SchemaVersion: 2, MediaType: artifact.MediaTypeManifest, ArtifactType: mediaType, Config: set.bytes([]byte(artifact.EmptyConfig), artifact.MediaTypeEmpty),
		Layers: []artifact.Descriptor{set.bytes(doc, mediaType)}, Subject: &artifact.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size}, Annotations: annotations,
	}
	raw, err := artifact.Canonical(m)
	if err != nil {
		return err
	}
	set.attached = append(set.attached, manifest{raw, describe(raw, artifact.MediaTypeManifest)})
	return nil
}

// Attach adds a signed statement about the image, or index, that subject describes.
func (set *Set) Attach(subject artifact.Descriptor, bundle []byte, predicateType string) error {
	raw, err := artifact.BuildReferrer(subject, bundle, predicateType)
	if err != nil {
		return err
	}
	set.bytes([]byte(artifact.EmptyConfig), artifact.MediaTypeEmpty)
	set.bytes(bundle, artifact.MediaTypeBundle)
	set.attached = append(set.attached, manifest{raw, describe(raw, artifact.MediaTypeManifest)})
	return nil
}

// Subjects are what a signature is put on: each image, and the index when there is one.
func (set *Set) Subjects() []artifact.Descriptor {
	var out []artifact.Descriptor
	for _, m := range set.manifests {
		out = append(out, m.desc)
	}
	return out
}

// SBOM is the bill of materials of an image, CycloneDX 1.7 as JSON.
func (set *Set) SBOM(of artifact.Digest) ([]byte, error) {
	for _, a := range set.attached {
		var m manifestJSON
		if err := json.Unmarshal(a.raw, &m); err != nil {
			return nil, err
		}
		if m.Subject == nil || m.Subject.Digest != of || m.ArtifactType != mediaTypeSBOM {
			continue
		}
		for _, b := range set.blobs {
			if b.desc.Digest == m.Layers[0].Digest {
				r, err := b.open()
				if err != nil {
					return nil, err
				}
				defer r.Close()
				return io.ReadAll(r)
			}
		}
	}
	return nil, fmt.Errorf("%s has no bill of materials", of)
}

type manifestJSON struct {
	SchemaVersion int                   `json:"schemaVersion"`
	MediaType     string                `json:"mediaType"`
	ArtifactType  string                `json:"artifactType,omitempty"`
	Config        artifact.Descriptor   `json:"config"`
	Layers        []artifact.Descriptor `json:"layers"`
	Subject       *artifact.Descriptor  `json:"subject,omitempty"`
	Annotations   map[string]string     `json:"annotations,omitempty"`
}

type platformJSON struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

type listed struct {
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Digest       artifact.Digest   `json:"digest"`
	Size         int64             `json:"size"`
	Platform     *platformJSON     `json:"platform,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
}

type index struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	Manifests     []listed          `json:"manifests"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

type configJSON struct {
	Created      string    `json:"created"`
	Architecture string    `json:"architecture"`
	OS           string    `json:"os"`
	Config       runConfig `json:"config"`
	RootFS       rootFS    `json:"rootfs"`
	History      []history `json:"history"`
}

type runConfig struct {
	User         string              `json:"User"`
	ExposedPorts map[string]struct{} `json:"ExposedPorts,omitempty"`
	Env          []string            `json:"Env"`
	Entrypoint   []string            `json:"Entrypoint"`
	WorkingDir   string              `json:"WorkingDir"`
	Labels       map[string]string   `json:"Labels"`
	StopSignal   string              `json:"StopSignal"`
}

type rootFS struct {
	Type    string            `json:"type"`
	DiffIDs []artifact.Digest `json:"diff_ids"`
}

type history struct {
	Created   string `json:"created"`
	CreatedBy string `json:"created_by"`
	Comment   string `json:"comment"`
}

// layer is the layer of a staged artifact.
func (s *Staged) layer() (blob, error) {
	files, err := os.ReadDir(filepath.Join(s.Dir, "blobs", "sha256"))
	if err != nil {
		return blob{}, err
	}
	if len(files) > maxBuildFiles {
		return blob{}, errors.New("too many files")
	}
	es := []entry{{name: artifactDir + "/"}, {name: artifactDir + "/blobs/"}, {name: artifactDir + "/blobs/sha256/"}}
	for _, f := range files { // sorted by name
		es = append(es, entry{name: artifactDir + "/blobs/sha256/" + f.Name(), file: filepath.Join(s.Dir, "blobs", "sha256", f.Name()), sum: artifact.Digest("sha256:" + f.Name()), mode: 0o444})
	}
	for _, n := range []string{"index.json", "oci-layout", trustName} {
		es = append(es, entry{name: artifactDir + "/" + n, file: filepath.Join(s.Dir, n), mode: 0o444})
	}
	return layerOf(es)
}
