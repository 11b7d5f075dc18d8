package cli

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/trust/trustfile"
	"github.com/waybill-ml/waybill/oci/verify"
)

func trustCommand() Command {
	return Command{
		Name: "trust", Group: Trust, Summary: "say which key may do what",
		Long: `The trust document names every key with its one role and its scope, the policies whose verdicts count, revoked keys
and denied artifacts. People edit trust.yaml, by hand or with add and revoke; sign turns it into trust.signed, which
commands and devices read. Its version rises with every change, and each version is signed by the roots of the one before.`,
		Sub: []Command{
			trustInitCommand(), trustAddCommand(), trustRuleCommand(), trustRotateCommand(), trustRevokeCommand(), trustSignCommand(), trustShowCommand(),
			trustVerifyCommand(),
		},
	}
}

// signedName is where the signed form of a trust.yaml stands: trust.signed beside it.
func signedName(yaml string) string {
	return strings.TrimSuffix(strings.TrimSuffix(yaml, ".yaml"), ".yml") + ".signed"
}

// archiveName is where an earlier version is kept.
func archiveName(signed string, version int) string {
	return fmt.Sprintf("%s.%d.signed", strings.TrimSuffix(signed, ".signed"), version)
}

func trustInitCommand() Command {
	return Command{
		Name: "init", Summary: "write the first trust.yaml",
		Long:     "Writes trust.yaml with the root keys, version 1. Add the other keys with trust add, then sign it.",
		Examples: []string{"waybill trust init --root root.pub", "waybill trust init --root a.pub --root b.pub --threshold 2 --expires 365d"},
		Flags: []ucli.Flag{
			&ucli.StringSliceFlag{Name: "root", Required: true, Usage: "public key `FILE` of a root; may be repeated"},
			&ucli.IntFlag{Name: "threshold", Value: 1, Usage: "how `MANY` roots must sign"},
			&ucli.StringFlag{Name: "expires", Value: "365d", Usage: "how `LONG` the document counts"},
			&ucli.StringFlag{Name: "out", Value: "trust.yaml", Usage: "`FILE` to write"},
			dryRunFlag(),
		},
		Exits: []diag.Code{diag.NotFound},
		See:   []string{"keys generate", "trust add", "trust sign"},
		Run:   runTrustInit,
	}
}

func runTrustInit(_ context.Context, c *Call) error {
	life, err := days("expires", c.String("expires"))
	if err != nil {
		return err
	}
	now := c.Env.Now().UTC().Truncate(time.Second)
	d := &trust.Document{Schema: trust.Schema, Version: 1, Generation: 1, Issued: now, Expires: now.Add(life), Threshold: c.Int("threshold")}
	for _, f := range c.Strings("root") {
		k, err := c.publicKey(f)
		if err != nil {
			return err
		}
		k.Role, k.Name = trust.RoleRoot, baseName(f)
		d.Keys = append(d.Keys, k)
	}
	if err := d.Validate(); err != nil {
		return diag.Wrap(diag.Usage, err, "trust init")
	}
	return c.writeTrust(c.String("out"), d, false, "init")
}

func baseName(f string) string { return strings.TrimSuffix(filepath.Base(f), ".pub") }

// publicKey reads a PEM public key; role, name and scope are the caller's.
func (c *Call) publicKey(f string) (trust.Key, error) {
	raw, err := c.readFile(f, 64<<10)
	if err != nil {
		return trust.Key{}, err
	}
	pub, id, err := trust.ParsePublic(raw)
	if err != nil {
		e := diag.Wrap(diag.Usage, err, "%s is not a public key", f)
		if strings.Contains(string(raw), "PRIVATE KEY") {
			e.Hint("pass the public half: %s.pub", strings.TrimSuffix(f, ".key"))
		}
		return trust.Key{}, e
	}
	text, err := trust.EncodePublic(pub)
	if err != nil {
		return trust.Key{}, err
	}
	return trust.Key{ID: id, Public: string(text)}, nil
}

type trustJSON struct {
	Schema   string          `json:"schema"`
	File     string          `json:"file"`
	Version  int             `json:"version"`
	Digest   artifact.Digest `json:"digest"`
	Signed   []string        `json:"signed"` // root key ids that signed
	Document *trust.Document `json:"document"`
}

func (c *Call) writeTrust(file string, d *trust.Document, replace bool, verb string) error {
	raw, err := trustfile.Encode(d)
	if err != nil {
		return err
	}
	if err := c.writeFile(file, raw, 0o644, replace); err != nil {
		return err
	}
	c.UI.Field("next", "waybill trust sign %s --key root.key", file)
	return c.printTrust(verb, file, d, nil)
}

func (c *Call) printTrust(verb, file string, d *trust.Document, signed []string) error {
	digest, err := d.Digest()
	if err != nil {
		return err
	}
	if c.UI.JSON {
		if signed == nil {
			signed = []string{}
		}
		return c.UI.PrintJSON(trustJSON{schemaBase + "trust-" + verb + "/v1", file, d.Version, digest, signed, d})
	}
	c.UI.Field("trust", "%s version %d, %d keys%s, expires %s", file, d.Version, len(d.Keys), identityCount(d), d.Expires.Format(time.DateOnly))
	c.UI.Data("%s", digest)
	return nil
}

