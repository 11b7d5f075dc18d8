package edge

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/verify"
)

// Release says which model is opened and who must have released it.
type Release struct {
	From  string // an archive that `waybill save` wrote, or the folder of an OCI layout or of a store
	Model string // name that it must have been released under
	// Trust is the file of the signed trust document, and TrustDigest the digest that this document must have: it comes from whoever
	// signs the document, not from where the file came from.
	Trust, TrustDigest string

	Digest   string   // of the artifact; "": From holds one model only
	Evidence []string // predicate types of statements that must be there besides the release and what the trust document requires
	Env      string   // environment and channel that statements about one of them are about
	Channel  string
	Engine   Config
	// Now is the clock that expiry is judged by; nil is the machine's.
	Now func() time.Time
}

// Opened is a model that was proven and is ready. It is safe for concurrent use; Close frees it and its runtime.
type Opened struct {
	*Model
	Digest artifact.Digest   // of the artifact
	Proof  []verify.Evidence // the statements that verified; nil after InsecureOpenWithoutAnyProof
	rt     *Runtime
}

// Close frees the model and its runtime.
func (o *Opened) Close(ctx context.Context) error {
	return errors.Join(o.Model.Close(ctx), o.rt.Close(ctx))
}

// Open verifies and loads a model, without a network: the trust document against its digest, the release by publishers that it
// names for this model, every statement that its rules or the caller require, every byte against the digest that they are
// about, and the golden vectors on this machine, bit for bit. A nil error is the only yes. There is no word in it on whether
// a newer release exists: a channel tells that, and the agent follows it.
func Open(ctx context.Context, r Release) (*Opened, error) {
	raw, err := readAtMost(r.Trust, artifact.MaxBundle)
	if err != nil {
		return nil, fmt.Errorf("open the trust document: %w", err)
	}
	pin, err := artifact.ParseDigest(r.TrustDigest)
	if err != nil {
		return nil, fmt.Errorf("the digest of the trust document: %w", err)
	}
	if r.Model == "" {
		return nil, errors.New("open: the name of the model is missing: any model of the same publisher would do")
	}
	doc, err := verify.TrustSelf(raw)
	if err == nil {
		doc, err = verify.TrustPinned(raw, doc.Version, pin)
	}
	if err != nil {
		return nil, fmt.Errorf("trust document %s: %w", r.Trust, err)
	}
	return open(ctx, r, func(l *layout, m *artifact.Model, d artifact.Digest) ([]verify.Evidence, error) {
		now := time.Now
		if r.Now != nil {
			now = r.Now
		}
		bundles, err := l.bundles(d)
		if err != nil {
			return nil, err
		}
		proven, failed := verify.All(bundles, doc, verify.Want{Subject: d, Model: r.Model, Env: r.Env, Channel: r.Channel, Now: now(), Layers: m.Layers})
		named := ""
		proven = slices.DeleteFunc(proven, func(e verify.Evidence) bool { // a release of the same bytes under another name
			other := e.PredicateType == evidence.TypeRelease && e.SubjectName != r.Model
			if other {
				named = e.SubjectName
			}
			return other
		})
		if named != "" && !slices.ContainsFunc(proven, func(e verify.Evidence) bool { return e.PredicateType == evidence.TypeRelease }) {
			return nil, verify.Refuse(verify.WrongSubject, "it is released as model %q, not as %q", named, r.Model)
		}
		for _, t := range append([]string{evidence.TypeRelease}, r.Evidence...) {
			if slices.ContainsFunc(proven, func(e verify.Evidence) bool { return e.PredicateType == t }) {
				continue
			}
			for _, f := range failed {
				if f.PredicateType == t {
					return nil, f.Err
				}
			}
			return nil, verify.Missing(t, len(bundles))
		}
		return proven, verify.Enough(proven, doc, d)
	})
}

// InsecureOpenWithoutAnyProof loads a model that nobody vouches for: whoever can write the file decides what it computes. It is
// for experiments with one's own files. Digests and golden vectors, which come from the same file, are still checked.
func InsecureOpenWithoutAnyProof(ctx context.Context, from string, engine Config) (*Opened, error) {
	return open(ctx, Release{From: from, Engine: engine}, nil)
}

