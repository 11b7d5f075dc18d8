package pkcs11

import (
	"strings"
	"testing"
)

func FuzzTokenURI(f *testing.F) {
	for _, s := range []string{"pkcs11:token=a;object=b", "pkcs11:token=a;id=%01%02?module-path=/x.so&pin-source=file:/p", "pkcs11:slot-id=1;object=b;object=c", "pkcs11:%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		u, err := Parse(uri)
		if err != nil {
			return
		}
		if u.token == "" && u.serial == "" && u.slot == nil || u.object == "" && len(u.id) == 0 {
			t.Errorf("%q names no key: %+v", uri, u)
		}
		if u.PIN != "" && strings.HasPrefix(uri, Scheme) && !HasPIN(uri) {
			t.Errorf("%q: its PIN is not seen", uri)
		}
	})
}
