package build

import (
	"encoding/json"
	"fmt"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// ParseInterface reads the interface document of an artifact. Unknown members are allowed: newer compilers add some.
func ParseInterface(b []byte) (*artifact.Interface, error) {
	var f artifact.Interface
	if len(b) > artifact.MaxInterface {
		return nil, fmt.Errorf("interface document of %d bytes is larger than %d", len(b), artifact.MaxInterface)
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("interface document: %w", err)
	}
	if f.Schema != artifact.InterfaceSchema {
		return nil, fmt.Errorf("interface document has schema %q, want %q", f.Schema, artifact.InterfaceSchema)
	}
	if f.ABI != abi.Version {
		return nil, fmt.Errorf("the module speaks ABI %d, this program ABI %d", f.ABI, abi.Version)
	}
	return &f, nil
}

// ParseGolden reads the golden document of an artifact.
func ParseGolden(b []byte) (*artifact.Golden, error) {
	var g artifact.Golden
	if len(b) > artifact.MaxGolden {
		return nil, fmt.Errorf("golden document of %d bytes is larger than %d", len(b), artifact.MaxGolden)
	}
	if err := json.Unmarshal(b, &g); err != nil {
		return nil, fmt.Errorf("golden document: %w", err)
	}
	if g.Schema != artifact.GoldenSchema {
		return nil, fmt.Errorf("golden document has schema %q, want %q", g.Schema, artifact.GoldenSchema)
	}
	return &g, nil
}
