package devicepolicy

// A policy module imports its memory and its host functions from one module "env". A host module of wazero exports
// functions only, so env is a module of its own: it imports the functions from hostModule, defines the memory, and exports
// both. It is made anew for each evaluation, since the memory lives in it.

const hostModule = "waybill_policy_host"

// hostFuncs are the functions of env in the order of their index, with the number of their i32 parameters. The
// builtins have a result, which no policy gets to see.
var hostFuncs = []struct {
	name    string
	params  int
	results int
}{
	{"opa_abort", 1, 0}, {"opa_println", 1, 0},
	{"opa_builtin0", 2, 1}, {"opa_builtin1", 3, 1}, {"opa_builtin2", 4, 1}, {"opa_builtin3", 5, 1}, {"opa_builtin4", 6, 1},
}

// envModule encodes env with a memory of min to max pages.
func envModule(min, max uint32) []byte {
	const (
		i32                                   = 0x7f
		kindFunc, kindMemory                  = 0, 2
		secType, secImport, secMem, secExport = 1, 2, 5, 7
	)
	var types, imports, exports []byte
	for i, f := range hostFuncs {
		types = append(types, 0x60)
		types = uleb(types, uint32(f.params))
		for range f.params {
			types = append(types, i32)
		}
		types = uleb(types, uint32(f.results))
		for range f.results {
			types = append(types, i32)
		}
		imports = text(text(imports, hostModule), f.name)
		imports = uleb(append(imports, kindFunc), uint32(i))
		exports = text(exports, f.name)
		exports = uleb(append(exports, kindFunc), uint32(i))
	}
	exports = uleb(append(text(exports, "memory"), kindMemory), 0)
	n := uint32(len(hostFuncs))
	b := []byte("\x00asm\x01\x00\x00\x00")
	b = section(b, secType, n, types)
	b = section(b, secImport, n, imports)
	b = section(b, secMem, 1, uleb(uleb([]byte{1}, min), max))
	return section(b, secExport, n+1, exports)
}

func section(b []byte, id byte, count uint32, body []byte) []byte {
	c := append(uleb(nil, count), body...)
	return append(uleb(append(b, id), uint32(len(c))), c...)
}

func text(b []byte, s string) []byte { return append(uleb(b, uint32(len(s))), s...) }

// uleb is not inlined: it is called from everywhere, once per load.
//
//go:noinline
func uleb(b []byte, v uint32) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}
