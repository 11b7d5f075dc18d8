package registry

import (
	"context"
	"encoding/base64"
	"errors"
	"io/fs"
	"net/url"
	"strings"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/store"
)

// concealed stands in a message where a server repeated what it was shown.
const concealed = "[secret]"

// conceal takes what this gate showed to the registry out of an error: a server may repeat a password or a token in its
// answer, and errors are logged. Such an error keeps its code, its hints and what
// callers ask for, and loses the rest of its chain.
func (g *gate) conceal(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if clean := g.clean(text); clean != text {
		var known []error // what callers ask for stays in the chain
		for _, k := range []error{fs.ErrNotExist, store.ErrConflict, context.Canceled, context.DeadlineExceeded} {
			if errors.Is(err, k) {
				known = append(known, k)
			}
		}
		e := diag.New(diag.CodeOf(err), "%s", clean)
		if len(known) > 0 {
			e = diag.Wrap(diag.CodeOf(err), errors.Join(known...), "%s", clean)
		}
		var d *diag.Error
		if errors.As(err, &d) {
			for _, h := range d.Hints {
				e.Hint("%s", g.clean(h))
			}
		}
		return e
	}
	return err
}

// clean replaces every secret in s. Of a long one the beginning is enough: texts of servers are cut off.
func (g *gate) clean(s string) string {
	for _, secret := range g.secrets() {
		s = strings.ReplaceAll(s, secret, concealed)
		const head = 12
		if len(secret) <= head {
			continue
		}
		for {
			i := strings.Index(s, secret[:head])
			if i < 0 {
				break
			}
			n := head
			for n < len(secret) && i+n < len(s) && s[i+n] == secret[n] {
				n++
			}
			s = s[:i] + concealed + s[i+n:]
		}
	}
	return s
}

// secrets lists what was shown: passwords, tokens, and the forms in which they are sent.
func (g *gate) secrets() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []string
	add := func(s string) {
		if len(s) < 6 { // too short to be told from other words
			return
		}
		out = append(out, s)
		if q := url.QueryEscape(s); q != s {
			out = append(out, q)
		}
	}
	if a := g.auth; a != nil {
		if a.Username != "" && a.Password != "" {
			add(base64.StdEncoding.EncodeToString([]byte(a.Username + ":" + a.Password)))
		}
		for _, s := range []string{a.Password, a.RegistryToken, a.IdentityToken, a.Auth} {
			add(s)
		}
	}
	for _, t := range g.tokens {
		add(t.value)
	}
	return out
}
