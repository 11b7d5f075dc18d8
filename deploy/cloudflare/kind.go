package cloudflare

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"strings"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/jsbundle"
	"github.com/waybill-ml/waybill/deploy/targets"
)

// Settings are the keys of a target of kind cloudflare.
type Settings struct {
	Account  string `json:"account" need:"true"` // id
	Script   string `json:"script" need:"true"`  // the Worker's name
	Preview  string `json:"preview"`             // Config.Preview
	URL      string `json:"url"`                 // where the Worker answers
	Endpoint string `json:"endpoint"`            // of the API; empty: Cloudflare's

	getenv func(string) string
}

var (
	accounts = regexp.MustCompile(`^[0-9a-f]{32}$`)
	scripts  = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
)

// tokenVariable is where Cloudflare's own tools have the token.
const tokenVariable = "CLOUDFLARE_API_TOKEN"

// Kind is the row for targets.Parse. getenv tells the API's token.
func Kind(getenv func(string) string) targets.Kind {
	return targets.Kind{Name: "cloudflare", Runs: targets.Bundle, Settings: func() targets.Settings { return &Settings{getenv: getenv} }}
}

// Check implements targets.Settings.
func (s *Settings) Check() error {
	bad := func(key, format string, args ...any) error {
		return &targets.Error{Path: key, Err: fmt.Errorf(format, args...)}
	}
	switch {
	case !accounts.MatchString(s.Account):
		return bad("account", "%q is no id of an account, 32 digits and small letters to f", s.Account)
	case !scripts.MatchString(s.Script):
		return bad("script", "%q: small letters, digits and hyphens, at most 63", s.Script)
	case s.Preview != "" && (!strings.HasPrefix(s.Preview, "https://") || !strings.Contains(s.Preview, "{version}")):
		return bad("preview", "%q: an https address with {version} is expected", s.Preview)
	case s.URL != "" && !strings.HasPrefix(s.URL, "https://"):
		return bad("url", "%q is no https address", s.URL)
	}
	if _, err := New(Config{Account: s.Account, Script: s.Script, Token: "unused", Endpoint: s.Endpoint}); err != nil {
		return bad("endpoint", "%w", err)
	}
	return nil
}

// Open implements targets.Settings.
func (s *Settings) Open(_ context.Context, log *slog.Logger) (deploy.Target, error) {
	token := ""
	if s.getenv != nil {
		token = s.getenv(tokenVariable)
	}
	if token == "" {
		return nil, fmt.Errorf("%w: Cloudflare: %s is not set", deploy.ErrUnauthorized, tokenVariable)
	}
	return New(Config{Account: s.Account, Script: s.Script, Token: token, Endpoint: s.Endpoint, Preview: s.Preview, URL: s.URL, Log: log})
}

// Bundle writes what a Worker needs of an artifact into dir, held against the platform's limits.
func (s *Settings) Bundle(ctx context.Context, dir string, manifest []byte, src jsbundle.Source) error {
	_, err := jsbundle.Build(ctx, dir, manifest, src, jsbundle.Options{Hosts: []string{jsbundle.Workers}, Limits: jsbundle.CloudflareLimits()})
	return err
}
