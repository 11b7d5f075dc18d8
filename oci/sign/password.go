package sign

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"

	"github.com/waybill-ml/waybill/internal/diag"
)

// Prompt asks a person for a passphrase. It is nil where nobody can be asked.
type Prompt func(label string) ([]byte, error)

// Terminal gives a Prompt that reads from the terminal without echo and talks to w, or nil when in is no terminal.
func Terminal(in *os.File, w io.Writer) Prompt {
	if in == nil || !term.IsTerminal(int(in.Fd())) {
		return nil
	}
	return func(label string) ([]byte, error) {
		fmt.Fprintf(w, "%s: ", label)
		p, err := term.ReadPassword(int(in.Fd()))
		fmt.Fprintln(w)
		return p, err
	}
}

// Password finds the passphrase of a key: WAYBILL_PASSWORD, else COSIGN_PASSWORD, else ask. A variable that is set but
// empty is an empty passphrase, as for cosign. confirm asks twice, for a new key.
func Password(lookup func(string) (string, bool), ask Prompt, label string, confirm bool) ([]byte, error) {
	for _, name := range []string{"WAYBILL_PASSWORD", "COSIGN_PASSWORD"} {
		if p, ok := lookup(name); ok {
			return []byte(p), nil
		}
	}
	if ask == nil {
		return nil, diag.New(diag.Usage, "no passphrase for %s: neither WAYBILL_PASSWORD nor COSIGN_PASSWORD is set, and there is no terminal to ask on", label).
			Hint("set WAYBILL_PASSWORD in the environment")
	}
	p, err := ask("passphrase for " + label)
	if err != nil {
		return nil, fmt.Errorf("read passphrase: %w", err)
	}
	if confirm {
		again, err := ask("the same again")
		if err != nil {
			return nil, fmt.Errorf("read passphrase: %w", err)
		}
		if !bytes.Equal(p, again) {
			return nil, diag.Wrap(diag.Usage, errors.New("the two passphrases differ"), "passphrase for %s", label)
		}
	}
	return p, nil
}
