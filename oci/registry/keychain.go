package registry

import (
	"context"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
)

// Login is what a registry is shown of who asks. The zero value is nobody.
type Login struct {
	Username, Password string
	Auth               string // base64 of "username:password", where Username is empty
	IdentityToken      string // a refresh token: token servers exchange it
	RegistryToken      string // sent as it is, in place of all others
}

// Keychain knows logins. host is the registry with its port, docker.io as index.docker.io; repo the repository there. A
// keychain that knows nothing of them gives the zero Login.
type Keychain interface {
	Login(ctx context.Context, host, repo string) (Login, error)
}

// Credentials are what the user named for one registry, in place of what is configured.
type Credentials struct {
	Host     string // of the registry, with port; other registries do not get them
	Username string
	Password string
	Token    string // sent as it is, in place of both
	Others   Keychain
}

// Login implements Keychain.
func (c Credentials) Login(ctx context.Context, host, repo string) (Login, error) {
	mine, err := name.NewRegistry(c.Host) // docker.io has another name for itself
	if err == nil && strings.EqualFold(host, mine.RegistryStr()) {
		return Login{Username: c.Username, Password: c.Password, RegistryToken: c.Token}, nil
	}
	if c.Others == nil {
		return Login{}, nil
	}
	return c.Others.Login(ctx, host, repo)
}
