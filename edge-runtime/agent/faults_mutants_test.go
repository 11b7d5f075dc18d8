package agent

import (
	"github.com/waybill-ml/waybill/edge-runtime/journal"
	"github.com/waybill-ml/waybill/internal/fsx"
)

// mutant is a defect put into the product through a seam; the zero value is the product.
type mutant struct {
	lazy   bool                // syncs do nothing
	fs     func(fsx.FS) fsx.FS // between the agent and the disk
	agent  func(*Agent)        // hooks
	signer journal.Signer
}
