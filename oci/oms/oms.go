// Package oms is OpenSSF Model Signing (OMS) v1.0: a signed list of a model's files with their digests. The list of an
// artifact comes from its manifest, since every layer is one file as it is, so that nothing has to be downloaded or
// hashed again. The package reads and checks bundles of all three signing methods and compares lists with layers and with
// folders. Standard library only, no network.
package oms

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/strictjson"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
)

// Values of the predicate that are written, and read, here.
const (
	MethodFiles = "files"
	SHA256      = "sha256"
)

// Predicate is https://model_signing/signature/v1.0.
type Predicate struct {
	Resources     []Resource    `json:"resources"`
	Serialization Serialization `json:"serialization"`
}

// Resource is one file.
type Resource struct {
	Name      string `json:"name"` // relative, with slashes
	Digest    string `json:"digest"`
	Algorithm string `json:"algorithm"`
}

// Serialization tells how the list was made.
type Serialization struct {
	Method        string   `json:"method"`
	HashType      string   `json:"hash_type"`
	ShardSize     int64    `json:"shard_size,omitempty"`
	AllowSymlinks bool     `json:"allow_symlinks"`
	IgnorePaths   []string `json:"ignore_paths,omitempty"`
}

// ignored are the paths at the top of a folder that OMS leaves out unless told otherwise.
func ignored() []string { return []string{".git", ".gitattributes", ".github", ".gitignore"} }

// New makes the statement about the files of an artifact: its raw layers, with the digests that the manifest has. name is
// for people. The subject is OMS's root digest, not the artifact's.
func New(name string, layers []artifact.Layer) (*evidence.Statement, error) {
	p := Predicate{Serialization: Serialization{Method: MethodFiles, HashType: SHA256, IgnorePaths: ignored()}, Resources: []Resource{}}
	for _, l := range layers {
		if !strings.HasSuffix(l.Descriptor().MediaType, ".raw") {
			return nil, diag.Errorf("%s: a layer of type %s is not the file itself", l.Path, l.Descriptor().MediaType)
		}
		if p.ignores(l.Path) {
			return nil, diag.Errorf("%s: OMS leaves files of git out, so it cannot sign one", l.Path)
		}
		p.Resources = append(p.Resources, Resource{Name: l.Path, Digest: l.Digest.Hex(), Algorithm: SHA256})
	}
	// Strings compare by bytes, which for UTF-8 is the order of code points.
	slices.SortFunc(p.Resources, func(a, b Resource) int { return strings.Compare(a.Name, b.Name) })
	if err := p.check(); err != nil {
		return nil, err
	}
	root, err := p.Root()
	if err != nil {
		return nil, err
	}
	return evidence.NewStatement(evidence.TypeOMS, name, root, p)
}

// Root is the root digest: SHA-256 of the resources' raw digests, in the order of the list.
func (p *Predicate) Root() (artifact.Digest, error) {
	h := sha256.New()
	for _, r := range p.Resources {
		d, err := hex.DecodeString(r.Digest)
		if err != nil {
			return "", diag.Errorf("resource %q: %w", r.Name, err)
		}
		h.Write(d)
	}
	return artifact.Digest("sha256:" + hex.EncodeToString(h.Sum(nil))), nil
}

// Check reads the predicate of a statement and checks that the subject is its root digest. It checks no signature.
func Check(s *evidence.Statement) (*Predicate, error) {
	if s.PredicateType != evidence.TypeOMS {
		return nil, diag.Errorf("predicate type %q, not %q", s.PredicateType, evidence.TypeOMS)
	}
	p, err := parsePredicate(s.Predicate)
	if err != nil {
		return nil, err
	}
	root, err := p.Root()
	if err != nil {
		return nil, err
	}
	if s.SubjectDigest() != root {
		return nil, diag.Errorf("the files listed hash to %s, the subject is %s", root, s.SubjectDigest())
	}
	return p, nil
}

