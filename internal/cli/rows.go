package cli

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/waybill-ml/waybill/internal/oip"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// maxInput bounds what predict reads, in bytes.
const maxInput = 256 << 20

// readRows reads CSV with a header into the inputs of a model: columns of the header fill the input that names them
// (Port.Columns), or an input of the column's own name with one value per row. Columns that nothing asks for are
// returned as ignored; a missing one is an error.
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
	index := map[string]int{}
	for i, h := range header {
		h = strings.TrimSpace(h)
		if _, dup := index[h]; dup {
			return nil, nil, fmt.Errorf("CSV: column %q stands twice", h)
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
			return nil, nil, fmt.Errorf("input %q can't be filled from CSV rows: use JSON", p.Name)
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
			return nil, nil, fmt.Errorf("CSV: no column %s", strings.Join(missing, ", "))
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
		rec, err := cr.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, nil, fmt.Errorf("CSV: %w", err)
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
					line, _ := cr.FieldPos(j)
					return nil, nil, fmt.Errorf("CSV line %d, column %s: %w", line, header[j], err)
				}
			}
		}
		rows++
	}
	if rows == 0 {
		return nil, nil, errors.New("the CSV input has a header and no rows")
	}
	for i, p := range ports {
		ins[i].Shape = []int64{rows}
		if len(p.Shape) == 2 {
			ins[i].Shape = append(ins[i].Shape, int64(len(plan[i])))
		}
	}
	return ins, ignored, nil
}
