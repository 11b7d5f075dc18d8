package meter

// function rewrites one body. It walks it twice: for what each piece costs, and to write.
type function struct {
	w   *rewriter
	in  *reader
	out []byte
	typ funcType

	locals uint32 // of the module: parameters and declared ones
	fuel   uint32 // index of the fuel, the first parameter of ours
	stack  uint32 // index of the stack that is left, the second
	tmp    uint32 // index of an i32 local of ours
	costs  []uint64
	next   int // of the costs: the loop that comes next
	weight uint64
}

// ours is how many parameters a function gets.
const ours = 2

// opcodes that matter here.
const (
	opUnreachable  = 0x00
	opBlock        = 0x02
	opLoop         = 0x03
	opIf           = 0x04
	opElse         = 0x05
	opEnd          = 0x0b
	opBr           = 0x0c
	opBrIf         = 0x0d
	opBrTable      = 0x0e
	opReturn       = 0x0f
	opCall         = 0x10
	opCallIndirect = 0x11
	opDrop         = 0x1a
	opLocalGet     = 0x20
	opLocalSet     = 0x21
	opLocalTee     = 0x22
	opGlobalGet    = 0x23
	opGlobalSet    = 0x24
	opMemoryGrow   = 0x40
	opI32Const     = 0x41
	opI64Const     = 0x42
	opI32LtS       = 0x48
	opI32Sub       = 0x6b
	opI64LtS       = 0x53
	opI64Sub       = 0x7d
	opI64ShrU      = 0x88
	opI64ExtendU   = 0xad
)

func (f *function) rewrite() []byte {
	groups := f.in.count()
	decl := f.in.at
	locals := uint64(len(f.typ.params))
	for range groups {
		locals += uint64(f.in.u32())
		f.in.valueType()
	}
	if locals > 50_000 {
		fail("a function of %d locals", locals)
	}
	f.locals = uint32(locals)
	body := f.in.at
	if !f.w.Count {
		f.out = append(f.out, f.in.b[:body]...)
		f.watch()
		f.walk(true)
		return f.out
	}
	f.fuel = uint32(len(f.typ.params))
	f.stack, f.tmp = f.fuel+1, f.locals+ours
	f.walk(false)
	f.in.at, f.next = body, 0
	f.out = appendU32(f.out, groups+1)
	f.out = append(f.out, f.in.b[decl:body]...)
	f.out = append(f.out, 1, i32)
	f.watch()
	var all uint64
	for _, c := range f.costs {
		all += c
	}
	f.op(opLocalGet, f.stack)
	f.out = appendI64(append(f.out, opI32Const), saturate(frameBase+frameSlot*(locals+all)))
	f.out = append(f.out, opI32Sub)
	f.op(opLocalTee, f.stack)
	f.out = append(f.out, opI32Const, 0, opI32LtS, opIf, 0x40)
	f.trap(OutOfStack)
	f.out = append(f.out, opEnd, opBlock, 0x40) // out of fuel leads behind its end, so that the way that is taken has no jumps
	f.charge(f.cost(), 0)
	// The module's code becomes a block of its own, which all its returns leave to hand back the fuel behind its results.
	f.out = append(f.out, opBlock)
	switch len(f.typ.results) {
	case 0:
		f.out = append(f.out, 0x40)
	case 1:
		f.out = append(f.out, f.typ.results[0])
	default:
		t := len(f.w.types)*2 + len(f.w.extra)
		f.w.extra = append(f.w.extra, funcType{nil, f.typ.results})
		f.out = appendI64(f.out, int64(t))
	}
	f.walk(true)
	f.op(opLocalGet, f.fuel)
	f.out = append(f.out, opReturn, opEnd)
	f.trap(OutOfFuel)
	f.out = append(f.out, opEnd)
	return f.out
}

func (f *function) watch() {
	if f.w.Watch {
		f.out = append(f.out, opLoop, 0x40, opEnd)
	}
}

// op writes an instruction with one index.
//
//go:noinline
func (f *function) op(code byte, index uint32) { f.out = appendU32(append(f.out, code), index) }

