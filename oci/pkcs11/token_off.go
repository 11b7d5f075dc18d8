//go:build !pkcs11key || !cgo

package pkcs11

import (
	"context"
	"crypto"

	"github.com/waybill-ml/waybill/internal/diag"
)

// Token is a key on a token, which this build cannot reach.
type Token struct{}

// Open needs a C interface, which the usual builds leave out: they are static and run everywhere.
func Open(_ context.Context, uri string, _ Secrets) (*Token, error) {
	if _, err := Parse(uri); err != nil {
		return nil, diag.Wrap(diag.Usage, err, "%s", Redact(uri))
	}
	return nil, errOff().Hint("CGO_ENABLED=1 go install -tags pkcs11key github.com/waybill-ml/waybill/cmd/waybill@latest")
}

func errOff() *diag.Error {
	return diag.Wrap(diag.Usage, ErrOff, "this build has no PKCS #11")
}

// Public implements the same method of builds that have tokens.
func (*Token) Public() crypto.PublicKey { return nil }

// Sign implements the same method of builds that have tokens.
func (*Token) Sign([]byte) ([]byte, error) { return nil, ErrOff }
