package facts

import (
	"bytes"
	"encoding/binary"
	"regexp"
	"unicode/utf8"
)

// Protocol 0 pickles are text: a GLOBAL with module and name on a line each, or a MARK that opens a container; they end
// in STOP, a dot.
var textPickle = regexp.MustCompile(`^(c[A-Za-z_][\w.]*\n[A-Za-z_]\w*\n|\([dlcits][^\n]{0,8}\n)`)

// format tells what a file is, by its first bytes (head), its last byte and its size. What it does not know is "binary".
// It errs towards the dangerous reading: a policy allows formats, it does not forbid them.
func format(head []byte, last byte, size int64) string {
	has := func(s string) bool { return bytes.HasPrefix(head, []byte(s)) }
	le := binary.LittleEndian
	switch {
	case size == 0:
		return "empty"
	case has("\x00asm"):
		return "wasm"
	case len(head) >= 2 && head[0] == 0x80 && head[1] >= 1 && head[1] <= 8:
		return "pickle" // PROTO opcode
	case has("PK\x03\x04"), has("PK\x05\x06"):
		if bytes.Contains(head, []byte("/data.pkl")) || bytes.Contains(head, []byte(".pkl")) {
			return "pickle-archive"
		}
		return "zip"
	case has("\x1f\x8b"):
		return "gzip"
	case len(head) >= 2 && head[0] == 0x78 && (uint16(head[0])<<8|uint16(head[1]))%31 == 0 && !utf8.Valid(head):
		return "zlib"
	case has("\x89HDF\r\n\x1a\n"):
		return "hdf5"
	case has("\x7fELF"):
		return "elf"
	case has("MZ"):
		return "pe"
	case has("\xfe\xed\xfa\xce"), has("\xfe\xed\xfa\xcf"), has("\xce\xfa\xed\xfe"), has("\xcf\xfa\xed\xfe"), has("\xca\xfe\xba\xbe"):
		return "macho"
	case len(head) > 262 && string(head[257:262]) == "ustar":
		return "tar"
	case has("GGUF"):
		return "gguf"
	case has("ftrt"):
		return "tensorrt"
	case len(head) >= 8 && string(head[4:8]) == "TFL3":
		return "tflite"
	case has("#!"):
		return "script"
	case len(head) > 9 && head[8] == '{' && le.Uint64(head) > 1 && le.Uint64(head) < uint64(size):
		return "safetensors"
	case isONNX(head):
		return "onnx"
	case len(head) >= 2 && head[0] == '{' && bytes.IndexByte([]byte("UiIlL$#"), head[1]) >= 0:
		return "ubjson"
	}
	if last == '.' && textPickle.Match(head) {
		return "pickle"
	}
	if !isText(head) {
		return "binary"
	}
	if t := bytes.TrimLeft(head, " \t\r\n"); len(t) > 0 && (t[0] == '{' || t[0] == '[') {
		return "json"
	}
	return "text"
}

// isONNX knows a ModelProto by its first field, ir_version, and a next field of ModelProto.
func isONNX(b []byte) bool {
	if len(b) < 4 || b[0] != 0x08 || b[1] == 0 || b[1] > 0x40 {
		return false
	}
	switch b[2] {
	case 0x12, 0x1a, 0x22, 0x28, 0x32, 0x3a, 0x42, 0x72:
		return true
	}
	return false
}

// isText wants UTF-8 without control characters other than white space; the last rune of head may be cut.
func isText(b []byte) bool {
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 {
			return len(b) >= headBytes && len(b)-i < utf8.UTFMax
		}
		if r < 0x20 && r != '\n' && r != '\r' && r != '\t' && r != '\f' || r == 0x7f {
			return false
		}
		i += n
	}
	return true
}