// charge takes cost from the fuel and leaves for label out when it is used up.
func (f *function) charge(cost uint64, out uint32) {
	f.op(opLocalGet, f.fuel)
	f.out = appendI64(append(f.out, opI64Const), saturate(max(cost, 1)))
	f.out = append(f.out, opI64Sub)
	f.check(out)
}

// check stores the fuel on the stack and leaves for label out when it is negative.
func (f *function) check(out uint32) {
	f.op(opLocalTee, f.fuel)
	f.out = append(f.out, opI64Const, 0, opI64LtS)
	f.op(opBrIf, out)
}

// trap ends the call and leaves word why.
func (f *function) trap(why byte) {
	f.out = append(f.out, opI32Const, why)
	f.op(opGlobalSet, f.w.globals+1)
	f.out = append(f.out, opUnreachable)
}

// bulk charges for the length on the stack and leaves it there.
func (f *function) bulk(out uint32) {
	if !f.w.Count {
		return
	}
	f.op(opLocalSet, f.tmp)
	f.op(opLocalGet, f.fuel)
	f.op(opLocalGet, f.tmp)
	f.out = append(f.out, opI64ExtendU, opI64Const, bulkShift, opI64ShrU, opI64Sub)
	f.check(out)
	f.op(opLocalGet, f.tmp)
}

// cost is what the next piece costs: first the function outside of its loops, then each loop without those in it.
func (f *function) cost() uint64 {
	f.next++
	return f.costs[f.next-1]
}

// walk passes over the body. With write it appends the rewritten instructions to out, otherwise it fills costs.
func (f *function) walk(write bool) {
	r := f.in
	owner := []int{0} // piece to which each open block belongs
	if !write {
		f.costs = append(f.costs[:0], 0)
	}
	counted := f.w.Count
	for {
		start := r.at
		code := r.byte()
		f.weight = 1
		keep := true // the instruction is written as it stands
		switch {
		case code == opBlock || code == opLoop || code == opIf:
			r.blockType()
			piece := owner[len(owner)-1]
			if code == opLoop {
				piece = len(f.costs) // unused while writing
				if !write {
					f.costs = append(f.costs, 0)
				}
			}
			owner = append(owner, piece)
			if write && code == opLoop && counted {
				f.out = append(f.out, r.b[start:r.at]...)
				f.charge(f.cost(), uint32(len(owner)))
				keep = false
			}
		case code == opEnd:
			owner = owner[:len(owner)-1]
			if len(owner) == 0 {
				r.done("function")
				if write {
					f.out = append(f.out, opEnd)
				}
				return
			}
		case code == opElse:
		case code == opBr || code == opBrIf:
			f.depth(r.u32(), len(owner))
		case code == opBrTable:
			n := r.count()
			for range uint64(n) + 1 {
				f.depth(r.u32(), len(owner))
			}
			f.weight = 3
		case code == opReturn:
			if write && counted {
				f.op(opBr, uint32(len(owner)-1))
				keep = false
			}
		case code == opCall:
			to := r.u32()
			f.weight = costCall
			if counted {
				if uint64(to) >= uint64(len(f.w.funcs)) {
					fail("a call of function %d of %d", to, len(f.w.funcs))
				}
				if write {
					f.op(opLocalGet, f.fuel)
					f.op(opLocalGet, f.stack)
					f.op(opCall, to)
					f.op(opLocalSet, f.fuel)
					keep = false
				}
			}
		case code == opCallIndirect:
			t, table := r.u32(), r.u32()
			f.weight = costCall
			if counted {
				f.w.typeOf(t)
				if write {
					f.op(opLocalSet, f.tmp)
					f.op(opLocalGet, f.fuel)
					f.op(opLocalGet, f.stack)
					f.op(opLocalGet, f.tmp)
					f.op(opCallIndirect, f.w.metered(t))
					f.out = appendU32(f.out, table)
					f.op(opLocalSet, f.fuel)
					keep = false
				}
			}
		case code == opLocalGet || code == opLocalSet || code == opLocalTee:
			i := r.u32()
			if counted {
				if i >= f.locals {
					fail("local %d of %d", i, f.locals)
				}
				if i >= f.fuel && write {
					f.op(code, i+ours)
					keep = false
				}
			}
		case code == opGlobalGet || code == opGlobalSet:
			if i := r.u32(); counted && i >= f.w.globals { // the meter's own are out of reach
				fail("global %d of %d", i, f.w.globals)
			}
		case code == opMemoryGrow:
			r.byte()
			if write && !f.w.Grow {
				f.out = append(f.out, opDrop, opI32Const, 0x7f) // -1: it failed
				keep = false
			}
		default:
			keep = f.plain(code, write, uint32(len(owner)))
		}
		if write {
			if keep {
				f.out = append(f.out, r.b[start:r.at]...)
			}
			continue
		}
		f.costs[owner[len(owner)-1]] += f.weight
	}
}