// open loads the model, once prove has said yes.
func open(ctx context.Context, r Release, prove func(*layout, *artifact.Model, artifact.Digest) ([]verify.Evidence, error)) (_ *Opened, err error) {
	fail := func(err error) (*Opened, error) { return nil, fmt.Errorf("open %s: %w", r.From, err) }
	l, err := openLayout(r.From)
	if err != nil {
		return fail(err)
	}
	defer l.close()
	d, raw, err := l.model(r.Digest)
	if err != nil {
		return fail(err)
	}
	m, err := verify.Manifest(raw, d)
	if err != nil {
		return fail(err)
	}
	o := &Opened{Digest: d}
	if prove != nil {
		if o.Proof, err = prove(l, m, d); err != nil {
			return fail(err)
		}
	}
	if o.rt, err = New(ctx, r.Engine); err != nil {
		return fail(err)
	}
	if o.Model, err = o.rt.Load(ctx, l.files(m)); err == nil {
		err = o.Probe(ctx)
	}
	if err != nil {
		return fail(errors.Join(err, o.rt.Close(ctx))) // closes the model too
	}
	return o, nil
}

// layout is an OCI layout in a folder or in an archive. Nothing in it is believed.
type layout struct {
	dir   string
	file  *os.File // of an archive
	index []byte
	blobs map[artifact.Digest]extent // of an archive
}

type extent struct{ at, size int64 }

// Limits of what is read before anything is proven.
const (
	maxEntries = 100_000
	maxDepth   = 3
)

func openLayout(from string) (*layout, error) {
	st, err := os.Stat(from)
	if err != nil {
		return nil, err
	}
	l := &layout{}
	if st.IsDir() {
		l.dir = from
		l.index, err = readAtMost(filepath.Join(from, "index.json"), artifact.MaxManifest)
		return l, err
	}
	if l.file, err = os.Open(from); err != nil {
		return nil, err
	}
	if err := l.scan(st.Size()); err != nil {
		l.close()
		return nil, fmt.Errorf("no archive of an OCI layout: %w", err)
	}
	return l, nil
}

// scan notes where the blobs of the archive lie.
func (l *layout) scan(size int64) error {
	l.blobs = map[artifact.Digest]extent{}
	t := tar.NewReader(l.file)
	for n := 0; ; n++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if n == maxEntries {
			return fmt.Errorf("more than %d entries", maxEntries)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		at, err := l.file.Seek(0, io.SeekCurrent) // the reader has read the header and no more
		if err != nil {
			return err
		}
		if h.Size < 0 || at+h.Size > size {
			return fmt.Errorf("it ends in the middle of %s", h.Name)
		}
		name := path.Clean(h.Name)
		hex, isBlob := strings.CutPrefix(name, "blobs/sha256/")
		switch {
		case isBlob:
			d, err := artifact.ParseDigest("sha256:" + hex)
			if err != nil {
				return fmt.Errorf("%s: %w", h.Name, err)
			}
			l.blobs[d] = extent{at, h.Size}
		case name == "index.json":
			if l.index != nil || h.Size > artifact.MaxManifest {
				return errors.New("index.json is too large or there twice")
			}
			if l.index, err = io.ReadAll(t); err != nil {
				return err
			}
		}
	}
	if l.index == nil {
		return errors.New("there is no index.json")
	}
	return nil
}

func (l *layout) close() {
	if l.file != nil {
		_ = l.file.Close() // read only
	}
}

func (l *layout) path(d artifact.Digest) string {
	return filepath.Join(l.dir, "blobs", "sha256", d.Hex())
}

// blob reads one of at most max bytes, whose digest is d.
func (l *layout) blob(d artifact.Digest, max int64) (b []byte, err error) {
	if l.file == nil {
		b, err = readAtMost(l.path(d), max)
	} else {
		e, ok := l.blobs[d]
		switch {
		case !ok:
			err = fmt.Errorf("%s is not in the archive", d)
		case e.size > max:
			err = fmt.Errorf("%s has %d bytes, more than %d", d, e.size, max)
		default:
			b, err = io.ReadAll(io.NewSectionReader(l.file, e.at, e.size))
		}
	}
	if err != nil {
		return nil, err
	}
	if got := artifact.DigestOf(b); got != d {
		return nil, fmt.Errorf("the file of %s has digest %s", d, got)
	}
	return b, nil
}

