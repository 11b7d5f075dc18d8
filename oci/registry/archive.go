package registry

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/store"
)

// Limits of an archive, besides those of what is in it.
const (
	maxTarEntries = 100_000
	maxTarPadding = 1 << 20   // zeros after the end marker
	maxHeld       = 256 << 20 // bytes of small blobs that a reader without a store keeps in memory
	maxHeldBlob   = 8 << 20   // of one of them: manifests, bundles, policies
)

// Opened is an archive that was read to its end: every blob has the digest of its name, and every manifest of its index
// is there with all that it needs. Nothing of it is in a store before Commit. Close it in any case.
type Opened struct {
	index artifact.Index
	blobs map[artifact.Digest]*held
	docs  map[artifact.Digest]store.Doc
	s     *store.Store // nil: look only
	Bytes int64        // of all blobs
	// Ignored counts blobs that nothing in the index needs; they do not enter the store.
	Ignored int

	skip string // a check that tests leave out: "entries" or "limits"
}

// held is one blob: staged beside the store's blobs, or in memory, or, for a large one without a store, only hashed.
type held struct {
	size   int64
	staged *store.Staged
	mem    []byte
	needed bool
}

// OpenArchive reads an archive to its end. s is where the blobs will go; with nil nothing is written anywhere, and large
// blobs are hashed and dropped. progress is told how many bytes came; it may be nil. On an error nothing is left behind.
func OpenArchive(ctx context.Context, r io.Reader, s *store.Store, progress func(int64)) (*Opened, error) {
	return openArchive(ctx, r, s, progress, "")
}

func openArchive(ctx context.Context, r io.Reader, s *store.Store, progress func(int64), skip string) (*Opened, error) {
	o := &Opened{s: s, blobs: map[artifact.Digest]*held{}, docs: map[artifact.Digest]store.Doc{}, skip: skip}
	err := o.read(ctx, &tailReader{r: r, ctx: ctx, progress: progress})
	if err == nil {
		err = o.check()
	}
	if err != nil {
		_ = o.Close() // what it cannot remove, prune does
		return nil, err
	}
	return o, nil
}

func notArchive(format string, args ...any) *diag.Error {
	return diag.Wrap(diag.Failure, fmt.Errorf(format, args...), "load: this is no archive of an OCI layout")
}

func (o *Opened) read(ctx context.Context, in *tailReader) error {
	t := tar.NewReader(in)
	var index []byte
	seen := map[string]bool{}
	memory := int64(0)
	for n := 0; ; n++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if cause := ctx.Err(); cause != nil {
			return cause
		}
		if err != nil {
			if bytes.HasPrefix(in.head, []byte{0x1f, 0x8b}) {
				return notArchive("it is compressed with gzip").Hint("gzip -dc FILE | waybill load -")
			}
			if errors.Is(err, io.ErrUnexpectedEOF) {
				return notArchive("it ends in the middle of an entry: %w", err)
			}
			return notArchive("%w", err)
		}
		if n > maxTarEntries {
			return notArchive("more than %d entries", maxTarEntries)
		}
		name, err := entryName(h)
		if o.skip == "entries" {
			name, err = h.Name, nil
		}
		if err != nil {
			return notArchive("%w", err)
		}
		if name == "" {
			continue // a directory of the layout
		}
		if seen[name] {
			return notArchive("%s stands there twice", name)
		}
		seen[name] = true
		hex, isBlob := strings.CutPrefix(name, "blobs/sha256/")
		switch {
		case isBlob:
			d, err := artifact.ParseDigest("sha256:" + hex)
			if err != nil {
				return notArchive("%s: %w", h.Name, err)
			}
			b := &held{size: h.Size}
			o.blobs[d] = b
			o.Bytes += h.Size
			if err := o.blob(ctx, t, d, b, &memory); err != nil {
				return err
			}
		case name == "oci-layout", name == "index.json":
			b, err := io.ReadAll(io.LimitReader(t, o.limit(artifact.MaxManifest)+1))
			if err != nil {
				return notArchive("%s: %w", name, err)
			}
			if int64(len(b)) > o.limit(artifact.MaxManifest) {
				return notArchive("%s has more than %d bytes", name, artifact.MaxManifest)
			}
			if name == "index.json" {
				index = b
				continue
			}
			var l struct {
				Version string `json:"imageLayoutVersion"`
			}
			if json.Unmarshal(b, &l) != nil || l.Version != "1.0.0" {
				return notArchive("imageLayoutVersion is not 1.0.0")
			}
		}
	}
	if err := in.end(o.limit(maxTarPadding)); err != nil {
		return err
	}
	switch {
	case index == nil:
		return notArchive("it has no index.json")
	case !seen["oci-layout"]:
		return notArchive("it has no oci-layout")
	}
	var err error
	if o.index, err = artifact.ParseIndex(index); err != nil {
		return notArchive("index.json: %w", err)
	}
	return nil
}

