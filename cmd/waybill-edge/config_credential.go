package main

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/fleet"
	"github.com/waybill-ml/waybill/oci/registry"
)

// credentialFile is what enroll calls the file of credentials in the device's folder.
const credentialFile = "registry-credential.json"

// readCredentials reads a file of credentials that nobody else may read.
func readCredentials(path string) (*fleet.Credentials, error) {
	raw, err := readFile(path, fleet.MaxCredentials)
	if err != nil {
		return nil, err
	}
	if err := private(path, "the registry credential"); err != nil {
		return nil, err
	}
	c, err := fleet.ParseCredentials(raw)
	if err != nil {
		return nil, diag.Wrap(diag.Usage, err, "read the registry credential %s", path)
	}
	return c, nil
}

// private refuses a file with a secret that others may read.
func private(path, what string) error {
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 && os.PathSeparator == '/' {
		return diag.New(diag.Failure, "%s %s may be read by others (mode %04o)", what, path, info.Mode().Perm()).Hint("chmod 600 %s", path)
	}
	return nil
}

// secrets lists what is known when the process starts, for the last line of defence in logs. What cannot be read is
// complained about by whoever needs it.
func (c *config) secrets() []string {
	var out []string
	for _, ch := range c.Channels {
		if ch.Credential == "" {
			continue
		}
		if cs, err := readCredentials(ch.Credential); err == nil {
			for _, x := range cs.Credentials {
				out = append(out, string(x.Password), string(x.Token), base64.StdEncoding.EncodeToString([]byte(x.Username+":"+string(x.Password))))
			}
		}
	}
	for _, r := range c.Reports {
		if r.TokenFile != "" {
			if s, err := readSecret(r.TokenFile); err == nil {
				out = append(out, s)
			}
		}
	}
	return out
}

// fileKeychain reads the credential of a registry at each login, so that one that was exchanged counts from then on.
type fileKeychain struct{ path string }

// Resolve implements authn.Keychain. A registry that the file does not name gets nothing.
func (k fileKeychain) Resolve(r authn.Resource) (authn.Authenticator, error) {
	cs, err := readCredentials(k.path)
	if err != nil {
		return nil, err
	}
	c, ok := cs.For(r.RegistryStr())
	if !ok {
		return authn.Anonymous, nil
	}
	return registry.Credentials{Host: c.Registry, Username: c.Username, Password: string(c.Password), Token: string(c.Token)}.Resolve(r)
}

// access adds the channel's credential to the options of a carrier; a channel without one asks without credentials.
func (c *channelConfig) access(o registry.RemoteOptions) registry.RemoteOptions {
	o.LoginHint = "waybill-edge enroll --out DIR --credential FILE"
	if c.Credential != "" {
		o.Keychain, o.AskEachTime = fileKeychain{c.Credential}, true
		o.LoginHint = fmt.Sprintf("waybill-edge enroll --out %s --credential FILE", filepath.Dir(c.Credential))
	}
	return o
}

// credentialFlags are how a credential comes to a device without a provisioning file. There is none for the password
// itself: other users of the machine can read command lines.
type credentialFlags struct{ file, username, password, token string }

func (o *credentialFlags) add(f *flags) {
	f.StringVar(&o.file, "credential", "", "`FILE` of registry credentials (schema "+fleet.SchemaCredentials+"), copied to DIR with mode 0600")
	f.StringVar(&o.username, "username", "", "`NAME` for the registry of --follow")
	f.StringVar(&o.password, "password-file", "", "its password in `FILE`; - reads stdin")
	f.StringVar(&o.token, "token-file", "", "a token for the registry of --follow in `FILE`, in place of both; - reads stdin")
}

// read gives what the flags name; host is the registry that they are for, "" when none was named.
func (o *credentialFlags) read(host string) ([]fleet.Credential, error) {
	if o.username == "" && o.password == "" && o.token == "" {
		if o.file == "" {
			return nil, nil
		}
		cs, err := readCredentials(o.file)
		if err != nil {
			return nil, err
		}
		return cs.Credentials, nil
	}
	switch {
	case o.file != "":
		return nil, diag.New(diag.Usage, "enroll: --credential and --username or --token-file exclude each other")
	case host == "":
		return nil, diag.New(diag.Usage, "enroll: --username and --token-file are for the registry of --follow, which is missing").Hint("waybill-edge enroll --help")
	case (o.username == "") != (o.password == ""):
		return nil, diag.New(diag.Usage, "enroll: --username and --password-file go together")
	}
	c := fleet.Credential{Registry: host, Username: o.username}
	for _, s := range []struct {
		file string
		into *fleet.Secret
	}{{o.password, &c.Password}, {o.token, &c.Token}} {
		if s.file == "" {
			continue
		}
		text, err := readSecret(s.file)
		if err != nil {
			return nil, err
		}
		*s.into = fleet.Secret(text)
	}
	if err := fleet.CheckCredentials([]fleet.Credential{c}); err != nil {
		return nil, diag.Wrap(diag.Usage, err, "enroll")
	}
	return []fleet.Credential{c}, nil
}

// giveCredentials merges what is said anew into the file's content and names the file in the channels that it is for. nil
// bytes mean that the device has no credential.
func giveCredentials(fsys fsx.FS, dir string, cs []channelConfig, anew []fleet.Credential, drop bool) ([]byte, error) {
	all := &fleet.Credentials{Schema: fleet.SchemaCredentials}
	if raw, err := fsx.ReadFile(fsys, filepath.Join(dir, credentialFile), fleet.MaxCredentials); err == nil && !drop {
		if all, err = fleet.ParseCredentials(raw); err != nil {
			return nil, diag.Wrap(diag.Usage, err, "read %s", filepath.Join(dir, credentialFile)).Hint("rm %s", filepath.Join(dir, credentialFile))
		}
	}
	all.Merge(anew)
	if err := fleet.CheckCredentials(all.Credentials); err != nil {
		return nil, diag.Wrap(diag.Usage, err, "enroll")
	}
	for i := range cs {
		if _, ok := all.For(cs[i].Registry); ok {
			cs[i].Credential = credentialFile
		} else if cs[i].Credential == credentialFile {
			cs[i].Credential = ""
		}
	}
	if len(all.Credentials) == 0 {
		return nil, nil
	}
	return canonical(all)
}
