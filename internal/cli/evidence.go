package cli

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/sign"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/policy/environments"
)

// Flags that many verbs share.
func keyFlag(role string) ucli.Flag {
	return &ucli.StringFlag{Name: "key", Aliases: []string{"k"}, Required: true, Usage: "key `FILE` of a " + role + ", or the URI of its key in a KMS or token"}
}

func trustFlags() []ucli.Flag {
	return placeFlags(trustFlag(), trustDigestFlag(), trustedRootFlag())
}

func environmentsFlag() ucli.Flag {
	return &ucli.StringFlag{Name: "environments", Value: environmentsSigned, Usage: "signed environments `FILE`", EnvVars: []string{"WAYBILL_ENVIRONMENTS"}}
}

// trustFile is loadTrust with the signed file, for verbs that pass it on to devices.
func (c *Call) trustFile() (*trust.Document, []byte, error) {
	doc, err := c.loadTrust()
	if err != nil {
		return nil, nil, err
	}
	raw, err := c.readFile(c.String("trust"), artifact.MaxBundle)
	if err != nil {
		return nil, nil, err
	}
	// The file may have been replaced in between: what goes out is what was verified.
	digest, err := doc.Digest()
	if err != nil {
		return nil, nil, err
	}
	if _, err := verify.TrustPinned(raw, doc.Version, digest); err != nil {
		return nil, nil, inFile(c.String("trust"), err)
	}
	return doc, raw, nil
}

// environment is one verified environment of --environments.
func (c *Call) environment(name string, doc *trust.Document) (environments.Environment, error) {
	s, err := c.loadEnvironments(doc)
	if err != nil {
		return environments.Environment{}, err
	}
	e, ok := s.Document.Environments[name]
	if !ok {
		return e, diag.New(diag.NotFound, "there is no environment %q in %s", name, c.String("environments")).
			Line("it has: %s", strings.Join(s.Document.Names(), ", ")).
			Hint("waybill env show --environments %s", c.String("environments"))
	}
	return e, nil
}

// readFile reads a file of the user, at most limit bytes.
func (c *Call) readFile(name string, limit int64) ([]byte, error) {
	raw, err := fsx.ReadFile(fsx.OS{}, c.Abs(name), limit)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, diag.New(diag.NotFound, "file %s does not exist", name)
	case err != nil:
		return nil, diag.Wrap(diag.Failure, err, "read %s", name)
	}
	return raw, nil
}

// dry tells whether this is a dry run, and if so says that the file would be written. Every verb asks it before it writes a
// file.
func (c *Call) dry(name string, data []byte) bool {
	if !c.Bool("dry-run") {
		return false
	}
	c.UI.Field("dry run", "%s, %s, was not written", name, ui.Bytes(int64(len(data))))
	return true
}

// writeFile writes a file atomically, making its folder. It refuses to replace one unless replace is set.
func (c *Call) writeFile(name string, data []byte, perm fs.FileMode, replace bool) error {
	p := c.Abs(name)
	if !replace {
		if _, err := (fsx.OS{}).Stat(p); err == nil {
			return diag.New(diag.Usage, "%s exists already", name).Hint("choose another name with --out, or move the old file away")
		}
	}
	if c.dry(name, data) {
		return nil
	}
	if err := (fsx.OS{}).MkdirAll(filepath.Dir(p), 0o755); err != nil {
		return diag.Wrap(diag.Failure, err, "write %s", name)
	}
	if err := fsx.WriteFileAtomic(fsx.OS{}, p, data, perm); err != nil {
		return diag.Wrap(diag.Failure, err, "write %s", name)
	}
	return nil
}

func inFile(name string, err error) error {
	return diag.Wrap(diag.CodeOf(err), err, "%s", name)
}

// subject is the artifact that evidence is about, and the place where it lives.
type subject struct {
	Ref     registry.Ref
	Place   *openPlace
	Desc    artifact.Descriptor
	Model   *artifact.Model
	Name    string
	Version string
	Authors []string // that the configuration names
}

// Close lets go of the place.
func (s *subject) Close() { s.Place.Close() }

// Pinned writes the reference with the digest, so that commands chain.
func (s *subject) Pinned() string { return s.Ref.WithDigest(s.Desc.Digest).String() }

// repository opens the place that a reference names.
func (c *Call) repository(ctx context.Context, arg string) (registry.Ref, *openPlace, error) {
	ref, err := registry.ParseRef(arg)
	if err != nil {
		return ref, nil, diag.Wrap(diag.Usage, err, "reference %q", arg).Hint("waybill %s registry.example/ml/churn:1.0", c.Path)
	}
	p, err := c.place(ctx, ref)
	return ref, p, err
}

// subject resolves a model artifact, with its manifest checked and its name read from its config.
func (c *Call) subject(ctx context.Context, arg string) (*subject, error) {
	ref, p, err := c.repository(ctx, arg)
	if err != nil {
		return nil, err
	}
	s := &subject{Ref: ref, Place: p}
	if err := s.read(ctx); err != nil {
		p.Close()
		return nil, err
	}
	return s, nil
}

