package screen

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
)

// isPickle follows head and then more as Python's unpickler would (Lib/pickletools.py, protocols 0 to 5), counting values
// instead of making them. It is a pickle when an operation is reached that calls something, when STOP is reached with a
// value, or when the content ends before the first thing that an unpickler would refuse.
func isPickle(head []byte, more io.Reader) bool {
	src := &source{head, more}
	m := machine{r: bufio.NewReaderSize(src, walkBuffer), src: src}
	for m.ops < 1<<22 {
		op, err := m.r.ReadByte()
		if err != nil {
			return m.proto && m.ops > 1
		}
		switch m.step(op) {
		case stepCalls:
			return true
		case stepStop:
			return m.ops > 2 || m.proto && m.ops > 1 // two operations are a line of text and a dot
		case stepEnd:
			// In the middle of an argument: a text of one long line gets as far as that.
			return m.proto && m.ops > 1 || m.ops > 2
		case stepBad:
			return m.proto && m.ops > 2
		}
	}
	return true
}

type verdict int

const (
	stepOK verdict = iota
	stepCalls
	stepStop
	stepEnd // the content ended inside an argument
	stepBad // no unpickler goes on from here
)

// machine counts the values on the unpickler's stack.
type machine struct {
	r     *bufio.Reader // of src
	src   *source
	depth int   // values above the last mark
	marks []int // values below each mark
	ops   int
	proto bool
}

var (
	moduleRE = regexp.MustCompile(`^[A-Za-z_][\w.]*$`)
	objectRE = regexp.MustCompile(`^[A-Za-z_][\w.<>]*$`)
)

// step takes one operation.
func (m *machine) step(op byte) verdict {
	m.ops++
	switch op {
	case 0x80: // PROTO
		b, err := m.r.ReadByte()
		if err != nil {
			return stepEnd
		}
		if b > 5 {
			return stepBad
		}
		m.proto = true
		return stepOK
	case '.': // STOP
		if len(m.marks) == 0 && m.depth == 0 {
			return stepBad
		}
		return stepStop
	case '(': // MARK
		if len(m.marks) == 1<<16 {
			return stepBad
		}
		m.marks = append(m.marks, m.depth)
		m.depth = 0
		return stepOK
	case 'N', ')', '}', ']', 0x88, 0x89, 0x8f, 0x97: // None, empty containers, booleans, out-of-band buffers
		return m.push()
	case 'I', 'L', 'F', 'S', 'V', 'P', 'g', 'p', 'c', 'i':
		return m.line(op)
	case 'K', 'h':
		return m.fixed(1)
	case 'M':
		return m.fixed(2)
	case 'J', 'j':
		return m.fixed(4)
	case 'G':
		return m.fixed(8)
	case 'U', 'C', 0x8a, 0x8c:
		return m.counted(1)
	case 'T', 'X', 'B', 0x8b:
		return m.counted(4)
	case 0x8d, 0x8e, 0x96:
		return m.counted(8)
	case 0x95: // FRAME
		return m.skip(8)
	case 'q': // BINPUT
		return m.then(m.take(1, 1), 1)
	case 'r':
		return m.then(m.take(1, 1), 4)
	case 0x94, 'Q', 0x98: // MEMOIZE, BINPERSID, READONLY_BUFFER
		return m.take(1, 1)
	case 0x82: // EXT1, EXT2, EXT4: a registered callable
		return m.fixed(1)
	case 0x83:
		return m.fixed(2)
	case 0x84:
		return m.fixed(4)
	case '0': // POP takes a mark too
		if m.depth == 0 && len(m.marks) > 0 {
			return m.unmark(false)
		}
		return m.take(1, 0)
	case '2': // DUP
		return m.take(1, 2)
	case '1': // POP_MARK
		return m.unmark(false)
	case 'd', 'l', 't', 0x91: // DICT, LIST, TUPLE, FROZENSET
		return m.unmark(true)
	case 'e', 'u', 0x90: // APPENDS, SETITEMS, ADDITEMS
		if v := m.unmark(false); v != stepOK {
			return v
		}
		return m.take(1, 1)
	case 'a': // APPEND
		return m.take(2, 1)
	case 's': // SETITEM
		return m.take(3, 1)
	case 0x85: // TUPLE1, TUPLE2, TUPLE3
		return m.take(1, 1)
	case 0x86:
		return m.take(2, 1)
	case 0x87:
		return m.take(3, 1)
	case 0x93, 'R', 'b', 0x81: // STACK_GLOBAL, REDUCE, BUILD, NEWOBJ
		return m.calls(2)
	case 0x92: // NEWOBJ_EX
		return m.calls(3)
	case 'o': // OBJ
		if len(m.marks) == 0 {
			return stepBad
		}
		return m.calls(1)
	}
	return stepBad
}

