package engine

import (
	"context"
	"crypto/sha256"
	"strings"
	"unicode/utf16"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"

	"github.com/waybill-ml/waybill/internal/diag"
)

// The host functions that user steps may import. The set is frozen: a step gives the same bits wherever it runs, so
// the clock, the random numbers, arguments and environment are constants of the specification, and there are no files,
// no sockets and no input. docs/abi.md lists them.
const (
	wasiModule = "wasi_snapshot_preview1"
	envModule  = "env" // AssemblyScript's abort

	// clockStart is 2020-01-01T00:00:00Z in nanoseconds; each reading adds clockTick, each poll its timeout.
	clockStart = 1577836800 * 1000000000
	clockTick  = 1000

	maxLogLine = 4096
)

// WASI error numbers.
const (
	errnoSuccess = 0
	errnoBadf    = 8
	errnoFault   = 21
	errnoInval   = 28
	errnoNotsup  = 58
)

const i64 = api.ValueTypeI64

type hostFunction struct {
	params, results []api.ValueType
	fn              func(s *sandbox, m api.Module, stack []uint64)
}

// sandbox is the world of one step instance: its clock, its random stream and its log.
type sandbox struct {
	step    string
	log     func(step, line string)
	clock   uint64
	random  [32]byte // current block of the stream
	used    int
	block   uint64
	partial []byte // unfinished log line
}

func newSandbox(step string, log func(step, line string)) *sandbox {
	return &sandbox{step: step, log: log, clock: clockStart, used: 32}
}

// fill writes the fixed random stream: SHA-256 of "waybill step random" and a block counter.
func (s *sandbox) fill(b []byte) {
	for i := range b {
		if s.used == len(s.random) {
			s.random = sha256.Sum256(le.AppendUint64([]byte("waybill step random"), s.block))
			s.block++
			s.used = 0
		}
		b[i] = s.random[s.used]
		s.used++
	}
}

func (s *sandbox) write(b []byte) {
	for _, c := range b {
		if c == '\n' || len(s.partial) >= maxLogLine {
			s.flush()
			if c == '\n' {
				continue
			}
		}
		s.partial = append(s.partial, c)
	}
}

func (s *sandbox) flush() {
	s.log(s.step, strings.ToValidUTF8(string(s.partial), "\uFFFD"))
	s.partial = s.partial[:0]
}

type sandboxKey struct{}

// params makes a parameter list from letters: i for i32, I for i64.
func params(s string) []api.ValueType {
	var p []api.ValueType
	for _, c := range s {
		if c == 'I' {
			p = append(p, i64)
		} else {
			p = append(p, i32)
		}
	}
	return p
}

// errnoFunc is a WASI function that returns an error number.
type errnoFunc func(s *sandbox, m api.Module, a []uint64) uint32

// errno makes a function of the host from fn.
func errno(p string, fn errnoFunc) hostFunction {
	return hostFunction{params(p), params("i"), func(s *sandbox, m api.Module, stack []uint64) {
		stack[0] = uint64(fn(s, m, stack))
	}}
}

func noFile(*sandbox, api.Module, []uint64) uint32 { return errnoBadf }

// empty answers args_sizes_get and environ_sizes_get: no entries, no bytes.
func empty(_ *sandbox, m api.Module, a []uint64) uint32 {
	if !m.Memory().WriteUint32Le(uint32(a[0]), 0) || !m.Memory().WriteUint32Le(uint32(a[1]), 0) {
		return errnoFault
	}
	return errnoSuccess
}

func ok(*sandbox, api.Module, []uint64) uint32 { return errnoSuccess }

// hostFunctions returns the functions of one importable module, nil for an unknown one.
func hostFunctions(module string) map[string]hostFunction {
	switch module {
	case wasiModule:
		return wasiFunctions()
	case envModule:
		return map[string]hostFunction{"abort": {params("iiii"), nil, abort}}
	}
	return nil
}