// editTrust reads trust.yaml for a change. When its present version is signed already, the change makes the next one.
func (c *Call) editTrust(file string) (*trust.Document, error) {
	raw, err := c.readFile(file, trust.MaxDocument)
	if err != nil {
		return nil, err
	}
	d, err := trustfile.Parse(file, raw)
	if err != nil {
		return nil, err
	}
	signed, err := c.readFile(signedName(file), artifact.MaxBundle)
	if diag.CodeOf(err) == diag.NotFound {
		return d, nil
	}
	if err != nil {
		return nil, err
	}
	was, err := verify.TrustSelf(signed)
	if err != nil {
		return nil, inFile(signedName(file), err)
	}
	if d.Version <= was.Version {
		d.Version = was.Version + 1
		d.Issued = c.Env.Now().UTC().Truncate(time.Second)
		c.UI.Field("version", "%d, since %d is signed", d.Version, was.Version)
	}
	return d, nil
}

func trustAddCommand() Command {
	return Command{
		Name: "add", Summary: "name a key, a policy or the environments in trust.yaml",
		Args: "TRUST.yaml [KEY.pub]", Min: 1, Max: 2,
		Long: `Adds a public key with a role and a scope, pins a policy digest, or pins the environments document that is in force, in
trust.yaml. Scopes are patterns (* is everything); a dimension without a pattern allows nothing. When the present version
is signed already, this begins the next one. Sign it afterwards.

--identity adds who signs without a key: by the issuer of the token and the subject of the certificate. In a subject, *
stands for any characters but / and @, and the host, or the domain of an address, must be literal. The certificates count
under the trusted root that --trusted-root takes in.`,
		Examples: []string{
			"waybill trust add trust.yaml publisher.pub --role publisher --model churn",
			"waybill trust add trust.yaml approver.pub --role approver --env prod --approver-role ml-lead",
			"waybill trust add trust.yaml --policy sha256:...",
			"waybill trust add trust.yaml --environments environments.signed",
			"waybill trust add trust.yaml --trusted-root root.json --identity ci@example.com --issuer https://id.example --role publisher",
		},
		Flags: []ucli.Flag{
			&ucli.StringFlag{Name: "role", Aliases: []string{"r"}, Usage: "`ROLE` of the key"},
			&ucli.StringFlag{Name: "name", Usage: "`NAME` for people; default: the file's"},
			&ucli.StringSliceFlag{Name: "model", Usage: "model name `PATTERN`; default *"},
			&ucli.StringSliceFlag{Name: "env", Usage: "environment `PATTERN`; default *"},
			&ucli.StringSliceFlag{Name: "channel", Usage: "channel `PATTERN`; default *"},
			&ucli.StringSliceFlag{Name: "approver-role", Usage: "approval `ROLE` that an approver may fill"},
			&ucli.StringSliceFlag{Name: "policy", Usage: "pin a policy `DIGEST`"},
			&ucli.StringFlag{Name: "environments", Usage: "from now on accept no older environments document than the one in this signed `FILE`"},
			&ucli.StringSliceFlag{Name: "identity", Usage: "add who signs without a key: certificate `SUBJECT`; with * a pattern"},
			&ucli.StringFlag{Name: "issuer", Usage: "OIDC issuer `URL` of --identity, compared exactly"},
			&ucli.StringFlag{Name: "trusted-root", Usage: "take a sigstore trusted_root.json `FILE` into the document"},
			&ucli.BoolFlag{Name: "root-by-digest", Usage: "name only the digest of --trusted-root; the file travels on its own"},
			&ucli.IntFlag{Name: "logs", Value: 1, Usage: "with --trusted-root: `MANY` transparency logs must hold a signature without a key"},
			&ucli.IntFlag{Name: "scts", Usage: "with --trusted-root: `MANY` certificate transparency logs must know its certificate"},
			&ucli.IntFlag{Name: "timestamps", Value: 1, Usage: "with --trusted-root: `MANY` RFC 3161 authorities; 0: one, or a Rekor v1 time"},
			&ucli.StringFlag{Name: "expires", Usage: "let the document count for `LONG` from now"},
			&ucli.IntFlag{Name: "threshold", Usage: "how `MANY` roots must sign from now on"},
			dryRunFlag(),
		},
		Exits: []diag.Code{diag.Verification, diag.NotFound},
		See:   []string{"trust sign", "trust revoke", "keys generate"},
		Run:   runTrustAdd,
	}
}

