package cli

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"strings"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/sign"
	"github.com/waybill-ml/waybill/oci/trust"
)

func keysCommand() Command {
	return Command{
		Name: "keys", Group: Trust, Summary: "make and look at signing keys",
		Sub: []Command{keysGenerateCommand(), keysImportCommand(), keysRegisterCommand(), keysShowCommand()},
	}
}

func keysGenerateCommand() Command {
	return Command{
		Name: "generate", Summary: "make a key pair for one role",
		Long: `Makes a key pair, ECDSA P-256 or Ed25519: FILE, encrypted with a passphrase in cosign's own format, and its public
half beside it (.pub). One key has one role, sealed in the file with the key; a command that needs another role refuses it.
The passphrase comes from WAYBILL_PASSWORD, else COSIGN_PASSWORD, else a prompt. A key counts only where a trust document
names it: waybill trust add. No file is ever replaced.`,
		Examples: []string{
			"waybill keys generate --role publisher",
			`waybill keys generate --role gate --name "prod gate" --out keys/gate.key`,
			"waybill keys generate --role evaluator --type ed25519",
		},
		Flags: []ucli.Flag{
			&ucli.StringFlag{Name: "role", Aliases: []string{"r"}, Required: true, Usage: "`ROLE`: root, publisher, evaluator, approver, gate, policy, deployer or refresher"},
			&ucli.StringFlag{Name: "type", Aliases: []string{"t"}, Value: string(sign.ECDSA), Usage: "`TYPE`: ecdsa (P-256) or ed25519"},
			&ucli.StringFlag{Name: "name", Usage: "`NAME` for people; default: the role"},
			&ucli.StringFlag{Name: "out", Usage: "private key `FILE`; default: ROLE.key"},
			dryRunFlag(),
		},
		See: []string{"keys import", "keys register", "trust add", "sign"},
		Run: runKeysGenerate,
	}
}

type keyJSON struct {
	Schema  string     `json:"schema"`
	ID      string     `json:"id,omitempty"`
	Type    string     `json:"type,omitempty"`
	Role    trust.Role `json:"role,omitempty"`
	Name    string     `json:"name,omitempty"`
	Private string     `json:"private,omitempty"`
	Public  string     `json:"public,omitempty"`
	URI     string     `json:"uri,omitempty"`
}

// keyNames gives role, name, private and public file of a new key from the flags.
func (c *Call) keyNames() (role trust.Role, name, out, pub string) {
	role = trust.Role(c.String("role"))
	name, out = c.String("name"), c.String("out")
	if name == "" {
		name = string(role)
	}
	if out == "" {
		out = string(role) + ".key"
	}
	return role, name, out, strings.TrimSuffix(out, ".key") + ".pub"
}

func runKeysGenerate(_ context.Context, c *Call) error {
	role, name, out, pub := c.keyNames()
	typ := sign.Type(c.String("type"))
	if err := sign.CheckNew(typ, role, name); err != nil {
		return err
	}
	if err := c.newKeyFiles(out, pub); err != nil {
		return err
	}
	pw, err := sign.Password(c.Env.Getenv, c.Env.ReadPassword, out, true)
	if err != nil {
		return err
	}
	kp, err := sign.Generate(typ, role, name, pw)
	if err != nil {
		return err
	}
	return c.writeKey("generate", kp, out, pub)
}

// writeKey writes both halves of a new key and says so.
func (c *Call) writeKey(verb string, kp *sign.KeyPair, out, pub string) error {
	if err := c.writeFile(pub, kp.Public, 0o644, false); err != nil {
		return err
	}
	if err := c.writeFile(out, kp.Private, 0o600, false); err != nil {
		return err
	}
	if c.Bool("dry-run") && verb == "generate" {
		kp.ID = "" // of a key that nobody will ever have
	}
	if c.UI.JSON {
		return c.UI.PrintJSON(keyJSON{Schema: schemaBase + "keys-" + verb + "/v1", ID: kp.ID, Type: typeOf(kp.Public), Role: kp.Role, Name: kp.Name, Private: out, Public: pub})
	}
	c.UI.Field("private", "%s (%s, encrypted)", out, kp.Role)
	c.UI.Field("public", "%s", pub)
	if kp.ID != "" {
		c.UI.Data("%s", kp.ID)
	}
	return nil
}

