package build_test

import (
	"testing"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/packager/build"
	"github.com/waybill-ml/waybill/packager/lineage"
)

// A model that takes other inputs than callers were promised is refused by the signature alone: what compiles and packs it otherwise
// takes it without a word.
func TestSignatureIsWhatRefuses(t *testing.T) {
	in, m, _ := load(t, "../../examples/breast-cancer/v1")
	if m == nil {
		t.Fatal("the model does not compile")
	}
	if _, err := build.Import(in.Source); err != nil {
		t.Fatalf("without the check: %v", err)
	}
	promised := func(shape int64, dtype string) *lineage.Signature {
		return &lineage.Signature{Tensors: []lineage.TensorSpec{{Name: "X", DType: dtype, Shape: []int64{-1, shape}}}}
	}
	if err := in.CheckSignature(promised(30, "float32")); err != nil {
		t.Errorf("what it takes: %v", err)
	}
	for _, s := range []*lineage.Signature{promised(29, "float32"), promised(30, "float64"), {Tensors: []lineage.TensorSpec{{Name: "other", DType: "float32", Shape: []int64{-1, 30}}}}} {
		if err := in.CheckSignature(s); diag.CodeOf(err) != diag.Verification || err == nil {
			t.Errorf("%+v: %v", s.Tensors, err)
		}
	}
}
