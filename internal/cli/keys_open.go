package cli

import (
	"context"
	"os"
	"path/filepath"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/sign"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
)

// key opens --key.
func (c *Call) key(ctx context.Context, roles ...trust.Role) (*sign.Key, error) {
	return c.openKey(ctx, c.String("key"), roles...)
}

// openKey opens a key file, a reference file, or a key in a service by its URI. The role is checked before anybody is
// asked for a passphrase or a PIN.
func (c *Call) openKey(ctx context.Context, name string, roles ...trust.Role) (*sign.Key, error) {
	if sign.IsURI(name) {
		doc, err := c.trustForKey(name)
		if err != nil {
			return nil, err
		}
		return sign.OpenURI(ctx, name, doc, c.secrets(), roles...)
	}
	p := c.Abs(name)
	in, err := sign.CheckRole(p, roles...)
	if err != nil {
		return nil, err
	}
	if in.URI != "" {
		return sign.OpenReference(ctx, p, c.secrets(), roles...)
	}
	pw, err := sign.Password(c.Env.Getenv, c.Env.ReadPassword, filepath.Base(name), false)
	if err != nil {
		return nil, err
	}
	return sign.Load(p, pw, roles...)
}

func (c *Call) secrets() sign.Secrets {
	return sign.Secrets{Getenv: c.Env.Getenv, Ask: c.Env.ReadPassword}
}

// trustForKey reads the trust document that gives a bare URI its role: --trust where the command has it, else
// WAYBILL_TRUST, else trust.signed.
func (c *Call) trustForKey(uri string) (*trust.Document, error) {
	file := c.String("trust")
	if file == "" {
		file = c.Env.Getenv("WAYBILL_TRUST")
	}
	if file == "" {
		file = defaultTrustFile
	}
	raw, err := c.readFile(file, artifact.MaxBundle)
	if err != nil {
		return nil, diag.Wrap(diag.CodeOf(err), err, "the role of %s", sign.Redact(uri)).
			Line("a key in a service has no role of its own: the trust document names it, or a reference file does").
			Hint("waybill keys register %q --role ROLE --out FILE.key", sign.Redact(uri))
	}
	doc, err := verify.TrustSelf(raw)
	if err != nil {
		return nil, inFile(file, err)
	}
	return doc, nil
}

// newKeyFiles checks that neither file of a new key exists, before anybody is asked for a passphrase.
func (c *Call) newKeyFiles(files ...string) error {
	for _, f := range files {
		if _, err := os.Lstat(c.Abs(f)); err == nil {
			return diag.New(diag.Usage, "%s exists already", f).
				Line("a key that is written over is lost: nothing here replaces one").
				Hint("choose another name with --out")
		}
	}
	return nil
}
