package device

import (
	"encoding/json"
	"slices"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/waybill-ml/waybill/edge-runtime/deviceinput"
)

// node is what matters of the input's JSON Schema here: which members there are, and which are always there.
type node struct {
	Properties           map[string]node `json:"properties"`
	Required             []string        `json:"required"`
	AdditionalProperties any             `json:"additionalProperties"`
}

// inputSchema is the schema as nodes.
var inputSchema = sync.OnceValue(func() node {
	var n node
	if err := json.Unmarshal(deviceinput.SchemaJSON(), &n); err != nil {
		panic("device input schema: " + err.Error()) // embedded, and read by a test
	}
	return n
})

// free tells whether an object's members have names that nobody fixed: the labels.
func (n node) free() bool { _, ok := n.AdditionalProperties.(map[string]any); return ok }

// uncertain tells whether something below n may be absent.
func (n node) uncertain() taint {
	if n.free() {
		return labelled
	}
	total := clean
	for k, m := range n.Properties {
		t := m.uncertain()
		if !slices.Contains(n.Required, k) || t != clean {
			total = whole
		}
	}
	return total
}

// inputTaint is the taint of input followed by path.
func inputTaint(path []*ast.Term) taint {
	at := inputSchema()
	for _, t := range path {
		if at.free() {
			return reading // one label
		}
		k, ok := t.Value.(ast.String)
		if !ok {
			if at.uncertain() != clean {
				return reading // a member that a variable names
			}
			return clean
		}
		if !slices.Contains(at.Required, string(k)) {
			return reading
		}
		at = at.Properties[string(k)]
	}
	return at.uncertain()
}
