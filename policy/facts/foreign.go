package facts

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/waybill-ml/waybill/internal/strictjson"
)

// foreign reads a document of other people's standards into v, whose fields all have omitempty: keys that are not known are
// ignored, a null is an absent member, and a key that differs from a known one in case only is an error.
func foreign(raw []byte, v any) error {
	if err := strictjson.Check(raw); err != nil { // one value, no key twice, depth
		return err
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var tree any
	if err := d.Decode(&tree); err != nil {
		return err
	}
	b, err := json.Marshal(prune(tree))
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	return strictjson.DecodeOpen(b, v)
}

// prune takes null members out of objects, in place.
func prune(v any) any {
	switch x := v.(type) {
	case map[string]any:
		for k, e := range x {
			if e == nil {
				delete(x, k)
			} else {
				x[k] = prune(e)
			}
		}
	case []any:
		for i, e := range x {
			x[i] = prune(e)
		}
	}
	return v
}
