// Package bundle is a policy as data: a directory of Rego and JSON that becomes one tar with a deterministic digest. That
// digest is what an environment pins, what a trust document lists and what a verdict binds. The same files give the same
// digest on every machine: names sorted, constant times and owners, line ends untouched.
package bundle

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
)

// MetaFile names the policy: {"name": "...", "version": "..."}.
const MetaFile = "policy.json"

// Limits on a policy read from outside.
const (
	MaxFiles = 480 // so that a manifest has room for each
	MaxBytes = 8 << 20
)

// Meta is what a policy calls itself.
type Meta struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

var (
	nameRE    = regexp.MustCompile(`^[a-z0-9]+(?:[._-][a-z0-9]+)*$`)
	versionRE = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)
)

// check keeps name and version in the form that references and the scopes of keys have.
func (m Meta) check() error {
	if m.Name != "" && (len(m.Name) > 128 || !nameRE.MatchString(m.Name)) {
		return fmt.Errorf("name %.40q is not lower-case letters and digits with single separators (. _ -)", m.Name)
	}
	if m.Version != "" && !versionRE.MatchString(m.Version) {
		return fmt.Errorf("version %.40q is no version such as 1.0", m.Version)
	}
	return nil
}

// Bundle is an immutable set of policy files. Safe for concurrent use.
type Bundle struct {
	names  []string
	files  map[string][]byte
	meta   Meta
	tar    []byte
	digest artifact.Digest
}

// member tells whether a path belongs to a policy: Rego that is not a test, data.json at any depth, and policy.json.
func member(p string) bool {
	base := path.Base(p)
	switch {
	case strings.HasSuffix(p, "_test.rego"):
		return false
	case strings.HasSuffix(p, ".rego"), base == "data.json", p == MetaFile:
		return true
	}
	return false
}

// FromFS reads a policy directory. Files that are no part of a policy (tests, fixtures, texts) are left out; a file that
// looks like a part and cannot be one (data.yaml, a link) is an error.
func FromFS(fsys fs.FS) (*Bundle, error) {
	files := map[string][]byte{}
	total := 0
	err := fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == "fixtures" || (strings.HasPrefix(d.Name(), ".") && p != ".") {
				return fs.SkipDir
			}
			return nil
		}
		if b := path.Base(p); b == "data.yaml" || b == "data.yml" {
			return fmt.Errorf("%s: policy data must be JSON (data.json)", p)
		}
		if !member(p) {
			return nil
		}
		if !d.Type().IsRegular() {
			return fmt.Errorf("%s: not a regular file", p)
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if total += int(min(info.Size(), MaxBytes+1)); total > MaxBytes {
			return fmt.Errorf("policy is larger than %d bytes", MaxBytes)
		}
		b, err := fs.ReadFile(fsys, p)
		if err != nil {
			return err
		}
		files[p] = b
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	return build(files)
}

// FromTar reads a policy tar of at most MaxBytes. The digest is that of the canonical tar, so an archive that Tar did not
// write (other order, other times) is refused rather than renamed.
func FromTar(b []byte) (*Bundle, error) { return fromTar(b, "") }

// fromTar leaves out the check that skip names: a test sees the attack succeed.
func fromTar(b []byte, skip string) (*Bundle, error) {
	if skip != "size" && len(b) > MaxBytes {
		return nil, fmt.Errorf("policy tar has %d bytes, limit %d", len(b), MaxBytes)
	}
	files := map[string][]byte{}
	r := tar.NewReader(bytes.NewReader(b))
	for total := int64(0); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("policy tar: %w", err)
		}
		if h.Typeflag != tar.TypeReg || skip != "path" && (!fs.ValidPath(h.Name) || !member(h.Name)) {
			return nil, fmt.Errorf("policy tar: %q is no part of a policy", h.Name)
		}
		// A sparse file names a size that the archive does not have: reading it would fill memory with zeros.
		if total += h.Size; skip != "sparse" && (h.Size < 0 || total > int64(len(b))) {
			return nil, fmt.Errorf("policy tar: %s: its files are larger than the archive", h.Name)
		}
		if _, dup := files[h.Name]; dup {
			return nil, fmt.Errorf("policy tar: %q twice", h.Name)
		}
		c, err := io.ReadAll(r)
		if err != nil {
			return nil, fmt.Errorf("policy tar: %s: %w", h.Name, err)
		}
		files[h.Name] = c
	}
	p, err := build(files)
	if err != nil {
		return nil, err
	}
	if skip == "" && !bytes.Equal(p.tar, b) {
		return nil, ErrNotCanonical
	}
	return p, nil
}