func (m *machine) push() verdict { m.depth++; return stepOK }

// take replaces the n topmost values by others.
func (m *machine) take(n, others int) verdict {
	if m.depth < n {
		return stepBad
	}
	m.depth += others - n
	return stepOK
}

// calls is an operation on n values that calls or imports something.
func (m *machine) calls(n int) verdict {
	if m.depth < n {
		return stepBad
	}
	return stepCalls
}

// then skips the argument of an operation that was possible.
func (m *machine) then(v verdict, n int64) verdict {
	if v != stepOK {
		return v
	}
	return m.skip(n)
}

// unmark drops all above the last mark, and pushes one value made of it.
func (m *machine) unmark(push bool) verdict {
	if len(m.marks) == 0 {
		return stepBad
	}
	m.depth = m.marks[len(m.marks)-1]
	m.marks = m.marks[:len(m.marks)-1]
	if push {
		m.depth++
	}
	return stepOK
}

// skip goes over n bytes. Those behind the buffer are not read where the content can be read at any place.
func (m *machine) skip(n int64) verdict {
	b := min(n, int64(m.r.Buffered()))
	if _, err := m.r.Discard(int(b)); err != nil || !m.src.skip(n-b) {
		return stepEnd
	}
	return stepOK
}

func (m *machine) fixed(n int64) verdict {
	if v := m.skip(n); v != stepOK {
		return v
	}
	return m.push()
}

// counted skips content behind a length of so many bytes.
func (m *machine) counted(width int) verdict {
	var b [8]byte
	if _, err := io.ReadFull(m.r, b[:width]); err != nil {
		return stepEnd
	}
	n := binary.LittleEndian.Uint64(b[:])
	if n > 1<<40 {
		return stepBad
	}
	return m.fixed(int64(n))
}

// line takes the operations of protocol 0, whose arguments are lines, and checks those as far as Python does.
func (m *machine) line(op byte) verdict {
	a, v := m.text()
	if v != stepOK {
		return v
	}
	switch op {
	case 'I', 'L', 'g', 'p':
		if _, err := strconv.ParseInt(strings.TrimSuffix(a, "L"), 10, 64); err != nil && !(op == 'L' && errors.Is(err, strconv.ErrRange)) {
			return stepBad
		}
		if op == 'p' {
			return m.take(1, 1)
		}
	case 'F':
		if _, err := strconv.ParseFloat(a, 64); err != nil {
			return stepBad
		}
	case 'S':
		if len(a) < 2 || a[0] != a[len(a)-1] || a[0] != '\'' && a[0] != '"' {
			return stepBad
		}
	case 'c', 'i':
		b, v := m.text()
		if v != stepOK {
			return v
		}
		if !moduleRE.MatchString(a) || !objectRE.MatchString(b) {
			return stepBad
		}
		if op == 'i' {
			if len(m.marks) == 0 {
				return stepBad
			}
			return stepCalls
		}
	}
	return m.push()
}

// text reads up to the next newline. A line of any length is one; only its first bytes are kept.
func (m *machine) text() (string, verdict) {
	var keep bytes.Buffer
	for {
		b, err := m.r.ReadSlice('\n')
		if keep.Len() < 4096 {
			keep.Write(b)
		}
		switch {
		case err == nil:
			return strings.TrimSuffix(strings.TrimSuffix(keep.String(), "\n"), "\r"), stepOK
		case !errors.Is(err, bufio.ErrBufferFull):
			return "", stepEnd
		}
	}
}
