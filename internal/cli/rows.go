package cli

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/waybill-ml/waybill/internal/oip"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// maxInput bounds what predict reads, in bytes.
const maxInput = 256 << 20

// table is rows of text under a header, from CSV or from JSON records.
type table struct {
	what   string // "CSV" or "JSON records"
	header []string
	next   func() ([]string, error) // io.EOF after the last row
	where  func(column int) string  // of the row that next gave
}

// readRows reads CSV with a header into the inputs of a model; see fill.
func readRows(r io.Reader, ports []artifact.Port) (ins []artifact.GoldenTensor, ignored []string, err error) {
	cr := csv.NewReader(r)
	cr.TrimLeadingSpace = true
	header, err := cr.Read()
	if errors.Is(err, io.EOF) {
		return nil, nil, errors.New("the CSV input is empty")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("CSV: %w", err)
	}
	header[0] = strings.TrimPrefix(header[0], "\ufeff")
	return fill(table{"CSV", header, cr.Read, func(j int) string {
		line, _ := cr.FieldPos(j)
		return fmt.Sprintf("CSV line %d", line)
	}}, ports)
}

// readRecords reads a JSON array of flat objects, or one of them, into the inputs of a model; see fill. A field that is
// null or not there is a missing value, true and false are 1 and 0.
func readRecords(b []byte, ports []artifact.Port) (ins []artifact.GoldenTensor, ignored []string, err error) {
	var records []map[string]any
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if b = bytes.TrimSpace(b); len(b) > 0 && b[0] == '{' {
		records = make([]map[string]any, 1)
		err = d.Decode(&records[0])
	} else {
		err = d.Decode(&records)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("JSON records: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, nil, errors.New("JSON records: more than one value")
	}
	var header []string
	index := map[string]int{}
	for _, r := range records {
		for _, k := range slices.Sorted(maps.Keys(r)) {
			if _, ok := index[k]; !ok {
				index[k] = len(header)
				header = append(header, k)
			}
		}
	}
	// A field that no record has is missing everywhere, which a feature may allow.
	for _, p := range ports {
		for _, name := range append(slices.Clone(p.Columns), p.Name) {
			if _, ok := index[name]; !ok && (name == p.Name) == (len(p.Columns) == 0) {
				index[name] = len(header)
				header = append(header, name)
			}
		}
	}
	i := 0
	return fill(table{"JSON records", header, func() ([]string, error) {
		if i == len(records) {
			return nil, io.EOF
		}
		row := make([]string, len(header))
		for k, v := range records[i] {
			switch v := v.(type) {
			case nil:
			case string:
				row[index[k]] = v
			case json.Number:
				row[index[k]] = v.String()
			case bool:
				row[index[k]] = "0"
				if v {
					row[index[k]] = "1"
				}
			default:
				return nil, fmt.Errorf("record %d, field %s: it must be a number, text, true, false or null", i+1, k)
			}
		}
		i++
		return row, nil
	}, func(int) string { return fmt.Sprintf("record %d", i) }}, ports)
}

// fill puts rows into the inputs of a model: columns of the header fill the input that names them (Port.Columns), or an
// input of the column's own name with one value per row. Columns that nothing asks for are returned as ignored; a missing
// one is an error.
func fill(t table, ports []artifact.Port) (ins []artifact.GoldenTensor, ignored []string, err error) {
	header := t.header
	index := map[string]int{}
	for i, h := range header {
		h = strings.TrimSpace(h)
		if _, dup := index[h]; dup {
			return nil, nil, fmt.Errorf("%s: column %q stands twice", t.what, h)
		}
		index[h] = i
	}
	plan := make([][]int, len(ports)) // columns of each input
	used := map[int]bool{}
	for i, p := range ports {
		names := p.Columns
		width := len(p.Columns)
		switch {
		case p.Kind != "tensor" || !p.Ranked || len(p.Shape) == 0 || len(p.Shape) > 2:
			return nil, nil, fmt.Errorf("input %q can't be filled from rows: use an inference request", p.Name)
		case width > 0:
		case len(p.Shape) == 2 && p.Shape[1].Size != 1:
			if len(ports) == 1 && p.Shape[1].Size == int64(len(header)) {
				names = nil // the columns in their order
				for j := range header {
					plan[i] = append(plan[i], j)
					used[j] = true
				}
				continue
			}
			return nil, nil, fmt.Errorf("input %q has no names for its columns: list them under features in waybill.yaml, or use JSON", p.Name)
		default:
			names = []string{p.Name}
		}
		var missing []string
		for _, n := range names {
			j, ok := index[n]
			if !ok {
				missing = append(missing, n)
				continue
			}
			used[j] = true
			plan[i] = append(plan[i], j)
		}
		if len(missing) > 0 {
			return nil, nil, fmt.Errorf("%s: no column %s", t.what, strings.Join(missing, ", "))
		}
	}
	for j, h := range header {
		if !used[j] {
			ignored = append(ignored, strings.TrimSpace(h))
		}
	}
	ins = make([]artifact.GoldenTensor, len(ports))
	for i, p := range ports {
		ins[i] = artifact.GoldenTensor{Name: p.Name, DType: p.DType}
	}
	rows := int64(0)
	for {
		rec, err := t.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", t.what, err)
		}
		for i := range ins {
			for _, j := range plan[i] {
				v := strings.TrimSpace(rec[j])
				if ins[i].DType == "string" {
					ins[i].Strings = append(ins[i].Strings, rec[j])
					continue
				}
				if v == "" && (ins[i].DType == "f32" || ins[i].DType == "f64") {
					v = "NaN" // a missing value
				}
				if err := oip.AppendNumber(&ins[i], v); err != nil {
					return nil, nil, fmt.Errorf("%s, column %s: %w", t.where(j), header[j], err)
				}
			}
		}
		rows++
	}
	if rows == 0 {
		return nil, nil, fmt.Errorf("%s: there are no rows", t.what)
	}
	for i, p := range ports {
		ins[i].Shape = []int64{rows}
		if len(p.Shape) == 2 {
			ins[i].Shape = append(ins[i].Shape, int64(len(plan[i])))
		}
	}
	return ins, ignored, nil
}
