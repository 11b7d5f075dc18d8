// Package source brings a policy from where it lies to whoever applies it: out of a registry, a layout or the store, with
// every check that needs no clock of its own. What comes back has the pinned digest, is in canonical form, and, where that is
// asked, carries the word of a policy key in scope. It fails closed: a nil error is the only yes.
//
// Two digests name a policy. The policy digest is that of the canonical tar, layer 0 of the artifact: environments pin it,
// verdicts and trust documents name it. The manifest digest is that of the artifact: references and signatures are about it.
// Each follows from the other, because the manifest is a function of the tar, and any other manifest is refused.
package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/policy/bundle"
)

// Repository is where policy artifacts lie; oci/registry has the implementations.
type Repository interface {
	Resolve(ctx context.Context, tagOrDigest string) (artifact.Descriptor, error)
	Manifest(ctx context.Context, d artifact.Digest) ([]byte, artifact.Descriptor, error)
	Blob(ctx context.Context, d artifact.Descriptor) (io.ReadCloser, error)
}

// Reason tells apart why a policy is refused, besides the reasons of oci/verify.
type Reason string

// Reasons.
const (
	NotPolicy    Reason = "not-a-policy"  // another kind of artifact, or no policy inside
	WrongDigest  Reason = "wrong-digest"  // another policy than the pinned one
	NotCanonical Reason = "not-canonical" // the right files in another form, or a manifest that says more than the files
	TooLarge     Reason = "too-large"
	Unsigned     Reason = "unsigned" // no statement of a policy key at all
)

// Error is a refusal. errors.As finds it, and through it the *diag.Error with exit code 3.
type Error struct {
	Reason Reason
	err    *diag.Error
}

// Error gives the text for people.
func (e *Error) Error() string { return e.err.Error() }

// Unwrap gives the *diag.Error.
func (e *Error) Unwrap() error { return e.err }

// ReasonOf gives the reason of a refusal by this package or by oci/verify, or "".
func ReasonOf(err error) Reason {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return Reason(verify.ReasonOf(err))
}

func refuse(r Reason, format string, args ...any) *Error {
	return &Error{r, diag.Wrap(diag.Verification, fmt.Errorf(format, args...), "policy")}
}

// Artifact is a policy with the artifact that it came in.
type Artifact struct {
	Bundle     *bundle.Bundle
	Descriptor artifact.Descriptor // of the manifest
}

// ScopeOf is the name that the scope of a policy key is checked against, and the subject's name in its statements.
func ScopeOf(name string) string { return "policy/" + name }

// checks are left out by name: a test sees the attack succeed.
type checks struct{ skip string }

func (c checks) on(name string) bool { return c.skip != name }

// Read reads the policy artifact of a tag or digest. With pin the policy must have that digest, which is compared before the
// policy is fetched. Errors of r (not found, unreachable) come back as they are.
func Read(ctx context.Context, r Repository, target string, pin artifact.Digest) (*Artifact, error) {
	return checks{}.read(ctx, r, target, pin)
}

func (c checks) read(ctx context.Context, r Repository, target string, pin artifact.Digest) (*Artifact, error) {
	d, err := r.Resolve(ctx, target)
	if err != nil {
		return nil, err
	}
	raw, d, err := r.Manifest(ctx, d.Digest)
	if err != nil {
		return nil, err
	}
	m, err := artifact.ParseManifest(raw)
	if err != nil {
		return nil, refuse(NotPolicy, "%s: %w", d.Digest, err)
	}
	if m.ArtifactType != bundle.ArtifactType || len(m.Layers) == 0 || m.Layers[0].MediaType != bundle.MediaTypeLayer {
		return nil, refuse(NotPolicy, "%s is no policy artifact (its type is %q)", d.Digest, m.ArtifactType)
	}
	layer := m.Layers[0]
	if c.on("pin") && pin != "" && layer.Digest != pin {
		return nil, refuse(WrongDigest, "%s holds policy %s, %s is pinned", d.Digest, layer.Digest, pin)
	}
	if c.on("size") && layer.Size > bundle.MaxBytes {
		return nil, refuse(TooLarge, "%s: the policy has %d bytes, limit %d", d.Digest, layer.Size, bundle.MaxBytes)
	}
	tar, err := registry.ReadBlob(ctx, r, layer, layer.Size)
	if err != nil {
		return nil, err
	}
	b, err := bundle.FromTar(tar)
	if errors.Is(err, bundle.ErrNotCanonical) {
		return nil, refuse(NotCanonical, "%s: %w", d.Digest, err)
	}
	if err != nil {
		return nil, refuse(NotPolicy, "%s: %w", d.Digest, err)
	}
	x, err := b.Image()
	if err != nil {
		return nil, err
	}
	if c.on("manifest") && x.Descriptor.Digest != d.Digest {
		return nil, refuse(NotCanonical, "%s is not the manifest of policy %s, which is %s: what other tools would read from it may differ", d.Digest, b.Digest(), x.Descriptor.Digest)
	}
	d.ArtifactType = bundle.ArtifactType
	return &Artifact{b, d}, nil
}

