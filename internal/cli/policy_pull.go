package cli

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
)

func policyPullCommand() Command {
	return Command{
		Name: "pull", Summary: "bring a policy and its signatures here: to the store, or files to a folder", Args: "REF [NAME]", Min: 1, Max: 2,
		Long: `Into the local store the policy goes as NAME, by default its own name and the tag of REF. With --out its files go into a
new folder instead, with the signatures in policy.sigstore.jsonl; nothing is left behind when that fails. What is not
in canonical form, or has a manifest that its files do not give, is refused. With --verify nothing is kept unless a policy
key of the trust document has signed it.`,
		Examples: []string{
			"waybill policy pull reg.example/policies/governance:2.3",
			"waybill policy pull reg.example/policies/governance@sha256:... --out ./policy --verify",
		},
		Flags: placeFlags(transferFlags(
			&ucli.StringFlag{Name: "out", Usage: "write the files into the new folder `DIR`, not into the store"},
			&ucli.BoolFlag{Name: "verify", Usage: "keep only what a policy key of --trust has signed"},
			trustFlag(), trustDigestFlag(), trustedRootFlag(),
			&ucli.BoolFlag{Name: "dry-run", Usage: "read and check everything, write nothing"})...),
		See:   []string{"policy push", "policy verify"},
		Exits: []diag.Code{diag.Verification, diag.Registry, diag.NotFound}, Run: runPolicyPull,
	}
}

type policyPullJSON struct {
	Schema   string          `json:"schema"`
	Ref      string          `json:"ref"` // here by digest, or where it came from
	Name     string          `json:"name"`
	Version  string          `json:"version"`
	Digest   artifact.Digest `json:"digest"`
	Manifest artifact.Digest `json:"manifest"`
	Dir      string          `json:"dir,omitempty"`
	Tag      string          `json:"tag,omitempty"`
	Files    []string        `json:"files"`
	Evidence int             `json:"evidence"` // statements that came along
	Verified []verifiedJSON  `json:"verified"` // with --verify
	Rules    int             `json:"rules"`
	DryRun   bool            `json:"dryRun"`
}

func runPolicyPull(ctx context.Context, c *Call) error {
	ref, err := registry.ParseRef(c.Args[0])
	if err != nil {
		return err
	}
	if c.String("out") != "" && c.Arg(1) != "" {
		return diag.New(diag.Usage, "policy pull: NAME and --out exclude each other")
	}
	dst, err := c.pulledName(ref)
	if err != nil {
		return err
	}
	p, err := c.openPolicyRef(ctx, ref)
	if err != nil {
		return err
	}
	defer p.Close()
	m := p.Bundle.Meta()
	out := policyPullJSON{Schema: schemaBase + "policy-pull/v1", Name: m.Name, Version: m.Version, Digest: p.Bundle.Digest(), Manifest: p.Desc.Digest,
		Files: p.Bundle.Names(), Verified: []verifiedJSON{}, DryRun: c.Bool("dry-run")}
	if c.Bool("verify") {
		doc, err := c.loadTrust()
		if err != nil {
			return err
		}
		if err := deniedPolicy(p, doc); err != nil {
			return err
		}
		ok, err := c.policySigned(ctx, p, doc)
		if err != nil {
			return err
		}
		for _, e := range ok {
			out.Verified = append(out.Verified, verifiedOf(e))
		}
	}
	rules, err := c.rulesOf(ctx, p.Bundle)
	if err != nil {
		c.UI.Warn("it does not compile, so that no gate can apply it: %v", err)
	} else {
		out.Rules = len(rules)
	}
	if d := c.String("out"); d != "" {
		out.Ref, out.Dir = p.named(), c.Abs(d)
		out.Evidence, err = c.extractPolicy(ctx, p, d)
	} else {
		if dst.Repo == "" {
			if dst.Repo = m.Name; dst.Repo == "" {
				dst.Repo = path.Base(repoPath(ref))
			}
		}
		out.Ref, out.Tag = dst.WithDigest(out.Manifest).String(), dst.String()
		out.Evidence, err = c.storePolicy(ctx, p, dst)
	}
	if err != nil {
		return err
	}
	if c.UI.JSON {
		return c.UI.PrintJSON(out)
	}
	c.sayPolicy(p.Bundle, p.Desc.Digest, out.Rules)
	for _, v := range out.Verified {
		c.UI.Field(c.UI.Err.Green("proven"), "signed by %s", v.who())
	}
	switch {
	case out.DryRun:
		c.UI.Say("dry run: nothing was written")
	case out.Dir != "":
		c.UI.Field("written", "%s and %s to %s", ui.Plural(len(out.Files), "file"), ui.Plural(out.Evidence, "statement"), c.String("out"))
	default:
		c.UI.Field("stored as", "%s, with %s", out.Tag, ui.Plural(out.Evidence, "statement"))
	}
	c.UI.Data("%s", out.Ref)
	return nil
}

