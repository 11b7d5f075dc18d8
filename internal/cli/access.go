package cli

import (
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/login"
	"github.com/waybill-ml/waybill/oci/registry"
)

// access is who the command is to registries, found out once.
type access struct {
	once     sync.Once
	keychain registry.Keychain
	err      error
}

// maxPassword bounds what --password-stdin reads; tokens of clouds have a few thousand bytes.
const maxPassword = 64 << 10

// accessFlags are of every verb that takes a REF to a registry. There is none for the password: other users of the
// machine can read command lines.
func accessFlags(more ...ucli.Flag) []ucli.Flag {
	return append(more,
		&ucli.BoolFlag{Name: "plain-http", Usage: "talk plain http to registries on other machines", EnvVars: []string{"WAYBILL_PLAIN_HTTP"}},
		&ucli.StringFlag{Name: "username", Usage: "`NAME` for the registry, in place of what docker login left", EnvVars: []string{"WAYBILL_REGISTRY_USERNAME"}},
		&ucli.BoolFlag{Name: "password-stdin", Usage: "read the password for --username from stdin"},
		&ucli.StringFlag{Name: "registry-host", Usage: "`HOST` that --username is for, where a command names several", EnvVars: []string{"WAYBILL_REGISTRY_HOST"}},
		&ucli.StringFlag{Name: "ca-file", Usage: "believe the certificate authorities in `FILE` too (PEM)", EnvVars: []string{"WAYBILL_CA_FILE"}},
		&ucli.StringFlag{Name: "client-cert", Usage: "certificate in `FILE` (PEM) that a registry with mutual TLS sees", EnvVars: []string{"WAYBILL_CLIENT_CERT"}},
		&ucli.StringFlag{Name: "client-key", Usage: "its key in `FILE` (PEM)", EnvVars: []string{"WAYBILL_CLIENT_KEY"}})
}

// withAccess completes the options of registries: credentials, certificates, and what this machine remembers about them.
func (c *Call) withAccess(o registry.RemoteOptions) (registry.RemoteOptions, error) {
	a := &c.login
	a.once.Do(func() { a.keychain, a.err = c.keychain() })
	if a.err != nil {
		return o, a.err
	}
	config := c.Env.Getenv("XDG_CONFIG_HOME")
	if config == "" && c.Env.Home != "" {
		config = filepath.Join(c.Env.Home, ".config")
	}
	o.Keychain = a.keychain
	o.TLS = registry.TLSOptions{
		CAFile: c.Abs(c.String("ca-file")), CertFile: c.Abs(c.String("client-cert")), KeyFile: c.Abs(c.String("client-key")),
		Dirs: registry.CertDirs(config),
	}
	o.TokenHosts = strings.FieldsFunc(c.Env.Getenv("WAYBILL_TOKEN_HOSTS"), func(r rune) bool { return r == ',' || r == ' ' })
	if dir, err := c.Env.DataDir(); err == nil && !c.Bool("dry-run") {
		o.Transfers = registry.NewTransfers(filepath.Join(dir, "transfers"))
	}
	return o, nil
}

// keychain is the user's configuration, behind what the command line or the environment says about one registry.
func (c *Call) keychain() (registry.Keychain, error) {
	user := login.User{Getenv: c.Env.Getenv, Home: c.Env.Home}
	k := registry.Credentials{Username: c.String("username"), Host: c.String("registry-host"), Others: user}
	env := c.Env.Getenv("WAYBILL_REGISTRY_PASSWORD")
	switch {
	case c.Bool("password-stdin") && k.Username == "":
		return nil, diag.New(diag.Usage, "--password-stdin needs --username")
	case c.Bool("password-stdin"):
		b, err := io.ReadAll(io.LimitReader(c.Env.Stdin, maxPassword+1))
		if err != nil || len(b) > maxPassword {
			return nil, diag.Wrap(diag.Usage, err, "read the password from stdin (at most %d bytes)", maxPassword)
		}
		if k.Password = strings.TrimRight(string(b), "\r\n"); k.Password == "" {
			return nil, diag.New(diag.Usage, "--password-stdin: nothing came on stdin")
		}
	case k.Username != "" && env == "":
		return nil, diag.New(diag.Usage, "a user name for the registry, and no password: use --password-stdin or WAYBILL_REGISTRY_PASSWORD").
			Hint("waybill %s --username %s --password-stdin < FILE", c.Path, k.Username)
	case k.Username != "":
		k.Password = env
	default:
		k.Token = c.Env.Getenv("WAYBILL_REGISTRY_TOKEN")
	}
	if k.Username == "" && k.Token == "" {
		return user, nil
	}
	if k.Host == "" {
		var hosts []string
		for _, a := range c.Args {
			if ref, err := registry.ParseRef(a); err == nil && ref.Kind == registry.KindRemote && !slices.Contains(hosts, ref.Host) {
				hosts = append(hosts, ref.Host)
			}
		}
		switch len(hosts) {
		case 0: // what else the command reaches keeps what docker login left
			return user, nil
		case 1:
			k.Host = hosts[0]
		default:
			return nil, diag.New(diag.Usage, "the command names %s, and credentials for one of them", strings.Join(hosts, " and ")).
				Hint("waybill %s --registry-host %s (and docker login %s)", c.Path, hosts[0], hosts[1])
		}
	}
	return k, nil
}
