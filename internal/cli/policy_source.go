package cli

import (
	"bytes"
	"context"
	"io/fs"
	"os"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/publish"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/sign"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/policy/bundle"
	"github.com/waybill-ml/waybill/policy/environments"
	"github.com/waybill-ml/waybill/policy/source"
)

// signaturesFile holds the statements about a policy that lies in a folder, one bundle in a line; beside a tar it is FILE.sigstore.jsonl.
const signaturesFile = "policy.sigstore.jsonl"

// openedPolicy is a policy and where it came from.
type openedPolicy struct {
	Bundle *bundle.Bundle
	FS     fs.FS // of a folder or the builtin one; else nil

	Ref   registry.Ref        // of an artifact
	Place *openPlace          // nil: a folder, a tar or the builtin one
	Desc  artifact.Descriptor // of the manifest, also of one that is nowhere yet

	path string
}

// Close lets go of the place.
func (p *openedPolicy) Close() {
	if p.Place != nil {
		p.Place.Close()
	}
}

// named writes where it lies.
func (p *openedPolicy) named() string {
	if p.Place != nil {
		return p.Ref.WithDigest(p.Desc.Digest).String()
	}
	return policySource(p.path)
}

// bundles are the statements about it: attached to the artifact, or in the file beside a folder or tar.
func (p *openedPolicy) bundles(ctx context.Context, c *Call) ([][]byte, error) {
	if p.Place != nil {
		return publish.Bundles(ctx, p.Place, p.Desc.Digest)
	}
	return c.sidecar(p.path)
}

// sidecar reads the statements beside a folder or tar; none is an empty list.
func (c *Call) sidecar(path string) ([][]byte, error) {
	if path == "" || path == environments.Builtin {
		return nil, nil
	}
	file := c.sidecarName(path)
	raw, err := c.readFile(file, artifact.MaxBundle*8)
	if diag.CodeOf(err) == diag.NotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out [][]byte
	for _, l := range bytes.Split(raw, []byte("\n")) {
		if l = bytes.TrimSpace(l); len(l) > 0 {
			out = append(out, l)
		}
	}
	return out, nil
}

func (c *Call) sidecarName(path string) string {
	if info, err := os.Stat(c.Abs(path)); err == nil && info.IsDir() {
		return path + string(os.PathSeparator) + signaturesFile
	}
	return path + ".sigstore.jsonl"
}

// isPolicyRef tells whether an argument names an artifact. Something that lies on the disk under that name wins, unless it has
// a tag or a digest: on a command line, other than in environments.yaml, people write what they see.
func (c *Call) isPolicyRef(arg string) (registry.Ref, bool, error) {
	s, err := source.Parse(arg)
	if err != nil {
		return registry.Ref{}, false, diag.Wrap(diag.Usage, err, "policy %q", arg)
	}
	switch s.Kind {
	case source.KindRef:
		return s.Ref, true, nil
	case source.KindBuiltin:
		return registry.Ref{}, false, nil
	}
	if _, err := os.Lstat(c.Abs(arg)); err == nil {
		return registry.Ref{}, false, nil
	}
	r, err := registry.ParseRef(arg)
	return r, err == nil && r.Kind != registry.KindLocal, nil
}

// openPolicyAt opens a policy: "" or builtin, a folder, a tar, or an artifact by reference. The caller closes it.
func (c *Call) openPolicyAt(ctx context.Context, arg string) (*openedPolicy, error) {
	ref, isRef, err := c.isPolicyRef(arg)
	if err != nil {
		return nil, err
	}
	if !isRef {
		return c.openPolicyFile(arg)
	}
	return c.openPolicyRef(ctx, ref)
}

// openPolicyFile opens a folder, a tar, or the builtin policy.
func (c *Call) openPolicyFile(arg string) (*openedPolicy, error) {
	b, fsys, err := c.openPolicy(arg)
	if err != nil {
		return nil, err
	}
	x, err := b.Image()
	if err != nil {
		return nil, err
	}
	return &openedPolicy{Bundle: b, FS: fsys, Desc: x.Descriptor, path: arg}, nil
}

const policyArtifactType = bundle.ArtifactType

// artifactType reads the type that a manifest gives itself.
func artifactType(ctx context.Context, p *openPlace, d artifact.Digest) (string, error) {
	raw, _, err := p.Manifest(ctx, d)
	if err != nil {
		return "", err
	}
	m, err := artifact.ParseManifest(raw)
	if err != nil {
		return "", nil //nolint:nilerr // an index, or something else that is no policy
	}
	return m.ArtifactType, nil
}

// isPolicyKey tells whether a key file has the role policy; a key in a service is asked for its role by the trust document.
func (c *Call) isPolicyKey(name string) bool {
	if name == "" {
		return false
	}
	if sign.IsURI(name) {
		doc, err := c.trustForKey(name)
		return err == nil && source.Demanded(doc) // it may be one; whose key it is shows when it is opened
	}
	_, err := sign.CheckRole(c.Abs(name), trust.RolePolicy)
	return err == nil
}

// openPolicyRef opens a policy artifact. The caller closes it.
func (c *Call) openPolicyRef(ctx context.Context, ref registry.Ref) (*openedPolicy, error) {
	p, err := c.place(ctx, ref)
	if err != nil {
		return nil, err
	}
	a, err := source.Read(ctx, p, ref.Target(), "")
	if err != nil {
		p.Close()
		return nil, err
	}
	return &openedPolicy{Bundle: a.Bundle, Ref: ref, Place: p, Desc: a.Descriptor, path: ref.String()}, nil
}
