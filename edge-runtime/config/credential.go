package config

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/fleet"
	"github.com/waybill-ml/waybill/oci/registry"
)

// CredentialFile is what enroll calls the file of credentials in the device's folder.
const CredentialFile = "registry-credential.json"

// ReadCredentials reads a file of credentials that nobody else may read.
func ReadCredentials(path string) (*fleet.Credentials, error) {
	raw, err := ReadFile(path, fleet.MaxCredentials)
	if err != nil {
		return nil, err
	}
	if err := Private(path, "the registry credential"); err != nil {
		return nil, err
	}
	c, err := fleet.ParseCredentials(raw)
	if err != nil {
		return nil, diag.Wrap(diag.Usage, err, "read the registry credential %s", path)
	}
	return c, nil
}

// Private refuses a file with a secret that others may read.
func Private(path, what string) error {
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 && os.PathSeparator == '/' {
		return diag.New(diag.Failure, "%s %s may be read by others (mode %04o)", what, path, info.Mode().Perm()).Hint("chmod 600 %s", path)
	}
	return nil
}

// Secrets lists what is known when the process starts, for the last line of defence in logs. What cannot be read is
// complained about by whoever needs it.
func (c *Config) Secrets() []string {
	var out []string
	for _, ch := range c.Channels {
		if ch.Credential == "" {
			continue
		}
		if cs, err := ReadCredentials(ch.Credential); err == nil {
			for _, x := range cs.Credentials {
				out = append(out, string(x.Password), string(x.Token), base64.StdEncoding.EncodeToString([]byte(x.Username+":"+string(x.Password))))
			}
		}
	}
	for _, r := range c.Reports {
		if r.TokenFile != "" {
			if s, err := ReadSecret(r.TokenFile); err == nil {
				out = append(out, s)
			}
		}
	}
	return out
}

// fileKeychain reads the credential of a registry at each login, so that one that was exchanged counts from then on.
type fileKeychain struct{ path string }

// Login implements registry.Keychain. A registry that the file does not name gets nothing.
func (k fileKeychain) Login(ctx context.Context, host, repo string) (registry.Login, error) {
	cs, err := ReadCredentials(k.path)
	if err != nil {
		return registry.Login{}, err
	}
	c, ok := cs.For(host)
	if !ok {
		return registry.Login{}, nil
	}
	return registry.Credentials{Host: c.Registry, Username: c.Username, Password: string(c.Password), Token: string(c.Token)}.Login(ctx, host, repo)
}

// access adds the channel's credential to the options of a carrier; a channel without one asks without credentials.
func (c *Channel) access(o registry.RemoteOptions) registry.RemoteOptions {
	o.LoginHint = "waybill-edge enroll --out DIR --credential FILE"
	if c.Credential != "" {
		o.Keychain, o.AskEachTime = fileKeychain{c.Credential}, true
		o.LoginHint = fmt.Sprintf("waybill-edge enroll --out %s --credential FILE", filepath.Dir(c.Credential))
	}
	return o
}
