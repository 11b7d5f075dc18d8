package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/store"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
)

// States of an attached statement.
const (
	stateUnverified = "not verified" // no trust document was named
	stateProven     = "proven"
	stateRefused    = "refused"
	stateUnsigned   = "not signed" // it is no sigstore bundle
)

// attachedJSON is one thing that is attached, to the artifact or to something attached to it.
type attachedJSON struct {
	evidenceJSON
	Bundle  artifact.Digest `json:"bundle,omitempty"` // digest of the bundle itself
	Size    int64           `json:"size"`
	State   string          `json:"state"`             // not verified, proven, refused, not signed
	KeyID   string          `json:"keyId,omitempty"`   // of a proven one, or claimed by a refused one
	KeyName string          `json:"keyName,omitempty"` // of a proven one, as the other three
	Role    trust.Role      `json:"role,omitempty"`
	Says    string          `json:"says,omitempty"`
	Reason  verify.Reason   `json:"reason,omitempty"` // of a refused one
	Text    string          `json:"text,omitempty"`
	Depth   int             `json:"depth"` // 0: attached to the artifact, 1: to something of depth 0 ...
}

// pointerJSON is a channel whose newest record leads to the artifact.
type pointerJSON struct {
	Channel string `json:"channel"`
	Env     string `json:"env"`
	Seq     int64  `json:"seq"`
	Proven  bool   `json:"proven"` // the record was verified
	What    string `json:"what"`   // target, or keep: a former target that devices keep
}

func (p pointerJSON) text() string {
	s := fmt.Sprintf("%s seq %s (environment %s)", p.Channel, ui.Count(p.Seq), p.Env)
	if p.What == "keep" {
		s += ", kept for rollback"
	}
	if !p.Proven {
		s += ", not verified"
	}
	return s
}

// anchorOf is the trust document that --trust names, nil when there is no such flag, with what verifies certificates.
func (c *Call) anchorOf() (*trust.Document, verify.Certificates, error) {
	certs, err := c.certificates()
	if err != nil || c.String("trust") == "" {
		return nil, certs, err
	}
	doc, err := c.loadTrust()
	return doc, certs, err
}

// look describes a model file, a project, an artifact or a saved file. Statements are verified under --trust; without it,
// claims has them read all the same.
func (c *Call) look(ctx context.Context, arg string, claims bool) (*inspectJSON, error) {
	doc, certs, err := c.anchorOf()
	if err != nil {
		return nil, err
	}
	if tar, err := c.isArchive(arg); err != nil {
		return nil, err
	} else if tar {
		return c.lookInto(ctx, arg, lens{doc, certs, claims})
	}
	if local, err := isLocalModel(c, arg); err != nil {
		return nil, err
	} else if local {
		return inspectModel(ctx, c, arg)
	}
	ref, p, err := c.openArg(ctx, arg)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	d, err := p.Resolve(ctx, ref.Target())
	if err != nil {
		return nil, err
	}
	out, err := c.describe(ctx, p.Place, d.Digest, arg, lens{doc, certs, claims})
	if err != nil {
		return nil, err
	}
	out.Ref = ref.WithDigest(out.Digest).String()
	if ref.Kind == registry.KindRemote { // would take a request for each tag
		return out, nil
	}
	return out, c.pointers(ctx, p.Place, out, doc)
}

// lens is how statements are looked at.
type lens struct {
	doc    *trust.Document // nil: nobody's signature is checked
	certs  verify.Certificates
	claims bool // read statements that are not verified too
}

// isArchive tells whether an argument is a file that begins like a tar.
func (c *Call) isArchive(arg string) (bool, error) {
	if arg == "" {
		return false, nil
	}
	f, err := os.Open(c.Abs(arg))
	if err != nil {
		return false, nil // whoever opens it next says why
	}
	defer f.Close()
	head := make([]byte, 263)
	n, err := io.ReadFull(f, head)
	if n < len(head) {
		return false, nil // a folder, or too short
	}
	return string(head[257:262]) == "ustar", err
}

