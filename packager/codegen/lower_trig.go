package codegen

import "github.com/waybill-ml/waybill/packager/codegen/kernel"

func trigLowering() map[string]lowerer {
	t := map[string]lowerer{}
	for _, op := range kernel.TrigOps() {
		t[op.Name] = simple(func(d kernel.DT) *kernel.Kernel { return kernel.Unary(op, d) })
	}
	return t
}
