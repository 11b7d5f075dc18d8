package sign

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/waybill-ml/waybill/internal/diag"
)

// Prompt asks a person for a passphrase on the terminal. It is nil where nobody can be asked.
type Prompt func(label string) ([]byte, error)

// Password finds the passphrase of a key: WAYBILL_PASSWORD, else COSIGN_PASSWORD, else ask. An empty variable counts as
// unset. confirm asks twice, for a new key.
func Password(getenv func(string) string, ask Prompt, label string, confirm bool) ([]byte, error) {
	for _, name := range []string{"WAYBILL_PASSWORD", "COSIGN_PASSWORD"} {
		if p := getenv(name); p != "" {
			return []byte(p), nil
		}
	}
	if ask == nil {
		return nil, diag.New(diag.Usage, "no passphrase for %s: neither WAYBILL_PASSWORD nor COSIGN_PASSWORD is set, and there is no terminal to ask on", label).
			Hint("set WAYBILL_PASSWORD in the environment")
	}
	p, err := ask("passphrase for " + label + ": ")
	if err != nil {
		return nil, fmt.Errorf("read passphrase: %w", err)
	}
	if confirm {
		again, err := ask("the same again: ")
		if err != nil {
			return nil, fmt.Errorf("read passphrase: %w", err)
		}
		if !bytes.Equal(p, again) {
			return nil, diag.Wrap(diag.Usage, errors.New("the two passphrases differ"), "passphrase for %s", label)
		}
	}
	return p, nil
}
