package engine

// Native code of a module takes 3 to 6 times its size (25 models on amd64; other CPUs are within a half of that), and an entry
// has a manifest beside it.
const (
	nativeFactor = 8
	nativeExtra  = 64 << 10
)

// CompiledSize estimates from above how many bytes compiling modules of these sizes adds to the cache in dir; 0 where none is
// written. It does not look whether they are there already.
func (e *Engine) CompiledSize(modules ...int64) (dir string, bytes uint64) {
	if e.cfg.CacheDir == "" || e.mode != Compiler {
		return "", 0
	}
	for _, n := range modules {
		bytes += uint64(max(n, 0))*nativeFactor + nativeExtra
	}
	return e.cfg.CacheDir, min(bytes, uint64(e.cfg.CacheLimit))
}
