package cli

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/policy/bundle"
	"github.com/waybill-ml/waybill/policy/environments"
	"github.com/waybill-ml/waybill/policy/gate"
	"github.com/waybill-ml/waybill/policy/library"
)

// Names of the platform team's files, where no flag says otherwise.
const (
	environmentsYAML   = "environments.yaml"
	environmentsSigned = "environments.signed"
	defaultTrustFile   = "trust.signed"
)

// trustFlag names the anchor of every verb that judges.
func trustFlag() ucli.Flag {
	return &ucli.StringFlag{Name: "trust", Value: defaultTrustFile, Usage: "signed trust document `FILE`", EnvVars: []string{"WAYBILL_TRUST"}}
}

func trustDigestFlag() ucli.Flag {
	return &ucli.StringFlag{Name: "trust-digest", Usage: "the trust document must have this `DIGEST`", EnvVars: []string{"WAYBILL_TRUST_DIGEST"}}
}

func environmentFlags() []ucli.Flag {
	return placeFlags(
		&ucli.StringFlag{Name: "env", Usage: "`ENVIRONMENT` of environments.yaml", Required: true, EnvVars: []string{"WAYBILL_ENV"}},
		&ucli.StringFlag{Name: "environments", Value: environmentsSigned, Usage: "signed environments `FILE`", EnvVars: []string{"WAYBILL_ENVIRONMENTS"}},
		trustFlag(), trustDigestFlag(), trustedRootFlag(),
		&ucli.StringFlag{Name: "policy", Usage: "folder or tar with the pinned policy, when it is not the builtin one: `PATH`", EnvVars: []string{"WAYBILL_POLICY"}},
	)
}

// readSmall reads a whole file of at most limit bytes.
func readSmall(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("larger than %d bytes", limit)
	}
	return b, err
}

// fileError gives a file that cannot be read its exit code.
func fileError(err error, what, path, hint string) error {
	if errors.Is(err, fs.ErrNotExist) {
		return diag.New(diag.NotFound, "%s %s does not exist", what, path).Hint("%s", hint)
	}
	return diag.Wrap(diag.Failure, err, "%s %s", what, path)
}

// loadTrust reads and verifies the trust document that the flags name. The file is this machine's anchor: it must meet
// its own threshold and, where the user pins one, have the digest.
func (c *Call) loadTrust() (*trust.Document, error) {
	path := c.Abs(c.String("trust"))
	raw, err := readSmall(path, artifact.MaxBundle)
	if err != nil {
		return nil, fileError(err, "trust document", path, "waybill trust --help")
	}
	doc, err := verify.TrustSelf(raw)
	if err != nil {
		return nil, err
	}
	if pin := c.String("trust-digest"); pin != "" {
		want, err := artifact.ParseDigest(pin)
		if err != nil {
			return nil, diag.Wrap(diag.Usage, err, "--trust-digest")
		}
		if doc, err = verify.TrustPinned(raw, doc.Version, want); err != nil {
			return nil, err
		}
	}
	c.UI.Why("trust document version %d from %s", doc.Version, path)
	return doc, nil
}

// loadEnvironments reads the signed environments and verifies them against trust.
func (c *Call) loadEnvironments(doc *trust.Document) (*environments.Signed, error) {
	path := c.Abs(c.String("environments"))
	raw, err := readSmall(path, 2*environments.MaxBytes*environments.MaxSignatures)
	if err != nil {
		return nil, fileError(err, "signed environments", path, "waybill env sign "+environmentsYAML+" --key root.key --out "+environmentsSigned)
	}
	s, err := environments.Verify(raw, doc, c.Env.Now())
	if err != nil {
		return nil, err
	}
	c.UI.Why("environments version %d, signed by %s", s.Document.Version, strings.Join(s.Keys, ", "))
	if name := c.String("env"); name != "" {
		if _, ok := s.Document.Environments[name]; !ok {
			e := diag.New(diag.NotFound, "there is no environment %q in %s", name, path).Line("it has: %s", strings.Join(s.Document.Names(), ", "))
			if near := diag.Nearest(name, s.Document.Names()); near != "" {
				return nil, e.Hint("did you mean --env %s?", near)
			}
			return nil, e.Hint("waybill env show --environments %s", path)
		}
	}
	return s, nil
}

// openPolicy reads a policy from a folder or a tar; "" is the builtin one.
func (c *Call) openPolicy(path string) (*bundle.Bundle, fs.FS, error) {
	if path == "" || path == environments.Builtin {
		b, err := library.Default()
		return b, library.FS(), err
	}
	abs := c.Abs(path)
	info, err := os.Stat(abs)
	if err != nil {
		return nil, nil, fileError(err, "policy", path, "waybill policy list")
	}
	if info.IsDir() {
		fsys := os.DirFS(abs)
		b, err := bundle.FromFS(fsys)
		if err != nil {
			return nil, nil, diag.Wrap(diag.Usage, err, "policy %s", path)
		}
		return b, fsys, nil
	}
	raw, err := readSmall(abs, bundle.MaxBytes)
	if err != nil {
		return nil, nil, fileError(err, "policy", path, "waybill policy list")
	}
	b, err := bundle.FromTar(raw)
	if err != nil {
		if _, terr := tar.NewReader(bytes.NewReader(raw)).Next(); terr != nil {
			err = errors.New("neither a folder nor a policy tar")
		}
		return nil, nil, diag.Wrap(diag.Usage, err, "policy %s", path)
	}
	return b, nil, nil
}

// pinnedPolicy finds the policy that an environment pins. Another digest than the pinned one is a denial:
// nobody knows what the right policy would have said.
func (c *Call) pinnedPolicy(ctx context.Context, s *environments.Signed, env string) (gate.Evaluator, error) {
	b, err := c.fetchPolicy(ctx, s, env)
	if err != nil {
		return nil, err
	}
	return c.evaluator(b), nil
}

func policySource(path string) string {
	if path == "" {
		return "builtin"
	}
	return path
}

// policyName writes "governance 1.0 (sha256:91ab...)".
func policyName(b *bundle.Bundle) string {
	m := b.Meta()
	n := strings.TrimSpace(m.Name + " " + m.Version)
	if n == "" {
		n = "unnamed"
	}
	return fmt.Sprintf("%s (sha256:%s)", n, b.Digest().Short())
}

// openModel opens the repository of a model reference and resolves it.
func (c *Call) openModel(ctx context.Context, arg string) (*openPlace, registry.Ref, artifact.Descriptor, error) {
	ref, err := registry.ParseRef(arg)
	if err != nil {
		return nil, ref, artifact.Descriptor{}, diag.Wrap(diag.Usage, err, "%q is no reference", arg)
	}
	p, err := c.place(ctx, ref)
	if err != nil {
		return nil, ref, artifact.Descriptor{}, err
	}
	d, err := p.Resolve(ctx, ref.Target())
	if err != nil {
		p.Close()
		return nil, ref, artifact.Descriptor{}, err
	}
	return p, ref, d, nil
}
