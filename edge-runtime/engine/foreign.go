package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/tetratelabs/wazero"

	"github.com/waybill-ml/waybill/internal/diag"
)

// Foreign is a compiled module that is no part of a model, in a runtime of its own: nothing is instantiated in it, no host
// function is there. Calls into it end when their context does.
type Foreign struct {
	Runtime  wazero.Runtime
	Compiled wazero.CompiledModule

	cache wazero.CompilationCache
}

// Close frees the runtime and everything in it.
func (f *Foreign) Close(ctx context.Context) error {
	err := f.Runtime.Close(ctx)
	if f.cache != nil {
		err = errors.Join(err, f.cache.Close(ctx))
	}
	return err
}

// Foreign compiles code as models are compiled: in the same mode, with the same authenticated cache. Memories in its
// runtime are bounded by memory bytes. prepare compiles whatever else the runtime needs: afterwards the cache is closed, and
// nothing more can be compiled in it. It may be called twice. The caller closes what Foreign returns.
func (e *Engine) Foreign(ctx context.Context, code []byte, memory uint64, prepare func(*Foreign) error) (_ *Foreign, err error) {
	var entry *cacheEntry
	if e.cfg.CacheDir != "" && e.mode == Compiler {
		if entry, err = e.openCache(code, false); err != nil {
			return nil, diag.Errorf("compile cache: %w", err)
		}
	}
	f, err := e.foreign(ctx, code, memory, entry, prepare)
	if err != nil && entry != nil { // as for a model, a cache that cannot be written keeps nothing from running
		cached := err
		if f, err = e.foreign(ctx, code, memory, nil, prepare); err == nil {
			e.cfg.Log("compile cache", fmt.Sprintf("not used: %v", cached))
		}
		entry.discard()
		entry = nil
	}
	if err != nil {
		return nil, err
	}
	if entry != nil {
		if err := entry.seal(); err != nil {
			e.cfg.Log("compile cache", fmt.Sprintf("entry not kept: %v", err))
		}
		entry.touch()
		prune(e.cfg.CacheDir, entry.dir, e.cfg.CacheLimit)
	}
	return f, nil
}

func (e *Engine) foreign(ctx context.Context, code []byte, memory uint64, entry *cacheEntry, prepare func(*Foreign) error) (*Foreign, error) {
	f := &Foreign{}
	cfg := e.runtimeConfig(true, memory)
	if entry != nil {
		f.cache = entry.cache
		cfg = cfg.WithCompilationCache(entry.cache)
	}
	f.Runtime = wazero.NewRuntimeWithConfig(ctx, cfg)
	var err error
	if f.Compiled, err = f.Runtime.CompileModule(compileContext(ctx), code); err != nil {
		return nil, errors.Join(diag.Errorf("not a module that this runtime can compile: %w", err), f.Close(ctx))
	}
	if err := prepare(f); err != nil {
		return nil, errors.Join(err, f.Close(ctx))
	}
	return f, nil
}
