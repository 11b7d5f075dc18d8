package cli

import (
	"bytes"
	"context"
	"strings"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/sign"
	"github.com/waybill-ml/waybill/oci/trust"
)

func keysCommand() Command {
	return Command{
		Name: "keys", Group: Trust, Summary: "make and look at signing keys",
		Sub: []Command{keysGenerateCommand(), keysShowCommand()},
	}
}

func keysGenerateCommand() Command {
	return Command{
		Name: "generate", Summary: "make a key pair for one role",
		Long: `Makes an ECDSA P-256 key pair: FILE, encrypted with a passphrase in cosign's own format, and its public half beside it
(.pub). One key has one role; a command that needs another role refuses it. The passphrase comes from WAYBILL_PASSWORD,
else COSIGN_PASSWORD, else a prompt. A key counts only where a trust document names it: waybill trust add.`,
		Examples: []string{
			"waybill keys generate --role publisher",
			`waybill keys generate --role gate --name "prod gate" --out keys/gate.key`,
		},
		Flags: []ucli.Flag{
			&ucli.StringFlag{Name: "role", Aliases: []string{"r"}, Required: true, Usage: "`ROLE`: root, publisher, evaluator, approver, gate, deployer or refresher"},
			&ucli.StringFlag{Name: "name", Usage: "`NAME` for people; default: the role"},
			&ucli.StringFlag{Name: "out", Usage: "private key `FILE`; default: ROLE.key"},
		},
		See: []string{"trust add", "sign"},
		Run: runKeysGenerate,
	}
}

type keyJSON struct {
	Schema  string     `json:"schema"`
	ID      string     `json:"id,omitempty"`
	Role    trust.Role `json:"role,omitempty"`
	Name    string     `json:"name,omitempty"`
	Private string     `json:"private,omitempty"`
	Public  string     `json:"public,omitempty"`
}

func runKeysGenerate(_ context.Context, c *Call) error {
	role := trust.Role(c.String("role"))
	name, out := c.String("name"), c.String("out")
	if name == "" {
		name = string(role)
	}
	if out == "" {
		out = string(role) + ".key"
	}
	pub := strings.TrimSuffix(out, ".key") + ".pub"
	if !role.Valid() || role == trust.RoleDevice {
		_, err := sign.Generate(role, name, nil) // says why
		return err
	}
	for _, f := range []string{out, pub} {
		if _, err := c.readFile(f, 1<<20); diag.CodeOf(err) != diag.NotFound {
			return diag.New(diag.Usage, "%s exists already", f).Hint("waybill keys generate --role %s --out OTHER.key", role)
		}
	}
	pw, err := sign.Password(c.Env.Getenv, c.Env.ReadPassword, out, true)
	if err != nil {
		return err
	}
	kp, err := sign.Generate(role, name, pw)
	if err != nil {
		return err
	}
	if err := c.writeFile(pub, kp.Public, 0o644, false); err != nil {
		return err
	}
	if err := c.writeFile(out, kp.Private, 0o600, false); err != nil {
		return err
	}
	if c.UI.JSON {
		return c.UI.PrintJSON(keyJSON{Schema: schemaBase + "keys-generate/v1", ID: kp.ID, Role: role, Name: name, Private: out, Public: pub})
	}
	c.UI.Field("private", "%s (%s, encrypted)", out, role)
	c.UI.Field("public", "%s", pub)
	c.UI.Data("%s", kp.ID)
	return nil
}

func keysShowCommand() Command {
	return Command{
		Name: "show", Summary: "print id, role and name of a key file",
		Args: "FILE", Min: 1, Max: 1,
		Long: `Prints what a key file tells without its passphrase. The id, the SHA-256 of the public key, is read from a public
file, or from the .pub beside a private one. Role and name of a private file are unauthenticated notes; what a key may do
stands in the trust document.`,
		Examples: []string{"waybill keys show publisher.pub", "waybill keys show publisher.key --output json"},
		Exits:    []diag.Code{diag.NotFound},
		See:      []string{"trust show"},
		Run:      runKeysShow,
	}
}

func runKeysShow(_ context.Context, c *Call) error {
	f := c.Args[0]
	raw, err := c.readFile(f, 64<<10)
	if err != nil {
		return err
	}
	k := keyJSON{Schema: schemaBase + "keys-show/v1"}
	if bytes.Contains(raw, []byte("PUBLIC KEY")) {
		k.Public = f
	} else {
		in, err := sign.Inspect(raw)
		if err != nil {
			return diag.Wrap(diag.Usage, err, "%s is not a key of Waybill", f).Hint("waybill keys generate --role publisher")
		}
		k.Private, k.Role, k.Name = f, in.Role, in.Name
		if raw, err = c.readFile(strings.TrimSuffix(f, ".key")+".pub", 64<<10); err == nil {
			k.Public = strings.TrimSuffix(f, ".key") + ".pub"
		} else if diag.CodeOf(err) != diag.NotFound {
			return err
		}
	}
	if k.Public != "" {
		if _, k.ID, err = trust.ParsePublic(raw); err != nil {
			return diag.Wrap(diag.Usage, err, "%s", k.Public)
		}
	}
	if c.UI.JSON {
		return c.UI.PrintJSON(k)
	}
	if k.Role != "" {
		c.UI.Field("role", "%s", k.Role)
		c.UI.Field("name", "%s", k.Name)
	}
	if k.ID == "" {
		c.UI.Warn("the public key is not beside %s, so its id is not known", f)
		return nil
	}
	c.UI.Data("%s", k.ID)
	return nil
}
