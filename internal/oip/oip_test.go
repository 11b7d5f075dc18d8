package oip

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func decode(t *testing.T, s string) (Tensor, error) {
	t.Helper()
	var in Tensor
	if err := json.Unmarshal([]byte(s), &in); err != nil {
		t.Fatal(err)
	}
	g, err := Decode(in)
	if err != nil {
		return in, err
	}
	out, err := Encode(g)
	if err != nil {
		t.Fatal(err)
	}
	return out, nil
}

func TestRoundTrip(t *testing.T) {
	for in, want := range map[string]string{
		`{"name":"a","datatype":"FP32","shape":[2,2],"data":[[1,2.5],[0.1,1e-9]]}`:    `[1,2.5,0.1,1e-09]`,
		`{"name":"a","datatype":"FP64","shape":[2],"data":[0.1,null]}`:                `[0.1,null]`,
		`{"name":"a","datatype":"INT64","shape":[2],"data":[9223372036854775807,-1]}`: `[9223372036854775807,-1]`,
		`{"name":"a","datatype":"UINT8","shape":[1],"data":[255]}`:                    `[255]`,
		`{"name":"a","datatype":"INT16","shape":[1],"data":[-2]}`:                     `[-2]`,
		`{"name":"a","datatype":"BOOL","shape":[3],"data":[true,false,1]}`:            `[true,false,true]`,
		`{"name":"a","datatype":"BYTES","shape":[1,2],"data":["x<","ä"]}`:             `["x<","ä"]`,
		`{"name":"a","datatype":"FP32","shape":[0,4],"data":[]}`:                      `[]`,
		`{"name":"a","datatype":"FP32","shape":[],"data":[7]}`:                        `[7]`,
	} {
		out, err := decode(t, in)
		if err != nil || string(out.Data) != want {
			t.Errorf("%s: %s, %v", in, out.Data, err)
		}
	}
}

func TestRefused(t *testing.T) {
	for in, want := range map[string]string{
		`{"name":"a","datatype":"FP32","shape":[3],"data":[1,2]}`:            "2 values for shape [3], want 3",
		`{"name":"a","datatype":"FP99","shape":[1],"data":[1]}`:              "unknown datatype",
		`{"name":"a","datatype":"UINT8","shape":[1],"data":[256]}`:           "value 0",
		`{"name":"a","datatype":"INT64","shape":[1],"data":[1.5]}`:           "no whole number",
		`{"name":"a","datatype":"FP32","shape":[1],"data":["1"]}`:            "text",
		`{"name":"a","datatype":"FP32","shape":[1],"data":[1e39]}`:           "range of f32",
		`{"name":"a","datatype":"FP32","shape":[-1],"data":[]}`:              "negative",
		`{"name":"a","datatype":"FP32","shape":[9999999,9999999],"data":[]}`: "more than",
		`{"name":"a","datatype":"FP32","shape":[1],"data":7}`:                "not a list",
		`{"name":"a","datatype":"INT8","shape":[1],"data":[null]}`:           "tensor of i8",
		`{"name":"a","datatype":"BYTES","shape":[1],"data":[3]}`:             "tensor of string",
	} {
		if _, err := decode(t, in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("FP32", []byte(`[[1,2],[3,4]]`), int64(2), int64(2))
	f.Add("BYTES", []byte(`["a"]`), int64(1), int64(1))
	f.Add("INT64", []byte(`[1e3]`), int64(1), int64(1))
	f.Fuzz(func(t *testing.T, datatype string, data []byte, a, b int64) {
		g, err := Decode(Tensor{Name: "x", Datatype: datatype, Shape: []int64{a, b}, Data: data})
		if err != nil {
			return
		}
		e, err := Encode(g)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(e.Data), "null") {
			return
		}
		again, err := Decode(e)
		if err != nil || !reflect.DeepEqual(g, again) {
			t.Errorf("%v -> %s -> %v, %v", g, e.Data, again, err)
		}
	})
}