// manifest is what is read of an entry of the index before it is known to be a model.
type manifest struct {
	MediaType    string                `json:"mediaType"`
	ArtifactType string                `json:"artifactType"`
	Subject      *artifact.Descriptor  `json:"subject"`
	Layers       []artifact.Descriptor `json:"layers"`
	Manifests    []artifact.Descriptor `json:"manifests"`
}

// each visits the manifests that the index lists, those of indexes in it too. An entry that cannot be read is left out: it proves
// nothing, and it must not keep the others from being found.
func (l *layout) each(do func(d artifact.Digest, raw []byte, m *manifest)) error {
	var top manifest
	if err := json.Unmarshal(l.index, &top); err != nil {
		return fmt.Errorf("index.json: %w", err)
	}
	seen := map[artifact.Digest]bool{}
	var walk func(list []artifact.Descriptor, depth int)
	walk = func(list []artifact.Descriptor, depth int) {
		for _, x := range list {
			if _, err := artifact.ParseDigest(string(x.Digest)); err != nil || seen[x.Digest] || len(seen) == maxEntries {
				continue
			}
			seen[x.Digest] = true
			raw, err := l.blob(x.Digest, artifact.MaxManifest)
			var m manifest
			if err != nil || json.Unmarshal(raw, &m) != nil {
				continue
			}
			if len(m.Manifests) > 0 && depth < maxDepth {
				walk(m.Manifests, depth+1)
				continue
			}
			do(x.Digest, raw, &m)
		}
	}
	walk(top.Manifests, 0)
	return nil
}

// model finds the manifest with the digest, or, without one, the only model.
func (l *layout) model(digest string) (artifact.Digest, []byte, error) {
	if digest != "" {
		d, err := artifact.ParseDigest(digest)
		if err != nil {
			return "", nil, err
		}
		raw, err := l.blob(d, artifact.MaxManifest)
		return d, raw, err
	}
	var found []artifact.Digest
	var raw []byte
	err := l.each(func(d artifact.Digest, b []byte, m *manifest) {
		if m.Subject == nil && m.ArtifactType == artifact.ArtifactType {
			found, raw = append(found, d), b
		}
	})
	switch {
	case err != nil:
		return "", nil, err
	case len(found) == 0:
		return "", nil, errors.New("there is no model in it")
	case len(found) > 1:
		return "", nil, fmt.Errorf("it holds %d models: say by its digest which", len(found))
	}
	return found[0], raw, nil
}

// bundles are the statements that stand there about the digest.
func (l *layout) bundles(about artifact.Digest) ([][]byte, error) {
	var out [][]byte
	err := l.each(func(_ artifact.Digest, _ []byte, m *manifest) {
		if m.Subject == nil || m.Subject.Digest != about {
			return
		}
		for _, x := range m.Layers {
			if x.MediaType != artifact.MediaTypeBundle {
				continue
			}
			if _, err := artifact.ParseDigest(string(x.Digest)); err != nil {
				continue
			}
			if b, err := l.blob(x.Digest, artifact.MaxBundle); err == nil {
				out = append(out, b)
			}
		}
	})
	return out, err
}

// files are the layers of m. The weights of a folder are mapped from their file, those of an archive copied.
func (l *layout) files(m *artifact.Model) Files {
	f := Files{Layers: m.OnDevice(), Read: func(x artifact.Layer) ([]byte, error) { return l.blob(x.Digest, x.Size) }}
	if l.file == nil {
		f.Path = l.path
	}
	return f
}

// readAtMost reads a file that is no larger than max.
func readAtMost(name string, max int64) ([]byte, error) {
	st, err := os.Stat(name)
	if err == nil && st.Size() > max {
		err = fmt.Errorf("%s has %d bytes, more than %d", name, st.Size(), max)
	}
	if err != nil {
		return nil, err
	}
	return os.ReadFile(name)
}
