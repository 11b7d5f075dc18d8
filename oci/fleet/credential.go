package fleet

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/strictjson"
)

// SchemaCredentials is the value of Credentials.Schema.
const SchemaCredentials = "waybill.dev/edge-credential/v1"

// MaxCredentials bounds a file of credentials in bytes.
const MaxCredentials = 256 << 10

// Secret is a text that is written to the file that it is kept in and nowhere else: formatted or logged it says so.
type Secret string

// String implements fmt.Stringer.
func (Secret) String() string { return "[secret]" }

// GoString implements fmt.GoStringer.
func (Secret) GoString() string { return "[secret]" }

// LogValue implements slog.LogValuer.
func (Secret) LogValue() slog.Value { return slog.StringValue("[secret]") }

// Credential is what a device shows to one registry.
type Credential struct {
	Registry string `json:"registry"` // host, with port; no other host gets it
	Username string `json:"username,omitempty"`
	Password Secret `json:"password,omitempty"`
	Token    Secret `json:"token,omitempty"` // sent as it is, in place of both
}

// Credentials is the file that a device keeps them in, with mode 0600.
type Credentials struct {
	Schema      string       `json:"schema"`
	Credentials []Credential `json:"credentials"`
}

// ParseCredentials reads such a file. No error holds a secret.
func ParseCredentials(raw []byte) (*Credentials, error) {
	var c Credentials
	if len(raw) > MaxCredentials {
		return nil, diag.Errorf("%d bytes, the limit is %d", len(raw), MaxCredentials)
	}
	if err := strictjson.Decode(raw, &c); err != nil {
		return nil, err
	}
	if c.Schema != SchemaCredentials {
		return nil, diag.Errorf("schema is %q, this version reads %q", c.Schema, SchemaCredentials)
	}
	return &c, CheckCredentials(c.Credentials)
}

// CheckCredentials tells whether each is for one registry and says enough.
func CheckCredentials(cs []Credential) error {
	seen := map[string]bool{}
	for i, c := range cs {
		at := fmt.Sprintf("credentials[%d]", i)
		host := strings.ToLower(c.Registry)
		switch {
		case c.Registry == "":
			return diag.Errorf("%s.registry is missing", at)
		case strings.ContainsAny(c.Registry, "/ @\t\r\n"):
			return diag.Errorf("%s.registry is not a host", at) // it may hold a password
		case seen[host]:
			return diag.Errorf("%s: registry %s is given twice", at, c.Registry)
		case c.Token != "" && (c.Username != "" || c.Password != ""):
			return diag.Errorf("%s: a token, and a user name or password", at)
		case c.Token == "" && (c.Username == "" || c.Password == ""):
			return diag.Errorf("%s: it needs username and password, or a token", at)
		}
		if strings.ContainsAny(string(c.Token)+c.Username+string(c.Password), "\r\n\x00") {
			return errors.New(at + ": a line break in it")
		}
		seen[host] = true
	}
	return nil
}

// For finds the credential for a registry.
func (c *Credentials) For(host string) (Credential, bool) {
	for _, x := range c.Credentials {
		if strings.EqualFold(x.Registry, host) {
			return x, true
		}
	}
	return Credential{}, false
}

// Merge puts those of more in place of the ones for the same registry.
func (c *Credentials) Merge(more []Credential) {
	for _, m := range more {
		found := false
		for i := range c.Credentials {
			if strings.EqualFold(c.Credentials[i].Registry, m.Registry) {
				c.Credentials[i], found = m, true
			}
		}
		if !found {
			c.Credentials = append(c.Credentials, m)
		}
	}
}