func typeOf(public []byte) string {
	key, _, err := trust.ParsePublic(public)
	if err != nil {
		return ""
	}
	if _, ok := key.(ed25519.PublicKey); ok {
		return string(sign.Ed25519)
	}
	return string(sign.ECDSA)
}

func keysImportCommand() Command {
	return Command{
		Name: "import", Summary: "give a private key that was made elsewhere its role",
		Args: "FILE", Min: 1, Max: 1,
		Long: `Reads a private key of cosign (cosign.key), or one in PEM (PKCS #8 or EC, with or without a passphrase), and writes it
as a key file of Waybill with one role. Only ECDSA P-256 and Ed25519 are taken. The passphrase of FILE, when it has one, is
WAYBILL_IMPORT_PASSWORD, else that of the new file: WAYBILL_PASSWORD, else COSIGN_PASSWORD, else a prompt. FILE stays
where it is: delete it, so that the key cannot be used in another role.`,
		Examples: []string{
			"waybill keys import cosign.key --role publisher",
			"WAYBILL_IMPORT_PASSWORD=old waybill keys import approver.pem --role approver --out keys/approver.key",
		},
		Flags: []ucli.Flag{
			&ucli.StringFlag{Name: "role", Aliases: []string{"r"}, Required: true, Usage: "`ROLE`: root, publisher, evaluator, approver, gate, policy, deployer or refresher"},
			&ucli.StringFlag{Name: "name", Usage: "`NAME` for people; default: the role"},
			&ucli.StringFlag{Name: "out", Usage: "private key `FILE`; default: ROLE.key"},
			dryRunFlag(),
		},
		Exits: []diag.Code{diag.NotFound},
		See:   []string{"keys generate", "keys register", "trust add"},
		Run:   runKeysImport,
	}
}

func runKeysImport(_ context.Context, c *Call) error {
	role, name, out, pub := c.keyNames()
	if err := sign.CheckNew(sign.ECDSA, role, name); err != nil {
		return err
	}
	raw, err := c.readFile(c.Args[0], 64<<10)
	if err != nil {
		return err
	}
	if err := c.newKeyFiles(out, pub); err != nil {
		return err
	}
	pw, err := sign.Password(c.Env.Getenv, c.Env.ReadPassword, out, true)
	if err != nil {
		return err
	}
	old := func() ([]byte, error) {
		if p := c.Env.Getenv("WAYBILL_IMPORT_PASSWORD"); p != "" {
			return []byte(p), nil
		}
		return sign.Password(c.Env.Getenv, c.Env.ReadPassword, c.Args[0], false)
	}
	kp, err := sign.Import(c.Args[0], raw, old, role, name, pw)
	if err != nil {
		return err
	}
	return c.writeKey("import", kp, out, pub)
}

func keysRegisterCommand() Command {
	return Command{
		Name: "register", Summary: "give a key in a KMS, in Vault or on a token its role",
		Args: "URI", Min: 1, Max: 1,
		Long: `Asks the service for the public key and writes a reference file with role, URI and public key, and the public key beside
it (.pub). Pass the reference as --key: the private key never leaves the service. A key that was rotated or swapped behind
its name is refused when signing. Services: awskms:// azurekms:// gcpkms:// hashivault:// openbao:// pkcs11: and, for any
other scheme, sigstore's plugin programs (sigstore-kms-SCHEME). Credentials are those of the service's own tools
(AWS_PROFILE, GOOGLE_APPLICATION_CREDENTIALS, AZURE_TENANT_ID, VAULT_ADDR and VAULT_TOKEN ...); a token's PIN is pin-source in
the URI, else WAYBILL_PKCS11_PIN, else COSIGN_PKCS11_PIN, else a prompt.`,
		Examples: []string{
			"waybill keys register awskms:///alias/release --role publisher",
			"waybill keys register hashivault://gate --role gate --out keys/gate.key",
			"waybill keys register 'pkcs11:token=signing;object=release?module-path=/usr/lib/softhsm/libsofthsm2.so' --role publisher",
		},
		Flags: []ucli.Flag{
			&ucli.StringFlag{Name: "role", Aliases: []string{"r"}, Required: true, Usage: "`ROLE`: root, publisher, evaluator, approver, gate, policy, deployer or refresher"},
			&ucli.StringFlag{Name: "name", Usage: "`NAME` for people; default: the role"},
			&ucli.StringFlag{Name: "out", Usage: "reference `FILE`; default: ROLE.key"},
			dryRunFlag(),
		},
		See: []string{"keys show", "keys generate", "trust add"},
		Run: runKeysRegister,
	}
}

