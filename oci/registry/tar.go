package registry

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/store"
)

const tarLayout = `{"imageLayoutVersion":"1.0.0"}`

// Annotations on the lines of an archive's index, besides the tag in org.opencontainers.image.ref.name.
const (
	// AnnotationName is the full name, since tools that read layouts want a plain tag in ref.name.
	AnnotationName = "dev.waybill.name"
	// The image that `cosign verify --local-image` looks for, which reads the first that it finds: so it stands in
	// archives of one artifact only.
	annotationKind = "kind"
	kindImage      = "dev.cosignproject.cosign/image"
)

// Source is where artifacts to save are read.
type Source interface {
	Resolve(ctx context.Context, tagOrDigest string) (artifact.Descriptor, error)
	Manifest(ctx context.Context, d artifact.Digest) ([]byte, artifact.Descriptor, error)
	Blob(ctx context.Context, d artifact.Descriptor) (io.ReadCloser, error)
	Referrers(ctx context.Context, d artifact.Digest) ([]artifact.Descriptor, error)
}

// SaveItem is one artifact to save and the name that it gets in the archive ("churn:1.0"; "" for none).
type SaveItem struct {
	From   Source
	Target string // tag or digest
	Name   string
	Along  bool // it accompanies the artifacts that the archive is about: a trust document, a channel record
}

// SaveOptions refine Save.
type SaveOptions struct {
	NoReferrers bool              // leave attached evidence behind
	Start       func(bytes int64) // told once how many bytes of blobs come; may be nil
	Progress    func(bytes int64) // told as they are written; may be nil
}

// Archive tells what an archive holds.
type Archive struct {
	Artifacts []store.Entry         `json:"artifacts"` // with their names
	Referrers []artifact.Descriptor `json:"referrers"`
	Blobs     int                   `json:"blobs"`
	Bytes     int64                 `json:"bytes"`
}

// Save writes artifacts with everything attached to them as one tar of an OCI layout. The same artifacts and names give
// the same bytes. Everything is hashed on the way; on an error w holds an incomplete archive, which the caller discards.
func Save(ctx context.Context, w io.Writer, items []SaveItem, o SaveOptions) (Archive, error) {
	p, err := Plan(ctx, items, o)
	if err != nil {
		return p.Archive, err
	}
	return p.Archive, p.Write(ctx, w, o)
}

// SavePlan is an archive that was looked up and not yet written.
type SavePlan struct {
	Archive Archive
	s       *saver
	index   artifact.Index
	order   []artifact.Digest
	main    map[artifact.Digest]bool
}

// Main is the artifact that the archive is about, "" when there are several.
func (p *SavePlan) Main() artifact.Digest {
	if len(p.main) == 1 {
		for d := range p.main {
			return d
		}
	}
	return ""
}

// Plan reads all manifests and finds out what an archive will hold.
func Plan(ctx context.Context, items []SaveItem, o SaveOptions) (*SavePlan, error) {
	p := &SavePlan{Archive: Archive{Artifacts: []store.Entry{}, Referrers: []artifact.Descriptor{}},
		s: &saver{manifests: map[artifact.Digest][]byte{}, blobs: map[artifact.Digest]blobFrom{}}}
	lines := map[string]artifact.Descriptor{} // by name, or by digest where there is none
	p.main = map[artifact.Digest]bool{}
	for _, it := range items {
		d, err := it.From.Resolve(ctx, it.Target)
		if err != nil {
			return p, err
		}
		if err := p.s.tree(ctx, it.From, d.Digest); err != nil {
			return p, err
		}
		key := it.Name
		if key == "" {
			key = string(d.Digest)
		}
		if was, twice := lines[key]; twice {
			if was.Digest != d.Digest {
				return p, diag.New(diag.Usage, "save: two artifacts would have the name %s in the archive: %s and %s", it.Name, was.Digest.Short(), d.Digest.Short()).
					Hint("save them into two files")
			}
			continue
		}
		lines[key] = d
		if !it.Along {
			p.main[d.Digest] = true
		}
		p.Archive.Artifacts = append(p.Archive.Artifacts, store.Entry{Descriptor: d, Ref: it.Name})
		if o.NoReferrers {
			continue
		}
		if err := p.referrers(ctx, it.From, d.Digest); err != nil {
			return p, err
		}
	}
	tags := map[string]int{}
	for name := range lines {
		_, tag, _ := strings.Cut(name, ":")
		tags[tag]++
	}
	for name, d := range lines {
		e := artifact.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, ArtifactType: d.ArtifactType, Annotations: map[string]string{}}
		if name != string(d.Digest) {
			ref := name
			if _, tag, ok := strings.Cut(name, ":"); ok {
				e.Annotations[AnnotationName] = name
				if tags[tag] == 1 {
					ref = tag
				}
			}
			e.Annotations[store.AnnotationRef] = ref
		}
		if d.Digest == p.Main() {
			e.Annotations[annotationKind] = kindImage
		}
		p.index.Manifests = append(p.index.Manifests, e)
	}
	for _, r := range p.Archive.Referrers {
		if _, named := lines[string(r.Digest)]; !named {
			p.index.Manifests = append(p.index.Manifests, artifact.Descriptor{MediaType: r.MediaType, Digest: r.Digest, Size: r.Size, ArtifactType: r.ArtifactType})
		}
	}
	p.index.SchemaVersion, p.index.MediaType = 2, artifact.MediaTypeIndex
	slices.SortFunc(p.index.Manifests, func(a, b artifact.Descriptor) int {
		return strings.Compare(string(a.Digest)+entryRef(a), string(b.Digest)+entryRef(b))
	})
	for d, b := range p.s.manifests {
		p.order = append(p.order, d)
		p.Archive.Bytes += int64(len(b))
	}
	for d, b := range p.s.blobs {
		if _, twice := p.s.manifests[d]; !twice {
			p.order = append(p.order, d)
			p.Archive.Bytes += b.d.Size
		}
	}
	slices.Sort(p.order)
	p.Archive.Blobs = len(p.order)
	return p, nil
}

