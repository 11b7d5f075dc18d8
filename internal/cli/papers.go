package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/publish"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/store"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/policy/bundle"
	"github.com/waybill-ml/waybill/policy/environments"
)

// papers are the documents that travel beside artifacts: what a place without a network needs to judge them. They are
// artifacts in memory.
type papers struct {
	blobs    map[artifact.Digest][]byte
	attached map[artifact.Digest][]artifact.Descriptor // by subject
}

var _ registry.Source = (*papers)(nil)

// add makes an artifact of one document and returns its digest.
func (p *papers) add(mediaType string, raw []byte) (artifact.Digest, error) {
	m, err := publish.Paper(mediaType, raw)
	if err != nil {
		return "", err
	}
	p.put([]byte(artifact.EmptyConfig), raw)
	return p.put(m), nil
}

// put keeps blobs and returns the digest of the last one.
func (p *papers) put(bs ...[]byte) (last artifact.Digest) {
	for _, b := range bs {
		last = artifact.DigestOf(b)
		p.blobs[last] = b
	}
	return last
}

// Resolve implements registry.Source for digests.
func (p *papers) Resolve(ctx context.Context, digest string) (artifact.Descriptor, error) {
	_, d, err := p.Manifest(ctx, artifact.Digest(digest))
	return d, err
}

// Manifest implements registry.Source.
func (p *papers) Manifest(_ context.Context, d artifact.Digest) ([]byte, artifact.Descriptor, error) {
	b, ok := p.blobs[d]
	if !ok {
		return nil, artifact.Descriptor{}, diag.Wrap(diag.NotFound, fs.ErrNotExist, "%s", d)
	}
	doc, err := store.ParseDoc(b, "")
	return b, doc.Descriptor, err
}

