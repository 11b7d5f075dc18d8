package config

import (
	"io"
	"os"
	"strings"

	"github.com/waybill-ml/waybill/internal/diag"
)

// maxSecret bounds a password or token; tokens of clouds have a few thousand bytes.
const maxSecret = 64 << 10

// ReadSecret reads a file that holds nothing but a secret; "-" is stdin. Line ends after it do not belong to it.
func ReadSecret(path string) (string, error) {
	var raw []byte
	var err error
	if path == "-" {
		raw, err = io.ReadAll(io.LimitReader(os.Stdin, maxSecret+1))
		if err == nil && len(raw) > maxSecret {
			err = diag.New(diag.Usage, "more than %d bytes", maxSecret)
		}
		if err != nil {
			return "", diag.Wrap(diag.Usage, err, "read a secret from stdin")
		}
	} else if raw, err = ReadFile(path, maxSecret); err != nil {
		return "", err
	}
	s := strings.TrimRight(string(raw), "\r\n")
	if s == "" {
		return "", diag.New(diag.Usage, "%s holds no secret", path)
	}
	return s, nil
}