func wasiFunctions() map[string]hostFunction {
	fns := map[string]hostFunction{"proc_exit": {params("i"), nil, procExit}}
	for _, f := range [...]struct {
		name, params string
		fn           errnoFunc
	}{
		{"args_get", "ii", ok},
		{"args_sizes_get", "ii", empty},
		{"environ_get", "ii", ok},
		{"environ_sizes_get", "ii", empty},
		{"clock_res_get", "ii", clockRes},
		{"clock_time_get", "iIi", clockTime},
		{"random_get", "ii", randomGet},
		{"poll_oneoff", "iiii", poll},
		{"sched_yield", "", ok},
		{"fd_write", "iiii", fdWrite},
		{"fd_read", "iiii", fdRead},
		{"fd_fdstat_get", "ii", fdStat},
		{"fd_fdstat_set_flags", "ii", stdOnly},
		{"fd_close", "i", stdOnly},
	} {
		fns[f.name] = errno(f.params, f.fn)
	}
	// There are no files and no preopened directories.
	for _, f := range [...]struct{ name, params string }{
		{"fd_seek", "iIii"},
		{"fd_tell", "ii"},
		{"fd_sync", "i"},
		{"fd_datasync", "i"},
		{"fd_advise", "iIIi"},
		{"fd_allocate", "iII"},
		{"fd_pread", "iiiIi"},
		{"fd_pwrite", "iiiIi"},
		{"fd_readdir", "iiiIi"},
		{"fd_renumber", "ii"},
		{"fd_filestat_get", "ii"},
		{"fd_filestat_set_size", "iI"},
		{"fd_filestat_set_times", "iIIi"},
		{"fd_fdstat_set_rights", "iII"},
		{"fd_prestat_get", "ii"},
		{"fd_prestat_dir_name", "iii"},
		{"path_create_directory", "iii"},
		{"path_filestat_get", "iiiii"},
		{"path_filestat_set_times", "iiiiIIi"},
		{"path_link", "iiiiiii"},
		{"path_open", "iiiiiIIii"},
		{"path_readlink", "iiiiii"},
		{"path_remove_directory", "iii"},
		{"path_rename", "iiiiii"},
		{"path_symlink", "iiiii"},
		{"path_unlink_file", "iii"},
	} {
		fns[f.name] = errno(f.params, noFile)
	}
	return fns
}

func (s *sandbox) tick() uint64 {
	s.clock += clockTick
	return s.clock
}

func clockRes(_ *sandbox, m api.Module, a []uint64) uint32 {
	if !m.Memory().WriteUint64Le(uint32(a[1]), clockTick) {
		return errnoFault
	}
	return errnoSuccess
}

func clockTime(s *sandbox, m api.Module, a []uint64) uint32 {
	if !m.Memory().WriteUint64Le(uint32(a[2]), s.tick()) {
		return errnoFault
	}
	return errnoSuccess
}

func randomGet(s *sandbox, m api.Module, a []uint64) uint32 {
	b, ok := m.Memory().Read(uint32(a[0]), uint32(a[1]))
	if !ok {
		return errnoFault
	}
	s.fill(b)
	return errnoSuccess
}

// poll answers every clock subscription at once and moves the clock to the latest of them; nothing waits for real.
func poll(s *sandbox, m api.Module, a []uint64) uint32 {
	const subSize, eventSize = 48, 32
	in, out, n, nOut := uint32(a[0]), uint32(a[1]), uint64(uint32(a[2])), uint32(a[3])
	if n == 0 || n > 1024 {
		return errnoInval
	}
	subs, ok1 := m.Memory().Read(in, uint32(n*subSize))
	events, ok2 := m.Memory().Read(out, uint32(n*eventSize))
	if !ok1 || !ok2 {
		return errnoFault
	}
	clear(events)
	for i := range n {
		sub, ev := subs[i*subSize:], events[i*eventSize:]
		copy(ev[:8], sub[:8]) // userdata
		ev[10] = sub[8]       // type
		if sub[8] != 0 {      // not a clock
			le.PutUint16(ev[8:], errnoNotsup)
			continue
		}
		timeout := le.Uint64(sub[24:])
		if le.Uint16(sub[40:])&1 == 0 { // relative
			timeout += s.clock
		}
		s.clock = max(s.clock, timeout)
	}
	if !m.Memory().WriteUint32Le(nOut, uint32(n)) {
		return errnoFault
	}
	return errnoSuccess
}