// Blob implements registry.Source.
func (p *papers) Blob(_ context.Context, d artifact.Descriptor) (io.ReadCloser, error) {
	b, ok := p.blobs[d.Digest]
	if !ok {
		return nil, diag.Wrap(diag.NotFound, fs.ErrNotExist, "%s", d.Digest)
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

// Referrers implements registry.Source: the signatures of policies.
func (p *papers) Referrers(_ context.Context, d artifact.Digest) ([]artifact.Descriptor, error) {
	return p.attached[d], nil
}

// attach adds a bundle about subject.
func (p *papers) attach(subject artifact.Descriptor, bundle []byte, predicateType string) error {
	raw, err := artifact.BuildReferrer(subject, bundle, predicateType)
	if err != nil {
		return err
	}
	p.put([]byte(artifact.EmptyConfig), bundle)
	doc, err := store.ParseDoc(raw, "")
	if err != nil {
		return err
	}
	p.put(raw)
	p.attached[subject.Digest] = append(p.attached[subject.Digest], doc.Descriptor)
	return nil
}

// withEvidence finds what accompanies the artifacts of a save: the trust document with its earlier versions and its
// trusted root, the signed environments with the policies that they pin, and with --channel the records and the former
// targets of a channel. from is where the first artifact lives, base the name under which all of it travels.
func (c *Call) withEvidence(ctx context.Context, from registry.Place, base string) ([]registry.SaveItem, error) {
	doc, raw, err := c.trustFile()
	if err != nil {
		return nil, err
	}
	p := &papers{map[artifact.Digest][]byte{}, map[artifact.Digest][]artifact.Descriptor{}}
	var items []registry.SaveItem
	along := func(d artifact.Digest, tag string) {
		items = append(items, registry.SaveItem{From: p, Target: string(d), Name: base + ":" + tag, Along: true})
	}
	for v := 1; v <= doc.Version; v++ {
		file := raw
		if v < doc.Version {
			if file, err = c.archived(c.String("trust"), v); err != nil {
				return nil, err
			}
			if file == nil {
				continue // a document that did not begin here; devices that know a later version need no earlier one
			}
			if old, err := verify.TrustSelf(file); err != nil || old.Version != v {
				return nil, diag.New(diag.Verification, "%s is not trust document version %d", archiveName(c.String("trust"), v), v)
			}
		}
		d, err := p.add(publish.MediaTypeTrust, file)
		if err != nil {
			return nil, err
		}
		along(d, publish.TrustTag(v))
	}
	if err := c.trustedRoot(doc, p, along); err != nil {
		return nil, err
	}
	if err := c.environmentPapers(ctx, doc, p, along); err != nil {
		return nil, err
	}
	if name := c.String("channel"); name != "" {
		more, err := c.channelItems(ctx, from, name, base, doc)
		if err != nil {
			return nil, err
		}
		items = append(items, more...)
	}
	return items, nil
}

// trustedRoot adds the trusted root that the trust document names. One that stands inside the document travels with it.
func (c *Call) trustedRoot(doc *trust.Document, p *papers, along func(artifact.Digest, string)) error {
	if doc.Keyless == nil || doc.Keyless.TrustedRootJSON != "" {
		return nil
	}
	file := c.String("trusted-root")
	if file == "" {
		return diag.New(diag.Usage, "trust document version %d accepts certificates under the trusted root %s, which it does not contain", doc.Version, doc.Keyless.TrustedRoot.Short()).
			Hint("add --trusted-root trusted_root.json")
	}
	raw, err := c.readFile(file, trust.MaxTrustedRoot)
	if err != nil {
		return err
	}
	if got := artifact.DigestOf(raw); got != doc.Keyless.TrustedRoot {
		return diag.New(diag.Verification, "%s is not the trusted root of trust document version %d", file, doc.Version).
			Line("want %s", doc.Keyless.TrustedRoot).Line("got  %s", got)
	}
	d, err := p.add(trust.MediaTypeTrustedRoot, raw)
	if err == nil {
		along(d, "trusted-root-"+doc.Keyless.TrustedRoot.Short())
	}
	return err
}

// environmentPapers adds the signed environments and every policy that they pin, each with exactly the pinned digest.
func (c *Call) environmentPapers(ctx context.Context, doc *trust.Document, p *papers, along func(artifact.Digest, string)) error {
	s, err := c.loadEnvironments(doc)
	if diag.CodeOf(err) == diag.NotFound && !c.IsSet("environments") {
		c.UI.Warn("there is no %s here: the file will hold no environments and no policy, and a gate cannot decide from it", c.String("environments"))
		return nil
	}
	if err != nil {
		return err
	}
	raw, err := c.readFile(c.String("environments"), 2*environments.MaxBytes*environments.MaxSignatures)
	if err != nil {
		return err
	}
	again, err := environments.Verify(raw, doc, c.Env.Now())
	if err != nil || again.Digest != s.Digest {
		return diag.New(diag.Verification, "%s changed while it was read", c.String("environments"))
	}
	d, err := p.add(environments.MediaType, raw)
	if err != nil {
		return err
	}
	along(d, fmt.Sprintf("environments-%d", s.Document.Version))
	done := map[artifact.Digest]bool{}
	for _, name := range s.Document.Names() {
		pin := s.Document.Environments[name].Policy
		if done[pin.Digest] {
			continue
		}
		done[pin.Digest] = true
		b, err := c.policyOf(ctx, s, pin)
		if err != nil {
			return fmt.Errorf("environment %s: %w", name, err)
		}
		x, err := b.Image()
		if err != nil {
			return err
		}
		for _, l := range x.Blobs {
			p.put(l.Bytes)
		}
		signatures, err := c.signaturesOf(ctx, s, b, pin)
		if err != nil {
			return err
		}
		for _, raw := range signatures {
			if err := p.attach(x.Descriptor, raw, policyStatement); err != nil {
				return err
			}
		}
		along(p.put(x.Manifest), "policy-"+pin.Digest.Short())
	}
	return nil
}

// policyOf finds the policy that an environment pins: among the files of --policy, or where the environment says.
func (c *Call) policyOf(ctx context.Context, s *environments.Signed, pin environments.Policy) (*bundle.Bundle, error) {
	for _, f := range c.Strings("policy") {
		x, _, err := c.openPolicy(f)
		if err != nil {
			return nil, err
		}
		if x.Digest() == pin.Digest {
			return x, nil
		}
	}
	b, err := c.findPolicy(ctx, s, pin, "")
	if err != nil {
		return nil, diag.Wrap(diag.NotFound, err, "its policy %s", pin.Digest).Hint("give the pinned policy too: --policy PATH")
	}
	return b, nil
}

// channelItems are the records of a channel from its head down, as far as the head's target and --previous other targets
// before it, and those targets with their evidence. Each record is verified and follows the one before.
func (c *Call) channelItems(ctx context.Context, from registry.Place, name, base string, doc *trust.Document) ([]registry.SaveItem, error) {
	now := c.Env.Now()
	st, err := publish.Read(ctx, from, name, doc, now)
	if err != nil {
		return nil, err
	}
	if st.Head == nil {
		return nil, diag.New(diag.NotFound, "there is no channel %q where the first REF lives", name).Hint("waybill channel publish ENV REF --key deployer.key")
	}
	if st.Head.Manifest.Digest != st.Tag {
		return nil, diag.New(diag.Failure, "the publication of seq %d of channel %s was interrupted", st.Head.Record.Seq, name).
			Hint("complete it first: waybill channel refresh %s REPO --key deployer.key", name)
	}
	items := []registry.SaveItem{{From: from, Target: channel.Tag(name), Name: base + ":" + channel.Tag(name), Along: true}}
	most := c.Int("previous") + 1
	seen := map[artifact.Digest]bool{}
	for e := st.Head; ; {
		seq, t := e.Record.Seq, e.Record.Target
		if !seen[t.Digest] {
			if len(seen) == most {
				break
			}
			seen[t.Digest] = true
			items = append(items, registry.SaveItem{From: from, Target: string(t.Digest), Name: base + ":" + c.targetTag(ctx, from, name, seq, t), Along: true})
		}
		items = append(items, registry.SaveItem{From: from, Target: channel.SeqTag(name, seq), Name: base + ":" + channel.SeqTag(name, seq), Along: true})
		if seq == 1 {
			break
		}
		prev, err := publish.Record(ctx, from, name, seq-1, doc, now)
		if r := verify.ReasonOf(err); r == verify.PastGeneration || r == verify.Revoked {
			// Its targets are nothing that a device would go back to by a record: keys were changed in between.
			c.UI.Say("what channel %s had before seq %d stays behind: its records count no more (%s)", name, seq, r)
			break
		}
		if err != nil {
			return nil, fmt.Errorf("before seq %d of channel %s: %w", seq, name, err)
		}
		if prev.Bundle != e.Record.Prev {
			return nil, diag.New(diag.Verification, "channel %s was forked before seq %d", name, seq).Hint("waybill channel verify %s REPO", name)
		}
		e = prev
	}
	if n := len(seen) - 1; n < c.Int("previous") {
		c.UI.Say("channel %s has had %s before, not %d", name, ui.Plural(n, "other target"), c.Int("previous"))
	}
	return items, nil
}

// targetTag is the tag that a target has where it lives, if that is its version; else one that says where it comes from.
func (c *Call) targetTag(ctx context.Context, from registry.Place, name string, seq int64, t channel.Target) string {
	if registry.ValidTag(t.Version) {
		if d, err := from.Resolve(ctx, t.Version); err == nil && d.Digest == t.Digest {
			return t.Version
		}
	}
	return channel.SeqTag(name, seq) + "-target"
}

// baseOf is the name that things of a reference's repository have in an archive: the last part of the repository's name.
// A layout has none, so it is the model's there, or "" for what is no model.
func (c *Call) baseOf(ctx context.Context, ref registry.Ref, p registry.Place) (string, error) {
	switch ref.Kind {
	case registry.KindLocal:
		return ref.Repo, nil
	case registry.KindRemote:
		return path.Base(ref.Repo), nil
	}
	d, err := p.Resolve(ctx, ref.Target())
	if err != nil {
		return "", err
	}
	raw, d, err := p.Manifest(ctx, d.Digest)
	if err != nil {
		return "", err
	}
	m, err := verify.Manifest(raw, d.Digest)
	if err != nil {
		return "", nil // no model: it travels under its tag alone
	}
	name, err := modelName(ctx, p, m)
	if name = strings.ToLower(name); err != nil || !registry.ValidRepo(name) {
		return "", err
	}
	return name, nil
}

// modelName reads a model's name from its config.
func modelName(ctx context.Context, p blobReader, m *artifact.Model) (string, error) {
	d := m.Manifest.Config
	rc, err := p.Blob(ctx, d)
	if err != nil {
		return "", err
	}
	raw, err := store.ReadAll(rc, d, artifact.MaxConfig)
	if err != nil {
		return "", err
	}
	cfg, err := artifact.ParseConfig(raw, m)
	if err != nil {
		return "", diag.Wrap(diag.Verification, err, "config %s", d.Digest.Short())
	}
	return cfg.Descriptor.Name, nil
}

type blobReader interface {
	Blob(ctx context.Context, d artifact.Descriptor) (io.ReadCloser, error)
}
