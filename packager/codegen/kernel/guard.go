package kernel

import (
	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/asm"
)

// Allowed ends the run with ErrUnsupported (A = attribute 0) unless all of input 0 is true; its output is true.
func Allowed() *Kernel {
	return &Kernel{Name: "allowed", NOut: 1, Run: func(k *K) {
		x := k.In(0)
		i, n := k.Local(asm.I32), k.Let(k.Numel(x).Wrap())
		k.Up(i, n.E, func() {
			k.Check(asm.M8U.At(Data(x).Add(i.E), 0), abi.ErrUnsupported, k.Attr(0), i.ExtU())
		})
		k.scalar(k.Out(0), dtOf(abi.Bool), asm.C(1))
	}}
}
