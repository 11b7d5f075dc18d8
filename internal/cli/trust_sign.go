package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"time"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/trust/trustfile"
	"github.com/waybill-ml/waybill/oci/verify"
)

func trustSignCommand() Command {
	return Command{
		Name: "sign", Summary: "sign trust.yaml with a root key",
		Args: "TRUST.yaml", Min: 1, Max: 1,
		Long: `Signs the document with a root key and adds the signature to trust.signed beside it, one line per signature. A new
version must be signed by the roots of the version before and by its own; until enough have signed, trust.signed keeps
the old version and the signatures gather in trust.next.signed. The old version is kept as trust.N.signed, since devices
walk through every version.`,
		Examples: []string{"waybill trust sign trust.yaml --key root.key"},
		Flags:    []ucli.Flag{keyFlag("root"), dryRunFlag()},
		Exits:    []diag.Code{diag.Verification, diag.NotFound},
		See:      []string{"trust add", "trust verify"},
		Run:      runTrustSign,
	}
}

func runTrustSign(ctx context.Context, c *Call) error {
	file := c.Args[0]
	raw, err := c.readFile(file, trust.MaxDocument)
	if err != nil {
		return err
	}
	d, err := trustfile.Parse(file, raw)
	if err != nil {
		return err
	}
	signed := signedName(file)
	pending := pendingName(signed)
	current, currentRaw, err := c.currentTrust(signed)
	if err != nil {
		return err
	}
	if current != nil {
		was, err := current.Digest()
		if err != nil {
			return err
		}
		digest, err := d.Digest()
		if err != nil {
			return err
		}
		if err := d.Follows(current); was != digest && err != nil {
			return diag.Wrap(diag.Usage, err, "%s", file).Hint("set version to %d in %s", current.Version+1, file)
		}
		if was == digest {
			current = nil // one more signature on the version in force
			pending = signed
		}
	}
	k, err := c.key(ctx, trust.RoleRoot)
	if err != nil {
		return err
	}
	if err := mayRoot(k, d, current); err != nil {
		return err
	}
	line, payload, err := trustLine(ctx, d, k)
	if err != nil {
		return err
	}
	gathered, err := c.gather(pending, line, payload)
	if err != nil {
		return err
	}
	complete := func() error {
		if current == nil {
			_, err := verify.TrustSelf(gathered)
			return err
		}
		_, err := verify.TrustBundle(gathered, current)
		return err
	}()
	out := signed
	switch {
	case complete == nil && current != nil:
		if err := c.writeFile(archiveName(signed, current.Version), currentRaw, 0o644, true); err != nil {
			return err
		}
	case complete != nil && verify.ReasonOf(complete) == verify.BadTrust:
		out = pending
		if out == signed {
			out = pendingName(signed)
		}
		c.UI.Warn("%v: more root keys must sign", complete)
	case complete != nil:
		return inFile(file, complete)
	}
	if err := c.writeFile(out, gathered, 0o644, true); err != nil {
		return err
	}
	if out != pending && pending != signed && !c.Bool("dry-run") {
		if err := (fsx.OS{}).Remove(c.Abs(pending)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return diag.Wrap(diag.Failure, err, "remove %s", pending)
		}
	}
	ids, err := signers(gathered)
	if err != nil {
		return err
	}
	return c.printTrust("sign", out, d, ids)
}

// mayRoot refuses a root key whose signature neither the document nor the one before would count.
func mayRoot(k signer, docs ...*trust.Document) error {
	for _, d := range docs {
		if d == nil {
			continue
		}
		if e, ok := d.Lookup(k.KeyID()); ok && e.Role == trust.RoleRoot && !d.IsRevoked(e.ID) {
			return nil
		}
	}
	return diag.New(diag.Verification, "root key %s is a root neither of this document nor of the version before", k.KeyID()[:12]).
		Line("nothing was signed").Hint("waybill trust show --role root")
}

// pendingName is where signatures gather until there are enough.
func pendingName(signed string) string { return strings.TrimSuffix(signed, ".signed") + ".next.signed" }

