package server_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/oci/server"
)

// The conformance suite of the distribution specification passes. It is a program of its own: build it from
// github.com/opencontainers/distribution-spec/conformance and name it in WAYBILL_OCI_CONFORMANCE.
func TestConformanceSuite(t *testing.T) {
	suite := os.Getenv("WAYBILL_OCI_CONFORMANCE")
	if suite == "" {
		t.Skip("WAYBILL_OCI_CONFORMANCE does not name the conformance suite")
	}
	c, _ := start(t, t.TempDir(), server.Options{})
	cmd := exec.CommandContext(t.Context(), suite)
	cmd.Env = append(os.Environ(), "OCI_REGISTRY="+strings.TrimPrefix(c.base, "http://"), "OCI_TLS=disabled", "OCI_VERSION=1.1",
		"OCI_RESULTS_DIR="+t.TempDir(), "OCI_API_BLOBS_UPLOAD_CANCEL=true", "OCI_API_BLOBS_DIGEST_HEADER=true", "OCI_API_MANIFESTS_DIGEST_HEADER=true",
		"OCI_DATA_SHA512=false") // no other algorithm than sha256 is accepted anywhere
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "OCI Conformance Result: Pass") {
		t.Fatalf("%v\n%s", err, out)
	}
}
