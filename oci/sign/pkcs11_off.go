//go:build !pkcs11key || !cgo

package sign

import (
	"context"

	"github.com/waybill-ml/waybill/internal/diag"
)

// dialToken needs a C interface, which the usual builds leave out: they are static and run everywhere.
func dialToken(context.Context, string, Secrets) (*remote, error) {
	return nil, diag.New(diag.Usage, "this build has no PKCS #11: it was made without cgo and the build tag pkcs11key").
		Hint("CGO_ENABLED=1 go install -tags pkcs11key github.com/waybill-ml/waybill/cmd/waybill@latest")
}
