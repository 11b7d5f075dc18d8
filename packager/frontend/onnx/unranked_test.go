package onnx

import (
	"fmt"
	"sort"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/packager/ir"
)

// TestUnrankedInputs gives every operator up to twelve inputs, all of unknown rank, and then all of rank 0: it is read or refused.
func TestUnrankedInputs(t *testing.T) {
	var names []string
	for op := range Supported() {
		names = append(names, op)
	}
	sort.Strings(names)
	read := 0
	for _, op := range names {
		for _, elem := range []ir.DType{ir.F32, ir.I64, ir.U8} {
			for k := range 8 {
				ranked, at := k%2 == 1, [][]byte{nil, attrI("axis", 0), attrI("hidden_size", 2), attrIs("kernel_shape", 2, 2)}[k/2]
				for n := range 13 {
					var ins [][]byte
					spec := op
					for i := range n {
						name := fmt.Sprintf("x%d", i)
						tensor := pbInt(1, int64(elem))
						if ranked {
							tensor = cat(tensor, pbBytes(2, nil))
						}
						ins = append(ins, cat(pbStr(1, name), pbBytes(2, pbBytes(1, tensor))))
						spec += " " + name
					}
					g := graphParts{nodes: [][]byte{node(spec+" -> y", at)}, ins: ins,
						outs: [][]byte{pbStr(1, "y")}}
					func() {
						defer func() {
							if r := recover(); r != nil {
								t.Errorf("%s with %d inputs of %s (form %d): %v", op, n, elem, k, r)
							}
						}()
						if _, err := Parse(cat(model(23, g), pbBytes(8, cat(pbStr(1, "ai.onnx.preview.training"), pbInt(2, 1)))), ""); err == nil {
							read++
						} else if err.Error() == "" || strings.Contains(err.Error(), "%!") {
							t.Errorf("%s: the error reads %q", op, err)
						}
					}()
				}
			}
		}
	}
	if read < 200 {
		t.Errorf("only %d models were read", read)
	}
}