func (s *subject) read(ctx context.Context) error {
	d, err := s.Place.Resolve(ctx, s.Ref.Target())
	if err != nil {
		return err
	}
	raw, d, err := s.Place.Manifest(ctx, d.Digest)
	if err != nil {
		return err
	}
	if m, err := artifact.ParseManifest(raw); err == nil && m.ArtifactType == policyArtifactType {
		return diag.New(diag.Usage, "%s is a policy, not a model", s.Ref).Line("policies are signed by a policy key, which signs nothing else").
			Hint("waybill policy verify %s", s.Ref).Hint("waybill sign %s --key policy.key", s.Ref)
	}
	if s.Model, err = verify.Manifest(raw, d.Digest); err != nil {
		return err
	}
	cfg, err := registry.ReadBlob(ctx, s.Place, s.Model.Manifest.Config, artifact.MaxConfig)
	if err != nil {
		return err
	}
	m, err := artifact.ParseConfig(cfg, s.Model)
	if err != nil {
		return diag.Wrap(diag.Verification, err, "%s", s.Ref)
	}
	s.Desc, s.Name, s.Version, s.Authors = d, m.Descriptor.Name, m.Descriptor.Version, m.Descriptor.Authors
	return nil
}

// attach signs a statement about s and stores the bundle beside it, unless the same statement by the same key is there.
func (s *subject) attach(ctx context.Context, k author, predicateType string, predicate any) (artifact.Digest, error) {
	st, err := evidence.NewStatement(predicateType, s.Name, s.Desc.Digest, predicate)
	if err != nil {
		return "", diag.Wrap(diag.Usage, err, "make the statement")
	}
	payload, err := st.Encode()
	if err != nil {
		return "", diag.Wrap(diag.Usage, err, "make the statement")
	}
	if key, ok := k.(*sign.Key); ok {
		if was, err := s.attached(ctx, key, key.Public(), payload); err != nil || was != "" {
			return was, err
		}
	}
	raw, err := k.Sign(ctx, st)
	if err != nil {
		return "", err
	}
	if _, err := s.Place.Attach(ctx, s.Desc, raw, predicateType); err != nil {
		return "", err
	}
	return artifact.DigestOf(raw), nil
}

// statementJSON is what sign, attest and approve print.
type statementJSON struct {
	Schema        string          `json:"schema"`
	Ref           string          `json:"ref"`
	Subject       artifact.Digest `json:"subject"`
	Model         string          `json:"model"`
	Version       string          `json:"version"`
	PredicateType string          `json:"predicateType"`
	Bundle        artifact.Digest `json:"bundle,omitempty"` // absent in a dry run
	KeyID         string          `json:"keyId"`            // or the identity's; empty when no trust document told it
	Role          trust.Role      `json:"role"`
	Identity      *identityJSON   `json:"identity,omitempty"` // of a signature without a key

	Statement *evidence.Statement `json:"statement,omitempty"` // in a dry run: what would be signed
}

type identityJSON struct {
	Issuer  string   `json:"issuer"`
	Subject string   `json:"subject"`
	Hosts   []string `json:"hosts"` // what is contacted
}

func (c *Call) printAttached(verb string, s *subject, k author, predicateType string, bundle artifact.Digest) error {
	if c.UI.JSON {
		return c.UI.PrintJSON(statementJSON{
			Identity: identityOf(k),
			Schema:   schemaBase + verb + "/v1", Ref: s.Pinned(), Subject: s.Desc.Digest, Model: s.Name, Version: s.Version,
			PredicateType: predicateType, Bundle: bundle, KeyID: k.KeyID(), Role: k.Role(),
		})
	}
	c.UI.Field("model", "%s %s", s.Name, s.Version)
	c.UI.Field("statement", "%s", evidence.NameOf(predicateType))
	c.UI.Field("signed by", "%s", signedBy(k))
	if bundle != "" {
		c.UI.Field("attached", "%s", bundle)
	}
	c.UI.Data("%s", s.Pinned())
	return nil
}

// days reads a length of time: Go's form, or a number of days ("90d").
func days(flag, s string) (time.Duration, error) {
	if n, ok := strings.CutSuffix(s, "d"); ok {
		if v, err := strconv.ParseFloat(n, 64); err == nil && v > 0 && v < 36500 {
			return time.Duration(v * 24 * float64(time.Hour)), nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, diag.New(diag.Usage, "--%s %s: not a length of time such as 90d or 12h", flag, s)
	}
	return d, nil
}

// readInput reads a file, or stdin for "-".
func (c *Call) readInput(name string, limit int64) ([]byte, error) {
	if name != "-" {
		return c.readFile(name, limit)
	}
	b, err := io.ReadAll(io.LimitReader(c.Env.Stdin, limit+1))
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "read stdin")
	}
	if int64(len(b)) > limit {
		return nil, diag.New(diag.Usage, "stdin has more than %d bytes", limit)
	}
	return b, nil
}
