package lineage

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"
)

// MaxDocument bounds a YAML or JSON document that describes a model.
const MaxDocument = 4 << 20

// YAML reads the one document in b into v. Keys that v does not have are passed over: they belong to the system that wrote it.
// The library bounds nesting and what aliases may unfold to.
func YAML(b []byte, v any) error {
	if len(b) > MaxDocument {
		return fmt.Errorf("%d bytes are more than %d", len(b), MaxDocument)
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(v); errors.Is(err, io.EOF) {
		return errors.New("it is empty")
	} else if err != nil {
		return err
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return errors.New("it has more than one document")
	}
	return nil
}

// ReadAll reads a document of at most MaxDocument bytes.
func ReadAll(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxDocument+1))
	if err != nil {
		return nil, err
	}
	if len(b) > MaxDocument {
		return nil, fmt.Errorf("%w: %d", ErrTooLarge, MaxDocument)
	}
	return b, nil
}
