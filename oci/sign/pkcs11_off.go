//go:build !pkcs11key || !cgo

package sign

import (
	"context"

	"github.com/waybill-ml/waybill/internal/diag"
)

// dialToken needs a C interface, which the usual builds leave out: they are static and run everywhere.
func dialToken(_ context.Context, uri string, _ Secrets) (*remote, error) {
	if _, err := parseToken(uri); err != nil {
		return nil, diag.Wrap(diag.Usage, err, "%s", Redact(uri))
	}
	return nil, diag.New(diag.Usage, "this build has no PKCS #11: it was made without cgo and the build tag pkcs11key").
		Hint("CGO_ENABLED=1 go install -tags pkcs11key github.com/waybill-ml/waybill/cmd/waybill@latest")
}
