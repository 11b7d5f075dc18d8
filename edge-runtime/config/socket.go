package config

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"

	"github.com/waybill-ml/waybill/internal/diag"
)

// maxSocketPath is what the shortest of the platforms allows for the path of a unix socket, with its final NUL.
const maxSocketPath = 103

// controlPath is where the agent listens for its own commands: in the state directory, or, when that path is too long for a
// socket, in a directory for it alone below the system's folder for temporary files.
func controlPath(stateDir string) (string, error) {
	p := filepath.Join(stateDir, "control.sock")
	if len(p) <= maxSocketPath {
		return p, nil
	}
	h := sha256.Sum256([]byte(stateDir))
	p = filepath.Join(os.TempDir(), "waybill-"+hex.EncodeToString(h[:8]), "s")
	if len(p) > maxSocketPath {
		return "", diag.New(diag.Usage, "the path of the control socket is longer than %d bytes: %s", maxSocketPath, p).Hint("set \"control\" in the configuration to a shorter path")
	}
	return p, nil
}