// currentTrust reads the signed document in force, nil when there is none.
func (c *Call) currentTrust(signed string) (*trust.Document, []byte, error) {
	raw, err := c.readFile(signed, artifact.MaxBundle)
	if diag.CodeOf(err) == diag.NotFound {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	d, err := verify.TrustSelf(raw)
	if err != nil {
		return nil, nil, inFile(signed, err)
	}
	return d, raw, nil
}

type statementSigner interface {
	Sign(context.Context, *evidence.Statement) ([]byte, error)
}

func trustLine(ctx context.Context, d *trust.Document, k statementSigner) (line, payload []byte, err error) {
	raw, err := d.Encode()
	if err != nil {
		return nil, nil, err
	}
	st, err := evidence.NewStatement(evidence.TypeTrust, verify.TrustSubject, artifact.DigestOf(raw), json.RawMessage(raw))
	if err != nil {
		return nil, nil, err
	}
	if payload, err = st.Encode(); err != nil {
		return nil, nil, err
	}
	line, err = k.Sign(ctx, st)
	return line, payload, err
}

// gather adds a signature to the ones over the same statement; signatures over another statement are dropped.
func (c *Call) gather(file string, line, payload []byte) ([]byte, error) {
	mine, err := evidence.ParseBundle(line)
	if err != nil {
		return nil, err
	}
	id, err := mine.KeyID()
	if err != nil {
		return nil, err
	}
	old, err := c.readFile(file, artifact.MaxBundle)
	if err != nil && diag.CodeOf(err) != diag.NotFound {
		return nil, err
	}
	var lines [][]byte
	for _, l := range bytes.Split(bytes.TrimSpace(old), []byte("\n")) {
		b, err := evidence.ParseBundle(l)
		if err != nil || !bytes.Equal(b.DSSEEnvelope.Payload, payload) {
			continue
		}
		if k, err := b.KeyID(); err == nil && k != id {
			lines = append(lines, l)
		}
	}
	return append(bytes.Join(append(lines, line), []byte("\n")), '\n'), nil
}

func signers(raw []byte) ([]string, error) {
	var ids []string
	for _, l := range bytes.Split(bytes.TrimSpace(raw), []byte("\n")) {
		b, err := evidence.ParseBundle(l)
		if err != nil {
			return nil, err
		}
		id, err := b.KeyID()
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids, nil
}

func trustShowCommand() Command {
	return Command{
		Name: "show", Summary: "print the signed trust document",
		Long:     "Verifies trust.signed against its own threshold and prints who may do what. The last line is the digest that devices pin.",
		Examples: []string{"waybill trust show", "waybill trust show --role publisher", "waybill trust show --output json"},
		Flags: append([]ucli.Flag{trustFlag(), trustDigestFlag()},
			&ucli.StringFlag{Name: "role", Aliases: []string{"r"}, Usage: "only the keys of `ROLE`"},
		),
		Exits: []diag.Code{diag.Verification, diag.NotFound},
		See:   []string{"trust add", "trust revoke", "trust verify"},
		Run:   runTrustShow,
	}
}

func runTrustShow(_ context.Context, c *Call) error {
	if r := trust.Role(c.String("role")); r != "" && !r.Valid() {
		return diag.New(diag.Usage, "--role %q is not a role", r).Hint("waybill trust show --role publisher")
	}
	d, raw, err := c.trustFile()
	if err != nil {
		return err
	}
	ids, err := signers(raw)
	if err != nil {
		return err
	}
	if c.UI.JSON {
		return c.printTrust("show", c.String("trust"), d, ids)
	}
	rows := [][]string{{"role", "id", "name", "models", "environments", "channels", "state"}}
	for _, k := range d.Keys {
		if r := c.String("role"); r != "" && string(k.Role) != r {
			continue
		}
		state := "trusted"
		if d.IsRevoked(k.ID) {
			state = "revoked"
		} else if k.Until != nil {
			state = "until " + k.Until.UTC().Format(time.RFC3339)
		}
		rows = append(rows, []string{string(k.Role), k.ID[:12], k.Name, orDash(k.Scope.Models), orDash(k.Scope.Envs), orDash(k.Scope.Channels), state})
	}
	ui.Table(c.UI.Out, true, append(rows, identityRows(d, c.String("role"))...))
	if k := d.Keyless; k != nil {
		c.UI.Data("root    %s for certificates: %d logs, %d certificate logs, %d timestamp authorities", k.TrustedRoot, k.Logs, k.SCTs, k.Timestamps)
	}
	for _, p := range d.Policies {
		c.UI.Data("policy  %s", p)
	}
	for _, p := range d.Denied {
		c.UI.Data("denied  %s", p)
	}
	for _, r := range d.Rules {
		c.UI.Data("rule    %s: %s", evidence.NameOf(r.PredicateType), ruleText(r))
	}
	if p := d.Environments; p != nil {
		c.UI.Data("pinned  environments version %d or later %s", p.Version, p.Digest)
	}
	if d.Generation > 1 {
		c.UI.Data("channels in generation %d", d.Generation)
	}
	if d.Expired(c.Env.Now()) {
		c.UI.Warn("the document has expired; nothing new verifies under it")
	}
	return c.printTrust("show", c.String("trust"), d, ids)
}

func orDash(s []string) string {
	if len(s) == 0 {
		return "-"
	}
	out := s[0]
	for _, x := range s[1:] {
		out += "," + x
	}
	return out
}

func trustVerifyCommand() Command {
	return Command{
		Name: "verify", Summary: "verify a signed trust document, or the step from one version to the next",
		Args: "TRUST.signed [NEXT.signed]", Min: 1, Max: 2,
		Long: `With one file: checks that it meets its own root threshold, has not expired, and has the digest of --trust-digest when
given. With two: checks that the second may follow the first, as a device would.`,
		Examples: []string{"waybill trust verify trust.signed --trust-digest sha256:...", "waybill trust verify trust.1.signed trust.signed"},
		Flags:    []ucli.Flag{trustDigestFlag()},
		Exits:    []diag.Code{diag.Verification, diag.NotFound},
		See:      []string{"trust show", "trust sign"},
		Run:      runTrustVerify,
	}
}

func runTrustVerify(_ context.Context, c *Call) error {
	file := c.Args[0]
	raw, err := c.readFile(file, artifact.MaxBundle)
	if err != nil {
		return err
	}
	d, err := verify.TrustSelf(raw)
	if err != nil {
		return inFile(file, err)
	}
	if pin := c.String("trust-digest"); pin != "" {
		if d, err = verify.TrustPinned(raw, d.Version, artifact.Digest(pin)); err != nil {
			return inFile(file, err)
		}
	}
	if next := c.Arg(1); next != "" {
		file = next
		if raw, err = c.readFile(next, artifact.MaxBundle); err != nil {
			return err
		}
		if d, err = verify.TrustBundle(raw, d); err != nil {
			return inFile(next, err)
		}
	}
	if d.Expired(c.Env.Now()) {
		return diag.New(diag.Verification, "%s: version %d expired on %s", file, d.Version, d.Expires.Format("2006-01-02")).
			Hint("waybill trust add trust.yaml --expires 365d, then waybill trust sign trust.yaml --key root.key")
	}
	ids, err := signers(raw)
	if err != nil {
		return err
	}
	return c.printTrust("verify", file, d, ids)
}
