package edge

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
)

// Release says which model is opened and who must have released it.
type Release struct {
	From  string // an archive that `waybill save` wrote, or the folder of an OCI layout or of a store
	Model string // name that it must have been released under
	// Trust is the file of the signed trust document, and TrustDigest the digest that this document must have: it comes from whoever
	// signs the document, not from where the file came from.
	Trust, TrustDigest string

	Digest   string   // of the artifact; "": From holds one model only
	Evidence []string // predicate types of statements that must be there besides the release and what the trust document requires
	Env      string   // environment and channel that statements about one of them are about
	Channel  string
	Engine   Config
	// Now is the clock that expiry is judged by; nil is the machine's.
	Now func() time.Time
}

// Opened is a model that was proven and is ready. It is safe for concurrent use; Close frees it and its runtime.
type Opened struct {
	*Model
	Digest artifact.Digest   // of the artifact
	Proof  []verify.Evidence // the statements that verified; nil after InsecureOpenWithoutAnyProof
	rt     *Runtime
}

// Close frees the model and its runtime.
func (o *Opened) Close(ctx context.Context) error {
	return errors.Join(o.Model.Close(ctx), o.rt.Close(ctx))
}

// Mode tells how the model is executed here.
func (o *Opened) Mode() engine.Mode { return o.rt.Mode() }

// Open verifies and loads a model, without a network: the trust document against its digest, the release by publishers that it
// names for this model, every statement that its rules or the caller require, every byte against the digest that they are
// about, and the golden vectors on this machine, bit for bit. A nil error is the only yes. There is no word in it on whether
// a newer release exists: a channel tells that, and the agent follows it.
func Open(ctx context.Context, r Release) (*Opened, error) { return realChecks().open(ctx, r) }

// checks are the decisions about what lies in a release. Tests leave one out to see the attack succeed.
type checks struct {
	pinned   func(raw []byte, version int, pin artifact.Digest) (*trust.Document, error)
	all      func(raws [][]byte, doc *trust.Document, want verify.Want) ([]verify.Evidence, []verify.Failure)
	named    func(released, model string) bool // the name that a release says, and the one that was asked for
	present  func(proven []verify.Evidence, predicateType string) bool
	enough   func(proven []verify.Evidence, doc *trust.Document, subject artifact.Digest, types ...string) error
	manifest func(raw []byte, want artifact.Digest) (*artifact.Model, error)
	same     func(got, want artifact.Digest) bool // of every byte that is read
	probe    func(m *Model, ctx context.Context) error
}

func realChecks() checks {
	return checks{
		pinned:   verify.TrustPinned,
		all:      verify.All,
		named:    func(released, model string) bool { return released == model },
		present:  present,
		enough:   verify.Enough,
		manifest: verify.Manifest,
		same:     same,
		probe:    (*Model).Probe,
	}
}

func same(got, want artifact.Digest) bool { return got == want }

func present(proven []verify.Evidence, predicateType string) bool {
	return slices.ContainsFunc(proven, func(e verify.Evidence) bool { return e.PredicateType == predicateType })
}

func (c checks) open(ctx context.Context, r Release) (*Opened, error) {
	raw, err := readAtMost(r.Trust, artifact.MaxBundle)
	if err != nil {
		return nil, fmt.Errorf("open the trust document: %w", err)
	}
	pin, err := artifact.ParseDigest(r.TrustDigest)
	if err != nil {
		return nil, fmt.Errorf("the digest of the trust document: %w", err)
	}
	if r.Model == "" {
		return nil, errors.New("open: the name of the model is missing: any model of the same publisher would do")
	}
	doc, err := verify.TrustSelf(raw)
	if err == nil {
		doc, err = c.pinned(raw, doc.Version, pin)
	}
	if err != nil {
		return nil, fmt.Errorf("trust document %s: %w", r.Trust, err)
	}
	return c.load(ctx, r, func(l *layout, m *artifact.Model, d artifact.Digest) ([]verify.Evidence, error) {
		now := time.Now
		if r.Now != nil {
			now = r.Now
		}
		bundles, err := l.bundles(d)
		if err != nil {
			return nil, err
		}
		proven, failed := c.all(bundles, doc, verify.Want{Subject: d, Model: r.Model, Env: r.Env, Channel: r.Channel, Now: now(), Layers: m.Layers})
		named := ""
		proven = slices.DeleteFunc(proven, func(e verify.Evidence) bool { // a release of the same bytes under another name
			other := e.PredicateType == evidence.TypeRelease && !c.named(e.SubjectName, r.Model)
			if other {
				named = e.SubjectName
			}
			return other
		})
		if named != "" && !present(proven, evidence.TypeRelease) {
			return nil, verify.Refuse(verify.WrongSubject, "it is released as model %q, not as %q", named, r.Model)
		}
		for _, t := range append([]string{evidence.TypeRelease}, r.Evidence...) {
			if c.present(proven, t) {
				continue
			}
			for _, f := range failed {
				if f.PredicateType == t {
					return nil, f.Err
				}
			}
			return nil, verify.Missing(t, len(bundles))
		}
		return proven, c.enough(proven, doc, d)
	})
}

// InsecureOpenWithoutAnyProof loads a model that nobody vouches for: whoever can write the file decides what it computes. It is
// for experiments with one's own files. Digests and golden vectors, which come from the same file, are still checked.
func InsecureOpenWithoutAnyProof(ctx context.Context, from string, engine Config) (*Opened, error) {
	return realChecks().load(ctx, Release{From: from, Engine: engine}, nil)
}

// load loads the model, once prove has said yes.
func (c checks) load(ctx context.Context, r Release, prove func(*layout, *artifact.Model, artifact.Digest) ([]verify.Evidence, error)) (_ *Opened, err error) {
	fail := func(err error) (*Opened, error) { return nil, fmt.Errorf("open %s: %w", r.From, err) }
	l, err := openLayout(r.From, c.same)
	if err != nil {
		return fail(err)
	}
	defer l.close()
	d, raw, err := l.model(r.Digest)
	if err != nil {
		return fail(err)
	}
	m, err := c.manifest(raw, d)
	if err != nil {
		return fail(err)
	}
	o := &Opened{Digest: d}
	if prove != nil {
		if o.Proof, err = prove(l, m, d); err != nil {
			return fail(err)
		}
	}
	if o.rt, err = New(ctx, r.Engine); err != nil {
		return fail(err)
	}
	if o.Model, err = o.rt.Load(ctx, l.files(m)); err == nil {
		err = c.probe(o.Model, ctx)
	}
	if err != nil {
		return fail(errors.Join(err, o.rt.Close(ctx))) // closes the model too
	}
	return o, nil
}
