package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/publish"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/store"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/oci/verify/sigstore"
	"github.com/waybill-ml/waybill/policy/bundle"
	"github.com/waybill-ml/waybill/policy/environments"
)

// arrived is what an archive holds besides artifacts and statements, and what was proven about all of it.
type arrived struct {
	doc      *trust.Document // that everything was verified under; nil when nobody's signature was asked
	trusts   map[int][]byte  // signed trust documents by version
	root     []byte          // a trusted root
	envs     []byte          // signed environments
	policies map[artifact.Digest]*bundle.Bundle
	verified []verifiedJSON
	failed   []failedJSON
	unsigned int // attached, and no sigstore bundles
	records  int
	released int // models with the release of a publisher
	models   int
}

// inspectArchive reads the papers of an archive and, when the user named an anchor, verifies everything in it under the
// newest trust document that the anchor leads to. Nothing has entered the store by then.
func (c *Call) inspectArchive(ctx context.Context, o *registry.Opened) (*arrived, error) {
	l := &arrived{trusts: map[int][]byte{}, policies: map[artifact.Digest]*bundle.Bundle{}, verified: []verifiedJSON{}, failed: []failedJSON{}}
	lines := o.Lines()
	for _, e := range lines {
		if err := l.paper(ctx, o, e.Entry); err != nil {
			return nil, err
		}
	}
	anchored, err := c.anchor(l)
	if err != nil {
		return nil, err
	}
	if !anchored {
		if c.Bool("require-evidence") || c.String("papers") != "" {
			return nil, diag.New(diag.Usage, "load: --require-evidence and --papers need an anchor of yours: the file cannot vouch for itself").
				Hint("waybill load %s --trust trust.signed", c.Args[0]).Hint("waybill load %s --trust-digest sha256:...   (of the trust document, from a source that you trust)", c.Args[0])
		}
		return l, nil
	}
	if err := l.judgePapers(c); err != nil {
		return nil, err
	}
	seen := map[artifact.Digest]bool{}
	for _, e := range lines {
		if e.ArtifactType != artifact.ArtifactType || seen[e.Digest] {
			continue
		}
		seen[e.Digest] = true
		if err := l.judgeModel(ctx, c, o, e.Entry); err != nil {
			return nil, err
		}
	}
	return l, l.judgeChannels(ctx, c, o, lines)
}

// paper takes in one line of the index if it is a document that travels along.
func (l *arrived) paper(ctx context.Context, o *registry.Opened, e store.Entry) error {
	var limit int64
	switch e.ArtifactType {
	case publish.MediaTypeTrust, trust.MediaTypeTrustedRoot:
		limit = artifact.MaxBundle
	case environments.MediaType:
		limit = 2 * environments.MaxBytes * environments.MaxSignatures
	case bundle.ArtifactType:
		limit = bundle.MaxBytes
	default:
		return nil
	}
	raw, _, err := o.Manifest(ctx, e.Digest)
	if err != nil {
		return err
	}
	m, err := artifact.ParseManifest(raw)
	if err != nil || len(m.Layers) == 0 || len(m.Layers) != 1 && e.ArtifactType != bundle.ArtifactType {
		return diag.New(diag.Verification, "load: %s is a %s that has not exactly one file", e.Digest, e.ArtifactType)
	}
	rc, err := o.Blob(ctx, m.Layers[0])
	if err != nil {
		return err
	}
	b, err := store.ReadAll(rc, m.Layers[0], limit)
	if err != nil {
		return err
	}
	switch e.ArtifactType {
	case publish.MediaTypeTrust:
		d, err := verify.TrustSelf(b)
		if err != nil {
			return fmt.Errorf("load: trust document %s: %w", e.Digest.Short(), err)
		}
		if was, ok := l.trusts[d.Version]; ok && string(was) != string(b) {
			return diag.New(diag.Verification, "load: the file holds two trust documents of version %d", d.Version)
		}
		l.trusts[d.Version] = b
	case trust.MediaTypeTrustedRoot:
		l.root = b
	case environments.MediaType:
		if l.envs != nil && string(l.envs) != string(b) {
			return diag.New(diag.Verification, "load: the file holds two sets of environments")
		}
		l.envs = b
	case bundle.ArtifactType:
		p, err := bundle.FromTar(b)
		if err != nil {
			return diag.Wrap(diag.Verification, err, "load: policy %s", e.Digest.Short())
		}
		if x, err := p.Image(); err != nil || x.Descriptor.Digest != e.Digest {
			return diag.New(diag.Verification, "load: policy %s: its manifest is not the one that its files give", e.Digest.Short())
		}
		l.policies[p.Digest()] = p
	}
	return nil
}

