//go:build !pkcs11key || !cgo

package devicekey_test

import (
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/devicekey"
)

// The usual build says what is missing, and how to get it.
func TestBuildWithoutTokens(t *testing.T) {
	_, err := devicekey.Open(t.Context(), "pkcs11:token=waybill;object=device", func(string) string { return "" })
	if diag.CodeOf(err) != diag.Usage || !strings.Contains(diag.Render(err), "-tags pkcs11key") || !strings.Contains(diag.Render(err), "waybill-edge") {
		t.Errorf("%s", diag.Render(err))
	}
}