// pulledName is the name in the store that NAME or REF gives; its Repo is empty where the policy's own name decides.
func (c *Call) pulledName(ref registry.Ref) (registry.Ref, error) {
	dst := registry.Ref{Kind: registry.KindLocal, Tag: ref.Tag}
	if c.Arg(1) != "" {
		var err error
		if dst, err = registry.ParseRef(c.Arg(1)); err != nil {
			return dst, err
		}
		if dst.Kind != registry.KindLocal || dst.Digest != "" {
			return dst, diag.New(diag.Usage, "policy pull: %s is not a name in the local store", c.Arg(1)).Hint("waybill copy %s %s", c.Args[0], c.Arg(1))
		}
		if dst.Tag == "" {
			dst.Tag = ref.Tag
		}
	}
	if c.String("out") == "" && c.Arg(1) == "" && ref.Kind == registry.KindLocal {
		return dst, diag.New(diag.Usage, "policy pull: %s is in the local store already", c.Args[0]).Hint("waybill policy pull %s --out DIR", c.Args[0])
	}
	return dst, nil
}

// storePolicy copies the artifact with what is attached to it into the local store.
func (c *Call) storePolicy(ctx context.Context, p *openedPolicy, dst registry.Ref) (int, error) {
	if c.Bool("dry-run") {
		b, err := p.bundles(ctx, c)
		return len(b), err
	}
	place, err := c.openPlace(ctx, dst, true)
	if err != nil {
		return 0, err
	}
	defer place.Close()
	if dst.Tag == "" {
		dst.Tag = registry.DefaultTag
		if v := p.Bundle.Meta().Version; v != "" {
			dst.Tag = v
		}
	}
	res, err := registry.Copy(ctx, place.Place, p.Place.Place, string(p.Desc.Digest), registry.CopyOptions{Tag: dst.Tag, Jobs: c.Int("jobs")})
	if err != nil {
		return 0, c.again(ctx, err)
	}
	return len(evidenceList(res.Referrers)), nil
}

// extractPolicy writes files and signatures into a folder that appears whole or not at all.
func (c *Call) extractPolicy(ctx context.Context, p *openedPolicy, name string) (n int, err error) {
	dir := c.Abs(name)
	if es, err := os.ReadDir(dir); err == nil && len(es) > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, diag.New(diag.Usage, "policy pull: %s is there and not an empty folder", name).Hint("choose another folder with --out")
	}
	bundles, err := p.bundles(ctx, c)
	if err != nil || c.Bool("dry-run") {
		return len(bundles), err
	}
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return 0, diag.Wrap(diag.Failure, err, "policy pull: write %s", name)
	}
	tmp, err := os.MkdirTemp(parent, "."+filepath.Base(dir)+".partial-*")
	if err != nil {
		return 0, diag.Wrap(diag.Failure, err, "policy pull: write %s", name)
	}
	defer func() {
		if err != nil {
			err = diag.Wrap(diag.Failure, errors.Join(err, os.RemoveAll(tmp)), "policy pull: write %s", name)
		}
	}()
	if err := os.Chmod(tmp, 0o755); err != nil {
		return 0, err
	}
	if err := p.Bundle.WriteDir(tmp); err != nil {
		return 0, err
	}
	if len(bundles) > 0 {
		raw := append(bytes.Join(oneLine(bundles), []byte("\n")), '\n')
		if err := os.WriteFile(filepath.Join(tmp, signaturesFile), raw, 0o644); err != nil {
			return 0, err
		}
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	return len(bundles), os.Rename(tmp, dir)
}

// oneLine drops line breaks between the tokens of bundles that other tools wrote; inside of strings JSON has none.
func oneLine(bundles [][]byte) [][]byte {
	var out [][]byte
	for _, b := range bundles {
		out = append(out, bytes.Join(bytes.FieldsFunc(b, func(r rune) bool { return r == '\n' || r == '\r' }), nil))
	}
	return out
}
