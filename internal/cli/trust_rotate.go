package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/policy/environments"
)

// What becomes of a key that was replaced.
const (
	oldRetire = "retire"
	oldRevoke = "revoke"
	oldKeep   = "keep"
)

func trustRotateCommand() Command {
	return Command{
		Name: "rotate", Summary: "replace a key in trust.yaml, or begin a new generation of channels",
		Args: "TRUST.yaml [NEW.pub]", Min: 1, Max: 2,
		Long: `Puts a new key in the place of one, with its role, scope and approval roles. --old says what becomes of what the old key
signed:
  retire  statements from before --from count, by a verified timestamp or by the time that they claim; statements that
          name no time (releases, data sets) count no more and are signed again. For keys that were not stolen: whoever
          has the key can lie about the time.
  revoke  nothing that it signed counts, whenever it was signed. For stolen keys. The default for root keys.
  keep    both keys count, until one is retired or revoked.

The next version needs the old root threshold and its own, so that a new root key signs and an old one too.

--reset-channels begins a new generation: records from before it stop counting, also as the state that the next publication
rests on. It is the way on after the key of a deployer was revoked whose records lead a channel: gate and publish again.`,
		Examples: []string{
			"waybill trust rotate trust.yaml publisher2.pub --key-id 4f2a91c0",
			"waybill trust rotate trust.yaml root2.pub --key-id 91cc02aa --old revoke",
			"waybill trust rotate trust.yaml deployer2.pub --key-id 77aa10fe --old revoke --reset-channels",
		},
		Flags: []ucli.Flag{
			dryRunFlag(),
			&ucli.StringFlag{Name: "key-id", Usage: "`ID` of the key to replace, at least 8 digits"},
			&ucli.StringFlag{Name: "old", Usage: "what becomes of the old key's statements: retire, revoke or keep (`HOW`)"},
			&ucli.StringFlag{Name: "from", Usage: "with --old retire: `TIME` (RFC 3339) since when the old key counts no more; default: now"},
			&ucli.StringFlag{Name: "name", Usage: "`NAME` for people; default: the file's"},
			&ucli.IntFlag{Name: "threshold", Usage: "how `MANY` roots must sign from now on"},
			&ucli.BoolFlag{Name: "reset-channels", Usage: "begin a new generation of channel records"},
		},
		Exits: []diag.Code{diag.Verification, diag.NotFound},
		See:   []string{"trust sign", "trust revoke", "channel publish"},
		Run:   runTrustRotate,
	}
}

func runTrustRotate(_ context.Context, c *Call) error {
	file, pub := c.Args[0], c.Arg(1)
	if (pub == "") != (c.String("key-id") == "") || pub == "" && !c.Bool("reset-channels") {
		return diag.New(diag.Usage, "trust rotate needs a new public key and the --key-id that it replaces, or --reset-channels alone").
			Hint("waybill trust rotate %s new.pub --key-id 4f2a91c0", file).Hint("waybill trust show")
	}
	if pub == "" && (c.String("old") != "" || c.String("from") != "" || c.String("name") != "") {
		return diag.New(diag.Usage, "--old, --from and --name belong to a new key").Hint("waybill trust rotate %s new.pub --key-id 4f2a91c0", file)
	}
	d, err := c.editTrust(file)
	if err != nil {
		return err
	}
	if pub != "" {
		if err := c.replaceKey(d, file, pub); err != nil {
			return err
		}
	}
	if c.IsSet("threshold") {
		d.Threshold = c.Int("threshold")
	}
	if c.Bool("reset-channels") {
		if err := c.resetChannels(d, file); err != nil {
			return err
		}
	}
	if err := d.Validate(); err != nil {
		return diag.Wrap(diag.Usage, err, "trust rotate")
	}
	return c.writeTrust(file, d, true, "rotate")
}

// resetChannels raises the generation by one over the signed one; doing so twice before signing raises it once.
func (c *Call) resetChannels(d *trust.Document, file string) error {
	was, _, err := c.currentTrust(signedName(file))
	if err != nil {
		return err
	}
	if was == nil {
		return diag.New(diag.Usage, "%s was never signed: there are no channels to reset", file).Hint("waybill trust sign %s --key root.key", file)
	}
	d.Generation = was.Generation + 1
	c.UI.Field("generation", "%d: the records of generation %d stop counting once this is signed and published", d.Generation, was.Generation)
	c.UI.Field("then", "waybill gate REF --env ENV --key gate.key, and waybill channel publish ENV REF --key deployer.key, for each channel")
	return nil
}