// depth checks the target of a branch: nothing may reach the label that encloses the module's own.
func (f *function) depth(d uint32, open int) {
	if uint64(d) >= uint64(open) {
		fail("a branch to label %d of %d", d, open)
	}
}

// plain passes over the immediates of any other instruction and tells whether it is kept as it stands.
func (f *function) plain(code byte, write bool, out uint32) bool {
	r := f.in
	switch {
	case code <= 0x01, code == 0x1a, code == 0x1b, code == 0xd1: // unreachable, nop, drop, select, ref.is_null
	case code == 0x1c: // select with types
		r.valueTypes()
	case code == 0x25 || code == 0x26: // table.get, table.set
		r.u32()
	case code >= 0x28 && code <= 0x3e: // loads and stores
		r.u32()
		r.u32()
	case code == 0x3f: // memory.size
		r.byte()
	case code == 0x41:
		r.skip(5)
	case code == 0x42:
		r.skip(10)
	case code == 0x43:
		r.take(4)
	case code == 0x44:
		r.take(8)
	case code >= 0x45 && code <= 0xc4: // numeric
		switch code {
		case 0x6d, 0x6e, 0x6f, 0x70, 0x7f, 0x80, 0x81, 0x82, 0x91, 0x95, 0x9f, 0xa3:
			f.weight = costDivide
		}
	case code == 0xd0: // ref.null
		r.valueType()
	case code == 0xd2: // ref.func
		if i := r.u32(); f.w.Count && uint64(i) >= uint64(len(f.w.funcs)) {
			fail("a reference to function %d of %d", i, len(f.w.funcs))
		}
	case code == 0xfc:
		return f.prefixed(write, out)
	case code == 0xfd:
		f.vector()
	default:
		fail("unknown instruction 0x%02x", code)
	}
	return true
}

// prefixed passes over what begins with 0xfc: saturating conversions and the bulk operations, which are charged by length. Their
// charge stands before them, so it is written here. A table never grows.
func (f *function) prefixed(write bool, out uint32) bool {
	r := f.in
	switch code := r.u32(); {
	case code <= 7:
	case code == 8 || code == 10 || code == 11 || code == 12 || code == 14 || code == 17: // init, copy, fill
		switch code {
		case 11:
			r.byte()
		case 17:
			r.u32()
		default:
			r.u32()
			r.u32()
		}
		if write {
			f.bulk(out)
		}
	case code == 9 || code == 13 || code == 16: // drop, size
		r.u32()
	case code == 15: // table.grow
		r.u32()
		if write {
			f.out = append(f.out, opDrop, opDrop, opI32Const, 0x7f)
		}
		return false
	default:
		fail("unknown instruction 0xfc %d", code)
	}
	return true
}

// vector passes over what begins with 0xfd.
func (f *function) vector() {
	r := f.in
	switch code := r.u32(); {
	case code <= 11 || code == 92 || code == 93: // loads and stores
		r.u32()
		r.u32()
	case code == 12 || code == 13: // const, shuffle
		r.take(16)
	case code >= 21 && code <= 34: // lanes
		r.byte()
	case code >= 84 && code <= 91: // lanes in memory
		r.u32()
		r.u32()
		r.byte()
	case code <= 255:
		switch code {
		case 227, 231, 239, 243: // sqrt, div
			f.weight = costDivide
		}
	default:
		fail("unknown instruction 0xfd %d", code)
	}
}
