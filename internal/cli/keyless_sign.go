package cli

import (
	"context"
	"strings"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/sign/keyless"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/oci/verify/sigstore"
)

// author signs statements: a key, or whoever an identity token names.
type author interface {
	signer
	Sign(ctx context.Context, s *evidence.Statement) ([]byte, error)
}

// authorFlags are the flags of verbs that sign with a key or without one.
func authorFlags(role string) []ucli.Flag {
	return append(signerFlags(role), trustedRootFlag(), trustAtHandFlag(), trustDigestFlag())
}

// signerFlags are authorFlags without those of the trust document, for verbs that need one anyway.
func signerFlags(role string) []ucli.Flag {
	file := func(name, usage string) ucli.Flag {
		return &ucli.StringFlag{Name: name, Usage: usage, EnvVars: []string{envName(name)}}
	}
	key := keyFlag(role).(*ucli.StringFlag)
	key.Required = false
	return []ucli.Flag{
		key,
		&ucli.BoolFlag{Name: "keyless", Usage: "sign with an OIDC identity in place of a key; without services named, Sigstore's public ones"},
		file("signing-config", "keyless: sigstore signing configuration `FILE` with the services"),
		file("fulcio-url", "keyless: certificate authority `URL`"),
		file("rekor-url", "keyless: transparency log `URL` (Rekor v2)"),
		file("timestamp-url", "RFC 3161 timestamp authority `URL`; also for signatures with --key"),
		file("identity-token", "keyless: OIDC `TOKEN` for audience sigstore; a file is safer"),
		file("identity-token-file", "keyless: `FILE` with the token; default: the CI job's own"),
		file("oidc-issuer", "keyless: refuse a token that is not of `ISSUER`"),
	}
}