// anchor finds the trust document to verify under: from that of --trust, or the one in the archive that has the digest of
// --trust-digest, version by version to the newest that the archive holds. false: the user named no anchor.
func (c *Call) anchor(l *arrived) (bool, error) {
	file, pin := c.String("trust"), c.String("trust-digest")
	switch {
	case file != "":
		doc, err := c.loadTrust()
		if err != nil {
			return false, err
		}
		l.doc = doc
	case pin != "":
		want, err := artifact.ParseDigest(pin)
		if err != nil {
			return false, diag.Wrap(diag.Usage, err, "--trust-digest")
		}
		for _, v := range slices.Sorted(maps.Keys(l.trusts)) {
			if d, err := verify.TrustPinned(l.trusts[v], v, want); err == nil {
				l.doc = d
			}
		}
		if l.doc == nil {
			return false, diag.New(diag.Verification, "load: the file holds no trust document with the digest %s", want).Hint("waybill save REF... --with-evidence --out FILE")
		}
	default:
		return false, nil
	}
	if raw, ok := l.trusts[l.doc.Version]; ok {
		want, err := l.doc.Digest()
		if err != nil {
			return false, err
		}
		if _, err := verify.TrustPinned(raw, l.doc.Version, want); err != nil {
			return false, fmt.Errorf("load: the file holds another trust document of version %d: %w", l.doc.Version, err)
		}
	}
	for _, v := range slices.Sorted(maps.Keys(l.trusts)) {
		if v <= l.doc.Version {
			continue
		}
		next, err := verify.TrustBundle(l.trusts[v], l.doc)
		if err != nil {
			return false, fmt.Errorf("load: trust document version %d does not follow version %d: %w", v, l.doc.Version, err)
		}
		c.UI.Why("trust document version %d follows version %d", v, l.doc.Version)
		l.doc = next
	}
	if l.doc.Expired(c.Env.Now()) {
		return false, diag.New(diag.Verification, "load: trust document version %d expired on %s", l.doc.Version, l.doc.Expires.Format("2006-01-02"))
	}
	return true, nil
}

func (l *arrived) judgePapers(c *Call) error {
	if l.root != nil {
		if l.doc.Keyless == nil || artifact.DigestOf(l.root) != l.doc.Keyless.TrustedRoot {
			return diag.New(diag.Verification, "load: trust document version %d does not name the trusted root %s of the file", l.doc.Version, artifact.DigestOf(l.root).Short())
		}
	}
	if l.envs == nil {
		return nil
	}
	s, err := environments.Verify(l.envs, l.doc, c.Env.Now())
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	for _, name := range s.Document.Names() {
		if d := s.Document.Environments[name].Policy.Digest; l.policies[d] == nil {
			return diag.New(diag.Verification, "load: environment %s pins policy %s, which the file does not hold", name, d)
		}
	}
	return nil
}

// judgeModel verifies everything attached to one model. A statement whose signature or subject does not fit refuses the
// file; one that merely does not count here (a signer unknown here, a time that has passed) is told and counts for
// nothing, as everywhere.
func (l *arrived) judgeModel(ctx context.Context, c *Call, o *registry.Opened, e store.Entry) error {
	l.models++
	raw, _, err := o.Manifest(ctx, e.Digest)
	if err != nil {
		return err
	}
	m, err := verify.Manifest(raw, e.Digest)
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	name, err := modelName(ctx, o, m)
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	if l.doc.IsDenied(e.Digest) {
		return diag.New(diag.Verification, "load: trust document version %d denies %s (%s)", l.doc.Version, e.Digest, name)
	}
	r := o.Named(name)
	refs, err := r.Referrers(ctx, e.Digest)
	if err != nil {
		return err
	}
	bundles, err := publish.Bundles(ctx, r, e.Digest)
	if err != nil {
		return err
	}
	l.unsigned += len(refs) - len(bundles)
	certs := sigstore.With(l.root) // counts only where the trust document names its digest
	ok, failed := verify.All(bundles, l.doc, verify.Want{Subject: e.Digest, Layers: m.Layers, Model: name, AnyScope: true, Now: c.Env.Now(), Certificates: certs})
	for _, v := range ok {
		l.verified = append(l.verified, verifiedOf(v))
	}
	for _, f := range failed {
		if f.Err.Reason == verify.Altered || f.Err.Reason == verify.WrongSubject {
			return fmt.Errorf("load: statement %s about %s: %w", f.Bundle.Short(), e.Digest.Short(), f.Err)
		}
		l.failed = append(l.failed, failedOf(f))
	}
	err = released(bundles, l.doc, &subject{Ref: registry.Ref{Repo: name}, Desc: e.Descriptor, Name: name}, c, certs)
	if err == nil {
		l.released++
	} else if c.Bool("require-evidence") {
		return fmt.Errorf("load: %w", err)
	}
	return nil
}

