package registry

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/store"
)

// Local is a repository in a store on this machine.
type Local struct {
	s      *store.Store
	prefix string // of tags in the index: "name:" in the local store, "" in a layout
	label  string // for errors
}

var _ Place = (*Local)(nil)

// NewLocal is the repository name of the local store.
func NewLocal(s *store.Store, name string) *Local {
	return &Local{s: s, prefix: name + ":", label: name}
}

// NewLayout is an OCI layout as one repository.
func NewLayout(s *store.Store) *Local { return &Local{s: s, label: "layout:" + s.Dir()} }

// Store returns the store behind it.
func (l *Local) Store() *store.Store { return l.s }

// Close lets go of the store.
func (l *Local) Close() error { return l.s.Close() }

// key is what the index calls a tag; a digest stays one.
func (l *Local) key(tagOrDigest string) string {
	if _, err := artifact.ParseDigest(tagOrDigest); err == nil {
		return tagOrDigest
	}
	return l.prefix + tagOrDigest
}

// Resolve implements Repository.
func (l *Local) Resolve(ctx context.Context, tagOrDigest string) (artifact.Descriptor, error) {
	d, err := l.s.Resolve(ctx, l.key(tagOrDigest))
	if errors.Is(err, fs.ErrNotExist) {
		return d, l.notFound(ctx, tagOrDigest)
	}
	if err != nil {
		return d, err
	}
	_, d, err = l.s.Manifest(ctx, d.Digest) // the index is not believed either
	return d, err
}

func (l *Local) notFound(ctx context.Context, target string) error {
	sep, why := ":", "no such tag"
	if strings.HasPrefix(target, "sha256:") {
		sep, why = "@", "no such digest"
	}
	e := diag.Wrap(diag.NotFound, notFoundError{errors.New(why)}, "%s%s%s is not in %s", l.label, sep, target, l.s.Dir())
	if tags, err := l.Tags(ctx); err == nil && len(tags) > 0 {
		for _, t := range tags[:min(len(tags), 8)] {
			_ = e.Line("there is %s:%s", l.label, t)
		}
	}
	return e.Hint("waybill store ls")
}

// Manifest implements Repository.
func (l *Local) Manifest(ctx context.Context, d artifact.Digest) ([]byte, artifact.Descriptor, error) {
	return l.s.Manifest(ctx, d)
}

// Blob implements Repository.
func (l *Local) Blob(ctx context.Context, d artifact.Descriptor) (io.ReadCloser, error) {
	return l.s.Blob(ctx, d)
}

func (l *Local) has(_ context.Context, d artifact.Descriptor) (bool, error) {
	size, ok, err := l.s.Has(d.Digest)
	return ok && size == d.Size, err
}

// PushBlob implements Repository.
func (l *Local) PushBlob(ctx context.Context, d artifact.Descriptor, open func() (io.ReadCloser, error)) error {
	if ok, err := l.ready(ctx, d); ok || err != nil {
		return err
	}
	rc, err := open()
	if err != nil {
		return err
	}
	defer rc.Close()
	_, _, err = l.s.PutBlob(ctx, rc, d)
	return err
}

// ready tells whether a blob is here and right; one that was damaged here since is to be replaced. It holds the store, since a
// blob that no manifest names yet must stay until one does.
func (l *Local) ready(ctx context.Context, d artifact.Descriptor) (bool, error) {
	size, ok, err := l.s.Keep(ctx, d.Digest)
	if err != nil || !ok || size != d.Size {
		return false, err
	}
	switch err := l.s.Check(ctx, d); {
	case err == nil:
		return true, nil
	case diag.CodeOf(err) != diag.Verification && !errors.Is(err, fs.ErrNotExist):
		return false, err
	}
	return false, nil
}

// file is a blob that can be sent straight from its file.
func (l *Local) file(d artifact.Descriptor) (*fileSource, bool) {
	if !l.s.OnDisk() {
		return nil, false
	}
	return &fileSource{s: l.s, d: d}, true
}

// PushManifest implements Repository.
func (l *Local) PushManifest(ctx context.Context, b []byte, mediaType, tag string) (artifact.Descriptor, error) {
	if tag != "" {
		if !ValidTag(tag) {
			return artifact.Descriptor{}, diag.New(diag.Usage, "%q is not a valid tag", tag)
		}
		tag = l.prefix + tag
	}
	return l.s.PutManifest(ctx, b, mediaType, store.PutOptions{Ref: tag})
}

// SwapTag implements Swapper; it is always atomic.
func (l *Local) SwapTag(ctx context.Context, b []byte, mediaType, tag string, old artifact.Digest) (artifact.Descriptor, bool, error) {
	if !ValidTag(tag) {
		return artifact.Descriptor{}, true, diag.New(diag.Usage, "%q is not a valid tag", tag)
	}
	d, err := l.s.PutManifest(ctx, b, mediaType, store.PutOptions{Ref: l.prefix + tag, Expect: &old})
	return d, true, err
}

// Conditional implements Swapper.
func (l *Local) Conditional(context.Context) (bool, error) { return true, nil }

// HeadTag implements Follower.
func (l *Local) HeadTag(ctx context.Context, tag string) (artifact.Digest, error) {
	d, err := l.s.Resolve(ctx, l.prefix+tag)
	if errors.Is(err, fs.ErrNotExist) {
		err = l.notFound(ctx, tag)
	}
	return d.Digest, err
}

// GetBounded implements Follower.
func (l *Local) GetBounded(ctx context.Context, tagOrDigest string, max int64) ([]byte, artifact.Descriptor, error) {
	d, err := l.s.Resolve(ctx, l.key(tagOrDigest))
	if errors.Is(err, fs.ErrNotExist) {
		err = l.notFound(ctx, tagOrDigest)
	}
	if err != nil {
		return nil, d, err
	}
	b, d, err := l.s.Manifest(ctx, d.Digest)
	if err == nil && d.Size > max {
		return nil, d, tooLarge(l.label, tagOrDigest, max)
	}
	return b, d, err
}

func tooLarge(where, what string, max int64) error {
	return diag.New(diag.Verification, "%s: manifest %s is larger than the limit of %d bytes", where, what, max)
}

// Referrers implements Repository.
func (l *Local) Referrers(ctx context.Context, d artifact.Digest) ([]artifact.Descriptor, error) {
	return l.s.Referrers(ctx, d)
}

// Attach implements Repository.
func (l *Local) Attach(ctx context.Context, subject artifact.Descriptor, bundle []byte, predicateType string) (artifact.Descriptor, error) {
	return attach(ctx, l, subject, bundle, predicateType)
}

// Tags implements Repository.
func (l *Local) Tags(ctx context.Context) ([]string, error) {
	es, err := l.s.Entries(ctx)
	if err != nil {
		return nil, err
	}
	tags := []string{}
	for _, e := range es {
		if t, ok := strings.CutPrefix(e.Ref, l.prefix); ok && t != "" {
			tags = append(tags, t)
		}
	}
	slices.Sort(tags)
	return slices.Compact(tags), nil
}
