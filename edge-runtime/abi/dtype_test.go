package abi

import "testing"

func TestDTypeTable(t *testing.T) {
	all := DTypes()
	if len(all) != 24 {
		t.Fatalf("%d element types, not 24", len(all))
	}
	oip := map[string]bool{}
	for _, i := range all {
		back, ok := ParseDType(i.Name)
		if !ok || back != i.DType || i.DType.String() != i.Name || i.DType.Bits() != i.Bits {
			t.Errorf("%+v does not go round: %v %v", i, back, ok)
		}
		if (i.Bits == 0) != (i.DType == String) {
			t.Errorf("%s has %d bits", i.Name, i.Bits)
		}
		if i.OIP != "" && oip[i.OIP] {
			t.Errorf("%s stands for two types", i.OIP)
		}
		oip[i.OIP] = true
	}
	for _, d := range []DType{0, 14, 15, 27, 1 << 31} {
		if _, ok := d.Info(); ok || d.Bits() != 0 {
			t.Errorf("%d passes for an element type", uint32(d))
		}
	}
	if got := DType(1<<31 + 7).String(); got != "dtype(2147483655)" {
		t.Errorf("unknown type prints as %s", got)
	}
	if _, ok := ParseDType(""); ok {
		t.Error("the empty name is an element type")
	}
	for k := Tensor; k <= Map; k++ {
		if back, ok := ParseKind(k.String()); !ok || back != k {
			t.Errorf("kind %s does not go round", k)
		}
	}
	if k, ok := ParseKind(""); !ok || k != Tensor {
		t.Error("the empty kind is not a tensor")
	}
}