func (c *Call) replaceKey(d *trust.Document, file, pub string) error {
	old, err := signerByID(d, file, c.String("key-id"))
	if err != nil {
		return err
	}
	at := slices.IndexFunc(d.Keys, func(k trust.Key) bool { return k.ID == old.ID })
	if at < 0 {
		return diag.New(diag.Usage, "%s is an identity; it has no key to replace", old.Name).Hint("waybill trust revoke %s --key-id %s", file, old.ID[:12])
	}
	next, err := c.publicKey(pub)
	if err != nil {
		return err
	}
	if was, ok := d.Signer(next.ID); ok {
		return diag.New(diag.Usage, "%s is in %s already, as %s key %q", pub, file, was.Role.Article(), was.Name).
			Hint("waybill keys generate --role %s", old.Role)
	}
	how := c.String("old")
	switch {
	case how == "" && old.Role == trust.RoleRoot:
		how = oldRevoke
	case how == "":
		how = oldRetire
	}
	from := c.Env.Now().UTC().Truncate(time.Second)
	if f := c.String("from"); f != "" {
		if from, err = time.Parse(time.RFC3339, f); err != nil || how != oldRetire {
			return diag.New(diag.Usage, "--from %s: a time such as 2026-01-31T00:00:00Z, with --old retire", f)
		}
	}
	next.Role, next.Scope, next.ApproverRoles, next.Name = old.Role, old.Scope, old.ApproverRoles, c.String("name")
	if next.Name == "" {
		next.Name = baseName(pub)
	}
	switch how {
	case oldRevoke:
		if !d.IsRevoked(old.ID) {
			d.Revoked = append(d.Revoked, old.ID)
		}
		if !c.Bool("reset-channels") {
			c.adviseReset(file, old)
		}
	case oldRetire:
		if old.Role == trust.RoleRoot {
			return diag.New(diag.Usage, "a root key is kept or revoked: what it signed are documents, and the newest counts").
				Hint("waybill trust rotate %s %s --key-id %s --old revoke", file, pub, old.ID[:12])
		}
		utc := from.UTC()
		d.Keys[at].Until = &utc
		c.UI.Field("retired", "%s key %s (%s) since %s", old.Role, old.ID[:12], old.Name, utc.Format(time.RFC3339))
	case oldKeep:
	default:
		return diag.New(diag.Usage, "--old %s: retire, revoke or keep", how)
	}
	d.Keys = append(d.Keys, next)
	for i, r := range d.Rules { // the new key stands where the old one is named
		if slices.Contains(r.Signers, old.ID) {
			d.Rules[i].Signers = append(slices.Clone(r.Signers), next.ID)
		}
	}
	return nil
}

// adviseReset tells what a revoked deployer or refresher leaves behind.
func (c *Call) adviseReset(file string, k trust.Key) {
	if k.Role == trust.RoleDeployer || k.Role == trust.RoleRefresher {
		c.UI.Warn("channels whose newest record this %s signed can't go on from it: waybill trust rotate %s --reset-channels", k.Role, file)
	}
}

// signerByID finds a key or an identity by the first digits of its id.
func signerByID(d *trust.Document, file, id string) (trust.Key, error) {
	var hits []string
	for _, k := range d.Keys {
		hits = append(hits, k.ID)
	}
	for _, i := range d.Identities {
		hits = append(hits, i.ID)
	}
	hits = slices.DeleteFunc(hits, func(h string) bool { return len(id) < 8 || !strings.HasPrefix(h, id) })
	if len(hits) != 1 {
		return trust.Key{}, diag.New(diag.NotFound, "%d keys of %s begin with %q", len(hits), file, id).Hint("waybill trust show")
	}
	k, _ := d.Signer(hits[0])
	return k, nil
}

// pinEnvironments names the document of a signed file as the oldest that counts.
func (c *Call) pinEnvironments(d *trust.Document, file string) error {
	raw, err := c.readFile(file, 2*environments.MaxBytes*environments.MaxSignatures)
	if err != nil {
		return err
	}
	now := c.Env.Now()
	bare := *d
	bare.Environments = nil // the pin that is being replaced has no say in the next one, which can't be lower
	s, err := environments.Verify(raw, &bare, now)
	if err != nil {
		return inFile(file, err)
	}
	if p := d.Environments; p != nil && s.Document.Version < p.Version {
		return diag.New(diag.Usage, "%s has version %d, and version %d is pinned already", file, s.Document.Version, p.Version)
	}
	d.Environments = &trust.EnvironmentsPin{Version: s.Document.Version, Digest: s.Digest}
	c.UI.Field("environments", "version %d or later, %s", s.Document.Version, s.Digest.Short())
	return nil
}

