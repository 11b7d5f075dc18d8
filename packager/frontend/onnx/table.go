package onnx

import (
	"sync"

	"github.com/waybill-ml/waybill/packager/ir"
)

// Newest operator sets whose changes the handlers know.
const (
	knownONNX    = 28
	knownML      = 5
	knownMS      = 1
	knownPreview = 1
)

// entry is the handler of an operator and the range of opsets that it converts.
type entry struct {
	fn    func(*op) []*ir.Value
	since int64
	known int64
}

// handlers is the table of operators, "domain.name" outside the default domain. It is built once and never changed.
var handlers = sync.OnceValue(func() map[string]entry {
	t := map[string]entry{}
	add := func(prefix string, known int64, fam map[string]func(*op) []*ir.Value) {
		for name, fn := range fam {
			key := prefix + name
			if _, dup := t[key]; dup {
				panic("onnx: operator " + key + " is in the table twice")
			}
			t[key] = entry{fn, 1, known}
		}
	}
	add("", knownONNX, elementwise())
	add("", knownONNX, activations())
	add("", knownONNX, shapeOps())
	add("", knownONNX, indexOps())
	add("", knownONNX, nnOps())
	add("", knownONNX, positionOps())
	add("", knownONNX, sequenceOps())
	add("", knownONNX, stringOps())
	add("", knownONNX, rnnOps())
	add("", knownONNX, reduceOps())
	add("", knownONNX, normOps())
	add("", knownONNX, lossOps())
	add("", knownONNX, attentionOps())
	add("", knownONNX, controlOps())
	add("", knownONNX, textOps())
	add("", knownONNX, trigOps())
	add("", knownONNX, bitOps())
	add("", knownONNX, quantOps())
	add("", knownONNX, imageOps())
	add("", knownONNX, rearrangeOps())
	add("", knownONNX, signalOps())
	add("", knownONNX, einsumOps())
	add("ai.onnx.preview.", knownPreview, previewOps())
	add("ai.onnx.preview.training.", knownPreview, trainingOps())
	add("", knownONNX, sampleOps())
	add("", knownONNX, oldOps())
	add("ai.onnx.ml.", knownML, mlPrep())
	add("ai.onnx.ml.", knownML, mlLinear())
	add("ai.onnx.ml.", knownML, mlTrees())
	add("ai.onnx.ml.", knownML, mlSVM())
	add("com.microsoft.", knownMS, msOps())
	add("com.microsoft.", knownMS, msQuantOps())
	add("com.microsoft.", knownMS, msQuantMoreOps())
	add("com.microsoft.", knownMS, msAttentionOps())
	add("com.microsoft.", knownMS, msFusedOps())
	return t
})

// Supported lists the operators that the frontend converts, "domain.name" outside ONNX's own domain.
func Supported() map[string]bool {
	out := map[string]bool{}
	for name := range handlers() {
		out[name] = true
	}
	return out
}
