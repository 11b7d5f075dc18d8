// Package login reads what `docker login` and `podman login` left for their user. Devices do not: they have a credential of
// their own or none, and their program does without docker's code.
package login

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
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/registry"
)

// dockerHub is what docker calls its own registry in its configuration.
const dockerHub = "https://index.docker.io/v1/"

// User reads the credentials that docker and podman left for their user, each time it is asked: the file that
// REGISTRY_AUTH_FILE names; config.json in DOCKER_CONFIG or ~/.docker; containers/auth.json in XDG_RUNTIME_DIR, then in
// XDG_CONFIG_HOME or ~/.config. In each file auths, credHelpers, credsStore and identity tokens count; the first file that
// knows the registry wins. An entry for a namespace ("host/team") wins over the one for its host.
type User struct {
	Getenv func(string) string // nil: os.Getenv, and the home directory of the user
	Home   string              // home directory; "" with Getenv: none
}

// Login implements registry.Keychain.
func (k User) Login(_ context.Context, host, repo string) (registry.Login, error) {
	keys := []string{}
	for p := host + "/" + repo; ; {
		keys = append(keys, p)
		i := strings.LastIndex(p, "/")
		if i < 0 || p == host {
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
			return registry.Login{}, diag.Wrap(diag.Registry, err, "read the credentials in %s", file)
		}
		for _, key := range keys {
			whole := key == host
			if key == name.DefaultRegistry {
				key = dockerHub
			}
			_, listed := cf.AuthConfigs[key]
			if _, helper := cf.CredentialHelpers[key]; !listed && !helper && !whole {
				continue // a helper for all registries knows hosts
			}
			c, err := cf.GetAuthConfig(key)
			if err != nil {
				return registry.Login{}, diag.Wrap(diag.Registry, err, "ask the credential helper of %s for %s", file, key)
			}
			c.ServerAddress = "" // says what was asked
			if c != (types.AuthConfig{}) {
				return registry.Login{
					Username: c.Username, Password: c.Password, Auth: c.Auth, IdentityToken: c.IdentityToken, RegistryToken: c.RegistryToken,
				}, nil
			}
		}
	}
	return registry.Login{}, nil
}

func (k User) files() []string {
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