// limit is max, unless the limits are left out.
func (o *Opened) limit(max int64) int64 {
	if o.skip == "limits" {
		return 1 << 40
	}
	return max
}

// entryName checks the name and type of an entry. Directories of the layout give "", whatever else a layout does not have
// is an error: nothing of an archive is ever written under a name that the archive chose.
func entryName(h *tar.Header) (string, error) {
	name := strings.TrimPrefix(h.Name, "./")
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return "", fmt.Errorf("%s is a sparse file", h.Name)
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		switch strings.TrimSuffix(name, "/") {
		case "", ".", "blobs", "blobs/sha256":
			return "", nil
		}
		return "", fmt.Errorf("unexpected directory %q", h.Name)
	case tar.TypeReg:
	case tar.TypeSymlink, tar.TypeLink:
		return "", fmt.Errorf("%q is a link", h.Name)
	default:
		return "", fmt.Errorf("%q is neither a file nor a directory", h.Name)
	}
	if !fs.ValidPath(name) || path.Clean(name) != name {
		return "", fmt.Errorf("the name %q leaves the layout or is not in its plain form", h.Name)
	}
	switch {
	case strings.HasPrefix(name, "blobs/sha256/"), name == "oci-layout", name == "index.json":
	case name == "manifest.json", name == "repositories": // what docker adds for itself
	case strings.HasPrefix(name, "blobs/"):
		return "", fmt.Errorf("%q: only sha256 is accepted", h.Name)
	default:
		return "", fmt.Errorf("unexpected entry %q", h.Name)
	}
	return name, nil
}

func (o *Opened) blob(ctx context.Context, t io.Reader, d artifact.Digest, b *held, memory *int64) error {
	want := artifact.Descriptor{Digest: d, Size: b.size}
	if o.s != nil {
		var err error
		b.staged, err = o.s.Stage(ctx, t, want, "blob in the archive")
		return broken(err)
	}
	v := store.Verified(ctx, io.NopCloser(t), want, "blob in the archive")
	if b.size > maxHeldBlob {
		_, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{v}, make([]byte, 256<<10))
		return broken(err)
	}
	if *memory += b.size; *memory > maxHeld {
		return diag.New(diag.Failure, "the small blobs of the archive have more than %d bytes together", int64(maxHeld))
	}
	var err error
	b.mem, err = io.ReadAll(v)
	return broken(err)
}

// broken names an archive that ends inside a blob; digests that differ speak for themselves.
func broken(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return notArchive("it ends in the middle of a blob: %w", err)
	}
	return err
}

// check follows the index to everything that it needs.
func (o *Opened) check() error {
	for _, e := range o.index.Manifests {
		if err := o.follow(e, 0); err != nil {
			return err
		}
	}
	for _, b := range o.blobs {
		if !b.needed {
			o.Ignored++
		}
	}
	return nil
}

