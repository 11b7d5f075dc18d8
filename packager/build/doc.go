// Package build turns a project into a bundle, in steps that a caller runs one after the other:
//
//	Compile   model bytes -> ir -> passes -> module, weights, interface document, with the project's steps around it
//	Record    golden inputs -> the outputs of the compiled module (bit-exact, what devices check), compared with the
//	          reference interpreter and with the outputs of the framework that trained the model
//	Pack      all of it -> layers and a ModelPack manifest in a store
//
// Every file is read once. Equal inputs give equal bytes, in any folder and on any machine: no time, no path outside the
// project and no random number gets in. What runs modules is handed in as a Runner.
package build

import (
	"context"

	"github.com/waybill-ml/waybill/oci/artifact"
)

// Module is what a Runner needs to run a compiled model: its interface document and the files that it names.
type Module struct {
	Interface *artifact.Interface
	Code      []byte
	Weights   []byte // nil when the constants are in the module
	Steps     []StepFile
}

// Runner runs compiled modules. Each call holds one tensor for each input of the interface document, by name; each
// result one for each output, in the document's order.
type Runner interface {
	Run(ctx context.Context, m Module, calls [][]artifact.GoldenTensor) ([][]artifact.GoldenTensor, error)
}
