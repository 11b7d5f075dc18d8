package edgetest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"

	"github.com/waybill-ml/waybill/examples"
)

// compiled caches compiled examples for the whole test run: compiling is not what is tested here.
var compiled sync.Map

// exampleModel is an example by its folder, or weighted-HIDDEN-SEED: a network whose constants lie in a weights layer.
func exampleModel(name string) ([]byte, error) {
	var hidden, seed int
	if _, err := fmt.Sscanf(name, "weighted-%d-%d", &hidden, &seed); err == nil {
		return weightedONNX(hidden, uint64(seed)), nil
	}
	return examples.BreastCancer.ReadFile("breast-cancer/" + name + "/model.onnx")
}

// Protocol buffers, as far as an ONNX file of two products needs them.
func pbInt(field int, v uint64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(nil, uint64(field)<<3), v)
}

func pbBytes(field int, parts ...[]byte) []byte {
	b := bytes.Join(parts, nil)
	out := binary.AppendUvarint(nil, uint64(field)<<3|2)
	return append(binary.AppendUvarint(out, uint64(len(b))), b...)
}

func pbText(field int, s string) []byte { return pbBytes(field, []byte(s)) }

// DeadWeight stands in row 0 of the second matrix, which is always multiplied by 0: the first column of the first matrix is
// negative, the inputs are not, and Relu is between them.
const DeadWeight = 12345.678

// weightedONNX is y = Relu(x A) B with x of [N, 30], A of [30, hidden] and B of [hidden, 2].
func weightedONNX(hidden int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	matrix := func(name string, rows, cols int, at func(i, j int) float32) []byte {
		raw := make([]byte, 0, 4*rows*cols)
		for i := range rows {
			for j := range cols {
				raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(at(i, j)))
			}
		}
		return pbBytes(5, pbInt(1, uint64(rows)), pbInt(1, uint64(cols)), pbInt(2, 1), pbText(8, name), pbBytes(9, raw))
	}
	node := func(op, out string, ins ...string) []byte {
		var b []byte
		for _, in := range ins {
			b = append(b, pbText(1, in)...)
		}
		return pbBytes(1, b, pbText(2, out), pbText(3, out), pbText(4, op))
	}
	port := func(field int, name string, cols uint64) []byte {
		shape := pbBytes(2, pbBytes(1, pbText(2, "N")), pbBytes(1, pbInt(1, cols)))
		return pbBytes(field, pbText(1, name), pbBytes(2, pbBytes(1, pbInt(1, 1), shape)))
	}
	graph := pbBytes(7,
		node("MatMul", "p", "x", "A"), node("Relu", "h", "p"), node("MatMul", "y", "h", "B"), pbText(2, "weighted"),
		matrix("A", 30, hidden, func(_, j int) float32 {
			if j == 0 {
				return -1 - r.Float32()
			}
			return r.Float32() - 0.4
		}),
		matrix("B", hidden, 2, func(i, _ int) float32 {
			if i == 0 {
				return DeadWeight
			}
			return r.Float32() - 0.5
		}),
		port(11, "x", 30), port(12, "y", 2))
	return bytes.Join([][]byte{pbInt(1, 8), graph, pbBytes(8, pbInt(2, 17))}, nil)
}
