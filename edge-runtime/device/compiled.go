package device

import (
	"github.com/waybill-ml/waybill/edge-runtime/agent"
	"github.com/waybill-ml/waybill/oci/artifact"
)

var _ agent.Sizer = runtime{}

// CompiledSize implements agent.Sizer.
func (r runtime) CompiledSize(layers []artifact.Layer) (dir string, bytes uint64) {
	var modules []int64
	for _, l := range layers {
		if l.Role == artifact.RoleModule || l.Role == artifact.RoleStep {
			modules = append(modules, l.Size)
		}
	}
	return r.engine.CompiledSize(modules...)
}