func trustRuleCommand() Command {
	return Command{
		Name: "rule", Summary: "say what statements of a type must bring along, in trust.yaml",
		Args: "TRUST.yaml TYPE", Min: 2, Max: 2,
		Long: `Sets the rule for one type of statement: which keys may sign it, how many different ones are needed, how old it may be,
and whether a verified timestamp must say so. TYPE is a name (release, evaluation, approval ...) or a URI. A rule never lets a
key sign what its role may not; only for a type of your own does --role name the roles that may: publisher,
evaluator, approver. Without such a rule nobody may sign it and nothing of it counts.

Age is counted from a verified timestamp where there is one, and else from the time that the statement claims; a statement
that names no time is refused where there is a limit. Devices check releases and verdicts against the rules too, and
can't verify timestamps: a rule with --timestamp on those keeps new models from them.`,
		Examples: []string{
			"waybill trust rule trust.yaml release --require 2",
			"waybill trust rule trust.yaml evaluation --max-age 90d --signer 4f2a91c0 --signer 91cc02aa --require 2",
			"waybill trust rule trust.yaml https://example.com/review/v1 --role evaluator",
			"waybill trust rule trust.yaml release --remove",
		},
		Flags: []ucli.Flag{
			dryRunFlag(),
			&ucli.StringSliceFlag{Name: "role", Aliases: []string{"r"}, Usage: "for a type of your own: `ROLE` that may sign it; may be repeated"},
			&ucli.StringSliceFlag{Name: "signer", Usage: "only the key or identity with this `ID` may sign it; may be repeated"},
			&ucli.IntFlag{Name: "require", Usage: "how `MANY` different signers are needed"},
			&ucli.StringFlag{Name: "max-age", Usage: "how `OLD` it may be: 90d, 12h, 30m"},
			&ucli.BoolFlag{Name: "timestamp", Usage: "demand a verified timestamp"},
			&ucli.BoolFlag{Name: "remove", Usage: "remove the rule"},
		},
		Exits: []diag.Code{diag.Verification, diag.NotFound},
		See:   []string{"trust show", "trust sign", "attest", "verify"},
		Run:   runTrustRule,
	}
}

func runTrustRule(_ context.Context, c *Call) error {
	file, typ := c.Args[0], c.Args[1]
	if t, ok := evidence.TypeByName(typ); ok {
		typ = t
	} else if err := evidence.CustomType(typ); err != nil {
		return diag.Wrap(diag.Usage, err, "trust rule").Hint("waybill trust rule %s evaluation --require 1", file)
	}
	d, err := c.editTrust(file)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(d.Rules, func(r trust.Rule) bool { return r.PredicateType == typ })
	if c.Bool("remove") {
		if i < 0 {
			return diag.New(diag.NotFound, "%s has no rule for %s", file, evidence.NameOf(typ)).Hint("waybill trust show")
		}
		d.Rules = slices.Delete(slices.Clone(d.Rules), i, i+1)
		return c.writeTrust(file, d, true, "rule")
	}
	r := trust.Rule{PredicateType: typ, Require: c.Int("require"), MaxAge: c.String("max-age"), Timestamp: c.Bool("timestamp")}
	for _, role := range c.Strings("role") {
		r.Roles = append(r.Roles, trust.Role(role))
	}
	for _, id := range c.Strings("signer") {
		k, err := signerByID(d, file, id)
		if err != nil {
			return err
		}
		r.Signers = append(r.Signers, k.ID)
	}
	if i < 0 {
		d.Rules = append(d.Rules, r)
	} else {
		d.Rules = slices.Clone(d.Rules)
		d.Rules[i] = r
	}
	if err := d.Validate(); err != nil {
		return diag.Wrap(diag.Usage, err, "trust rule").Hint("waybill trust rule --help")
	}
	if r.Timestamp && (typ == evidence.TypeRelease || typ == evidence.TypeVSA) {
		c.UI.Warn("devices can't verify timestamps: under this rule they take no new model")
	}
	return c.writeTrust(file, d, true, "rule")
}

// ruleText writes a rule in one line.
func ruleText(r trust.Rule) string {
	var w []string
	for _, role := range r.Roles {
		w = append(w, "by "+string(role))
	}
	for _, s := range r.Signers {
		w = append(w, "signer "+s[:12])
	}
	if r.Require > 0 {
		w = append(w, ui.Plural(r.Require, "signer")+" needed")
	}
	if r.MaxAge != "" {
		w = append(w, "at most "+r.MaxAge+" old")
	}
	if r.Timestamp {
		w = append(w, "with a verified timestamp")
	}
	if len(w) == 0 {
		return "nothing more than its roles"
	}
	return strings.Join(w, ", ")
}
