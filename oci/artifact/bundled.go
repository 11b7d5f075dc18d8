package artifact

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/waybill-ml/waybill/internal/diag"
)

// BundledSchema is the value of Bundled.Schema.
const BundledSchema = "https://github.com/waybill-ml/waybill/schema/bundled/v1"

// Bundled is the interface document of an artifact whose files were bundled as they are (compile: false). There is no module,
// so nothing here says how to run it, and no golden vector proves it; it says what the files are. A host that runs modules
// knows it by its schema and refuses it.
type Bundled struct {
	Schema       string        `json:"schema"`
	Name         string        `json:"name"`
	Version      string        `json:"version"`
	Format       string        `json:"format"` // of the weights: gguf, safetensors, tensorrt, onnx ...; "mixed", or "unknown"
	Architecture string        `json:"architecture,omitempty"`
	Parameters   int64         `json:"parameters,omitempty"` // of the model, where the headers tell
	Precision    []string      `json:"precision"`            // ModelPack's names, sorted
	Quantization string        `json:"quantization,omitempty"`
	Files        []BundledFile `json:"files"` // all source layers, in the order of their paths
}

// BundledFile is one file of weights.
type BundledFile struct {
	FileRef
	Format     string `json:"format"`
	Tensors    int    `json:"tensors,omitempty"`
	Parameters int64  `json:"parameters,omitempty"`
	// Pickle says why the file can run code when it is loaded; the project's allow list names it.
	Pickle string `json:"pickle,omitempty"`
}

// Compiled tells whether the artifact has a module to run. One without was bundled as it is, and its interface document is a
// Bundled.
func (m *Model) Compiled() bool { return len(m.ByRole(RoleModule)) > 0 }

// ParseBundled reads the interface document of an artifact that was bundled as it is, and holds it against the layers: it
// names each source layer, and no other.
func ParseBundled(b []byte, m *Model) (*Bundled, error) {
	if len(b) > MaxInterface {
		return nil, diag.Errorf("interface document of %d bytes is larger than %d", len(b), MaxInterface)
	}
	if err := strictKeys(b); err != nil {
		return nil, diag.Errorf("interface document: %w", err)
	}
	var x Bundled
	if err := json.NewDecoder(bytes.NewReader(b)).Decode(&x); err != nil { // unknown members are allowed: newer versions add some
		return nil, diag.Errorf("interface document: %w", err)
	}
	if x.Schema != BundledSchema {
		return nil, diag.Errorf("interface document has schema %q, want %q", x.Schema, BundledSchema)
	}
	src := m.ByRole(RoleSource)
	if len(src) != len(x.Files) {
		return nil, diag.Errorf("interface document names %d files of weights, the artifact has %d", len(x.Files), len(src))
	}
	for i, l := range src {
		if f := x.Files[i]; f.Path != l.Path || f.Digest != l.Digest || f.Size != l.Size {
			return nil, diag.Errorf("interface document names %s, which is no source layer of the artifact", f.Path)
		}
	}
	return &x, nil
}

// checkBundled applies what the role table cannot say: without a module there is nothing that the files of a compiled model
// could belong to.
func checkBundled(ls []Layer) error {
	has := func(r Role) bool { return slices.ContainsFunc(ls, func(l Layer) bool { return l.Role == r }) }
	if has(RoleModule) {
		return nil
	}
	for _, r := range []Role{RoleWeights, RoleStep, RoleGolden, RoleBaseline} {
		if has(r) {
			return diag.Errorf("a layer of role %s without one of role %s", r, RoleModule)
		}
	}
	if !has(RoleSource) {
		return diag.Errorf("no layer of role %s, and none of role %s", RoleModule, RoleSource)
	}
	return nil
}
