package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/publish"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
)

// signer is a key or an identity about to sign.
type signer interface {
	KeyID() string
	Role() trust.Role
}

// trustAtHand loads the trust document of --trust for a verb that signs. Without the flag and without the file there is
// none: a build machine need not have it, and what it signs is checked wherever it counts.
func (c *Call) trustAtHand() (*trust.Document, error) {
	doc, err := c.loadTrust()
	if diag.CodeOf(err) == diag.NotFound && !c.IsSet("trust") {
		c.UI.Why("no %s here: the scope of the key is checked by whoever verifies", defaultTrustFile)
		return nil, nil
	}
	return doc, err
}

// ready refuses a signature that would not count: the key is revoked or retired, has another role in the trust document
// than in its file, does not cover the model (or the environment, where the statement names one), or is not among the
// signers of the type's rule. A key that the document does not know is warned about: its entry may follow.
func (c *Call) ready(doc *trust.Document, k signer, predicateType, model, env string) error {
	if doc == nil {
		if trust.RolesFor(predicateType) == nil {
			return diag.New(diag.NotFound, "%s is a custom type: only a trust document can say who may sign it", predicateType).
				Hint("waybill trust rule trust.yaml %s --role %s, then pass --trust trust.signed", predicateType, k.Role())
		}
		return nil
	}
	if roles := doc.RolesFor(predicateType); len(roles) == 0 {
		return diag.New(diag.Verification, "trust document version %d lets nobody sign %s", doc.Version, predicateType).
			Hint("waybill trust rule trust.yaml %s --role %s", predicateType, k.Role())
	}
	err := doc.Ready(predicateType, trust.Ask{KeyID: k.KeyID(), Role: k.Role(), Model: model, Env: env, At: c.Env.Now()})
	if errors.Is(err, trust.ErrUnknownKey) && trust.RolesFor(predicateType) != nil {
		c.UI.Warn("trust document version %d does not know this key: what it signs will not count until it does", doc.Version)
		return nil
	}
	if err != nil {
		return diag.Wrap(diag.Verification, err, "this signature would not count").
			Line("nothing was signed").Hint("waybill trust show --role %s", k.Role())
	}
	return nil
}

// attached looks for the statement among what is attached already: signed by the same key, with the same bytes. ECDSA
// signatures are random, so that signing again would attach a second bundle that says nothing new.
func (s *subject) attached(ctx context.Context, k interface{ KeyID() string }, public, payload []byte) (artifact.Digest, error) {
	bundles, err := publish.Bundles(ctx, s.Place, s.Desc.Digest)
	if err != nil {
		return "", err
	}
	pub, _, err := trust.ParsePublic(public)
	if err != nil {
		return "", nil //nolint:nilerr // a signer without a key of its own signs anew
	}
	for _, raw := range bundles {
		b, err := evidence.ParseBundle(raw)
		if err != nil || !bytes.Equal(b.DSSEEnvelope.Payload, payload) {
			continue
		}
		if id, err := b.KeyID(); err != nil || id != k.KeyID() {
			continue
		}
		if verify.Signature(pub, b.DSSEEnvelope.PayloadType, payload, b.DSSEEnvelope.Signatures[0].Sig) {
			return artifact.DigestOf(raw), nil
		}
	}
	return "", nil
}

func trustAtHandFlag() ucli.Flag {
	return &ucli.StringFlag{Name: "trust", Value: defaultTrustFile, EnvVars: []string{"WAYBILL_TRUST"},
		Usage: "trust document `FILE` to check the signer against, if there"}
}

// printDry prints the statement that would be signed.
func (c *Call) printDry(verb string, s *subject, k author, st *evidence.Statement) error {
	if _, err := st.Encode(); err != nil {
		return diag.Wrap(diag.Usage, err, "make the statement")
	}
	c.UI.Say("dry run: nothing was signed, nothing was written")
	if c.UI.JSON {
		return c.UI.PrintJSON(statementJSON{
			Schema: schemaBase + verb + "/v1", Ref: s.Pinned(), Subject: s.Desc.Digest, Model: s.Name, Version: s.Version,
			PredicateType: st.PredicateType, KeyID: k.KeyID(), Role: k.Role(), Identity: identityOf(k), Statement: st,
		})
	}
	c.UI.Field("model", "%s %s", s.Name, s.Version)
	c.UI.Field("statement", "%s", evidence.NameOf(st.PredicateType))
	c.UI.Field("signed by", "%s", signedBy(k))
	pretty, err := json.MarshalIndent(st, "", "  ")
	if err != nil {
		return err
	}
	c.UI.Data("%s", pretty)
	return nil
}