// lookInto describes the artifact that a saved file is about, after reading all of it.
func (c *Call) lookInto(ctx context.Context, arg string, z lens) (*inspectJSON, error) {
	f, err := os.Open(c.Abs(arg))
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "inspect")
	}
	defer f.Close()
	var size int64
	if fi, err := f.Stat(); err == nil {
		size = fi.Size()
	}
	bar := c.UI.Progress(c.Path, size, c.Env.Now)
	o, err := registry.OpenArchive(ctx, bufio.NewReaderSize(f, 1<<20), nil, bar.Add)
	bar.Done()
	if err != nil {
		return nil, err
	}
	defer o.Close()
	main := o.Main()
	lines := o.Lines()
	if main == "" {
		e := diag.New(diag.Usage, "%s holds several artifacts", arg)
		for _, l := range lines {
			if doc, _ := o.Doc(l.Digest); doc.Subject == "" && !registry.IsPaper(l.Descriptor) {
				_ = e.Line("%s  %s", l.Ref, l.Digest)
			}
		}
		return nil, e.Hint("waybill load %s, then inspect each", arg)
	}
	out, err := c.describe(ctx, o, main, arg, z)
	if err != nil {
		return nil, err
	}
	out.Ref = string(main)
	for _, l := range lines {
		if repo, tag, ok := strings.Cut(l.Ref, ":"); ok && l.Digest == main {
			out.Tags = append(out.Tags, l.Ref)
			out.Ref = registry.Ref{Repo: repo, Digest: main}.String()
		} else if name, ok := channelTag(tag); ok && l.ArtifactType == artifact.MediaTypeChannel {
			if err := c.pointer(ctx, o, l.Digest, name, out, z.doc); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// graph is a place that holds artifacts and what is attached to them.
type graph interface {
	blobReader
	Manifest(ctx context.Context, d artifact.Digest) ([]byte, artifact.Descriptor, error)
	Referrers(ctx context.Context, d artifact.Digest) ([]artifact.Descriptor, error)
}

// describe reads a manifest, what it says about a model, and everything attached to it.
func (c *Call) describe(ctx context.Context, p graph, d artifact.Digest, arg string, z lens) (*inspectJSON, error) {
	b, desc, err := p.Manifest(ctx, d)
	if err != nil {
		return nil, err
	}
	m, err := store.ParseDoc(b, desc.MediaType)
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "%s %s", c.Path, arg)
	}
	out := &inspectJSON{
		Schema: schemaBase + "inspect/v1", Target: arg, Digest: d,
		MediaType: desc.MediaType, ArtifactType: desc.ArtifactType, Bytes: desc.Size, Layers: []layerJSON{}, Evidence: []attachedJSON{},
	}
	out.manifest = desc.Size
	for _, bl := range m.Blobs {
		out.Bytes += bl.Size
	}
	switch x, err := artifact.ParseModel(b); {
	case err == nil:
		if err := describeModel(ctx, p, x, out); err != nil {
			return nil, err
		}
		if z.claims {
			if out.ops, err = sourceOperators(ctx, p, x); err != nil {
				return nil, err
			}
		}
	default:
		out.Reason = err.Error()
		for _, l := range append(m.Blobs, m.Children...) {
			out.Layers = append(out.Layers, layerJSON{Role: artifact.Role(l.Annotations[artifact.AnnotationRole]),
				Path: l.Annotations[artifact.AnnotationTitle], MediaType: l.MediaType, Digest: l.Digest, Size: l.Size})
		}
		if m, err := artifact.ParseManifest(b); err == nil {
			out.Subject = m.Subject
		}
		if desc.ArtifactType == policyArtifactType {
			if err := c.describePolicy(ctx, p, d, out); err != nil {
				return nil, err
			}
		}
	}
	if z.doc != nil {
		out.TrustVersion = z.doc.Version
	}
	return out, c.attached(ctx, p, d, 0, out, z)
}