func envName(flag string) string {
	return "WAYBILL_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// author is the key of --key, or with --keyless the holder of an identity token.
func (c *Call) author(ctx context.Context, roles ...trust.Role) (author, error) {
	switch {
	case c.Bool("keyless") && c.String("key") != "":
		return nil, diag.New(diag.Usage, "--key and --keyless exclude each other")
	case c.Bool("keyless"):
		return c.keyless(ctx, roles...)
	case c.String("key") == "":
		return nil, diag.New(diag.Usage, "%s needs --key, or --keyless", c.Path).
			Hint("waybill %s %s --key %s.key", c.Path, strings.Join(c.Args, " "), roles[0])
	}
	for _, f := range []string{"signing-config", "fulcio-url", "rekor-url", "identity-token", "identity-token-file", "oidc-issuer"} {
		if c.String(f) != "" && c.String(f) != c.Env.Getenv(envName(f)) { // the environment may be set for other commands
			return nil, diag.New(diag.Usage, "--%s belongs to --keyless", f)
		}
	}
	k, err := c.key(ctx, roles...)
	if err != nil {
		return nil, err
	}
	if u := c.String("timestamp-url"); u != "" {
		if err := (keyless.Services{Fulcio: "https://unused.invalid", TSA: []string{u}}).Check(); err != nil {
			return nil, err
		}
		c.UI.Field("contacts", "%s", hostOf(u))
		return stamped{k, u}, nil
	}
	return k, nil
}

// stamped has an authority say when a key signed.
type stamped struct {
	author
	url string
}

// Sign signs and adds the timestamp.
func (s stamped) Sign(ctx context.Context, st *evidence.Statement) ([]byte, error) {
	raw, err := s.author.Sign(ctx, st)
	if err != nil {
		return nil, err
	}
	b, err := evidence.ParseBundle(raw)
	if err != nil {
		return nil, err
	}
	ts, err := keyless.Stamp(ctx, s.url, b.DSSEEnvelope.Signatures[0].Sig)
	if err != nil {
		return nil, err
	}
	return b.Stamped(ts)
}

// guest signs as an identity. What the services gave is verified before anybody sees it.
type guest struct {
	services keyless.Services
	token    *keyless.Token
	keyless  trust.Keyless
	certs    verify.Certificates
	doc      *trust.Document // nil: no trust document at hand
	roles    []trust.Role
	env      string // environment that the statements are for, where their type names one
	c        *Call

	may func(e *verify.Evidence) error // asked before what was signed is handed out; nil: nothing more is asked

	id      string // of the identity, once known
	role    trust.Role
	subject string // of the certificate
	issuer  string
}

func (g *guest) KeyID() string    { return g.id }
func (g *guest) Role() trust.Role { return g.role }

func (c *Call) keyless(ctx context.Context, roles ...trust.Role) (*guest, error) {
	g := &guest{roles: roles, role: roles[0], c: c}
	var err error
	if g.services, err = c.services(); err != nil {
		return nil, err
	}
	if err := g.services.Check(); err != nil {
		return nil, err
	}
	if err := g.trust(); err != nil {
		return nil, err
	}
	e := keyless.Env{Getenv: c.Env.Getenv, Token: c.String("identity-token"), Issuer: c.String("oidc-issuer"), Now: c.Env.Now()}
	if f := c.String("identity-token-file"); f != "" {
		if e.Token != "" {
			return nil, diag.New(diag.Usage, "--identity-token and --identity-token-file exclude each other")
		}
		if e.File, err = c.readFile(f, 64<<10); err != nil {
			return nil, err
		}
		e.Name = f
	}
	if g.token, err = keyless.FindToken(ctx, e); err != nil {
		return nil, err
	}
	if g.doc != nil && !g.expected() {
		return nil, diag.New(diag.Verification, "trust document version %d names no %s identity of issuer %s", g.doc.Version, roles[0], g.token.Issuer).
			Line("nothing was asked of a service").
			Hint("waybill trust add trust.yaml --identity SUBJECT --issuer %s --role %s", g.token.Issuer, roles[0])
	}
	c.UI.Field("contacts", "%s", strings.Join(g.services.Hosts(), ", "))
	if len(g.services.Rekor) > 0 {
		c.UI.Field("logged", "the certificate, with the identity in it, becomes public in %s", hostOf(g.services.Rekor[0].URL))
	}
	return g, nil
}

// services are those of the signing configuration or of the URLs, else the public ones.
func (c *Call) services() (keyless.Services, error) {
	var s keyless.Services
	urls := []string{"fulcio-url", "rekor-url", "timestamp-url"}
	if f := c.String("signing-config"); f != "" {
		for _, u := range urls {
			if c.String(u) != "" {
				return s, diag.New(diag.Usage, "--signing-config and --%s exclude each other", u)
			}
		}
		raw, err := c.readFile(f, trust.MaxTrustedRoot)
		if err != nil {
			return s, err
		}
		if s, err = keyless.FromConfig(raw, c.Env.Now()); err != nil {
			return s, diag.Wrap(diag.Usage, err, "%s", f)
		}
		return s, nil
	}
	if c.String(urls[0]) == "" && c.String(urls[1]) == "" && c.String(urls[2]) == "" {
		return keyless.Public(), nil
	}
	s.Fulcio = c.String("fulcio-url")
	if u := c.String("rekor-url"); u != "" {
		s.Rekor = []keyless.Log{{URL: u, Version: 2}}
	}
	if u := c.String("timestamp-url"); u != "" {
		s.TSA = []string{u}
	}
	return s, nil
}

// trust finds what the signature will be verified against: the trust document's trusted root, or without a document the
// one of --trusted-root.
func (g *guest) trust() error {
	c := g.c
	var root []byte
	var err error
	if f := c.String("trusted-root"); f != "" {
		if root, err = c.rootFile(f); err != nil {
			return err
		}
	}
	doc, err := c.trustAtHand()
	switch {
	case err != nil:
		return err
	case doc != nil && doc.Keyless != nil:
		g.doc, g.keyless, g.certs = doc, *doc.Keyless, sigstore.With(root)
		return nil
	case doc != nil:
		return diag.New(diag.Verification, "trust document version %d names no trusted root, so nothing signed without a key would verify under it", doc.Version).
			Hint("waybill trust add trust.yaml --trusted-root trusted_root.json --identity SUBJECT --issuer URL --role %s", g.role)
	case root == nil:
		return diag.New(diag.Usage, "signing without a key needs a trusted root: what the services answer is verified before it is attached").
			Line("there is no trust document here that names one").
			Hint("add --trusted-root trusted_root.json, or --trust trust.signed")
	}
	g.certs = sigstore.With(root)
	g.keyless = trust.Keyless{TrustedRoot: artifact.DigestOf(root), TrustedRootJSON: string(root), Logs: len(g.services.Rekor), Timestamps: len(g.services.TSA)}
	return nil
}

// expected tells whether the document has an identity of a right role and the token's issuer.
func (g *guest) expected() bool {
	for _, i := range g.doc.Identities {
		for _, r := range g.roles {
			if i.Role == r && i.Issuer == g.token.Issuer && !g.doc.IsRevoked(i.ID) {
				return true
			}
		}
	}
	return false
}

// Sign asks the services, and verifies what they gave: certificate, timestamps and log entry against the trusted root, and
// with a trust document also that it would count, for this statement.
func (g *guest) Sign(ctx context.Context, st *evidence.Statement) ([]byte, error) {
	raw, err := keyless.Sign(ctx, st, g.services, g.token)
	if err != nil {
		return nil, err
	}
	cert, err := g.certs.Certified(raw, g.keyless)
	if err != nil {
		return nil, diag.Wrap(diag.Verification, err, "what the services gave does not verify; nothing was attached")
	}
	g.issuer, g.subject = cert.Issuer, cert.Subject
	if g.doc == nil {
		return raw, nil
	}
	e, err := verify.Bundle(raw, g.doc, verify.Want{
		PredicateType: st.PredicateType, Subject: st.SubjectDigest(), Model: st.Subject[0].Name, Env: g.env,
		AnyScope: g.env == "" && (st.PredicateType == evidence.TypeApproval || st.PredicateType == evidence.TypeException),
		Now:      g.c.Env.Now(), Certificates: g.certs,
	})
	if err != nil {
		return nil, diag.Wrap(diag.Verification, err, "signed by %s, which would not count; nothing was attached", cert.Subject).
			Hint("waybill trust add trust.yaml --identity %s --issuer %s --role %s", cert.Subject, cert.Issuer, g.role)
	}
	if g.may != nil {
		if err := g.may(e); err != nil {
			return nil, err
		}
	}
	g.id, g.role = e.KeyID, e.Role
	return raw, nil
}

func hostOf(u string) string { return strings.Join(keyless.Services{Fulcio: u}.Hosts(), "") }

// signedBy names an author for people.
func signedBy(a author) string {
	g, ok := a.(*guest)
	if !ok {
		return string(a.Role()) + " key " + a.KeyID()[:12]
	}
	who := identityOf(a)
	s := string(g.role) + " " + who.Subject + " of " + who.Issuer
	if g.doc == nil {
		s += " (no trust document at hand says whether that counts)"
	}
	return s
}

// identityOf is who signed without a key; before the certificate is there, whom the token names. nil for a key.
func identityOf(a author) *identityJSON {
	g, ok := a.(*guest)
	switch {
	case !ok:
		return nil
	case g.subject == "":
		return &identityJSON{g.token.Issuer, g.token.Subject, g.services.Hosts()}
	}
	return &identityJSON{g.issuer, g.subject, g.services.Hosts()}
}
