package cli

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/publish"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
)

type demandJSON struct {
	PredicateType string   `json:"predicateType"`
	Require       int      `json:"require"`
	Of            int      `json:"of,omitempty"` // signers that the rule names; absent: every key of the roles
	Signers       []string `json:"signers"`      // key ids of those who did
	Met           bool     `json:"met"`
}

func verifiedOf(e verify.Evidence) verifiedJSON {
	v := verifiedJSON{e.PredicateType, e.Bundle, e.KeyID, e.KeyName, e.Role, says(e), nil, e.TimeSource, certificateOf(e)}
	if !e.At.IsZero() {
		v.At = &e.At
	}
	return v
}

func failedOf(f verify.Failure) failedJSON {
	return failedJSON{f.PredicateType, f.Bundle, f.KeyID, f.Err.Reason, f.Err.Error()}
}

// whenSaid writes the time of a statement with what it rests on.
func whenSaid(v verifiedJSON) string {
	if v.At == nil {
		return "no time"
	}
	return v.At.Format(time.RFC3339) + " (" + string(v.TimeSource) + ")"
}

// required reads --require.
func (c *Call) required() (map[string]int, error) {
	out := map[string]int{}
	for _, r := range c.Strings("require") {
		name, count, given := strings.Cut(r, "=")
		n := 1
		if given {
			var err error
			if n, err = strconv.Atoi(count); err != nil || n < 1 || n > trust.MaxRequire {
				return nil, diag.New(diag.Usage, "--require %s: not TYPE=N with N from 1 to %d", r, trust.MaxRequire).Hint("--require approval=2")
			}
		}
		typ, ok := evidence.TypeByName(name)
		if !ok {
			if err := evidence.CustomType(name); err != nil {
				return nil, diag.Wrap(diag.Usage, err, "--require %s", r).Hint("--require evaluation")
			}
			typ = name
		}
		out[typ] = max(out[typ], n)
	}
	return out, nil
}

// demands holds the verified statements against the rules of the trust document and --require; the first that is not met
// is the refusal.
func (c *Call) demands(out *verifyJSON, ok []verify.Evidence, doc *trust.Document, s *subject, asked map[string]int) error {
	all := verify.Demands(ok, doc)
	for i, d := range all {
		all[i].Require = max(d.Require, asked[d.PredicateType])
		delete(asked, d.PredicateType)
	}
	var more []string
	for typ := range asked {
		more = append(more, typ)
	}
	slices.Sort(more)
	for _, typ := range more {
		all = append(all, verify.Count(ok, typ, asked[typ], 0))
	}
	var refusal error
	for _, d := range all {
		out.Demands = append(out.Demands, demandJSON{d.PredicateType, d.Require, d.Of, append([]string{}, d.Signers...), d.Met()})
		if !d.Met() && refusal == nil {
			e := diag.Wrap(diag.Verification, verify.Short(d, s.Desc.Digest), "%s", s.Pinned())
			for _, f := range out.Failed {
				if f.PredicateType == d.PredicateType {
					e.Line("%s: %s", f.Bundle.Short(), f.Text)
				}
			}
			refusal = e
		}
	}
	return refusal
}

// verifiedRef verifies what a reference names now, without its files, and gives the reference by the digest that was verified.
func (c *Call) verifiedRef(ctx context.Context, arg string) (string, error) {
	doc, _, err := c.trustFile()
	if err != nil {
		return "", err
	}
	certs, err := c.certificates()
	if err != nil {
		return "", err
	}
	s, err := c.subject(ctx, arg)
	if err != nil {
		return "", err
	}
	defer s.Close()
	bundles, err := publish.Bundles(ctx, s.Place, s.Desc.Digest)
	if err != nil {
		return "", err
	}
	if err := released(bundles, doc, s, c, certs); err != nil {
		return "", noteLegacy(ctx, s, err)
	}
	ok, _ := verify.All(bundles, doc, verify.Want{Subject: s.Desc.Digest, Layers: s.Model.Layers, Model: s.Name, AnyScope: true, Now: c.Env.Now(), Certificates: certs})
	if err := verify.Enough(ok, doc, s.Desc.Digest); err != nil {
		return "", diag.Wrap(diag.Verification, err, "%s", s.Pinned())
	}
	c.UI.Field("verified", "%s, %s under trust document version %d", s.Desc.Digest, ui.Plural(len(ok), "statement"), doc.Version)
	return s.Pinned(), nil
}

// nearness orders refusals by how far the check came; the one nearest to success is told.
func nearness(r verify.Reason) int {
	return slices.Index([]verify.Reason{
		verify.BadBundle, verify.SeveralSignatures, verify.UnknownAlgorithm, verify.WrongSigner, verify.Altered, verify.WrongSubject, verify.WrongRole,
		verify.OutOfScope, verify.NoTime, verify.Expired, verify.Revoked,
	}, r)
}

// released wants one release by a publisher in scope.
func released(bundles [][]byte, doc *trust.Document, s *subject, c *Call, certs verify.Certificates) error {
	var best error
	others := 0
	for _, raw := range bundles {
		if b, err := evidence.OpenBundle(raw); err == nil {
			if st, err := evidence.ParseStatement(b.DSSEEnvelope.Payload); err == nil && st.PredicateType != evidence.TypeRelease {
				others++ // whoever signed it: it claims no release
				continue
			}
		}
		_, err := verify.Bundle(raw, doc, verify.Want{PredicateType: evidence.TypeRelease, Subject: s.Desc.Digest, Model: s.Name, Now: c.Env.Now(), Certificates: certs})
		switch r := verify.ReasonOf(err); {
		case err == nil:
			return nil
		case best == nil || nearness(r) >= nearness(verify.ReasonOf(best)):
			best = err
		}
	}
	if best != nil {
		return diag.Wrap(diag.Verification, best, "%s: release signature", s.Pinned())
	}
	return diag.Wrap(diag.Verification, verify.Missing(evidence.TypeRelease, others), "%s", s.Pinned()).
		Hint("waybill sign %s --key publisher.key", s.Pinned())
}