// attached lists what is attached to subject, and below each what is attached to that.
func (c *Call) attached(ctx context.Context, p graph, subject artifact.Digest, depth int, out *inspectJSON, z lens) error {
	refs, err := p.Referrers(ctx, subject)
	if err != nil {
		return err
	}
	if depth == 0 {
		out.Unsigned = append(out.Unsigned, notesOf(refs)...)
	}
	refs = slices.DeleteFunc(slices.Clone(refs), isNote)
	for i, e := range evidenceList(refs) {
		a := attachedJSON{evidenceJSON: e, Size: refs[i].Size, State: stateUnsigned, Depth: depth}
		raw, _, err := p.Manifest(ctx, e.Digest)
		if err != nil {
			return err
		}
		m, err := artifact.ParseManifest(raw)
		if err == nil && len(m.Layers) == 1 {
			a.Bundle, a.Size = m.Layers[0].Digest, m.Layers[0].Size
		}
		if err == nil && m.ArtifactType == artifact.MediaTypeBundle && len(m.Layers) == 1 {
			a.State = stateUnverified
			if z.doc != nil || z.claims {
				if err := c.prove(ctx, p, m.Layers[0], subject, &a, out, z); err != nil {
					return err
				}
			}
		}
		if out.Evidence = append(out.Evidence, a); len(out.Evidence) > artifact.MaxReferrers {
			return diag.New(diag.Verification, "%s has more than %d things attached", out.Digest.Short(), artifact.MaxReferrers)
		}
		if depth < 4 {
			if err := c.attached(ctx, p, e.Digest, depth+1, out, z); err != nil {
				return err
			}
		}
	}
	return nil
}

// prove verifies one bundle about subject and says in a what came out.
func (c *Call) prove(ctx context.Context, p graph, layer artifact.Descriptor, subject artifact.Digest, a *attachedJSON, out *inspectJSON, z lens) error {
	raw, err := registry.ReadBlob(ctx, p, layer, artifact.MaxBundle)
	if diag.CodeOf(err) == diag.Verification {
		a.State, a.Reason, a.Text = stateRefused, verify.Altered, err.Error()
		return nil
	}
	if err != nil {
		return err
	}
	if z.doc == nil {
		if b, err := evidence.ParseBundle(raw); err == nil {
			if st, err := evidence.ParseStatement(b.DSSEEnvelope.Payload); err == nil && st.SubjectDigest() == out.Digest {
				out.said = append(out.said, verify.Evidence{Bundle: a.Bundle, PredicateType: st.PredicateType, Subject: out.Digest, Predicate: st.Predicate})
			}
		}
		return nil
	}
	w := verify.Want{Subject: subject, Model: out.Name, AnyScope: true, Now: c.Env.Now(), Certificates: z.certs}
	if subject == out.Digest && out.Model {
		for _, l := range out.Layers {
			w.Layers = append(w.Layers, artifact.Layer{Path: l.Path, Digest: l.Digest})
		}
	}
	ok, failed := verify.All([][]byte{raw}, z.doc, w)
	for _, e := range ok {
		v := verifiedOf(e)
		a.State, a.KeyID, a.KeyName, a.Role, a.Says, a.PredicateType = stateProven, v.KeyID, v.KeyName, v.Role, v.Says, v.PredicateType
		if subject == out.Digest {
			out.said = append(out.said, e)
		}
	}
	for _, f := range failed {
		a.State, a.KeyID, a.Reason, a.Text = stateRefused, f.KeyID, f.Err.Reason, f.Err.Error()
		if f.PredicateType != "" { // what the statement says, not the label outside
			a.PredicateType = f.PredicateType
		}
	}
	return nil
}

// pointers finds the tags and channels of a place on this machine that lead to out.
func (c *Call) pointers(ctx context.Context, p registry.Place, out *inspectJSON, doc *trust.Document) error {
	tags, err := p.Tags(ctx)
	if err != nil {
		return err
	}
	for _, t := range tags {
		d, err := p.Resolve(ctx, t)
		if err != nil {
			continue // damaged or removed meanwhile; store verify says so
		}
		if d.Digest == out.Digest {
			out.Tags = append(out.Tags, t)
		}
		if name, ok := channelTag(t); ok && d.ArtifactType == artifact.MediaTypeChannel {
			if err := c.pointer(ctx, p, d.Digest, name, out, doc); err != nil {
				return err
			}
		}
	}
	return nil
}