func (o *Opened) follow(e artifact.Descriptor, depth int) error {
	if depth > 2 {
		return notArchive("indexes inside indexes")
	}
	b := o.blobs[e.Digest]
	if b == nil {
		return notArchive("the manifest %s is missing", e.Digest)
	}
	if b.size != e.Size {
		return diag.New(diag.Verification, "load: the index says that %s has %d bytes, it has %d", e.Digest, e.Size, b.size)
	}
	if _, done := o.docs[e.Digest]; done {
		return nil
	}
	raw, err := o.small(e.Digest, artifact.MaxManifest)
	if err != nil {
		return err
	}
	doc, err := store.ParseDoc(raw, "")
	if err != nil {
		return notArchive("manifest %s: %w", e.Digest, err)
	}
	o.docs[e.Digest] = doc
	b.needed = true
	for _, l := range doc.Blobs {
		lb := o.blobs[l.Digest]
		if lb == nil {
			return notArchive("manifest %s needs blob %s, which is missing", e.Digest, l.Digest)
		}
		if lb.size != l.Size {
			return diag.New(diag.Verification, "load: manifest %s says that %s has %d bytes, it has %d", e.Digest, l.Digest, l.Size, lb.size)
		}
		lb.needed = true
	}
	for _, c := range doc.Children {
		if err := o.follow(c, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// small reads a blob of at most max bytes.
func (o *Opened) small(d artifact.Digest, max int64) ([]byte, error) {
	b := o.blobs[d]
	if b == nil {
		return nil, diag.Wrap(diag.NotFound, fs.ErrNotExist, "the archive has no blob %s", d)
	}
	rc, err := o.Blob(context.Background(), artifact.Descriptor{Digest: d, Size: b.size})
	if err != nil {
		return nil, err
	}
	return store.ReadAll(rc, artifact.Descriptor{Digest: d, Size: b.size}, max)
}

// Line is one line of an archive's index.
type Line struct {
	store.Entry      // with the full name ("churn:1.0") that it asks for, what another tool wrote as ref.name, or ""
	Main        bool // it is the one artifact that the archive is about
}

// Lines are the lines of the index.
func (o *Opened) Lines() []Line {
	out := make([]Line, 0, len(o.index.Manifests))
	for _, e := range o.index.Manifests {
		out = append(out, Line{store.Entry{Descriptor: o.docs[e.Digest].Descriptor, Ref: entryRef(e)}, e.Annotations[annotationKind] == kindImage})
	}
	return out
}

// entryRef is the full name of an index entry: ours, or what another tool wrote as ref.name.
func entryRef(e artifact.Descriptor) string {
	if n := e.Annotations[AnnotationName]; n != "" {
		return n
	}
	return e.Annotations[store.AnnotationRef]
}

// Doc says what a manifest of the archive is.
func (o *Opened) Doc(d artifact.Digest) (store.Doc, bool) {
	doc, ok := o.docs[d]
	return doc, ok
}

// Manifest reads a manifest.
func (o *Opened) Manifest(_ context.Context, d artifact.Digest) ([]byte, artifact.Descriptor, error) {
	doc, ok := o.docs[d]
	if !ok {
		return nil, artifact.Descriptor{}, diag.Wrap(diag.NotFound, fs.ErrNotExist, "the archive has no manifest %s", d)
	}
	b, err := o.small(d, artifact.MaxManifest)
	return b, doc.Descriptor, err
}

// Blob opens a blob, hashed again on the way. A large one of an archive that was opened without a store is not at hand.
func (o *Opened) Blob(ctx context.Context, d artifact.Descriptor) (io.ReadCloser, error) {
	b := o.blobs[d.Digest]
	switch {
	case b == nil:
		return nil, diag.Wrap(diag.NotFound, fs.ErrNotExist, "the archive has no blob %s", d.Digest)
	case b.staged != nil:
		return b.staged.Open(ctx)
	case b.mem == nil && b.size > 0:
		return nil, diag.New(diag.Failure, "blob %s of the archive was hashed, not kept", d.Digest)
	}
	return store.Verified(ctx, io.NopCloser(bytes.NewReader(b.mem)), d, "blob in the archive"), nil
}

// Referrers lists what the archive attaches to a digest, sorted.
func (o *Opened) Referrers(_ context.Context, d artifact.Digest) ([]artifact.Descriptor, error) {
	out := []artifact.Descriptor{}
	for _, doc := range o.docs {
		if doc.Subject == d {
			out = append(out, doc.Descriptor)
		}
	}
	slices.SortFunc(out, func(a, b artifact.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	return out, nil
}

// Named is the archive as one repository: the tags of name.
func (o *Opened) Named(name string) *Named { return &Named{o, name + ":"} }

// Named is what an archive has under one name.
type Named struct {
	*Opened
	prefix string
}

// Resolve finds a tag or digest.
func (n *Named) Resolve(_ context.Context, tagOrDigest string) (artifact.Descriptor, error) {
	if d, err := artifact.ParseDigest(tagOrDigest); err == nil {
		if doc, ok := n.docs[d]; ok {
			return doc.Descriptor, nil
		}
	}
	for _, e := range n.index.Manifests {
		if entryRef(e) == n.prefix+tagOrDigest {
			return n.docs[e.Digest].Descriptor, nil
		}
	}
	return artifact.Descriptor{}, diag.Wrap(diag.NotFound, fs.ErrNotExist, "the archive has no %s%s", n.prefix, tagOrDigest)
}

// Commit puts what the index needs into the store and then lists manifests and sets names, all in one step.
func (o *Opened) Commit(ctx context.Context, ls []store.Listing) error {
	if o.s == nil {
		return errors.New("an archive that was only looked at cannot be committed")
	}
	if err := o.s.Hold(ctx); err != nil {
		return err
	}
	for _, b := range o.blobs {
		if b.needed && b.staged != nil {
			if err := b.staged.Commit(); err != nil {
				return err
			}
		}
	}
	return o.s.List(ctx, ls)
}

// Close removes what was staged and not committed.
func (o *Opened) Close() error {
	var errs []error
	for _, b := range o.blobs {
		if b.staged != nil {
			errs = append(errs, b.staged.Close())
		}
	}
	return errors.Join(errs...)
}

// tailReader remembers how the stream begins and ends, and counts.
type tailReader struct {
	r        io.Reader
	ctx      context.Context // of one read, which this value is
	progress func(int64)
	head     []byte
	zeros    int64 // that came last
}

func (t *tailReader) Read(p []byte) (int, error) {
	if err := t.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := t.r.Read(p)
	if len(t.head) < 2 {
		t.head = append(t.head, p[:min(n, 2-len(t.head))]...)
	}
	trail := 0
	for trail < n && p[n-1-trail] == 0 {
		trail++
	}
	if trail == n {
		t.zeros += int64(n)
	} else {
		t.zeros = int64(trail)
	}
	if t.progress != nil {
		t.progress(int64(n))
	}
	return n, err
}

// end is called when the last entry was read: the end marker, two blocks of zeros, must be there, and after it nothing
// but padding. A pipe that broke off is found this way even where it broke between two entries.
func (t *tailReader) end(padding int64) error {
	if t.zeros < 1024 {
		return notArchive("it has no end marker: it was cut off")
	}
	buf := make([]byte, 32<<10)
	for n := int64(0); ; {
		m, err := t.Read(buf)
		for _, c := range buf[:m] {
			if c != 0 {
				return notArchive("something follows after its end")
			}
		}
		if n += int64(m); n > padding {
			return notArchive("more than %d zeros follow after its end", padding)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return notArchive("%w", err)
		}
	}
}

// LayoutEntry gives the plain name of an entry that an archive of an OCI layout may have: blobs/sha256/*, oci-layout,
// index.json, and what docker adds; "" for a directory of it. Whatever else there is (links, sparse files, names that lead
// elsewhere) is an error.
func LayoutEntry(h *tar.Header) (string, error) { return entryName(h) }
