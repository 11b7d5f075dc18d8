// Package frontend recognises model files and holds what the frontends share: the format names and the typed
// error for what the compiler does not support.
package frontend

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// Format is a kind of model file.
type Format string

// Formats that Detect can tell apart. Only those with a frontend can be compiled; naming the others makes the
// error useful.
const (
	Unknown     Format = ""
	ONNX        Format = "onnx"
	XGBoost     Format = "xgboost" // JSON, UBJ or the old binary format
	LightGBM    Format = "lightgbm"
	Pickle      Format = "pickle"
	SafeTensors Format = "safetensors"
	GGUF        Format = "gguf"
	TFLite      Format = "tflite"
	HDF5        Format = "hdf5" // Keras .h5
	Zip         Format = "zip"  // PyTorch, Keras v3 and many others
	LFSPointer  Format = "git-lfs pointer"
)

// HeadSize is how many bytes of a file Detect wants to see.
const HeadSize = 4096

// Detect tells the format from the first HeadSize bytes (or the whole file, when shorter) and the file name, which
// decides only where the bytes leave it open. It never reads more than head.
func Detect(head []byte, name string) Format {
	lower := strings.ToLower(name)
	switch {
	case bytes.HasPrefix(head, []byte("version https://git-lfs.github.com/")):
		return LFSPointer
	case bytes.HasPrefix(head, []byte("GGUF")):
		return GGUF
	case len(head) >= 8 && string(head[4:8]) == "TFL3":
		return TFLite
	case bytes.HasPrefix(head, []byte("\x89HDF\r\n\x1a\n")):
		return HDF5
	case bytes.HasPrefix(head, []byte("PK\x03\x04")):
		return Zip
	case len(head) >= 2 && head[0] == 0x80 && head[1] >= 2 && head[1] <= 5:
		return Pickle
	case bytes.HasPrefix(head, []byte("tree\nversion=")), bytes.HasPrefix(head, []byte("tree\r\nversion=")):
		return LightGBM
	case bytes.HasPrefix(head, []byte("{")) && bytes.Contains(head, []byte(`"num_tree_per_iteration"`)): // dump_model
		return LightGBM
	case bytes.HasPrefix(head, []byte("binf")), bytes.HasPrefix(head, []byte("bs64\t")):
		return XGBoost
	case bytes.HasPrefix(bytes.TrimLeft(head, " \t\r\n"), []byte("{")) && bytes.Contains(head, []byte("learner")), oldXGBoost(head):
		return XGBoost
	case len(head) >= 10 && head[8] == '{' && bytes.Equal(head[4:8], []byte{0, 0, 0, 0}):
		return SafeTensors
	case looksONNX(head):
		return ONNX
	case strings.HasSuffix(lower, ".onnx") && len(head) > 0 && !isText(head):
		return ONNX // damaged perhaps: the reader says where
	}
	return Unknown
}

// oldXGBoost recognises the binary format of old versions, which has no magic number: 136 bytes of parameters, then the
// objective's name with its length.
func oldXGBoost(b []byte) bool {
	const at = 136
	if len(b) < at+8 {
		return false
	}
	n := binary.LittleEndian.Uint64(b[at:])
	if n < 3 || n > 40 || uint64(len(b)) < at+8+n {
		return false
	}
	name := string(b[at+8 : at+8+n])
	return isText([]byte(name)) && strings.Contains(name, ":") && !strings.Contains(name, " ")
}

// looksONNX accepts bytes whose first protobuf fields can be those of a ModelProto: ir_version as a small varint, and
// only fields of known numbers and wire types before the head ends.
func looksONNX(b []byte) bool {
	types := map[protowire.Number]protowire.Type{1: protowire.VarintType, 2: protowire.BytesType, 3: protowire.BytesType,
		4: protowire.BytesType, 5: protowire.VarintType, 6: protowire.BytesType, 7: protowire.BytesType, 8: protowire.BytesType,
		14: protowire.BytesType, 20: protowire.BytesType, 25: protowire.BytesType}
	seen := map[protowire.Number]bool{}
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 || types[num] != typ {
			return false
		}
		if _, known := types[num]; !known {
			return false
		}
		seen[num] = true
		b = b[n:]
		if typ == protowire.VarintType {
			v, n := protowire.ConsumeVarint(b)
			if n < 0 || num == 1 && v > 1000 {
				return false
			}
			b = b[n:]
			continue
		}
		size, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return false
		}
		b = b[n:]
		if size >= uint64(len(b)) {
			break // the field goes on beyond the head
		}
		b = b[size:]
	}
	return seen[1] && (seen[7] || seen[8] || seen[2])
}

func isText(b []byte) bool {
	for _, c := range b {
		if c < 9 || c > 13 && c < 32 {
			return false
		}
	}
	return true
}

// UnsupportedError says that the compiler does not do something that the model needs. It is never approximated:
// the command line ends with exit code 5.
type UnsupportedError struct {
	Op     string // operator as the model names it; empty when an input or a tensor is the trouble, which Node then names
	Domain string // its domain; "" is ONNX's own
	Opset  int64  // version of that domain's operator set in the model; 0 where there are no versions
	Node   string // node name
	Reason string // what exactly is missing; empty when the whole operator is
	Hint   string // the nearest way out
}

// Error names operator, domain, opset and node.
func (e *UnsupportedError) Error() string {
	op := e.Op
	if e.Domain != "" {
		op = e.Domain + "." + op
	}
	if e.Op == "" { // not an operator but a type or a storage form
		return fmt.Sprintf("%q is not supported: %s", e.Node, e.Reason)
	}
	opset := ""
	if e.Opset != 0 { // formats other than ONNX have none
		opset = fmt.Sprintf(" (opset %d)", e.Opset)
	}
	s := fmt.Sprintf("operator %s%s of node %q is not supported", op, opset, e.Node)
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	return s
}

// FormatError says that a file is not a model of the format that was asked for, or is damaged.
type FormatError struct {
	Path   string
	Format Format // what it seems to be
	Err    error
}

// Error names the file.
func (e *FormatError) Error() string {
	p := e.Path
	if p == "" {
		p = "model"
	}
	return fmt.Sprintf("%s: %v", p, e.Err)
}

// Unwrap gives the cause.
func (e *FormatError) Unwrap() error { return e.Err }