// referrers follows what is attached, and what is attached to that.
func (p *SavePlan) referrers(ctx context.Context, from Source, d artifact.Digest) error {
	for todo := []artifact.Digest{d}; len(todo) > 0; {
		refs, err := from.Referrers(ctx, todo[0])
		if err != nil {
			return err
		}
		todo = todo[1:]
		for _, r := range refs {
			if _, done := p.s.manifests[r.Digest]; done {
				continue
			}
			if err := p.s.tree(ctx, from, r.Digest); err != nil {
				return err
			}
			p.Archive.Referrers = append(p.Archive.Referrers, r)
			if todo = append(todo, r.Digest); len(p.Archive.Referrers) > artifact.MaxReferrers {
				return diag.New(diag.Failure, "save %s: more than %d referrers", d, artifact.MaxReferrers)
			}
		}
	}
	return nil
}

// Write writes what was planned.
func (p *SavePlan) Write(ctx context.Context, w io.Writer, o SaveOptions) error {
	ib, err := artifact.Canonical(p.index)
	if err != nil {
		return err
	}
	if len(ib) > artifact.MaxManifest {
		return diag.New(diag.Failure, "save: the index of the archive would have %d bytes, more than the limit of %d", len(ib), artifact.MaxManifest)
	}
	if o.Start != nil {
		o.Start(p.Archive.Bytes)
	}
	t := tar.NewWriter(w)
	if err := tarFile(t, "oci-layout", int64(len(tarLayout)), strings.NewReader(tarLayout)); err != nil {
		return err
	}
	if err := tarFile(t, "index.json", int64(len(ib)), bytes.NewReader(ib)); err != nil {
		return err
	}
	for _, d := range p.order {
		if err := p.writeBlob(ctx, t, d, o.Progress); err != nil {
			return err
		}
	}
	return t.Close()
}

func (p *SavePlan) writeBlob(ctx context.Context, t *tar.Writer, d artifact.Digest, progress func(int64)) error {
	var r io.ReadCloser
	var size int64
	if b, ok := p.s.manifests[d]; ok {
		r, size = io.NopCloser(bytes.NewReader(b)), int64(len(b))
	} else {
		from := p.s.blobs[d]
		size = from.d.Size
		var err error
		if r, err = from.r.Blob(ctx, from.d); err != nil {
			return err
		}
	}
	defer r.Close() // only read
	return tarFile(t, "blobs/sha256/"+d.Hex(), size, &countReader{r, progress})
}

// countReader tells how many bytes it gave.
type countReader struct {
	r    io.Reader
	told func(int64)
}

func (c *countReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	if c.told != nil && n > 0 {
		c.told(int64(n))
	}
	return n, err
}

type blobFrom struct {
	r Source
	d artifact.Descriptor
}

type saver struct {
	manifests map[artifact.Digest][]byte
	blobs     map[artifact.Digest]blobFrom
}

