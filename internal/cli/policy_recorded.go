package cli

import (
	"context"
	"path/filepath"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/policy/bundle"
	"github.com/waybill-ml/waybill/policy/environments"
	"github.com/waybill-ml/waybill/policy/source"
)

// replayPolicy finds the policy of a record by its digest: the one of --policy, the builtin one, one that an environment at
// hand names a path for, the one that the gate kept in the local store, or last the registry or layout that an environment at
// hand pins it in. Where it comes from proves nothing and need not: the digest does.
func (c *Call) replayPolicy(ctx context.Context, want artifact.Digest) (*bundle.Bundle, error) {
	if path := c.String("policy"); path != "" {
		b, _, err := c.openPolicy(path)
		if err != nil {
			return nil, err
		}
		if b.Digest() != want {
			return nil, diag.New(diag.NotFound, "replay: recorded under another policy: %s; %s is %s", want, path, b.Digest()).Hint("give the policy of the record: --policy PATH")
		}
		return b, nil
	}
	builtin, _, err := c.openPolicy(environments.Builtin)
	if err != nil || builtin.Digest() == want {
		return builtin, err
	}
	specs, err := c.policySources(want)
	if err != nil {
		c.UI.Why("environments: %v", err)
	}
	for _, s := range specs {
		if s.Kind != source.KindPath {
			continue
		}
		path := filepath.FromSlash(s.Path)
		if !filepath.IsAbs(path) {
			path = filepath.Join(c.environmentsDir(), path)
		}
		if b, _, err := c.openPolicy(path); err == nil && b.Digest() == want {
			return b, nil
		}
	}
	b, err := c.policyInStore(ctx, want)
	if err == nil {
		return b, nil
	}
	c.UI.Why("policy %s from the local store: %v", want.Short(), err)
	for _, s := range specs {
		if s.Kind != source.KindRef {
			continue
		}
		p, err := c.referredPolicy(ctx, s.Ref, want)
		if err == nil {
			p.Close()
			return p.Bundle, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		c.UI.Why("policy %s from %s: %v", want.Short(), s.Ref, err)
	}
	return nil, diag.New(diag.NotFound, "replay: recorded under another policy: %s, which is not at hand; the builtin one is %s", want, builtin.Digest()).
		Hint("give the policy of the record: --policy PATH")
}

// policySources lists where the environments document at hand says that a policy lies. It is only a list of places to look.
func (c *Call) policySources(want artifact.Digest) ([]source.Spec, error) {
	doc, err := c.loadTrust()
	if err != nil {
		return nil, err
	}
	s, err := c.loadEnvironments(doc)
	if err != nil {
		return nil, err
	}
	var out []source.Spec
	for _, name := range s.Document.Names() {
		p := s.Document.Environments[name].Policy
		if p.Digest != want {
			continue
		}
		if spec, err := source.Parse(p.Source); err == nil {
			out = append(out, spec)
		}
	}
	return out, nil
}

// policyInStore reads the policy with that digest from the local store.
func (c *Call) policyInStore(ctx context.Context, want artifact.Digest) (*bundle.Bundle, error) {
	p, err := c.storedPolicy(ctx, want)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	if p.Bundle.Digest() != want {
		return nil, diag.New(diag.Verification, "the local store holds policy %s under the digest %s", p.Bundle.Digest(), want)
	}
	return p.Bundle, nil
}

// referredPolicy reads the policy with that digest where an environment's reference says; a layout lies beside the document.
func (c *Call) referredPolicy(ctx context.Context, ref registry.Ref, want artifact.Digest) (*openedPolicy, error) {
	if ref.Kind == registry.KindLayout && !filepath.IsAbs(ref.Path) {
		ref.Path = filepath.Join(c.environmentsDir(), filepath.FromSlash(ref.Path))
	}
	p, err := c.place(ctx, ref)
	if err != nil {
		return nil, err
	}
	a, err := source.Read(ctx, p, ref.Target(), want)
	if err != nil {
		p.Close()
		return nil, err
	}
	return &openedPolicy{Bundle: a.Bundle, Ref: ref, Place: p, Desc: a.Descriptor}, nil
}
