// Package registry is the one view that everything has of places that hold artifacts: a remote registry (OCI
// distribution-spec 1.1), the local store, an OCI layout by path. What it returns has been hashed; what a server
// declares about it is never believed.
//
// It is light: the device runtime imports it.
package registry

import (
	"bytes"
	"context"
	"io"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/store"
)

// Repository is one named set of manifests and blobs. Implementations are safe for concurrent use. Errors are
// diag errors: NotFound (wrapping fs.ErrNotExist) when the thing is not there, Verification when content is not what
// its digest says, Registry when the other side cannot be reached or refuses.
type Repository interface {
	// Resolve describes the manifest of a tag or digest. The digest is computed from the bytes.
	Resolve(ctx context.Context, tagOrDigest string) (artifact.Descriptor, error)
	// Manifest reads a manifest or index of at most artifact.MaxManifest bytes; its hash has been checked.
	Manifest(ctx context.Context, d artifact.Digest) ([]byte, artifact.Descriptor, error)
	// Blob opens a blob. The reader stops hard after d.Size bytes and fails, instead of io.EOF, when size or digest
	// differ: do not act on the content before io.EOF.
	Blob(ctx context.Context, d artifact.Descriptor) (io.ReadCloser, error)
	// PushBlob stores a blob unless it is there. open may be called several times, when a transfer is repeated.
	PushBlob(ctx context.Context, d artifact.Descriptor, open func() (io.ReadCloser, error)) error
	// PushManifest stores a manifest or index, and tags it unless tag is "". Its blobs must be there. A manifest with a
	// subject becomes findable by Referrers.
	PushManifest(ctx context.Context, b []byte, mediaType, tag string) (artifact.Descriptor, error)
	// Referrers lists everything attached to d, sorted by digest, whatever its type. None is an empty list; a registry
	// that fails is an error, never an empty list.
	Referrers(ctx context.Context, d artifact.Digest) ([]artifact.Descriptor, error)
	// Attach stores a sigstore bundle as a referrer of subject and describes the manifest that carries it. The same
	// bundle gives the same manifest, so attaching twice changes nothing.
	Attach(ctx context.Context, subject artifact.Descriptor, bundle []byte, predicateType string) (artifact.Descriptor, error)
	// Tags lists the tags, sorted.
	Tags(ctx context.Context) ([]string, error)
}

// Swapper moves a tag only if it is where the caller believes it to be.
type Swapper interface {
	// SwapTag is PushManifest for a tag that must be at old now ("" means that the tag must not exist). atomic tells
	// whether the other side compared and changed in one step; when it cannot, the tag was compared just before.
	// A tag found elsewhere is an error that wraps store.ErrConflict.
	SwapTag(ctx context.Context, b []byte, mediaType, tag string, old artifact.Digest) (d artifact.Descriptor, atomic bool, err error)
	// Conditional tells whether the other side announces that it compares and changes in one step.
	Conditional(ctx context.Context) (bool, error)
}

// Follower is what a device needs to follow a tag cheaply.
type Follower interface {
	// HeadTag asks for the digest of a tag. It is the server's word: use it only to learn that nothing changed.
	HeadTag(ctx context.Context, tag string) (artifact.Digest, error)
	// GetBounded reads the manifest of a tag or digest if it has at most max bytes. For a digest the hash has been
	// checked; for a tag the returned descriptor has the hash of the bytes.
	GetBounded(ctx context.Context, tagOrDigest string, max int64) ([]byte, artifact.Descriptor, error)
}

// Place is everything that the implementations here offer.
type Place interface {
	Repository
	Swapper
	Follower
}

// Options configure Open.
type Options struct {
	Create   bool   // make the store or layout when it does not exist
	StoreDir string // of the local store; "" means store.DefaultDir
	Remote   RemoteOptions
	// References lets the local store refer to files elsewhere (store.Options); never a layout given by path.
	References bool
	OpenStore  func(ctx context.Context, dir string, create bool) (*store.Store, error) // nil: store.Open
}

// Open gives the repository that ref names.
func Open(ctx context.Context, ref Ref, o Options) (Place, error) {
	open := o.OpenStore
	if open == nil {
		open = func(ctx context.Context, dir string, create bool) (*store.Store, error) {
			return store.Open(ctx, dir, store.Options{Create: create, References: o.References && ref.Kind == KindLocal})
		}
	}
	switch ref.Kind {
	case KindRemote:
		return NewRemote(ref.Host, ref.Repo, o.Remote)
	case KindLayout:
		s, err := open(ctx, ref.Path, o.Create)
		if err != nil {
			return nil, err
		}
		return NewLayout(s), nil
	}
	dir := o.StoreDir
	if dir == "" {
		var err error
		if dir, err = store.DefaultDir(); err != nil {
			return nil, err
		}
	}
	s, err := open(ctx, dir, o.Create)
	if err != nil {
		return nil, err
	}
	return NewLocal(s, ref.Repo), nil
}

// PushBytes pushes a blob that is in memory and describes it.
func PushBytes(ctx context.Context, r Repository, mediaType string, b []byte) (artifact.Descriptor, error) {
	d := artifact.Descriptor{MediaType: mediaType, Digest: artifact.DigestOf(b), Size: int64(len(b))}
	return d, r.PushBlob(ctx, d, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil })
}

// ReadBlob reads a whole blob of at most max bytes.
func ReadBlob(ctx context.Context, r interface {
	Blob(ctx context.Context, d artifact.Descriptor) (io.ReadCloser, error)
}, d artifact.Descriptor, max int64) ([]byte, error) {
	if d.Size > max {
		return nil, diag.New(diag.Verification, "%s has %d bytes, more than the limit of %d", d.Digest, d.Size, max)
	}
	rc, err := r.Blob(ctx, d)
	if err != nil {
		return nil, err
	}
	return store.ReadAll(rc, d, max)
}

// attach pushes the three parts of a referrer: the empty config, the bundle, the manifest.
func attach(ctx context.Context, r Repository, subject artifact.Descriptor, bundle []byte, predicateType string) (artifact.Descriptor, error) {
	b, err := artifact.BuildReferrer(subject, bundle, predicateType)
	if err != nil {
		return artifact.Descriptor{}, diag.Wrap(diag.Failure, err, "attach to %s", subject.Digest)
	}
	if _, err := PushBytes(ctx, r, artifact.MediaTypeEmpty, []byte(artifact.EmptyConfig)); err != nil {
		return artifact.Descriptor{}, err
	}
	if _, err := PushBytes(ctx, r, artifact.MediaTypeBundle, bundle); err != nil {
		return artifact.Descriptor{}, err
	}
	return r.PushManifest(ctx, b, artifact.MediaTypeManifest, "")
}
