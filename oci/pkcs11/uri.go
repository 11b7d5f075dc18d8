// Package pkcs11 uses one key on a PKCS #11 token: who signs for people (oci/sign) and who signs as a device
// (oci/devicekey) both come here. It needs cgo and the build tag pkcs11key; other builds read URIs and say so.
package pkcs11

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// URI is a PKCS #11 URI (RFC 7512), as far as it is read here. cosign reads the same attributes.
type URI struct {
	token, serial string
	slot          *uint
	object        string
	id            []byte
	module        string // absolute path of the vendor's library
	PIN           string // in the URI itself; whoever stores a URI refuses it
	pinSource     string // path of a file with the PIN
}

// Parse reads a URI strictly: an attribute that is not known, or stands there twice, could have narrowed the choice
// of the key.
func Parse(uri string) (*URI, error) {
	u := &URI{}
	seen := map[string]bool{}
	for _, a := range Attributes(uri) {
		name, raw, ok := strings.Cut(a, "=")
		value, err := url.PathUnescape(raw)
		if !ok || err != nil {
			return nil, fmt.Errorf("attribute %q is not NAME=VALUE", name)
		}
		if seen[name] {
			return nil, fmt.Errorf("attribute %s stands there twice", name)
		}
		seen[name] = true
		switch name {
		case "token":
			u.token = value
		case "serial":
			u.serial = value
		case "slot-id":
			n, err := strconv.ParseUint(value, 10, 32)
			if err != nil {
				return nil, fmt.Errorf("slot-id %q is not a number", value)
			}
			s := uint(n)
			u.slot = &s
		case "object":
			u.object = value
		case "id":
			u.id = []byte(value)
		case "module-path":
			u.module = value
		case "pin-value":
			u.PIN = value
		case "pin-source":
			u.pinSource = strings.TrimPrefix(value, "file:")
			u.pinSource = strings.TrimPrefix(u.pinSource, "//")
		case "type":
			if value != "private" {
				return nil, fmt.Errorf("type %q: a key that signs is private", value)
			}
		default:
			return nil, fmt.Errorf("attribute %q is not known", name)
		}
	}
	switch {
	case u.token == "" && u.serial == "" && u.slot == nil:
		return nil, errors.New("it names no token: token=LABEL, serial=NUMBER or slot-id=NUMBER")
	case u.object == "" && len(u.id) == 0:
		return nil, errors.New("it names no key: object=LABEL or id=%01")
	case u.PIN != "" && u.pinSource != "":
		return nil, errors.New("both pin-value and pin-source")
	case u.module != "" && !filepath.IsAbs(u.module):
		return nil, fmt.Errorf("module-path %q is not absolute", u.module)
	}
	return u, nil
}

// ErrOff is in the chain of the error of a build that has no PKCS #11.
var ErrOff = errors.New("it was made without cgo and the build tag pkcs11key")

// Scheme begins every URI of a token.
const Scheme = "pkcs11:"

// HasPIN tells whether a PIN stands in the URI itself.
func HasPIN(uri string) bool {
	return strings.HasPrefix(uri, Scheme) && slices.ContainsFunc(Attributes(uri), func(a string) bool { return strings.HasPrefix(a, "pin-value=") })
}

// Attributes splits a URI (RFC 7512) into its name=value parts.
func Attributes(uri string) []string {
	return strings.FieldsFunc(strings.TrimPrefix(uri, Scheme), func(r rune) bool { return r == ';' || r == '?' || r == '&' })
}

// Redact writes a URI without the PIN that may stand in it, for messages.
func Redact(uri string) string {
	if HasPIN(uri) {
		for _, a := range Attributes(uri) {
			if strings.HasPrefix(a, "pin-value=") {
				uri = strings.Replace(uri, a, "pin-value=...", 1)
			}
		}
	}
	return uri
}

// Secrets are where the PIN comes from when the URI names no file for it.
type Secrets struct {
	Getenv func(string) string
	Ask    func(prompt string) ([]byte, error) // nil: nobody can be asked
}