func runKeysRegister(ctx context.Context, c *Call) error {
	role, name, out, pub := c.keyNames()
	uri := c.Args[0]
	if err := sign.CheckNew(sign.ECDSA, role, name); err != nil {
		return err
	}
	if err := sign.CheckURI(uri); err != nil {
		return err
	}
	if err := c.newKeyFiles(out, pub); err != nil {
		return err
	}
	public, id, err := sign.Public(ctx, uri, c.secrets())
	if err != nil {
		return err
	}
	ref, err := sign.Reference(uri, role, name, public)
	if err != nil {
		return err
	}
	if err := c.writeFile(pub, public, 0o644, false); err != nil {
		return err
	}
	if err := c.writeFile(out, ref, 0o644, false); err != nil {
		return err
	}
	if c.UI.JSON {
		return c.UI.PrintJSON(keyJSON{Schema: schemaBase + "keys-register/v1", ID: id, Type: typeOf(public), Role: role, Name: name, Private: out, Public: pub, URI: uri})
	}
	c.UI.Field("reference", "%s (%s)", out, role)
	c.UI.Field("public", "%s", pub)
	c.UI.Data("%s", id)
	return nil
}

func keysShowCommand() Command {
	return Command{
		Name: "show", Summary: "print id, type, role and name of a key",
		Args: "FILE|URI", Min: 1, Max: 1,
		Long: `Prints what a key file tells without its passphrase, or what a service says about a key by its URI. The id, the SHA-256
of the public key, is read from a public file, from the .pub beside a private one, from a reference, or from the service.
Role and name are shown as the file's header has them: the passphrase proves the role when the key is used, and what a
key may do stands in the trust document.`,
		Examples: []string{"waybill keys show publisher.pub", "waybill keys show publisher.key --output json", "waybill keys show awskms:///alias/release"},
		Exits:    []diag.Code{diag.NotFound},
		See:      []string{"trust show", "keys register"},
		Run:      runKeysShow,
	}
}

func runKeysShow(ctx context.Context, c *Call) error {
	f := c.Args[0]
	k := keyJSON{Schema: schemaBase + "keys-show/v1"}
	public, err := c.describeKey(ctx, f, &k)
	if err != nil {
		return err
	}
	if public != nil {
		if _, k.ID, err = trust.ParsePublic(public); err != nil {
			return diag.Wrap(diag.Usage, err, "%s", f).Line("signing keys are ECDSA P-256 or Ed25519; RSA and the larger curves are not used")
		}
		k.Type = typeOf(public)
	}
	if c.UI.JSON {
		return c.UI.PrintJSON(k)
	}
	if k.Role != "" {
		c.UI.Field("role", "%s", k.Role)
		c.UI.Field("name", "%s", k.Name)
	}
	if k.URI != "" {
		c.UI.Field("held by", "%s", k.URI)
	}
	if k.ID == "" {
		c.UI.Warn("the public key is not beside %s, so its id is not known", f)
		return nil
	}
	c.UI.Field("type", "%s", k.Type)
	c.UI.Data("%s", k.ID)
	return nil
}

// describeKey fills k and gives the public key, nil when it is not known.
func (c *Call) describeKey(ctx context.Context, f string, k *keyJSON) ([]byte, error) {
	if sign.IsURI(f) {
		k.URI = sign.Redact(f)
		public, _, err := sign.Public(ctx, f, c.secrets())
		return public, err
	}
	raw, err := c.readFile(f, 64<<10)
	if err != nil {
		return nil, err
	}
	if bytes.Contains(raw, []byte("PUBLIC KEY")) {
		k.Public = f
		return raw, nil
	}
	in, err := sign.Inspect(raw)
	if err != nil {
		e := diag.Wrap(diag.Usage, err, "%s is not a key of Waybill", f)
		if bytes.Contains(raw, []byte("PRIVATE KEY")) {
			return nil, e.Hint("waybill keys import %s --role ROLE", f)
		}
		return nil, e.Hint("waybill keys generate --role publisher")
	}
	k.Private, k.Role, k.Name, k.URI = f, in.Role, in.Name, in.URI
	if in.Public != nil {
		return in.Public, nil
	}
	beside := strings.TrimSuffix(f, ".key") + ".pub"
	public, err := c.readFile(beside, 64<<10)
	if diag.CodeOf(err) == diag.NotFound {
		return nil, nil
	}
	k.Public = beside
	return public, err
}