func (s *saver) tree(ctx context.Context, r Source, d artifact.Digest) error {
	if _, done := s.manifests[d]; done {
		return nil
	}
	b, desc, err := r.Manifest(ctx, d)
	if err != nil {
		return err
	}
	doc, err := store.ParseDoc(b, desc.MediaType)
	if err != nil {
		return diag.Wrap(diag.Failure, err, "save %s", d)
	}
	s.manifests[d] = b
	for _, bl := range doc.Blobs {
		s.blobs[bl.Digest] = blobFrom{r, bl}
	}
	for _, c := range doc.Children {
		if err := s.tree(ctx, r, c.Digest); err != nil {
			return err
		}
	}
	return nil
}

func tarFile(t *tar.Writer, name string, size int64, r io.Reader) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.Copy(t, r)
	if err == nil && n != size {
		err = fmt.Errorf("%s has %d bytes, want %d", name, n, size)
	}
	return err
}

// Load reads an archive that Save, or another tool that writes tars of OCI layouts, made into a store. Everything is
// checked before anything enters the store, and all names are set in one step. With rename the artifact that the archive
// is about gets that name instead.
func Load(ctx context.Context, r io.Reader, s *store.Store, rename string) (Archive, error) {
	o, err := OpenArchive(ctx, r, s, nil)
	if err != nil {
		return Archive{}, err
	}
	defer o.Close()
	ls, err := o.Listings(rename)
	if err != nil {
		return Archive{}, err
	}
	if err := o.Commit(ctx, ls); err != nil {
		return Archive{}, err
	}
	return o.Holds(ls), nil
}

// Listings are the lines of the index as a store takes them, those with names last. With rename, the artifact that the
// archive is about gets that name, and what accompanies it moves under the same name with the tags that it has.
func (o *Opened) Listings(rename string) ([]store.Listing, error) {
	lines := o.Lines()
	main := o.main(lines)
	if rename != "" && main < 0 {
		return nil, diag.New(diag.Usage, "load: the archive holds several artifacts; a new name can be given to one only")
	}
	out := make([]store.Listing, 0, len(lines))
	for i, l := range lines {
		ref := l.Ref
		repo, tag, ok := strings.Cut(ref, ":")
		switch {
		case rename != "" && i == main:
			ref = rename
		case ref == "":
		case !ok || !ValidRepo(repo) || !ValidTag(tag):
			if rename == "" {
				return nil, diag.New(diag.Usage, "load: the archive calls an artifact %q, which is no name in the local store", ref).
					Hint("waybill load FILE --name NAME:TAG")
			}
			ref = "" // beside the one that gets the name
		case rename != "":
			was, _, _ := strings.Cut(lines[main].Ref, ":")
			if now, _, _ := strings.Cut(rename, ":"); repo == was {
				ref = now + ":" + tag
			}
		}
		out = append(out, store.Listing{Digest: l.Digest, Ref: ref})
	}
	return out, nil
}

// main is the line that the archive is about, -1 when that is not plain.
func (o *Opened) main(lines []Line) int {
	var marked, named, all []int
	for i, l := range lines {
		if l.Main {
			marked = append(marked, i)
		}
		// Statements, trust documents, records and policies accompany.
		if o.docs[l.Digest].Subject != "" || IsPaper(l.Descriptor) {
			continue
		}
		if all = append(all, i); l.Ref != "" {
			named = append(named, i)
		}
	}
	for _, list := range [][]int{marked, named, all} {
		if len(list) > 0 {
			if len(list) > 1 {
				return -1
			}
			return list[0]
		}
	}
	return -1
}

// IsPaper tells a document that travels beside artifacts: a trust document, a channel record, environments, a policy.
func IsPaper(d artifact.Descriptor) bool {
	return strings.HasPrefix(d.ArtifactType, "application/vnd.waybill.")
}

// Main is the artifact that the archive is about, "" when there are several.
func (o *Opened) Main() artifact.Digest {
	lines := o.Lines()
	if i := o.main(lines); i >= 0 {
		return lines[i].Digest
	}
	return ""
}

// Holds tells what was or would be loaded as ls.
func (o *Opened) Holds(ls []store.Listing) Archive {
	a := Archive{Artifacts: []store.Entry{}, Referrers: []artifact.Descriptor{}, Bytes: o.Bytes, Blobs: len(o.blobs)}
	for _, l := range ls {
		doc := o.docs[l.Digest]
		if doc.Subject != "" && l.Ref == "" {
			a.Referrers = append(a.Referrers, doc.Descriptor)
		} else {
			a.Artifacts = append(a.Artifacts, store.Entry{Descriptor: doc.Descriptor, Ref: l.Ref})
		}
	}
	return a
}
