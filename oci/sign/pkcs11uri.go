package sign

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
)

// tokenURI is a PKCS #11 URI (RFC 7512), as far as it is read here. cosign reads the same attributes.
type tokenURI struct {
	token, serial string
	slot          *uint
	object        string
	id            []byte
	module        string // absolute path of the vendor's library
	pin           string
	pinSource     string // path of a file with the PIN
}

// parseToken reads a URI strictly: an attribute that is not known, or stands there twice, could have narrowed the choice
// of the key.
func parseToken(uri string) (*tokenURI, error) {
	u := &tokenURI{}
	seen := map[string]bool{}
	for _, a := range attributes(uri) {
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
			u.pin = value
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
	case u.pin != "" && u.pinSource != "":
		return nil, errors.New("both pin-value and pin-source")
	case u.module != "" && !filepath.IsAbs(u.module):
		return nil, fmt.Errorf("module-path %q is not absolute", u.module)
	}
	return u, nil
}