func procExit(_ *sandbox, _ api.Module, a []uint64) {
	// A step has no business to exit; it becomes a trap, also with status 0.
	panic(sys.NewExitError(uint32(a[0])))
}

func fdWrite(s *sandbox, m api.Module, a []uint64) uint32 {
	fd, iovs, n, written := uint32(a[0]), uint32(a[1]), uint32(a[2]), uint32(a[3])
	if fd != 1 && fd != 2 {
		return errnoBadf
	}
	if n > 1024 {
		return errnoInval
	}
	var total uint32
	for i := range n {
		p, ok1 := m.Memory().ReadUint32Le(iovs + 8*i)
		size, ok2 := m.Memory().ReadUint32Le(iovs + 8*i + 4)
		b, ok3 := m.Memory().Read(p, size)
		if !ok1 || !ok2 || !ok3 {
			return errnoFault
		}
		s.write(b)
		total += size
	}
	if !m.Memory().WriteUint32Le(written, total) {
		return errnoFault
	}
	return errnoSuccess
}

// fdRead: standard input is empty.
func fdRead(_ *sandbox, m api.Module, a []uint64) uint32 {
	if uint32(a[0]) != 0 {
		return errnoBadf
	}
	if !m.Memory().WriteUint32Le(uint32(a[3]), 0) {
		return errnoFault
	}
	return errnoSuccess
}

// fdStat describes the three standard streams as character devices without rights to seek.
func fdStat(_ *sandbox, m api.Module, a []uint64) uint32 {
	if uint32(a[0]) > 2 {
		return errnoBadf
	}
	b, ok := m.Memory().Read(uint32(a[1]), 24)
	if !ok {
		return errnoFault
	}
	clear(b)
	b[0] = 2                        // character device
	le.PutUint64(b[8:], 1<<1|1<<6)  // fd_read, fd_write
	le.PutUint64(b[16:], 1<<1|1<<6) // inheriting
	return errnoSuccess
}

func stdOnly(_ *sandbox, _ api.Module, a []uint64) uint32 {
	if uint32(a[0]) > 2 {
		return errnoBadf
	}
	return errnoSuccess
}

// abort is AssemblyScript's: message and file name are UTF-16 strings whose byte length stands 4 bytes before them.
func abort(_ *sandbox, m api.Module, a []uint64) {
	panic(diag.Errorf("abort: %s at %s:%d:%d", utf16At(m, uint32(a[0])), utf16At(m, uint32(a[1])), uint32(a[2]), uint32(a[3])))
}

func utf16At(m api.Module, p uint32) string {
	if p < 4 {
		return "(no text)"
	}
	n, _ := m.Memory().ReadUint32Le(p - 4)
	b, ok := m.Memory().Read(p, min(n, 2*maxLogLine))
	if !ok {
		return "(no text)"
	}
	u := make([]uint16, len(b)/2)
	for i := range u {
		u[i] = le.Uint16(b[2*i:])
	}
	return string(utf16.Decode(u))
}

// instantiateHost puts both host modules into a step's runtime. The sandbox of a call comes from the context, because
// host modules are shared by the instances of a runtime.
func instantiateHost(ctx context.Context, rt wazero.Runtime) error {
	for _, mod := range []string{wasiModule, envModule} {
		b := rt.NewHostModuleBuilder(mod)
		fns := hostFunctions(mod)
		for _, name := range sortedKeys(fns) {
			f := fns[name]
			b = b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(ctx context.Context, m api.Module, stack []uint64) {
				s, ok := ctx.Value(sandboxKey{}).(*sandbox)
				if !ok {
					panic(diag.Errorf("%s.%s called without a sandbox", mod, name))
				}
				f.fn(s, m, stack)
			}), f.params, f.results).Export(name)
		}
		if _, err := b.Instantiate(ctx); err != nil {
			return diag.Errorf("host module %s: %w", mod, err)
		}
	}
	return nil
}
