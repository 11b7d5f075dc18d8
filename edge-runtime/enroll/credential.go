package enroll

import (
	"path/filepath"

	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/fleet"
)

// CredentialSource is how a credential comes to a device without a provisioning file.
type CredentialSource struct {
	File                      string // of registry credentials; or, of one registry:
	Username, Password, Token string // password and token name files; "-" is stdin
}

// read gives what it names; host is the registry that they are for, "" when none was named.
func (o *CredentialSource) read(host string) ([]fleet.Credential, error) {
	if o.Username == "" && o.Password == "" && o.Token == "" {
		if o.File == "" {
			return nil, nil
		}
		cs, err := config.ReadCredentials(o.File)
		if err != nil {
			return nil, err
		}
		return cs.Credentials, nil
	}
	switch {
	case o.File != "":
		return nil, diag.New(diag.Usage, "enroll: --credential and --username or --token-file exclude each other")
	case host == "":
		return nil, diag.New(diag.Usage, "enroll: --username and --token-file are for the registry of --follow, which is missing").Hint("waybill-edge enroll --help")
	case (o.Username == "") != (o.Password == ""):
		return nil, diag.New(diag.Usage, "enroll: --username and --password-file go together")
	}
	c := fleet.Credential{Registry: host, Username: o.Username}
	for _, s := range []struct {
		file string
		into *fleet.Secret
	}{{o.Password, &c.Password}, {o.Token, &c.Token}} {
		if s.file == "" {
			continue
		}
		text, err := config.ReadSecret(s.file)
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
func giveCredentials(fsys fsx.FS, dir string, cs []config.Channel, anew []fleet.Credential, drop bool) ([]byte, error) {
	all := &fleet.Credentials{Schema: fleet.SchemaCredentials}
	if raw, err := fsx.ReadFile(fsys, filepath.Join(dir, config.CredentialFile), fleet.MaxCredentials); err == nil && !drop {
		if all, err = fleet.ParseCredentials(raw); err != nil {
			return nil, diag.Wrap(diag.Usage, err, "read %s", filepath.Join(dir, config.CredentialFile)).Hint("rm %s", filepath.Join(dir, config.CredentialFile))
		}
	}
	all.Merge(anew)
	if err := fleet.CheckCredentials(all.Credentials); err != nil {
		return nil, diag.Wrap(diag.Usage, err, "enroll")
	}
	for i := range cs {
		if _, ok := all.For(cs[i].Registry); ok {
			cs[i].Credential = config.CredentialFile
		} else if cs[i].Credential == config.CredentialFile {
			cs[i].Credential = ""
		}
	}
	if len(all.Credentials) == 0 {
		return nil, nil
	}
	return canonical(all)
}
