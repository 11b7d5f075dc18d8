package frontend

import (
	"strings"
	"testing"
)

func TestDetect(t *testing.T) {
	onnxHead := "\x08\x08\x12\x04test:\x10\x0a\x01a"
	for _, c := range []struct {
		head, name string
		want       Format
	}{
		{onnxHead, "model.bin", ONNX},
		{"", "model.onnx", Unknown},
		{"hello, this is text", "model.onnx", Unknown},
		{"\x08\x08\xff\xff\xff\xff", "model.onnx", ONNX}, // damaged: the reader says where
		{"\x08\x08\xff\xff\xff\xff", "model.bin", Unknown},
		{"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "model.onnx", LFSPointer},
		{"GGUF\x03\x00\x00\x00", "m", GGUF},
		{"\x1c\x00\x00\x00TFL3", "m", TFLite},
		{"\x89HDF\r\n\x1a\n", "m.h5", HDF5},
		{"PK\x03\x04rest", "m.pt", Zip},
		{"\x80\x04\x95rest", "m.pkl", Pickle},
		{"tree\nversion=v3\n", "m.txt", LightGBM},
		{"{\"learner\":{}}", "m.json", XGBoost},
		{"{L\x00\x00\x00\x00\x00\x00\x00\x07learner{", "m.ubj", XGBoost},
		{"binf\x00", "m.model", XGBoost},
		{"{\"name\": \"tree\", \"num_tree_per_iteration\": 1}", "m.json", LightGBM},
		{" \n{ \"learner\": {}}", "m.json", XGBoost},
		{strings.Repeat("\x00", 136) + "\x0f\x00\x00\x00\x00\x00\x00\x00binary:logistic\x06", "m", XGBoost},
		{strings.Repeat("\x00", 136) + "\x0f\x00\x00\x00\x00\x00\x00\x00binary logistic\x06", "m", Unknown},
		{"{\"tree\":1}", "m.json", Unknown},
		{"\x10\x00\x00\x00\x00\x00\x00\x00{\"a\":1}", "m.safetensors", SafeTensors},
	} {
		if got := Detect([]byte(c.head), c.name); got != c.want {
			t.Errorf("Detect(%q, %q) = %q, want %q", c.head, c.name, got, c.want)
		}
	}
}

func FuzzDetect(f *testing.F) {
	f.Add([]byte("\x08\x08\x12\x04test:\x10\x0a\x01a"), "a.onnx")
	f.Add([]byte("{}"), "")
	f.Fuzz(func(t *testing.T, b []byte, name string) { Detect(b, name) })
}
