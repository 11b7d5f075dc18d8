package registry

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/types"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/waybill-ml/waybill/internal/diag"
)

// UserKeychain reads the credentials that docker and podman left for their user, each time it is asked: the file that
// REGISTRY_AUTH_FILE names; config.json in DOCKER_CONFIG or ~/.docker; containers/auth.json in XDG_RUNTIME_DIR, then in
// XDG_CONFIG_HOME or ~/.config. In each file auths, credHelpers, credsStore and identity tokens count; the first file that
// knows the registry wins. An entry for a namespace ("host/team") wins over the one for its host.
type UserKeychain struct {
	Getenv func(string) string // nil: os.Getenv, and the home directory of the user
	Home   string              // home directory; "" with Getenv: none
}

// Resolve implements authn.Keychain.
func (k UserKeychain) Resolve(r authn.Resource) (authn.Authenticator, error) {
	keys := []string{}
	for p := r.String(); ; {
		keys = append(keys, p)
		i := strings.LastIndex(p, "/")
		if i < 0 || p == r.RegistryStr() {
			break
		}
		p = p[:i]
	}
	for _, file := range k.files() {
		cf, err := loadConfig(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, diag.Wrap(diag.Registry, err, "read the credentials in %s", file)
		}
		for _, key := range keys {
			host := key == r.RegistryStr()
			if key == name.DefaultRegistry {
				key = authn.DefaultAuthKey
			}
			_, listed := cf.AuthConfigs[key]
			if _, helper := cf.CredentialHelpers[key]; !listed && !helper && !host {
				continue // a helper for all registries knows hosts
			}
			c, err := cf.GetAuthConfig(key)
			if err != nil {
				return nil, diag.Wrap(diag.Registry, err, "ask the credential helper of %s for %s", file, key)
			}
			c.ServerAddress = "" // says what was asked
			if c != (types.AuthConfig{}) {
				return authn.FromConfig(authn.AuthConfig{
					Username: c.Username, Password: c.Password, Auth: c.Auth, IdentityToken: c.IdentityToken, RegistryToken: c.RegistryToken,
				}), nil
			}
		}
	}
	return authn.Anonymous, nil
}

func (k UserKeychain) files() []string {
	get := k.Getenv
	if get == nil {
		get = os.Getenv
	}
	var out []string
	add := func(dir string, elem ...string) {
		if dir != "" {
			out = append(out, filepath.Join(append([]string{dir}, elem...)...))
		}
	}
	add(get("REGISTRY_AUTH_FILE"))
	home := k.Home
	if h, err := os.UserHomeDir(); home == "" && err == nil && k.Getenv == nil {
		home = h
	}
	if d := get("DOCKER_CONFIG"); d != "" {
		add(d, "config.json")
	} else {
		add(home, ".docker", "config.json")
	}
	add(get("XDG_RUNTIME_DIR"), "containers", "auth.json")
	if x := get("XDG_CONFIG_HOME"); x != "" {
		add(x, "containers", "auth.json")
	} else {
		add(home, ".config", "containers", "auth.json")
	}
	return out
}

func loadConfig(file string) (*configfile.ConfigFile, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return config.LoadFromReader(f)
}

// Credentials are what the user named for one registry, in place of what is configured.
type Credentials struct {
	Host     string // of the registry, with port; other registries do not get them
	Username string
	Password string
	Token    string // sent as it is, in place of both
	Others   authn.Keychain
}

// Resolve implements authn.Keychain.
func (c Credentials) Resolve(r authn.Resource) (authn.Authenticator, error) {
	host, err := name.NewRegistry(c.Host) // docker.io has another name for itself
	if err != nil || !strings.EqualFold(r.RegistryStr(), host.RegistryStr()) {
		if c.Others == nil {
			return authn.Anonymous, nil
		}
		return c.Others.Resolve(r)
	}
	return authn.FromConfig(authn.AuthConfig{Username: c.Username, Password: c.Password, RegistryToken: c.Token}), nil
}

// credentials asks a keychain about a repository.
func credentials(ctx context.Context, k authn.Keychain, r authn.Resource) (authn.AuthConfig, error) {
	a, err := authn.Resolve(ctx, k, r)
	if err != nil {
		return authn.AuthConfig{}, err
	}
	c, err := authn.Authorization(ctx, a)
	if err != nil {
		return authn.AuthConfig{}, err
	}
	return *c, nil
}
