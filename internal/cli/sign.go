package cli

import (
	"context"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
)

func signCommand() Command {
	return Command{
		Name: "sign", Group: Trust, Summary: "sign an artifact as its publisher",
		Args: "REF", Min: 1, Max: 1,
		Long: `Signs the digest of the artifact with a publisher key and stores the signature, a sigstore bundle, beside the artifact.
It says "built by us", not "approved": approval is waybill approve, the verdict is waybill gate. Stock cosign verifies it
with the publisher's public key. The provenance and the bill of materials that pack left beside the artifact are signed
along where pack put them, in this machine's store, so that they become evidence; what came from elsewhere is left alone.
Nothing is signed twice, and nothing of the artifact changes. --oms adds the list of the files with their digests, signed as
OpenSSF Model Signing v1.0 wants it, so that its tools verify the unpacked files; nothing is downloaded for it.

A policy artifact (waybill policy pack) is signed too, by a policy key, which signs nothing else: these rules are ours.

With --keyless a CI job's OIDC identity signs in place of a key: a certificate authority (Fulcio) names it in a certificate
for a key that lives for this one signature, an RFC 3161 authority says when, a transparency log (Rekor) that it happened. The
result is verified against the trusted root, and against the trust document's identities where there is one, before it is
attached. The services are those of --signing-config or of the --*-url flags; without any, the public ones of the Sigstore
project. What will be contacted is said first.`,
		Examples: []string{
			"waybill sign churn:1.0 --key publisher.key",
			"waybill sign reg.example/ml/churn@sha256:... --key publisher.key --output json",
			"waybill sign reg.example/ml/churn:1.0 --key publisher.key --oms",
			"waybill sign governance:2.3 --key policy.key",
			"waybill sign reg.example/ml/churn@sha256:... --keyless --signing-config signing_config.json",
		},
		Flags: placeFlags(append(authorFlags("publisher, or for a policy of its owner"), omsFlag(), dryRunFlag())...),
		Exits: []diag.Code{diag.Verification, diag.Registry, diag.NotFound},
		See:   []string{"attest", "approve", "verify", "oms export", "keys generate"},
		Run:   runSign,
	}
}

func dryRunFlag() ucli.Flag {
	return &ucli.BoolFlag{Name: "dry-run", Usage: "check everything and say what would be written, but write nothing"}
}

func runSign(ctx context.Context, c *Call) error {
	p, err := c.asPolicy(ctx, c.Args[0])
	if err != nil {
		return err
	}
	if p != nil {
		defer p.Close()
		return c.signPolicy(ctx, p)
	}
	if c.Bool("oms") {
		return c.signOMS(ctx)
	}
	return c.attest(ctx, "sign", evidence.TypeRelease, struct{}{}, trust.RolePublisher)
}

// attest is the common run of sign, attest and approve: load the key, resolve the subject, sign, store.
func (c *Call) attest(ctx context.Context, verb, predicateType string, predicate any, roles ...trust.Role) error {
	k, err := c.author(ctx, roles...)
	if err != nil {
		return err
	}
	s, err := c.subject(ctx, c.Args[0])
	if err != nil {
		return err
	}
	defer s.Close()
	doc, err := c.trustAtHand()
	if err != nil {
		return err
	}
	what, approves := approval(predicate)
	if _, ok := k.(*guest); !ok { // who that is stands in the certificate; it is asked before the signature is attached
		if err := c.ready(doc, k, predicateType, s.Name, what.env); err != nil {
			return err
		}
	}
	if approves {
		if err := c.mayApprove(ctx, doc, k, s, what); err != nil {
			return err
		}
	}
	var notes []*evidence.Statement
	if verb == "sign" {
		if notes, err = c.notes(ctx, s); err != nil {
			return err
		}
	}
	if c.Bool("dry-run") {
		for _, n := range notes {
			c.UI.Field("also", "%s would be signed too", evidence.NameOf(n.PredicateType))
		}
		st, err := evidence.NewStatement(predicateType, s.Name, s.Desc.Digest, predicate)
		if err != nil {
			return diag.Wrap(diag.Usage, err, "make the statement")
		}
		return c.printDry(verb, s, k, st)
	}
	b, err := s.attach(ctx, k, predicateType, predicate)
	if err != nil {
		return err
	}
	if err := c.signNotes(ctx, doc, k, s, notes); err != nil {
		return err
	}
	return c.printAttached(verb, s, k, predicateType, b)
}
