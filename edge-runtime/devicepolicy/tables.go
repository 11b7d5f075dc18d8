package devicepolicy

import (
	"encoding/binary"
	"errors"

	"github.com/waybill-ml/waybill/internal/diag"
)

// maxTable bounds the elements of a module's tables: wazero gives each 8 bytes at instantiation, whatever the limit on
// memory is. OPA's modules have some hundred.
const maxTable = 1 << 14

// checkTables bounds what the tables of a module start with. code is a module that wazero has compiled.
func checkTables(code []byte) error {
	short := errors.New("its sections cannot be read")
	if len(code) < 8 {
		return short
	}
	for rest := code[8:]; len(rest) > 0; {
		size, n := binary.Uvarint(rest[1:])
		if n <= 0 || size > uint64(len(rest)-1-n) {
			return short
		}
		body := rest[1+n:][:size]
		if rest[0] != 4 {
			rest = rest[1+n:][size:]
			continue
		}
		count, n := binary.Uvarint(body)
		if n <= 0 || count > 16 {
			return errors.New("it has more than 16 tables")
		}
		at := n
		for range count {
			if len(body) < at+2 { // element type, flags
				return short
			}
			flags := body[at+1]
			at += 2
			least, n := binary.Uvarint(body[at:])
			if n <= 0 {
				return short
			}
			if at += n; least > maxTable {
				return diag.Errorf("a table of it starts with %d elements, the limit is %d", least, maxTable)
			}
			if flags&1 != 0 {
				_, n := binary.Uvarint(body[at:])
				if n <= 0 {
					return short
				}
				at += n
			}
		}
		return nil
	}
	return nil
}
