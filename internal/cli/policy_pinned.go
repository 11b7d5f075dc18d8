package cli

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/policy/bundle"
	"github.com/waybill-ml/waybill/policy/environments"
	"github.com/waybill-ml/waybill/policy/source"
)

// fetchPolicy finds the policy that an environment pins, from where its source says or from --policy, and checks the pin, what
// the trust document takes back, and the signature where one is demanded. Whatever goes wrong is a denial: nobody knows what the
// right policy would have said.
func (c *Call) fetchPolicy(ctx context.Context, s *environments.Signed, env string) (*bundle.Bundle, error) {
	pin := s.Document.Environments[env].Policy
	b, err := c.findPolicy(ctx, s, pin, c.String("policy"))
	if err == nil {
		return b, nil
	}
	if errors.Is(err, context.Canceled) {
		return nil, err
	}
	what := "is not at hand"
	if diag.CodeOf(err) == diag.Verification {
		what = "is refused"
	}
	return nil, diag.Wrap(diag.Denied, err, "the policy of environment %s %s (source %s)", env, what, pin.Source)
}

// findPolicy is fetchPolicy with the error as it is. override is a path or reference to use in place of the source.
func (c *Call) findPolicy(ctx context.Context, s *environments.Signed, pin environments.Policy, override string) (*bundle.Bundle, error) {
	spec, err := source.Parse(pin.Source)
	if err != nil {
		return nil, err
	}
	// The builtin policy is part of this program: who may put it there is nothing that a policy key could say.
	var demand *trust.Document
	if spec.Kind != source.KindBuiltin && (pin.Signed || source.Demanded(s.Trust)) {
		demand = s.Trust
	}
	judge := func(p *openedPolicy) error {
		if p.Bundle.Digest() != pin.Digest {
			return diag.New(diag.Verification, "it pins policy %s; the one at hand (%s) is %s", pin.Digest, p.named(), p.Bundle.Digest()).
				Hint("give the pinned policy: --policy PATH   (or pin this one, and sign: waybill env sign)")
		}
		if err := deniedPolicy(p, s.Trust); err != nil || demand == nil {
			return err
		}
		_, err := c.policySigned(ctx, p, demand)
		return err
	}
	if override != "" {
		return judged(judge, func() (*openedPolicy, error) { return c.openPolicyAt(ctx, override) })
	}
	switch spec.Kind {
	case source.KindBuiltin:
		return judged(judge, func() (*openedPolicy, error) { return c.openPolicyAt(ctx, "") })
	case source.KindPath:
		path := filepath.FromSlash(spec.Path)
		if !filepath.IsAbs(path) {
			path = filepath.Join(c.environmentsDir(), path)
		}
		return judged(judge, func() (*openedPolicy, error) { return c.openPolicyFile(path) })
	}
	b, err := judged(judge, func() (*openedPolicy, error) { return c.storedPolicy(ctx, pin.Digest) })
	if err == nil {
		c.UI.Why("policy %s is in the local store", pin.Digest.Short())
		return b, nil
	}
	c.UI.Why("policy %s from the local store: %v", pin.Digest.Short(), err)
	return judged(func(p *openedPolicy) error {
		if err := judge(p); err != nil {
			return err
		}
		c.cachePolicy(ctx, p)
		return nil
	}, func() (*openedPolicy, error) {
		p, err := c.referredPolicy(ctx, spec.Ref, pin.Digest)
		if err == nil {
			p.path = pin.Source
		}
		return p, err
	})
}

// judged opens a policy and keeps it if judge lets it pass.
func judged(judge func(*openedPolicy) error, open func() (*openedPolicy, error)) (*bundle.Bundle, error) {
	p, err := open()
	if err != nil {
		return nil, err
	}
	defer p.Close()
	if err := judge(p); err != nil {
		return nil, err
	}
	return p.Bundle, nil
}

// storedPolicy finds a policy in the local store by its own digest, whatever name it has there.
func (c *Call) storedPolicy(ctx context.Context, want artifact.Digest) (*openedPolicy, error) {
	ref := registry.Ref{Kind: registry.KindLocal, Repo: "policy"}
	place, err := c.place(ctx, ref)
	if err != nil {
		return nil, err
	}
	p, err := storedIn(ctx, place, want)
	if err != nil {
		place.Close()
		return nil, err
	}
	p.Ref = ref
	return p, nil
}

func storedIn(ctx context.Context, place *openPlace, want artifact.Digest) (*openedPolicy, error) {
	l, ok := place.Place.(*registry.Local)
	if !ok {
		return nil, diag.New(diag.Failure, "%T is no local store", place.Place)
	}
	size, ok, err := l.Store().Has(want)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, diag.New(diag.NotFound, "policy %s is not in the local store", want)
	}
	raw, err := registry.ReadBlob(ctx, place, artifact.Descriptor{Digest: want, Size: size}, bundle.MaxBytes)
	if err != nil {
		return nil, err
	}
	b, err := bundle.FromTar(raw)
	if err != nil {
		return nil, err
	}
	x, err := b.Image()
	if err != nil {
		return nil, err
	}
	return &openedPolicy{Bundle: b, Place: place, Desc: x.Descriptor}, nil
}

// cachePolicy keeps a policy with its signatures in the local store, so that the next gate needs no network. That it cannot is no
// reason to deny.
func (c *Call) cachePolicy(ctx context.Context, p *openedPolicy) {
	if c.Bool("dry-run") || p.Place == nil || p.Ref.Kind != registry.KindRemote {
		return
	}
	name := p.Bundle.Meta().Name
	if !registry.ValidRepo(name) {
		name = "policy"
	}
	dst := registry.Ref{Kind: registry.KindLocal, Repo: name, Tag: "pinned-" + p.Bundle.Digest().Short()}
	if _, err := c.storePolicy(ctx, p, dst); err != nil {
		c.UI.Why("policy %s was not kept in the local store: %v", p.Bundle.Digest().Short(), err)
		return
	}
	c.UI.Why("policy %s is kept in the local store as %s", p.Bundle.Digest().Short(), dst)
}

// signaturesOf are the statements about a policy that lie where it came from, for whoever passes it on.
func (c *Call) signaturesOf(ctx context.Context, s *environments.Signed, b *bundle.Bundle, pin environments.Policy) ([][]byte, error) {
	x, err := b.Image()
	if err != nil {
		return nil, err
	}
	bundles, err := c.storedSignatures(ctx, x.Descriptor.Digest)
	if err != nil {
		return nil, err
	}
	if spec, err := source.Parse(pin.Source); err == nil && spec.Kind == source.KindPath {
		beside, err := c.sidecar(filepath.Join(c.environmentsDir(), filepath.FromSlash(spec.Path)))
		if err != nil {
			return nil, err
		}
		bundles = append(bundles, beside...)
	}
	var out [][]byte
	for _, raw := range bundles { // only what counts travels
		if _, err := source.Signed(b, [][]byte{raw}, s.Trust, c.Env.Now(), nil); err == nil {
			out = append(out, raw)
		}
	}
	return out, nil
}

// policyStatement is the type of what signaturesOf gives.
const policyStatement = evidence.TypePolicy

// environmentsDir is the folder that paths in the environments document are relative to: where it lies, or is about to.
func (c *Call) environmentsDir() string {
	for _, flag := range []string{"environments", "out"} {
		if f := c.String(flag); f != "" {
			return filepath.Dir(c.Abs(f))
		}
	}
	return c.Env.Dir
}
