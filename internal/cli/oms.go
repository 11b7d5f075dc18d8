package cli

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"path/filepath"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/oms"
	"github.com/waybill-ml/waybill/oci/publish"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
)

func omsCommand() Command {
	return Command{
		Name: "oms", Group: Trust, Summary: "signed lists of files, as OpenSSF Model Signing has them",
		Long: `OpenSSF Model Signing (OMS) v1.0 signs the files of a model, wherever they lie. waybill sign --oms makes such a signature
for an artifact; these verbs take it out for other tools, and verify unpacked files against one, whoever made it.`,
		Sub: []Command{omsExportCommand(), omsVerifyCommand()},
	}
}

func omsExportCommand() Command {
	return Command{
		Name: "export", Summary: "write the OMS signature of an artifact into a file",
		Args: "REF", Min: 1, Max: 1,
		Long: `Writes the newest OMS bundle attached to the artifact that lists exactly the artifact's files and is signed by a publisher of
the trust document. The files themselves come with waybill pull --out; OMS's own tool then verifies them:
model_signing verify key churn --signature churn.sig --public_key publisher.pub.`,
		Examples: []string{
			"waybill oms export reg.example/ml/churn:1.0 --out churn.sig",
			"waybill oms export churn:1.0 --out churn.sig --output json",
		},
		Flags: append(trustFlags(), dryRunFlag(), &ucli.StringFlag{Name: "out", Required: true, Usage: "`FILE` to write"}),
		Exits: []diag.Code{diag.Verification, diag.Registry, diag.NotFound},
		See:   []string{"sign", "oms verify", "pull"},
		Run:   runOMSExport,
	}
}

type omsExportJSON struct {
	Schema string          `json:"schema"`
	Ref    string          `json:"ref"`
	File   string          `json:"file"`
	Bundle artifact.Digest `json:"bundle"`
	KeyID  string          `json:"keyId"` // empty for an identity
}

func runOMSExport(ctx context.Context, c *Call) error {
	doc, _, err := c.trustFile()
	if err != nil {
		return err
	}
	certs, err := c.certificates()
	if err != nil {
		return err
	}
	s, err := c.subject(ctx, c.Args[0])
	if err != nil {
		return err
	}
	defer s.Close()
	bundles, err := publish.Bundles(ctx, s.Place, s.Desc.Digest)
	if err != nil {
		return err
	}
	var best error
	for _, raw := range bundles {
		e, err := verify.Bundle(raw, doc, verify.Want{
			PredicateType: evidence.TypeOMS, Subject: s.Desc.Digest, Layers: s.Model.Layers, Model: s.Name, Now: c.Env.Now(), Certificates: certs,
		})
		if verify.ReasonOf(err) == verify.WrongPredicate {
			continue
		}
		if err != nil {
			best = err
			continue
		}
		if err := c.writeFile(c.String("out"), raw, 0o644, false); err != nil {
			return err
		}
		if c.UI.JSON {
			return c.UI.PrintJSON(omsExportJSON{schemaBase + "oms-export/v1", s.Pinned(), c.String("out"), e.Bundle, e.KeyID})
		}
		c.UI.Field("signed by", "%s", e.KeyName)
		c.UI.Data("%s", c.String("out"))
		return nil
	}
	if best != nil {
		return diag.Wrap(diag.Verification, best, "%s: OMS signature", s.Pinned())
	}
	return diag.New(diag.NotFound, "%s has no OMS signature", s.Pinned()).Hint("waybill sign %s --oms --key publisher.key", s.Pinned())
}

func omsVerifyCommand() Command {
	return Command{
		Name: "verify", Summary: "verify unpacked files against an OMS signature",
		Args: "DIR", Min: 1, Max: 1,
		Long: `Verifies the signature of an OMS bundle and then every file below DIR: altered, missing and unsigned files and symbolic links
are refused (exit code 3). Who may have signed is said by one of --public-key (ECDSA P-256, P-384 or P-521), --trust (the
publishers of the trust document, whatever their scope) and --certificates (authorities behind the signer's certificate).
Lists of plain files with SHA-256 are read; shards, other hashes and lists that follow symbolic links are refused.`,
		Examples: []string{
			"waybill oms verify ./churn --signature churn.sig --public-key publisher.pub",
			"waybill oms verify ./churn --signature churn/model.sig --certificates ca.pem --ignore notes.txt",
		},
		Flags: []ucli.Flag{
			&ucli.StringFlag{Name: "signature", Aliases: []string{"s"}, Required: true, Usage: "OMS bundle `FILE`; where it lies below DIR it is not one of the files"},
			&ucli.StringFlag{Name: "public-key", Usage: "public key `FILE` of the signer"},
			&ucli.StringFlag{Name: "trust", Usage: "signed trust document `FILE`: one of its publishers must have signed"},
			&ucli.StringFlag{Name: "certificates", Usage: "PEM `FILE` of the authorities behind the signer's certificate"},
			&ucli.StringSliceFlag{Name: "ignore", Usage: "`PATH` below DIR that need not be signed; may be repeated"},
		},
		Exits: []diag.Code{diag.Verification, diag.NotFound},
		See:   []string{"oms export", "sign", "verify"},
		Run:   runOMSVerify,
	}
}