// Writer is where a policy artifact is put.
type Writer interface {
	PushBlob(ctx context.Context, d artifact.Descriptor, open func() (io.ReadCloser, error)) error
	PushManifest(ctx context.Context, b []byte, mediaType, tag string) (artifact.Descriptor, error)
}

// Write puts the artifact of a policy into w and tags it last. Writing it again changes nothing.
func Write(ctx context.Context, w Writer, b *bundle.Bundle, tag string) (artifact.Descriptor, error) {
	x, err := b.Image()
	if err != nil {
		return artifact.Descriptor{}, err
	}
	for _, l := range x.Blobs {
		err := w.PushBlob(ctx, l.Descriptor, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(l.Bytes)), nil })
		if err != nil {
			return artifact.Descriptor{}, err
		}
	}
	return w.PushManifest(ctx, x.Manifest, artifact.MediaTypeManifest, tag)
}

// Statement is what a policy key says: these rules are ours. Its subject is the manifest.
func Statement(b *bundle.Bundle) (*evidence.Statement, error) {
	m := b.Meta()
	if m.Name == "" {
		return nil, diag.New(diag.Usage, "a policy without a name cannot be signed: the scope of the key goes by it").
			Hint(`write a policy.json beside the rules: {"name": "governance", "version": "1.0"}`)
	}
	x, err := b.Image()
	if err != nil {
		return nil, err
	}
	return evidence.NewStatement(evidence.TypePolicy, ScopeOf(m.Name), x.Descriptor.Digest,
		evidence.Policy{Name: m.Name, Version: m.Version, Digest: b.Digest()})
}

// Signed demands the word of a policy key in scope about exactly this policy among bundles, and gives every such statement. The
// error says why each statement does not count.
func Signed(b *bundle.Bundle, bundles [][]byte, doc *trust.Document, now time.Time, certs verify.Certificates) ([]verify.Evidence, error) {
	return checks{}.signed(b, bundles, doc, now, certs)
}

func (c checks) signed(b *bundle.Bundle, bundles [][]byte, doc *trust.Document, now time.Time, certs verify.Certificates) ([]verify.Evidence, error) {
	x, err := b.Image()
	if err != nil {
		return nil, err
	}
	want := verify.Want{PredicateType: evidence.TypePolicy, Role: trust.RolePolicy, Subject: x.Descriptor.Digest, Model: ScopeOf(b.Meta().Name), Now: now, Certificates: certs}
	if !c.on("role") {
		want.Role = ""
	}
	var ok []verify.Evidence
	var refused error
	for _, raw := range bundles {
		e, err := verify.Bundle(raw, doc, want)
		if err == nil && c.on("about") {
			err = about(e, b)
		}
		if err != nil {
			if refused == nil || verify.ReasonOf(refused) == verify.WrongPredicate {
				refused = err
			}
			continue
		}
		ok = append(ok, *e)
	}
	switch {
	case len(ok) > 0:
		return ok, nil
	case refused != nil:
		return nil, diag.Wrap(diag.Verification, refused, "the signature of policy %s", b.Digest())
	}
	return nil, refuse(Unsigned, "no policy key has signed %s (%s)", b.Digest(), x.Descriptor.Digest)
}

// about holds what a statement says against the policy: the manifest digest binds the tar, but not what the signer called it.
func about(e *verify.Evidence, b *bundle.Bundle) error {
	p, err := evidence.ParsePolicy(e.Predicate)
	if err != nil {
		return refuse(NotPolicy, "%w", err)
	}
	if m := b.Meta(); p.Digest != b.Digest() || p.Name != m.Name || p.Version != m.Version || e.SubjectName != ScopeOf(m.Name) {
		return refuse(WrongDigest, "the statement is about policy %s %s (%s), this one is %s %s (%s)", p.Name, p.Version, p.Digest, m.Name, m.Version, b.Digest())
	}
	return nil
}

// Demanded tells whether a trust document wants policies signed: it names a policy key or identity. Revoking the last one does not
// end the demand.
func Demanded(doc *trust.Document) bool {
	for _, k := range doc.Keys {
		if k.Role == trust.RolePolicy {
			return true
		}
	}
	for _, i := range doc.Identities {
		if i.Role == trust.RolePolicy {
			return true
		}
	}
	return false
}