// ErrNotCanonical refuses an archive or a manifest with the right content in another form: it would have another digest.
var ErrNotCanonical = errors.New("policy tar: not in canonical form (pack it again with: waybill policy pack)")

func build(files map[string][]byte) (*Bundle, error) {
	if len(files) > MaxFiles {
		return nil, fmt.Errorf("policy has %d files, limit %d", len(files), MaxFiles)
	}
	p := &Bundle{files: files}
	rego := 0
	for n := range files {
		p.names = append(p.names, n)
		if strings.HasSuffix(n, ".rego") {
			rego++
		}
	}
	if rego == 0 {
		return nil, errors.New("policy has no .rego file")
	}
	slices.Sort(p.names)
	if err := portable(p.names); err != nil {
		return nil, err
	}
	if m, ok := files[MetaFile]; ok {
		d := json.NewDecoder(bytes.NewReader(m))
		d.DisallowUnknownFields()
		if err := d.Decode(&p.meta); err != nil {
			return nil, fmt.Errorf("%s: %w", MetaFile, err)
		}
		if d.More() {
			return nil, fmt.Errorf("%s: more than one document", MetaFile)
		}
		if err := p.meta.check(); err != nil {
			return nil, fmt.Errorf("%s: %w", MetaFile, err)
		}
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, n := range p.names {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: n, Mode: 0o644, Size: int64(len(files[n])),
			ModTime: time.Unix(0, 0).UTC(), Format: tar.FormatUSTAR}
		if len(n) > 100 {
			return nil, fmt.Errorf("%s: path is longer than 100 bytes", n)
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("policy tar: %s: %w", n, err)
		}
		if _, err := w.Write(files[n]); err != nil {
			return nil, fmt.Errorf("policy tar: %s: %w", n, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("policy tar: %w", err)
	}
	if buf.Len() > MaxBytes {
		return nil, fmt.Errorf("policy tar has %d bytes, limit %d", buf.Len(), MaxBytes)
	}
	p.tar = buf.Bytes()
	p.digest = artifact.DigestOf(p.tar)
	return p, nil
}

// portable refuses names that would not come out as they are on every system: a policy is written back as files too.
func portable(names []string) error {
	seen := map[string]string{}
	for _, n := range names {
		if strings.ContainsFunc(n, func(r rune) bool { return r < ' ' || r == 0x7f || strings.ContainsRune(`\:*?"<>|`, r) }) {
			return fmt.Errorf("%q: the name has a character that files elsewhere cannot have", n)
		}
		for i, seg := 0, strings.ToLower(n); i <= len(seg); i++ {
			if i < len(seg) && seg[i] != '/' {
				continue
			}
			// A file must differ from every other file and folder by more than case.
			key, was := seg[:i], n[:i]
			if i == len(seg) {
				key += "\x00file"
				if other, ok := seen[seg+"\x00folder"]; ok {
					return fmt.Errorf("%s: there is a folder %s too", n, other)
				}
			} else {
				if other, ok := seen[key+"\x00file"]; ok {
					return fmt.Errorf("%s: there is a file %s too", n, other)
				}
				key += "\x00folder"
			}
			if other, ok := seen[key]; ok && other != was || ok && i == len(seg) {
				return fmt.Errorf("%s and %s differ in case alone", n, other)
			}
			seen[key] = was
		}
	}
	return nil
}

// Meta is the name and version from policy.json; zero when there is none.
func (b *Bundle) Meta() Meta { return b.meta }

// Digest is the sha256 of Tar.
func (b *Bundle) Digest() artifact.Digest { return b.digest }

// Tar returns a copy of the canonical archive.
func (b *Bundle) Tar() []byte { return bytes.Clone(b.tar) }

// Names lists the files in order.
func (b *Bundle) Names() []string { return slices.Clone(b.names) }

// File returns a copy of one file.
func (b *Bundle) File(name string) ([]byte, bool) {
	c, ok := b.files[name]
	return bytes.Clone(c), ok
}