type omsVerifyJSON struct {
	Schema string          `json:"schema"`
	Dir    string          `json:"dir"`
	OK     bool            `json:"ok"`
	Model  string          `json:"model"` // as the signer called it
	Root   artifact.Digest `json:"root"`
	Method oms.Method      `json:"method"`
	Files  int             `json:"files"` // that are right
	Wrong  *oms.Folder     `json:"wrong,omitempty"`
}

func runOMSVerify(ctx context.Context, c *Call) error {
	given := 0
	for _, f := range []string{"public-key", "trust", "certificates"} {
		if c.String(f) != "" {
			given++
		}
	}
	if given != 1 {
		return diag.New(diag.Usage, "oms verify needs one of --public-key, --trust and --certificates").Hint("waybill oms verify %s --signature FILE --public-key publisher.pub", c.Args[0])
	}
	dir := c.Args[0]
	raw, err := c.readFile(c.String("signature"), artifact.MaxBundle)
	if err != nil {
		return err
	}
	b, err := oms.Parse(raw)
	if err == nil {
		err = c.omsSigner(b)
	}
	if err != nil {
		var known *diag.Error // a file that is not there, a key that is none
		if errors.As(err, &known) {
			return err
		}
		return diag.Wrap(diag.Verification, err, "%s", c.String("signature"))
	}
	ignore := c.Strings("ignore")
	if rel, err := filepath.Rel(c.Abs(dir), c.Abs(c.String("signature"))); err == nil && filepath.IsLocal(rel) {
		ignore = append(ignore, filepath.ToSlash(rel))
	}
	f, err := b.Predicate.CheckFolder(ctx, c.Abs(dir), ignore)
	if err != nil {
		return diag.Wrap(diag.Failure, err, "read %s", dir)
	}
	out := omsVerifyJSON{
		Schema: schemaBase + "oms-verify/v1", Dir: dir, OK: f.OK(), Model: b.Statement.Subject[0].Name, Root: b.Statement.SubjectDigest(), Method: b.Method, Files: f.Files,
	}
	var refusal error
	if !f.OK() {
		out.Wrong = f
		refusal = diag.Wrap(diag.Verification, errors.New(f.String()), "%s is not what was signed", dir)
	}
	if c.UI.JSON {
		if err := c.UI.PrintJSON(out); err != nil {
			return err
		}
		return refusal
	}
	if refusal != nil {
		return refusal
	}
	c.UI.Field("signed", "%s, method %s", out.Model, out.Method)
	c.UI.Field("content", "%s, every digest right", ui.Plural(f.Files, "file"))
	c.UI.Data("%s", out.Root)
	return nil
}

// omsSigner verifies the signature with what the flags trust.
func (c *Call) omsSigner(b *oms.Bundle) error {
	if f := c.String("public-key"); f != "" {
		raw, err := c.readFile(f, 64<<10)
		if err != nil {
			return err
		}
		pub, err := oms.ParsePublic(raw)
		if err != nil {
			return diag.Wrap(diag.Usage, err, "%s", f)
		}
		return b.VerifyKey(pub)
	}
	if f := c.String("certificates"); f != "" {
		raw, err := c.readFile(f, 1<<20)
		if err != nil {
			return err
		}
		certs, err := parseCertificates(raw)
		if err != nil {
			return diag.Wrap(diag.Usage, err, "%s", f)
		}
		return b.VerifyChain(certs)
	}
	doc, err := c.loadTrust()
	if err != nil {
		return err
	}
	if doc.Expired(c.Env.Now()) {
		return errors.New("the trust document has expired")
	}
	for _, k := range doc.KeysOf(trust.RolePublisher) {
		pub, _, err := trust.ParsePublic([]byte(k.Public))
		if err != nil {
			return err
		}
		if h, err := oms.Hint(pub); err == nil && h == b.Hint {
			return b.VerifyKey(pub)
		}
	}
	return errors.New("no publisher of the trust document has signed it")
}

func parseCertificates(raw []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for b, rest := pem.Decode(raw); b != nil; b, rest = pem.Decode(rest) {
		if b.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errors.New("no certificate in PEM")
	}
	return certs, nil
}