func parsePredicate(raw []byte) (*Predicate, error) {
	var outer struct {
		Resources     []json.RawMessage `json:"resources"`
		Serialization Serialization     `json:"serialization"`
	}
	if err := strictjson.Decode(raw, &outer); err != nil {
		return nil, err
	}
	p := &Predicate{Serialization: outer.Serialization, Resources: make([]Resource, len(outer.Resources))}
	for i, r := range outer.Resources { // a resource may say more than is read
		if err := strictjson.DecodeOpen(r, &p.Resources[i]); err != nil {
			return nil, diag.Errorf("resources[%d]: %w", i, err)
		}
	}
	return p, p.check()
}

// check refuses what v1.0 does not allow and what this package does not do. A list of names is checked like the member
// list of an archive: whoever joins one to a folder must end inside it.
func (p *Predicate) check() error {
	switch s := p.Serialization; {
	case s.Method != MethodFiles:
		return diag.Errorf("serialization method %q is not read here, only %q", s.Method, MethodFiles)
	case s.HashType != SHA256:
		return diag.Errorf("hash_type %q is not read here, only %q", s.HashType, SHA256)
	case s.ShardSize != 0:
		return errors.New("shard_size in a list of files")
	case s.AllowSymlinks:
		return errors.New("allow_symlinks: what a symbolic link leads to is not signed, so such lists are refused")
	case len(p.Resources) == 0:
		return errors.New("the list of files is empty")
	}
	for _, i := range p.Serialization.IgnorePaths {
		if err := checkName(strings.TrimSuffix(i, "/")); err != nil {
			return diag.Errorf("ignore_paths: %w", err)
		}
	}
	seen := map[string]bool{}
	for _, r := range p.Resources {
		if err := checkName(r.Name); err != nil {
			return err
		}
		if r.Algorithm != SHA256 {
			return diag.Errorf("resource %q has algorithm %q, not %q", r.Name, r.Algorithm, SHA256)
		}
		if _, err := artifact.ParseDigest("sha256:" + r.Digest); err != nil {
			return diag.Errorf("resource %q: %w", r.Name, err)
		}
		if seen[r.Name] {
			return diag.Errorf("resource %q stands there twice", r.Name)
		}
		seen[r.Name] = true
	}
	return nil
}

// checkName accepts relative paths with slashes that mean the same place on every system.
func checkName(name string) error {
	bad := func(why string) error { return diag.Errorf("path %q %s", name, why) }
	switch {
	case name == "":
		return errors.New("an empty path")
	case !utf8.ValidString(name):
		return bad("is not UTF-8")
	case strings.ContainsFunc(name, unicode.IsControl):
		return bad("holds a control character")
	case strings.Contains(name, `\`):
		return bad("holds a backslash")
	case path.IsAbs(name) || len(name) > 1 && name[1] == ':':
		return bad("is absolute")
	case path.Clean(name) != name || name == "." || name == ".." || strings.HasPrefix(name, "../"):
		return bad("is not a plain path inside the model")
	}
	return nil
}

// ignores tells whether a path is in, or below, one of the ignored ones.
func (p *Predicate) ignores(name string) bool { return under(name, p.Serialization.IgnorePaths) }

func under(name string, roots []string) bool {
	return slices.ContainsFunc(roots, func(r string) bool {
		r = strings.TrimSuffix(r, "/")
		return name == r || strings.HasPrefix(name, r+"/")
	})
}

// Matches compares the list with the layers of an artifact: the same files with the same digests, no more and no fewer.
func (p *Predicate) Matches(layers []artifact.Layer) error {
	want := map[string]string{}
	for _, l := range layers {
		want[l.Path] = l.Digest.Hex()
	}
	for _, r := range p.Resources {
		switch d, ok := want[r.Name]; {
		case !ok:
			return diag.Errorf("it lists %s, which the artifact does not have", r.Name)
		case d != r.Digest:
			return diag.Errorf("it lists %s as %s, the artifact has %s", r.Name, r.Digest, d)
		}
		delete(want, r.Name)
	}
	for name := range want {
		return diag.Errorf("it does not list %s", name)
	}
	return nil
}
