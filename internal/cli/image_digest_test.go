package cli

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/oci/artifact"
)

// A waybill-serve of another digest than the pinned one becomes no image, and the one that does is named in the answer.
func TestImageRuntimeDigest(t *testing.T) {
	x := newTrial(t, "")
	furnishSigned(t, x)
	serve := serveProgram(t)
	b, err := os.ReadFile(serve)
	if err != nil {
		t.Fatal(err)
	}
	line := []string{"image", "breast-cancer:1.0.0", "--runtime", serve, "--dry-run", "--out", "image.tar", "--output", "json", "--runtime-digest"}
	other := "sha256:" + strings.Repeat("0", 64)
	if code, out, errs := x.run(append(line, other)...); code != 3 || !strings.Contains(errs, "pinned is "+other) || out != "" {
		t.Errorf("exit code %d, %s\n%s", code, out, errs)
	}
	code, out, errs := x.run(append(line, other, "--runtime-digest", string(artifact.DigestOf(b)))...)
	var said imageJSON
	if err := json.Unmarshal([]byte(out), &said); err != nil || code != 0 || len(said.Images) != 1 || said.Images[0].RuntimeDigest != artifact.DigestOf(b) {
		t.Errorf("exit code %d, %v, %+v\n%s", code, err, said, errs)
	}
}
