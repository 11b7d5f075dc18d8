package artifact

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"

	"github.com/waybill-ml/waybill/internal/diag"
)

// maxDepth bounds the nesting of a document from outside.
const maxDepth = 64

// strictKeys walks a JSON document and refuses what parsers read differently: an object key given twice (also when
// only the case differs, since encoding/json folds case in structs; annotations are maps, so there case counts), data
// after the document, deep nesting.
func strictKeys(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := strictValue(d, 0, true); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("data after the JSON document")
	}
	return nil
}

func strictValue(d *json.Decoder, depth int, fold bool) error {
	if depth > maxDepth {
		return diag.Errorf("JSON is nested deeper than %d", maxDepth)
	}
	t, err := d.Token()
	if err != nil {
		return diag.Errorf("not valid JSON: %w", err)
	}
	switch t {
	case json.Delim('{'):
		seen := map[string]bool{}
		for d.More() {
			k, err := d.Token()
			if err != nil {
				return diag.Errorf("not valid JSON: %w", err)
			}
			key, _ := k.(string)
			f := key
			if fold {
				f = strings.ToLower(key)
			}
			if seen[f] {
				return diag.Errorf("the member %q stands twice in one object", key)
			}
			seen[f] = true
			if err := strictValue(d, depth+1, f != "annotations"); err != nil {
				return err
			}
		}
	case json.Delim('['):
		for d.More() {
			if err := strictValue(d, depth+1, true); err != nil {
				return err
			}
		}
	default:
		return nil
	}
	if _, err := d.Token(); err != nil { // the closing bracket
		return diag.Errorf("not valid JSON: %w", err)
	}
	return nil
}
