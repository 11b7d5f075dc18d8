package cli

import (
	"fmt"
	"strings"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/trust"
)

// addIdentities takes --trusted-root and --identity into a document.
func (c *Call) addIdentities(d *trust.Document) error {
	file := c.Args[0]
	for _, f := range []string{"root-by-digest", "logs", "scts", "timestamps"} {
		if c.IsSet(f) && c.String("trusted-root") == "" {
			return diag.New(diag.Usage, "--%s belongs to --trusted-root", f)
		}
	}
	if f := c.String("trusted-root"); f != "" {
		raw, err := c.rootFile(f)
		if err != nil {
			return err
		}
		d.Keyless = &trust.Keyless{TrustedRoot: artifact.DigestOf(raw), TrustedRootJSON: string(raw), Logs: c.Int("logs"), SCTs: c.Int("scts"), Timestamps: c.Int("timestamps")}
		if c.Bool("root-by-digest") {
			d.Keyless.TrustedRootJSON = ""
		}
	}
	subjects, issuer := c.Strings("identity"), c.String("issuer")
	if len(subjects) == 0 {
		if issuer != "" {
			return diag.New(diag.Usage, "--issuer belongs to --identity")
		}
		return nil
	}
	hint := "waybill trust add " + file + " --identity " + subjects[0] + " --issuer https://token.actions.githubusercontent.com --role publisher"
	switch {
	case c.Arg(1) != "":
		return diag.New(diag.Usage, "a key and an identity are added one after the other")
	case issuer == "":
		return diag.New(diag.Usage, "--identity needs --issuer: a subject means nothing without who vouches for it").Hint("%s", hint)
	case d.Keyless == nil:
		return diag.New(diag.Usage, "%s names no trusted root that certificates would count under", file).Hint("%s --trusted-root trusted_root.json", hint)
	}
	all := func(flag string) []string {
		if v := c.Strings(flag); len(v) > 0 {
			return v
		}
		return []string{"*"}
	}
	for _, s := range subjects {
		i := trust.Identity{
			Name: c.String("name"), Role: trust.Role(c.String("role")), Issuer: issuer, Subject: s,
			Scope: trust.Scope{Models: all("model"), Envs: all("env"), Channels: all("channel")}, ApproverRoles: c.Strings("approver-role"),
		}
		if strings.Contains(s, "*") {
			i.Subject, i.SubjectPattern = "", s
		}
		i.ID = trust.IdentityID(issuer, s, i.SubjectPattern != "")
		if i.Name == "" {
			i.Name = s
		}
		if k, ok := d.Signer(i.ID); ok {
			return diag.New(diag.Usage, "%s of %s is in %s already, as %s %q", s, issuer, file, k.Role, k.Name).Hint("one identity has one role: edit %s", file)
		}
		d.Identities = append(d.Identities, i)
	}
	return nil
}

// identityRows are the rows of trust show for identities.
func identityRows(d *trust.Document, role string) [][]string {
	var rows [][]string
	for _, i := range d.Identities {
		if role != "" && string(i.Role) != role {
			continue
		}
		state := "trusted"
		if d.IsRevoked(i.ID) {
			state = "revoked"
		}
		rows = append(rows, []string{string(i.Role), i.ID[:12], i.Subject + i.SubjectPattern + " of " + i.Issuer, orDash(i.Scope.Models), orDash(i.Scope.Envs), orDash(i.Scope.Channels), state})
	}
	return rows
}

func identityCount(d *trust.Document) string {
	switch len(d.Identities) {
	case 0:
		return ""
	case 1:
		return ", 1 identity"
	}
	return fmt.Sprintf(", %d identities", len(d.Identities))
}