// pointer adds the channel whose record stands in a manifest, if it leads to out.
func (c *Call) pointer(ctx context.Context, p graph, manifest artifact.Digest, name string, out *inspectJSON, doc *trust.Document) error {
	raw, _, err := p.Manifest(ctx, manifest)
	if err != nil {
		return err
	}
	bundle, rec, err := recordIn(ctx, p, raw)
	if err != nil {
		return nil // not a record: nothing leads anywhere
	}
	x := pointerJSON{Channel: name, Env: rec.Env, Seq: rec.Seq}
	if doc != nil {
		_, _, err := verify.Record(bundle, doc, c.Env.Now())
		x.Proven = err == nil
	}
	switch {
	case rec.Channel != name:
		return nil
	case rec.Target.Digest == out.Digest:
		x.What = "target"
	case slices.ContainsFunc(rec.Keep, func(t channel.Target) bool { return t.Digest == out.Digest }):
		x.What = "keep"
	default:
		return nil
	}
	out.Channels = append(out.Channels, x)
	return nil
}

// branch draws the place of row i of n in a tree.
func branch(i, n int) string {
	if i == n-1 {
		return "└ "
	}
	return "├ "
}

func printFiles(u *ui.UI, o *inspectJSON) {
	if len(o.Layers) == 0 {
		return
	}
	u.Data("")
	var total int64
	for _, l := range o.Layers {
		total += l.Size
	}
	u.Data("  %s  %s", u.Out.Bold(ui.Plural(len(o.Layers), "file")), ui.Bytes(total))
	rows := [][]string{}
	for i, l := range o.Layers {
		role, file := string(l.Role), l.Path
		if role == "" {
			role = "-"
		}
		if file == "" {
			file = l.MediaType
		}
		if l.Target != "" {
			role += " (" + l.Target + ")"
		}
		if l.PersonalData == artifact.PersonalYes {
			file += "  personal data"
		}
		rows = append(rows, []string{"  " + branch(i, len(o.Layers)) + plain(role), ui.Bytes(l.Size), "sha256:" + l.Digest.Short(), plain(file)})
	}
	ui.Table(u.Out, false, rows)
}

// kindOf names what an attached thing says it is.
func (a attachedJSON) kindOf() string {
	if a.PredicateType != "" {
		return evidence.NameOf(a.PredicateType)
	}
	return shortType(a.ArtifactType)
}

func printEvidence(u *ui.UI, o *inspectJSON) {
	u.Data("")
	if len(o.Unsigned) > 0 {
		defer u.Data("  not signed, so no evidence: %s (waybill sign signs them where they were packed)", noteNames(o.Unsigned))
	}
	if len(o.Evidence) == 0 {
		u.Data("  no evidence attached")
		return
	}
	count := map[string]int{}
	for _, a := range o.Evidence {
		count[a.State]++
	}
	var parts []string
	for _, s := range []string{stateProven, stateRefused, stateUnverified, stateUnsigned} {
		if n := count[s]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, s))
		}
	}
	u.Data("  %s  %s", u.Out.Bold(ui.Plural(len(o.Evidence), "statement")), strings.Join(parts, ", "))
	rows := [][]string{}
	for i, a := range o.Evidence {
		state, who := a.State, ""
		switch a.State {
		case stateProven:
			state = u.Out.Green(state)
			who = fmt.Sprintf("by %s (%s key %s)", a.KeyName, a.Role, short12(a.KeyID))
			if a.Says != "" {
				who = a.Says + "  " + who
			}
		case stateRefused:
			state, who = u.Out.Red(state), a.Text
		case stateUnverified:
			state, who = u.Out.Yellow(state), "--trust FILE verifies it"
		}
		n := i + 2
		if lastAt(o.Evidence, i) {
			n = i + 1
		}
		dig := a.Bundle
		if dig == "" {
			dig = a.Digest
		}
		rows = append(rows, []string{"  " + strings.Repeat("  ", a.Depth) + branch(i, n) + plain(a.kindOf()), state, "sha256:" + dig.Short(), who})
	}
	ui.Table(u.Out, false, rows)
}

// lastAt tells whether nothing of the same depth follows below the same thing.
func lastAt(es []attachedJSON, i int) bool {
	for _, b := range es[i+1:] {
		if b.Depth <= es[i].Depth {
			return b.Depth < es[i].Depth
		}
	}
	return true
}

// plain replaces what would steer a terminal: names in manifests are whatever somebody wrote.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

func short12(id string) string { return id[:min(12, len(id))] }
