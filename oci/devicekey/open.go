package devicekey

import (
	"context"
	"errors"
	"strings"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/pkcs11"
)

// TPMScheme begins the name of a key in a TPM 2.0.
const TPMScheme = "tpm:"

// IsURI tells a key on a token or in a TPM from the path of a file.
func IsURI(s string) bool {
	return strings.HasPrefix(s, pkcs11.Scheme) || strings.HasPrefix(s, TPMScheme)
}

// ErrTPM says that no build of this version speaks to a TPM itself.
var ErrTPM = errors.New("this version has no driver for TPMs of its own")

// Open opens the key that a URI names; the key was made with the tools of the token. getenv gives the PIN
// (WAYBILL_PKCS11_PIN) when the URI names no file for it. Builds without the token's interface say how to get one with.
func Open(ctx context.Context, uri string, getenv func(string) string) (*Key, error) {
	switch {
	case strings.HasPrefix(uri, TPMScheme):
		return nil, diag.Wrap(diag.Usage, ErrTPM, "device key %s", uri).
			Line("a TPM is used through its PKCS #11 library (tpm2-pkcs11), by a build with the tag pkcs11key").
			Hint("waybill-edge enroll --out DIR --class CLASS --key 'pkcs11:token=waybill;object=device?module-path=/usr/lib/libtpm2_pkcs11.so&pin-source=file:/etc/waybill/pin'")
	case !strings.HasPrefix(uri, pkcs11.Scheme):
		return nil, diag.New(diag.Usage, "device key %q is not a URI", uri)
	case pkcs11.HasPIN(uri):
		return nil, diag.New(diag.Usage, "device key %s: the PIN stands in the URI, and so in the configuration", pkcs11.Redact(uri)).
			Hint("use pin-source=file:/PATH in place of pin-value=, or the environment variable WAYBILL_PKCS11_PIN")
	}
	t, err := pkcs11.Open(ctx, uri, pkcs11.Secrets{Getenv: getenv})
	if errors.Is(err, pkcs11.ErrOff) {
		return nil, diag.Wrap(diag.Usage, pkcs11.ErrOff, "device key %s: this build has no PKCS #11", uri).
			Hint("CGO_ENABLED=1 go install -tags pkcs11key github.com/waybill-ml/waybill/cmd/waybill-edge@latest")
	}
	if err != nil {
		return nil, diag.Wrap(diag.CodeOf(err), err, "device key %s", uri)
	}
	return New(t)
}