func runTrustAdd(_ context.Context, c *Call) error {
	file := c.Args[0]
	d, err := c.editTrust(file)
	if err != nil {
		return err
	}
	if c.Arg(1) == "" && len(c.Strings("policy")) == 0 && c.String("environments") == "" && c.String("expires") == "" && len(c.Strings("identity")) == 0 && c.String("trusted-root") == "" && !c.IsSet("threshold") {
		return diag.New(diag.Usage, "trust add needs a public key, --identity, --trusted-root, --policy, --environments, --expires or --threshold").Hint("waybill trust add %s publisher.pub --role publisher", file)
	}
	if err := c.addIdentities(d); err != nil {
		return err
	}
	if f := c.Arg(1); f != "" {
		k, err := c.publicKey(f)
		if err != nil {
			return err
		}
		k.Role, k.Name = trust.Role(c.String("role")), c.String("name")
		if k.Name == "" {
			k.Name = baseName(f)
		}
		if !k.Role.Valid() {
			return diag.New(diag.Usage, "--role %q is not a role", k.Role).Hint("waybill trust add %s %s --role publisher", file, f)
		}
		all := func(flag string) []string {
			if v := c.Strings(flag); len(v) > 0 {
				return v
			}
			return []string{"*"}
		}
		k.Scope = trust.Scope{Models: all("model"), Envs: all("env"), Channels: all("channel")}
		k.ApproverRoles = c.Strings("approver-role")
		if k.Role == trust.RoleRoot {
			k.Scope = trust.Scope{}
		}
		if old, ok := d.Lookup(k.ID); ok {
			return diag.New(diag.Usage, "%s is in %s already, as %s key %q", f, file, old.Role, old.Name).
				Hint("one key has one role: waybill keys generate --role %s", k.Role)
		}
		d.Keys = append(d.Keys, k)
	}
	for _, p := range c.Strings("policy") {
		digest, err := artifact.ParseDigest(p)
		if err != nil {
			return diag.Wrap(diag.Usage, err, "--policy")
		}
		if !slices.Contains(d.Policies, digest) {
			d.Policies = append(d.Policies, digest)
		}
	}
	if f := c.String("environments"); f != "" {
		if err := c.pinEnvironments(d, f); err != nil {
			return err
		}
	}
	if e := c.String("expires"); e != "" {
		life, err := days("expires", e)
		if err != nil {
			return err
		}
		d.Expires = c.Env.Now().UTC().Truncate(time.Second).Add(life)
	}
	if c.IsSet("threshold") {
		d.Threshold = c.Int("threshold")
	}
	if err := d.Validate(); err != nil {
		return diag.Wrap(diag.Usage, err, "trust add")
	}
	return c.writeTrust(file, d, true, "add")
}

func trustRevokeCommand() Command {
	return Command{
		Name: "revoke", Summary: "revoke keys, or deny artifacts, in trust.yaml",
		Args: "TRUST.yaml", Min: 1, Max: 1,
		Long: `Revokes keys by id (or the first digits of it), and denies artifacts by digest, in trust.yaml. Everything that a revoked
key signed stops counting, whenever it was signed. Sign the document afterwards; devices learn of it with the next
record of their channel.`,
		Examples: []string{"waybill trust revoke trust.yaml --key-id 4f2a91c0", "waybill trust revoke trust.yaml --deny sha256:..."},
		Flags: []ucli.Flag{
			&ucli.StringSliceFlag{Name: "key-id", Usage: "`ID` of a key, at least 8 digits"},
			&ucli.StringSliceFlag{Name: "deny", Usage: "`DIGEST` of an artifact"},
			dryRunFlag(),
		},
		Exits: []diag.Code{diag.Verification, diag.NotFound},
		See:   []string{"trust rotate", "trust show", "trust sign"},
		Run:   runTrustRevoke,
	}
}

func runTrustRevoke(_ context.Context, c *Call) error {
	file := c.Args[0]
	if len(c.Strings("key-id"))+len(c.Strings("deny")) == 0 {
		return diag.New(diag.Usage, "trust revoke needs --key-id or --deny").Hint("waybill trust show --role publisher")
	}
	d, err := c.editTrust(file)
	if err != nil {
		return err
	}
	for _, id := range c.Strings("key-id") {
		k, err := signerByID(d, file, id)
		if err != nil {
			return err
		}
		if !d.IsRevoked(k.ID) {
			d.Revoked = append(d.Revoked, k.ID)
		}
		c.adviseReset(file, k)
	}
	for _, s := range c.Strings("deny") {
		digest, err := artifact.ParseDigest(s)
		if err != nil {
			return diag.Wrap(diag.Usage, err, "--deny")
		}
		if !d.IsDenied(digest) {
			d.Denied = append(d.Denied, digest)
		}
	}
	if err := d.Validate(); err != nil {
		return diag.Wrap(diag.Usage, err, "trust revoke").Hint("a revoked root needs a successor first: waybill trust add %s new-root.pub --role root", file)
	}
	return c.writeTrust(file, d, true, "revoke")
}

// archived reads the signed file of an earlier version that trust sign kept, nil when there is none.
func (c *Call) archived(signed string, version int) ([]byte, error) {
	raw, err := c.readFile(archiveName(signed, version), artifact.MaxBundle)
	if diag.CodeOf(err) == diag.NotFound {
		return nil, nil
	}
	return raw, err
}