// judgeChannels verifies the records of every channel in the archive, and that each follows the one before.
func (l *arrived) judgeChannels(ctx context.Context, c *Call, o *registry.Opened, lines []registry.Line) error {
	for _, e := range lines {
		repo, tag, _ := strings.Cut(e.Ref, ":")
		name, ok := channelTag(tag)
		if !ok || e.ArtifactType != artifact.MediaTypeChannel {
			continue
		}
		r := o.Named(repo)
		st, err := publish.Read(ctx, r, name, l.doc, c.Env.Now())
		if err != nil {
			return fmt.Errorf("load: channel %s: %w", name, err)
		}
		if st.Head == nil || st.Head.Manifest.Digest != st.Tag {
			return diag.New(diag.Verification, "load: channel %s: its tag does not lead to its newest record in the file", name)
		}
		entries, err := publish.History(ctx, r, st, l.doc, c.Env.Now(), 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // older records stay where they are
			return fmt.Errorf("load: channel %s: %w", name, err)
		}
		if _, ok := o.Doc(st.Head.Record.Target.Digest); !ok {
			return diag.New(diag.Verification, "load: channel %s: the file does not hold its target %s", name, st.Head.Record.Target.Digest)
		}
		l.records += len(entries)
	}
	return nil
}

// channelTag reads the moving tag of a channel; record tags (channel-NAME.SEQ) are none.
func channelTag(tag string) (name string, ok bool) {
	name, ok = strings.CutPrefix(tag, "channel-")
	return name, ok && channel.ValidName(name) == nil && !strings.Contains(name, ".")
}

// recordIn reads, without believing it, the channel record in a manifest, and the bundle that holds it.
func recordIn(ctx context.Context, r blobReader, manifest []byte) ([]byte, *channel.Record, error) {
	m, err := artifact.ParseManifest(manifest)
	if err != nil {
		return nil, nil, err
	}
	if m.ArtifactType != artifact.MediaTypeChannel || len(m.Layers) == 0 {
		return nil, nil, errors.New("it is no channel record")
	}
	raw, err := registry.ReadBlob(ctx, r, m.Layers[0], 4*artifact.MaxRecord)
	if err != nil {
		return nil, nil, err
	}
	b, err := evidence.ParseBundle(raw)
	if err != nil {
		return nil, nil, err
	}
	st, err := evidence.ParseStatement(b.DSSEEnvelope.Payload)
	if err != nil {
		return nil, nil, err
	}
	rec, err := channel.Parse(st.Predicate)
	return raw, rec, err
}

// papersOf are the verified documents of an archive under the names that other verbs look for, for the folder dir, where
// none of them may have other content already. "" asks for none.
func (c *Call) papersOf(l *arrived, dir string) (map[string][]byte, error) {
	if dir == "" {
		return nil, nil
	}
	files := map[string][]byte{}
	for v, raw := range l.trusts {
		switch {
		case v == l.doc.Version:
			files[defaultTrustFile] = raw
		case v < l.doc.Version:
			files[archiveName(defaultTrustFile, v)] = raw
		}
	}
	if l.envs != nil {
		files[environmentsSigned] = l.envs
	}
	if l.root != nil {
		files["trusted_root.json"] = l.root
	}
	for d, p := range l.policies {
		files["policy-"+d.Short()+".tar"] = p.Tar()
	}
	for n, b := range files {
		old, err := os.ReadFile(filepath.Join(c.Abs(dir), n))
		if err == nil && string(old) != string(b) && !c.Bool("force") {
			return nil, diag.New(diag.Usage, "%s exists with other content", filepath.Join(dir, n)).Hint("add --force, or choose another folder")
		}
	}
	return files, nil
}

func (c *Call) writePapers(files map[string][]byte, dir string) error {
	for _, n := range slices.Sorted(maps.Keys(files)) {
		if err := c.writeFile(filepath.Join(dir, n), files[n], 0o644, true); err != nil {
			return err
		}
	}
	return nil
}

func (l *arrived) report(c *Call) {
	if l.doc == nil {
		c.UI.Field("verified", "digests only; nobody's signature was asked (--trust FILE does that)")
		return
	}
	c.UI.Field("trust", "version %d, valid until %s", l.doc.Version, l.doc.Expires.Format("2006-01-02"))
	text := fmt.Sprintf("%s of %s released", ui.Count(int64(l.released)), ui.Plural(l.models, "model"))
	text += ", " + ui.Plural(len(l.verified), "statement") + " proven"
	if l.unsigned > 0 {
		text += ", " + ui.Count(int64(l.unsigned)) + " not signed"
	}
	if l.records > 0 {
		text += ", " + ui.Plural(l.records, "channel record")
	}
	c.UI.Field("verified", "%s", text)
	for _, f := range l.failed {
		c.UI.Field(c.UI.Err.Red("refused"), "%-12s %s  %s", evidence.NameOf(f.PredicateType), f.Bundle.Short(), f.Text)
	}
}
