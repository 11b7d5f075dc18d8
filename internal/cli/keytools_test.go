package cli_test

import (
	"os"
	"os/exec"
	"testing"
)

// Scripts skip without a tool; where all tools are demanded, a missing one is a failure.
func TestKeyScriptsHaveTheirTools(t *testing.T) {
	if os.Getenv("WAYBILL_REQUIRE_TOOLS") == "" {
		t.Skip("WAYBILL_REQUIRE_TOOLS is not set")
	}
	for _, tool := range []string{"cosign", "cosign-v3", "model_signing", "openssl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Errorf("%s is not installed", tool)
		}
	}
}
