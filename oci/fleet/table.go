package fleet

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/waybill-ml/waybill/internal/diag"
)

// Table is a CSV file about devices: its first column is "device" (the id) or the name of a label by which devices are
// told apart, a serial number say; each further column is a label, or one of the special ones.
type Table struct {
	Key  string                       // "device", or the name of a label
	Rows map[string]map[string]string // by the first column; empty cells are left out
	Line map[string]int               // where a row stands
}

// MaxTable bounds a table in bytes.
const MaxTable = 256 << 20

// ParseTable reads CSV (RFC 4180) with a header. special are the columns that are no labels; secret ones are not shown in
// errors. What could be meant in two ways is an error with its line.
func ParseTable(raw []byte) (*Table, error) {
	if len(raw) > MaxTable {
		return nil, diag.Errorf("%d bytes, the limit is %d", len(raw), MaxTable)
	}
	raw = bytes.TrimPrefix(raw, []byte("\ufeff"))
	if !utf8.Valid(raw) {
		n := 1
		for line := range bytes.Lines(raw) {
			if !utf8.Valid(line) {
				break
			}
			n++
		}
		return nil, diag.Errorf("line %d: not UTF-8", n)
	}
	c := csv.NewReader(bytes.NewReader(raw))
	head, err := c.Read()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("line 1: no header")
	}
	if err != nil {
		return nil, bare(err)
	}
	head = slices.Clone(head)
	for i, h := range head {
		if err := checkText("column name", h); err != nil {
			return nil, diag.Errorf("line 1: %w", err)
		}
		if slices.Index(head, h) != i {
			return nil, diag.Errorf("line 1: column %q is there twice", h)
		}
	}
	t := &Table{Key: head[0], Rows: map[string]map[string]string{}, Line: map[string]int{}}
	for {
		rec, err := c.Read()
		if errors.Is(err, io.EOF) {
			return t, nil
		}
		if err != nil {
			return nil, bare(err)
		}
		line, _ := c.FieldPos(0)
		key := rec[0]
		if err := checkText(head[0], key); err != nil {
			return nil, diag.Errorf("line %d: %w", line, err)
		}
		if was, twice := t.Line[key]; twice {
			return nil, diag.Errorf("line %d: %s %q is in line %d already", line, head[0], key, was)
		}
		row := map[string]string{}
		for i, v := range rec[1:] {
			if v != "" {
				row[head[i+1]] = v
			}
		}
		t.Rows[key], t.Line[key] = row, line
	}
}

// bare is a CSV error without the text of the line, which may hold a password.
func bare(err error) error {
	var p *csv.ParseError
	if errors.As(err, &p) {
		return diag.Errorf("line %d: %w", p.Line, p.Err)
	}
	return err
}

// Of finds the row of a device.
func (t *Table) Of(id string, labels map[string]string) (key string, row map[string]string, ok bool) {
	key = id
	if t.Key != "device" {
		key = labels[t.Key]
	}
	row, ok = t.Rows[key]
	return key, row, ok && key != ""
}

// Only refuses columns besides those named, and rows without one of them.
func (t *Table) Only(columns ...string) error {
	for key, row := range t.Rows {
		for c := range row {
			if !slices.Contains(columns, c) {
				return diag.Errorf("line %d: column %q is not one of %s", t.Line[key], c, strings.Join(columns, ", "))
			}
		}
	}
	return nil
}
